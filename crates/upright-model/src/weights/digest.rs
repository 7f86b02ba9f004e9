//! Digests of tensors: every value in the type that the engine computes with, hashed in pieces on
//! all threads, once per file.

use std::collections::BTreeMap;
use std::time::SystemTime;

use half::bf16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use upright_base::files::hex;

use super::Float;
use super::file::{Tensor, TensorFile};
use super::file_identity::FileIdentity;

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// Values of a matrix that are hashed as one piece, rounded down to whole rows, with a minimum of
/// one row.
const PIECE: usize = 1 << 17;

/// Version of the digests and of their records. A record of another version is computed again.
const VERSION: u32 = 1;

/// Stores digests of weight files between processes. A failure of the store only costs time.
pub trait DigestStore: Sync {
    /// The record that was saved under a key.
    fn load(&self, key: &str) -> Option<Vec<u8>>;
    /// Saves a record under a key of hexadecimal digits.
    fn save(&self, key: &str, record: &[u8]);
}

/// Gets the bytes done and the total; returns whether to continue.
pub type Progress<'p> = dyn FnMut(u64, u64) -> bool + Send + 'p;

/// The record of a file in a [`DigestStore`].
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    file: FileIdentity,
    /// Hexadecimal digests by the tensors' names.
    tensors: BTreeMap<String, String>,
}

/// Rows of a matrix that are hashed together.
fn rows_per_piece(cols: usize) -> usize {
    (PIECE / cols.max(1)).max(1)
}

/// The digest of `rows` rows of `cols` values. `fill` appends the bytes of a range of rows, little-endian.
pub(crate) fn of_rows(
    rows: usize,
    cols: usize,
    fill: impl Fn(std::ops::Range<usize>, &mut Vec<u8>) + Sync,
) -> Digest {
    let step = rows_per_piece(cols);
    let pieces: Vec<Digest> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map_init(Vec::new, |bytes, piece| {
            bytes.clear();
            fill(piece * step..((piece + 1) * step).min(rows), bytes);
            Sha256::digest(bytes.as_slice()).into()
        })
        .collect();
    combined(&pieces)
}

/// Combines the digests of pieces into one.
fn combined(pieces: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(piece);
    }
    hash.finalize().into()
}

/// Rows and columns of a shape: a tensor that is not a matrix is one row.
pub(crate) fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    match shape {
        [rows, cols] => (*rows, *cols),
        _ => (1, shape.iter().product()),
    }
}

/// Appends a value in the type that the engine uses: bf16 in a matrix, f32 elsewhere.
pub(crate) fn put(value: f32, is_matrix: bool, bytes: &mut Vec<u8>) {
    if is_matrix {
        bytes.extend(bf16::from_f32(value).to_le_bytes());
    } else {
        bytes.extend(value.to_le_bytes());
    }
}

/// The digest of a tensor of floating-point values.
fn of_tensor(tensor: &Tensor<'_>, float: Float) -> Digest {
    let is_matrix = tensor.shape.len() == 2;
    let (rows, cols) = rows_and_cols(tensor.shape);
    let bytes = tensor.bytes();
    let is_held_alike = float == if is_matrix { Float::Bf16 } else { Float::F32 };
    if is_held_alike {
        // The bytes in the file are the bytes to hash.
        let step = rows_per_piece(cols) * cols * float.size();
        let pieces: Vec<Digest> = bytes
            .par_chunks(step.max(1))
            .map(|piece| Sha256::digest(piece).into())
            .collect();
        return combined(&pieces);
    }
    of_rows(rows, cols, |rows, into| {
        for index in rows.start * cols..rows.end * cols {
            put(float.get(bytes, index), is_matrix, into);
        }
    })
}

/// Digests of all floating-point tensors of a file by name. If `store` has them for the unchanged
/// file, they are not computed again. `None` if `progress` requested a stop.
pub(crate) fn of_file(
    file: &TensorFile,
    store: Option<&dyn DigestStore>,
    now: SystemTime,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Option<BTreeMap<String, Digest>> {
    let identity = file.identity.as_ref();
    let names = file.names();
    if let Some(known) = store
        .zip(identity)
        .and_then(|(store, identity)| recalled(store, identity))
        && names.iter().all(|name| {
            known.contains_key(name) || file.tensor(name).is_none_or(|t| t.float().is_none())
        })
    {
        return progress(file.size()).then_some(known);
    }
    let mut digests = BTreeMap::new();
    for name in names {
        let Some(tensor) = file.tensor(&name) else {
            continue;
        };
        if let Some(float) = tensor.float() {
            digests.insert(name, of_tensor(&tensor, float));
        }
        if !progress(tensor.bytes().len() as u64) {
            return None;
        }
    }
    if let (Some(store), Some(identity)) = (store, identity)
        && identity.is_settled(now)
    {
        let tensors = digests
            .iter()
            .map(|(name, digest)| (name.clone(), hex(digest)))
            .collect();
        let record = Record {
            version: VERSION,
            file: identity.clone(),
            tensors,
        };
        store.save(
            &identity.key(),
            &serde_json::to_vec(&record).expect("strings and numbers become JSON"),
        );
    }
    Some(digests)
}

/// The digests that a store has for an unchanged file.
fn recalled(store: &dyn DigestStore, identity: &FileIdentity) -> Option<BTreeMap<String, Digest>> {
    let record: Record = serde_json::from_slice(&store.load(&identity.key())?).ok()?;
    if record.version != VERSION || record.file != *identity {
        return None;
    }
    let mut digests = BTreeMap::new();
    for (name, text) in record.tensors {
        digests.insert(name, from_hex(&text)?);
    }
    Some(digests)
}

/// Reads a digest from hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use safetensors::Dtype;
    use serde_json::json;

    use std::time::Duration;

    use super::*;
    use crate::weights::tests::{config, model, save};

    /// A store that counts its saves.
    #[derive(Default)]
    struct Kept {
        records: Mutex<HashMap<String, Vec<u8>>>,
        saved: Mutex<usize>,
    }

    impl DigestStore for Kept {
        fn load(&self, key: &str) -> Option<Vec<u8>> {
            self.records.lock().unwrap().get(key).cloned()
        }

        fn save(&self, key: &str, record: &[u8]) {
            *self.saved.lock().unwrap() += 1;
            self.records
                .lock()
                .unwrap()
                .insert(key.to_owned(), record.to_vec());
        }
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_file_is_hashed_once_until_it_changes() {
        let config = config("llama", json!({}));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let mut tensors = model(&config);
        save(&path, &tensors, Dtype::BF16);
        let store = Kept::default();
        let hash = |now: SystemTime| {
            let mut bytes = 0;
            let file = TensorFile::open(&path).unwrap();
            let digests = of_file(&file, Some(&store), now, &mut |done| {
                bytes += done;
                true
            });
            (digests.unwrap(), bytes, file.size())
        };
        // A file that was just written may be written again within the same tick of the clock.
        let first = hash(SystemTime::now()).0;
        assert_eq!(*store.saved.lock().unwrap(), 0);
        assert_eq!(hash(later()).0, first);
        assert_eq!(*store.saved.lock().unwrap(), 1);
        let (again, bytes, size) = hash(later());
        assert_eq!(
            (&again, bytes, *store.saved.lock().unwrap()),
            (&first, size, 1)
        );

        // One value of the last row changes, and the modification time is set back.
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        *tensors
            .get_mut("model.embed_tokens.weight")
            .unwrap()
            .1
            .last_mut()
            .unwrap() += 1.0;
        std::thread::sleep(Duration::from_millis(20));
        save(&path, &tensors, Dtype::BF16);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(before)
            .unwrap();
        let changed = hash(later()).0;
        let differing: Vec<&String> = first
            .keys()
            .filter(|name| first[*name] != changed[*name])
            .collect();
        assert_eq!(differing, ["model.embed_tokens.weight"]);
        assert_eq!(*store.saved.lock().unwrap(), 2);
    }

    #[test]
    fn damaged_records_are_not_believed() {
        let config = config("llama", json!({}));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        save(&path, &model(&config), Dtype::F32);
        let store = Kept::default();
        let file = TensorFile::open(&path).unwrap();
        let good = of_file(&file, Some(&store), later(), &mut |_| true).unwrap();
        let key = store.records.lock().unwrap().keys().next().unwrap().clone();
        let record = store.records.lock().unwrap()[&key].clone();
        let text = String::from_utf8(record).unwrap();
        let wrong_version = text.replacen("\"version\":1", "\"version\":0", 1);
        let wrong_digest = text.replacen(&hex(&good["model.norm.weight"]), "xyz", 1);
        assert!(wrong_version != text && wrong_digest != text);
        for damaged in [wrong_version, wrong_digest, "{".into()] {
            store
                .records
                .lock()
                .unwrap()
                .insert(key.clone(), damaged.clone().into_bytes());
            let saved = *store.saved.lock().unwrap();
            assert_eq!(
                of_file(&file, Some(&store), later(), &mut |_| true).unwrap(),
                good,
                "{damaged}"
            );
            assert_eq!(*store.saved.lock().unwrap(), saved + 1, "{damaged}");
        }
        assert_eq!(of_file(&file, None, later(), &mut |_| false), None);
    }

    /// A matrix of several pieces with a shorter last piece: hashing mapped bytes and hashing
    /// converted values agree.
    #[test]
    fn pieces_of_any_kind_agree() {
        let (rows, cols) = (1000, 300);
        let values: Vec<bf16> = (0..rows * cols)
            .map(|i| bf16::from_f32((i % 251) as f32))
            .collect();
        let by_rows = of_rows(rows, cols, |range, bytes| {
            for value in &values[range.start * cols..range.end * cols] {
                put(value.to_f32(), true, bytes);
            }
        });
        let dir = tempfile::tempdir().unwrap();
        for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
            let path = dir.path().join("a.safetensors");
            let floats = values.iter().map(|value| value.to_f32()).collect();
            save(
                &path,
                &[("a".to_owned(), (vec![rows, cols], floats))]
                    .into_iter()
                    .collect(),
                dtype,
            );
            let file = TensorFile::open(&path).unwrap();
            let digests = of_file(&file, None, later(), &mut |_| true).unwrap();
            assert_eq!(digests["a"], by_rows, "{dtype:?}");
        }
    }
}

//! Log-probabilities of the reference policy: computed once for the rows that a run will draw, and
//! cached for later runs.
//!
//! The key of a cached value is everything that the value depends on: the frozen base, the
//! reference adapter and the instruction tier (one file each), and the tokens of prompt and
//! response with their loss mask (one record each). Templates, truncation and row numbers have an
//! effect only through these, so no setting can be missing in the key.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use upright_engine::{Decoder, DeviceAdapter};
use upright_model::{adapter::Adapter, weights::Fingerprint};
use upright_ranks::World;

use crate::{
    not_finite::not_finite,
    packing::{PackedRows, pack},
    ranks::{in_rounds, on_first},
};
use upright_base::{Error, Result, files, progress::Progress};
use upright_data::{Example, Response};

/// Bytes of a record: half of a SHA-256 of the tokens, the value, and a checksum.
const RECORD: usize = 16 + 8 + 4;

type Key = [u8; 16];

/// The reference policy's summed log-probabilities, by the tokens of prompt and response.
#[derive(Debug)]
pub struct Reference {
    path: PathBuf,
    values: HashMap<Key, f64>,
}

fn key(example: &Example, response: usize) -> Key {
    let prompt = &example.prompt;
    let Response { tokens, masked } = &example.responses[response];
    let mut hash = Sha256::new();
    let mut number = |number: usize| hash.update((number as u64).to_le_bytes());
    number(prompt.len());
    number(tokens.len());
    for range in masked {
        number(range.start);
        number(range.end);
    }
    prompt
        .iter()
        .chain(tokens)
        .for_each(|token| hash.update(token.to_le_bytes()));
    hash.finalize()[..16]
        .try_into()
        .expect("a SHA-256 is longer")
}

/// The keys of an example's responses.
fn keys(example: &Example) -> Vec<Key> {
    (0..example.responses.len())
        .map(|response| key(example, response))
        .collect()
}

/// A frozen policy, and how it is computed.
#[derive(Clone, Copy)]
pub struct Policy<'p> {
    /// The base.
    pub decoder: &'p Decoder,
    /// The adapter of the policy; `None` for the base alone.
    pub adapter: Option<&'p DeviceAdapter>,
    /// Maximum rows of a pack.
    pub token_budget: usize,
    /// The ranks that share the packs.
    pub world: &'p World,
}

/// The summed log-probability of every response in a pack of `examples`, in nats.
fn scored<'e>(
    policy: &Policy<'_>,
    packed: &PackedRows,
    examples: &[&'e Example],
) -> Result<Vec<(&'e Example, usize, f64)>> {
    let Policy {
        decoder, adapter, ..
    } = *policy;
    let scores = decoder.score(&packed.pack, adapter)?;
    let mut sums = Vec::new();
    for segment in &packed.segments {
        let example = examples[segment.example];
        let value: f64 = scores.logp[segment.targets.clone()].iter().sum();
        if !value.is_finite() {
            let value = format!("the reference log-probability of row {}", example.row);
            return Err(not_finite(value, decoder, &packed.pack, adapter));
        }
        sums.push((example, segment.response, value));
    }
    Ok(sums)
}

/// Digest of what an adapter computes, from any file: its values and scales.
pub fn digest(adapter: &Adapter) -> [u8; 32] {
    let mut hash = Sha256::new();
    for target in &adapter.layout.targets {
        hash.update(format!(
            "{} {} {:?};",
            target.module, target.rank, target.scale
        ));
    }
    adapter
        .parameters
        .iter()
        .for_each(|value| hash.update(value.to_le_bytes()));
    hash.finalize().into()
}

fn record(key: &Key, value: f64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..16].copy_from_slice(key);
    record[16..24].copy_from_slice(&value.to_le_bytes());
    let check = Sha256::digest(&record[..24]);
    record[24..].copy_from_slice(&check[..4]);
    record
}

/// Key and value of a record.
fn parsed(record: &[u8]) -> (Key, f64) {
    let key = record[..16].try_into().expect("16 bytes");
    let value = f64::from_le_bytes(record[16..24].try_into().expect("8 bytes"));
    (key, value)
}

impl Reference {
    /// Opens the cached values for the base with `adapter`, or for the base alone, in a cache
    /// folder.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(
        folder: &Path,
        decoder: &Decoder,
        fingerprint: &Fingerprint,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        let mut hash = Sha256::new();
        hash.update(fingerprint.as_str());
        hash.update(decoder.arithmetic());
        if let Some(adapter) = adapter {
            hash.update(digest(adapter));
        }
        let name: String = hash.finalize()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let path = folder.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(&path, "read", error)),
        };
        let mut values = HashMap::new();
        for bytes in bytes.chunks_exact(RECORD) {
            let (key, value) = parsed(bytes);
            // A record that a full disk or a kill truncated fails its checksum and is computed
            // again.
            if record(&key, value) == bytes {
                values.insert(key, value);
            }
        }
        Ok(Self { path, values })
    }

    /// The values on a rank that has no cache: [`Reference::prepare`] gets them from rank 0.
    pub fn elsewhere() -> Self {
        Self {
            path: PathBuf::new(),
            values: HashMap::new(),
        }
    }

    /// Computes the missing values, and returns how many responses were scored. Rank 0 stores them. If
    /// values are cached, one pack of them is scored again first, by every rank: a file whose values have other
    /// bits is discarded.
    ///
    /// # Errors
    /// A value is not finite, a file cannot be written, a stop was requested, or ranks compute other bits.
    pub fn prepare(
        &mut self,
        policy: &Policy<'_>,
        examples: &[&Example],
        observer: &mut dyn Progress,
    ) -> Result<usize> {
        let mut seen = HashSet::new();
        let mut unique = Vec::new();
        for &example in examples {
            let keys = keys(example);
            if seen.insert(keys.clone()) {
                unique.push((example, keys));
            }
        }
        self.share(policy.world, &unique)?;
        let mut missing = Vec::new();
        let mut known = Vec::new();
        for (example, keys) in &unique {
            if keys.iter().all(|key| self.values.contains_key(key)) {
                known.push(*example);
            } else {
                missing.push(*example);
            }
        }
        if let Some(row) = self.first_wrong(policy, &known)? {
            observer.note(&format!(
                "warning: {}: its log-probability of row {row} differs from this model's; the file is discarded and all \
                 values are computed again",
                self.path.display()
            ));
            on_first(policy.world, || {
                fs::remove_file(&self.path)
                    .map_err(|error| files::unwritable_cache(&self.path, &error))
            })?;
            self.values.clear();
            missing.append(&mut known);
        }
        if missing.is_empty() {
            return Ok(0);
        }
        observer.begin("reference log-probabilities", missing.len());
        let computed = self.compute(policy, &missing, observer);
        observer.end();
        computed
    }

    /// Gives all ranks the values of rank 0 for some examples.
    fn share(&mut self, world: &World, examples: &[(&Example, Vec<Key>)]) -> Result<()> {
        if world.size() == 1 {
            return Ok(());
        }
        let bytes = world.first(|| {
            let mut bytes = Vec::new();
            for key in examples.iter().flat_map(|(_, keys)| keys) {
                let value = self.values.get(key);
                bytes.push(u8::from(value.is_some()));
                bytes.extend(value.unwrap_or(&0.0).to_le_bytes());
            }
            Ok(bytes)
        })?;
        let keys = examples.iter().flat_map(|(_, keys)| keys);
        for (key, bytes) in keys.zip(bytes.as_chunks::<9>().0) {
            let [is_known, value @ ..] = *bytes;
            if is_known == 1 {
                self.values.insert(*key, f64::from_le_bytes(value));
            }
        }
        Ok(())
    }

    /// Scores examples and stores the values.
    fn compute(
        &mut self,
        policy: &Policy<'_>,
        examples: &[&Example],
        observer: &mut dyn Progress,
    ) -> Result<usize> {
        let mut file = on_first(policy.world, || self.opened())?;
        let packs = pack(examples, policy.token_budget);
        let (mut done, mut computed) = (0, 0);
        let stopped =
            || Error::interrupted("while scoring the reference; finished values are cached");
        let stop = observer.stop();
        let mut compute = |packed: &PackedRows| -> Result<Vec<f64>> {
            if stop.is_requested() {
                return Err(stopped());
            }
            let scored = scored(policy, packed, examples)?;
            Ok(scored.into_iter().map(|(_, _, value)| value).collect())
        };
        let mut store = |packed: &PackedRows, values: &[f64]| -> Result<()> {
            let mut records = Vec::new();
            for (segment, value) in packed.segments.iter().zip(values) {
                let key = key(examples[segment.example], segment.response);
                records.extend(record(&key, *value));
                self.values.insert(key, *value);
                computed += 1;
                done += usize::from(segment.response == 0);
            }
            if let Some(file) = &mut file {
                file.write_all(&records)
                    .map_err(|error| Error::io(&self.path, "write", error))?;
            }
            observer.advance(done, "");
            Ok(())
        };
        let count = |packed: &PackedRows| packed.segments.len();
        in_rounds(policy.world, &packs, &count, &mut compute, &mut store)?;
        Ok(computed)
    }

    /// The file, ready for more records.
    fn opened(&self) -> Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        let file = file.map_err(|error| files::unwritable_cache(&self.path, &error))?;
        // A truncated record would shift all later records.
        let whole = file
            .metadata()
            .map(|metadata| metadata.len() / RECORD as u64 * RECORD as u64);
        whole
            .and_then(|whole| file.set_len(whole))
            .map_err(|error| Error::io(&self.path, "write", error))?;
        Ok(file)
    }

    /// Scores the first pack of examples with cached values, and returns the row of an example
    /// whose bits differ.
    fn first_wrong(&self, policy: &Policy<'_>, known: &[&Example]) -> Result<Option<usize>> {
        let packs = pack(known, policy.token_budget);
        let Some(first) = packs.first() else {
            return Ok(None);
        };
        let find = || -> Result<Option<usize>> {
            for (example, response, value) in scored(policy, first, known)? {
                if self.values[&key(example, response)].to_bits() != value.to_bits() {
                    return Ok(Some(example.row));
                }
            }
            Ok(None)
        };
        let found = policy.world.settle(find())?;
        let verdict = found.map_or(u64::MAX, |row| row as u64);
        let what = "value of a cached log-probability of the reference";
        policy.world.same(what, &verdict.to_le_bytes())?;
        Ok(found)
    }

    /// The summed log-probability of every response of an example, in nats. `None` if the example
    /// was never given to [`Reference::prepare`].
    pub fn logps(&self, example: &Example) -> Option<Vec<f64>> {
        let mut logps = Vec::with_capacity(example.responses.len());
        for key in keys(example) {
            logps.push(*self.values.get(&key)?);
        }
        Some(logps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_all_that_it_depends_on() {
        let example = |prompt: &[u32], tokens: &[u32], masked: &[std::ops::Range<usize>]| {
            let response = Response {
                tokens: tokens.to_vec(),
                masked: masked.to_vec(),
            };
            Example {
                row: 0,
                prompt: prompt.to_vec(),
                responses: vec![response],
            }
        };
        let all = [
            example(&[1, 2], &[3, 4, 5, 6], &[]),
            example(&[1, 2, 3], &[4, 5, 6], &[]),
            example(&[1, 2], &[3, 4, 5, 7], &[]),
            example(&[1, 2], &[3, 4, 5, 6], &[0..1, 2..3]),
            example(&[1, 2], &[3, 4, 5, 6], &[0..1, 1..3]),
        ];
        let keys: HashSet<Key> = all.iter().map(|example| key(example, 0)).collect();
        assert_eq!(keys.len(), all.len());
        assert_eq!(
            key(
                &Example {
                    row: 7,
                    ..all[3].clone()
                },
                0
            ),
            key(&all[3], 0)
        );
    }
}

//! The identity of a base model: the fingerprint of its weights. The digests of its files are
//! cached.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    config::DecoderConfig,
    merge::Merge,
    weights::{DigestStore, Fingerprint, Float},
};

use upright_base::{Error, Result, files, progress::Progress};

/// Folder of the digests of weight files in the cache.
const FOLDER: &str = "weights";

/// Hashing shows its progress after this time.
const SLOW: Duration = Duration::from_secs(1);

/// The cache as a store of digests. If the cache cannot be written, the weights are hashed again
/// next time.
struct Cache {
    folder: PathBuf,
}

impl DigestStore for Cache {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.join(key)).ok()
    }

    fn save(&self, key: &str, record: &[u8]) {
        let _ = files::create_dir(&self.folder)
            .and_then(|()| files::write_atomic(&self.folder.join(key), record));
    }
}

/// The fingerprint of the model in a folder. Runs on the current rayon pool.
///
/// # Errors
/// Weights are missing or damaged, or a stop was requested.
pub fn of_model(
    model: &Path,
    config: &DecoderConfig,
    observer: &mut dyn Progress,
) -> Result<Fingerprint> {
    of_merge(&Merge::open(model, config, &[])?, 0, None, observer)
}

/// The fingerprint of a model with its first `count` adapters merged, stored as `dtype` or in the
/// types of its files.
///
/// # Errors
/// A stop was requested, or the files changed meanwhile.
pub fn of_merge(
    merge: &Merge<'_>,
    count: usize,
    dtype: Option<Float>,
    observer: &mut dyn Progress,
) -> Result<Fingerprint> {
    let cache = Cache {
        folder: files::cache_dir().join(FOLDER),
    };
    let stop = observer.stop();
    let began = Instant::now();
    let mut is_shown = false;
    let fingerprint = merge.fingerprint(count, dtype, Some(&cache), &mut |done, total| {
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000) as usize;
        if !is_shown && began.elapsed() > SLOW {
            observer.begin("hashing the weights, MB", megabytes(total));
            is_shown = true;
        }
        if is_shown {
            observer.advance(megabytes(done), "");
        }
        !stop.is_requested()
    });
    if is_shown {
        observer.end();
    }
    fingerprint?.ok_or_else(|| Error::interrupted("while hashing the weights"))
}

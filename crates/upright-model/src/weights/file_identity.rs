//! Identity of a file and its contents, from the file's metadata.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use upright_base::files::hex;

/// How long a file must be unchanged before its digests are stored: two changes within one tick of
/// the file system's clock may have the same time.
const SETTLED: Duration = Duration::from_secs(2);

/// Everything that changes when a file's contents change, unless somebody sets the system clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// Nanoseconds since 1970 when contents or attributes changed; no program can set it.
    changed: i128,
}

impl FileIdentity {
    /// The identity of an open file. `None` if the system does not report it.
    pub(crate) fn of(path: &Path, file: &std::fs::File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Some(Self {
            path: path.canonicalize().ok()?,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// The key of the file's record.
    pub(super) fn key(&self) -> String {
        hex(&Sha256::digest(self.path.as_os_str().as_encoded_bytes())[..16])
    }

    /// Whether the file has not changed for a while.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as i128;
        now - self.changed >= SETTLED.as_nanos() as i128
    }
}

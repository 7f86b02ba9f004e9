//! What tells a file from every other, and from itself before a change.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use upright_base::files::hex;

/// How long a file must not have changed before its digests are kept: the times of two changes that are nearer to each
/// other than the file system's clock ticks may be equal.
const SETTLED: Duration = Duration::from_secs(2);

/// Everything that changes if a file's contents do, short of somebody who sets the system's clock.
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
    /// The identity of an open file. `None` where the system does not tell it.
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

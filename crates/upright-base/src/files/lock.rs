//! Locks between processes.

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    time::Duration,
};

use crate::{Error, Result, progress::Progress};

/// A file lock. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`, or fails at once if another process holds it.
    pub fn try_take(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => {
                let folder = path.parent().unwrap_or(path).display();
                Err(
                    Error::input(format!("{folder}: another process is using this folder"))
                        .hint("wait for it, stop it, or choose another --out for this run"),
                )
            }
            Err(fs::TryLockError::Error(error)) => Err(no_lock(path, error)),
        }
    }

    /// Takes the lock at `path`. Waits for the process that holds it, until a stop is requested.
    pub fn wait(path: &Path, observer: &mut dyn Progress) -> Result<Self> {
        let file = Self::open(path)?;
        let stop = observer.stop();
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::Error(error)) => return Err(no_lock(path, error)),
                Err(fs::TryLockError::WouldBlock) if stop.is_requested() => {
                    return Err(Error::interrupted("while waiting for another process"));
                }
                Err(fs::TryLockError::WouldBlock) => {}
            }
            if !said {
                observer.note(&format!(
                    "waiting for another process to release {}",
                    path.display()
                ));
                said = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn open(path: &Path) -> Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map_err(|error| Error::io(path, "open", error))
    }
}

/// The error of a lock that cannot be taken. Network file systems without a lock service have no
/// locks.
fn no_lock(path: &Path, error: std::io::Error) -> Error {
    // ENOLCK has no `ErrorKind`.
    let has_no_locks = error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error());
    if error.kind() != std::io::ErrorKind::Unsupported && !has_no_locks {
        return Error::io(path, "lock", error);
    }
    let folder = path.parent().unwrap_or(path).display();
    Error::input(format!(
        "{folder}: this file system cannot lock files: {error}"
    ))
    .hint(
        "two runs could write to the same folder; put --out, and UPRIGHT_CACHE for the cache, on a \
         local disk or on a network file system that is mounted with locks",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_is_named_with_a_way_out() {
        // EOPNOTSUPP, ENOSYS and ENOLCK of Linux.
        for code in [95, 38, 37] {
            let error = no_lock(
                Path::new("runs/a/.lock"),
                std::io::Error::from_raw_os_error(code),
            );
            assert!(
                error
                    .message
                    .starts_with("runs/a: this file system cannot lock files"),
                "{error}"
            );
            assert!(error.hint.contains("--out"), "{error}");
        }
        let other = no_lock(
            Path::new("runs/a/.lock"),
            std::io::Error::from_raw_os_error(5),
        );
        assert!(!other.message.contains("cannot lock files"), "{other}");
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = Lock::try_take(&path).unwrap();
        assert!(
            Lock::try_take(&path)
                .unwrap_err()
                .message
                .contains("another process")
        );
        drop(held);
        Lock::try_take(&path).unwrap();
    }
}

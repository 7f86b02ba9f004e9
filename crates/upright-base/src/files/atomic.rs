//! Atomic file writes: a reader sees the old file or the new file, never half of one.

#![allow(
    clippy::disallowed_methods,
    reason = "the one place that creates and renames files"
)]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use crate::{Error, Result};

/// Creates a folder and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io(path, "create", error))
}

/// Suffix of files that [`write_atomic`] has not finished. Their names start with a dot.
const PARTIAL: &str = ".partial";

/// Whether a file name belongs to an unfinished write, left behind by a killed process.
pub fn is_partial(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with('.') && name.ends_with(PARTIAL))
}

/// Writes a file under a temporary name, syncs it to disk, then renames it: a reader sees the old
/// file or the new file, never half of one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else {
        return Err(Error::input(format!(
            "{}: is not a file name",
            path.display()
        )));
    };
    // Several processes may write the same file, even on machines that share a folder and have
    // equal process ids.
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos());
    let partial = path.with_file_name(format!(".{name}.{}-{now:x}{PARTIAL}", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| {
            // The half-written file must not keep a full disk full. The first error is the one that
            // matters.
            let _ = fs::remove_file(&partial);
            Error::io(path, "write", error)
        })?;
    sync_folder(path);
    Ok(())
}

/// Renames a finished file or folder, to its final name or away from it: a reader sees all of it or
/// nothing.
///
/// # Errors
/// The operating system reports an error; the file or folder keeps its name.
pub fn rename(from: &Path, path: &Path) -> Result<()> {
    fs::rename(from, path).map_err(|error| Error::io(path, "write", error))?;
    sync_folder(path);
    Ok(())
}

/// Creates a file for writing, in a folder that does not have its final name yet.
///
/// # Errors
/// The operating system reports an error.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| Error::io(path, "create", error))
}

/// Syncs a renamed path's folder to disk. Not every file system supports this.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent()
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
}

/// Checks that files can be created in an existing folder.
pub fn check_writable(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".upright-{}", std::process::id()));
    File::create(&probe)?;
    fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_that_fails_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.toml");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(&dir.path().join("missing/plan.toml"), b"x").is_err());
    }

    /// Another process's partial file is neither used nor removed.
    #[test]
    fn writers_of_one_file_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let (path, others) = (
            dir.path().join("plan.toml"),
            dir.path().join(".plan.toml.0.partial"),
        );
        fs::write(&others, "half of it").unwrap();
        write_atomic(&path, b"whole").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&others).unwrap()),
            (b"whole".to_vec(), b"half of it".to_vec())
        );
        assert!(is_partial(others.file_name().unwrap()) && !is_partial(path.file_name().unwrap()));
    }
}

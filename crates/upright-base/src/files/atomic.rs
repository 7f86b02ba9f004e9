//! Writing a file so that a reader sees the old one or the new one, never half of one.

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

/// Creates a folder and those above it.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io(path, "create", error))
}

/// How names of files end that [`write_atomic`] has not finished; they begin with a dot.
const PARTIAL: &str = ".partial";

/// Whether a name is that of a file which a write that was killed left behind.
pub fn is_partial(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with('.') && name.ends_with(PARTIAL))
}

/// Writes a file under another name, brings it to the disk, then gives it its name: a reader sees the old file or the new
/// one, never half of one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else {
        return Err(Error::input(format!(
            "{}: is not a file's name",
            path.display()
        )));
    };
    // Several may be about to write the same file, on machines that share a folder and number their processes alike.
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
            // The half-written file must not keep a full disk full; the error that matters is the first one.
            let _ = fs::remove_file(&partial);
            Error::io(path, "write", error)
        })?;
    sync_folder(path);
    Ok(())
}

/// Gives a file or folder that is finished its name, or takes it away: a reader sees all of it or nothing.
///
/// # Errors
/// The system refuses; the file or folder keeps its name.
pub fn rename(from: &Path, path: &Path) -> Result<()> {
    fs::rename(from, path).map_err(|error| Error::io(path, "write", error))?;
    sync_folder(path);
    Ok(())
}

/// Opens a new file for writing, in a folder that has not been given its name yet.
///
/// # Errors
/// The system refuses.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| Error::io(path, "create", error))
}

/// Brings a name to the disk. Not every file system lets a folder be flushed.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent()
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
}

/// Whether files can be made in a folder that is there.
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

    /// What another process has of the same file is neither taken nor removed.
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

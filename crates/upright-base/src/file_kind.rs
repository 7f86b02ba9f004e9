//! What lies at a path where a file is expected. Reading a pipe waits for a writer, reading a device may never end.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::{Error, Result};

/// What lies at a path instead of a regular file; `None` for a file, where nothing is there, and where nobody may look.
pub fn other_than_file(path: &Path) -> Option<&'static str> {
    let Ok(metadata) = fs::metadata(path) else {
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        return is_link.then_some("a link that leads to no file");
    };
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Refuses what is there and is no regular file.
///
/// # Errors
/// Bad input, which says what it is instead.
pub fn check_file(path: &Path) -> Result<()> {
    match other_than_file(path) {
        Some(what) => Err(Error::file(
            path,
            format!("is {what}, expected a file"),
            "put the file itself there",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert_eq!(other_than_file(&path("file")), None);
        assert_eq!(other_than_file(&path("link")), None);
        assert_eq!(other_than_file(&path("nothing")), None);
        assert_eq!(
            other_than_file(&path("loop")),
            Some("a link that leads to no file")
        );
        assert_eq!(other_than_file(dir.path()), Some("a folder"));
        assert_eq!(other_than_file(Path::new("/dev/null")), Some("a device"));
        assert!(
            check_file(&path("loop"))
                .unwrap_err()
                .to_string()
                .ends_with("is a link that leads to no file, expected a file")
        );
    }
}

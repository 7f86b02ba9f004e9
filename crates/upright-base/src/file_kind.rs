//! What a path holds where a file is expected. Reading a pipe blocks until there is a writer;
//! reading a device may never end.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::{Error, Result};

/// What a path holds instead of a regular file. `None` for a regular file, a missing path, and a
/// path that cannot be accessed.
pub fn other_than_file(path: &Path) -> Option<&'static str> {
    let Ok(metadata) = fs::metadata(path) else {
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        return is_link.then_some("a broken link");
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

/// Rejects a path that exists and is not a regular file.
///
/// # Errors
/// Bad input; the message says what the path holds instead.
pub fn check_file(path: &Path) -> Result<()> {
    match other_than_file(path) {
        Some(what) => Err(Error::file(
            path,
            format!("is {what}, expected a file"),
            "replace it with a regular file",
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
        assert_eq!(other_than_file(&path("loop")), Some("a broken link"));
        assert_eq!(other_than_file(dir.path()), Some("a folder"));
        assert_eq!(other_than_file(Path::new("/dev/null")), Some("a device"));
        assert!(
            check_file(&path("loop"))
                .unwrap_err()
                .to_string()
                .ends_with("is a broken link, expected a file")
        );
    }
}

//! File reads with hints on errors, and atomic writes. Everything the program writes goes through
//! here; clippy denies `std::fs::write`, `rename` and `File::create` elsewhere.

mod atomic;
mod cache;
mod lines;
mod lock;

use std::{fs, path::Path};

pub use atomic::{check_writable, create, create_dir, is_partial, rename, write_atomic};
pub use cache::{Scratch, cache, cache_dir, check_own, own_temporary, unwritable_cache};
pub use lines::Lines;
pub use lock::Lock;
use sha2::{Digest, Sha256};

use crate::{Error, Result, file_kind::other_than_file};

/// Reads a whole regular file. A pipe, a device or a folder is an error: reading a pipe blocks
/// until there is a writer, and reading a device may never end.
///
/// # Errors
/// Operating-system errors; of kind `InvalidInput` if the path holds something other than a file.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    match other_than_file(path) {
        Some(what) => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!("it is {what}, expected a file"),
        )),
        None => fs::read(path),
    }
}

/// Reads a file that may be missing. `None` if it does not exist.
///
/// # Errors
/// The file exists and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Reads a whole text file; a file that cannot be read is bad input.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path).map_err(|error| unreadable(path, &error))?;
    as_text(path, bytes)
}

/// Reads a text file that may be missing. `None` if it does not exist.
///
/// # Errors
/// The file exists and cannot be read.
pub fn read_text_if_there(path: &Path) -> Result<Option<String>> {
    read_if_there(path)?
        .map(|bytes| as_text(path, bytes))
        .transpose()
}

fn as_text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::input(format!(
            "{}: cannot read: not UTF-8 at byte {at}",
            path.display()
        ))
        .hint("restore the file, or save it as UTF-8")
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "check the path, or put the file there",
        std::io::ErrorKind::InvalidInput => "replace it with a regular file",
        std::io::ErrorKind::PermissionDenied => "allow this user to read it",
        _ => "restore the file",
    };
    Error::input(format!("{}: cannot read: {error}", path.display())).hint(hint)
}

/// SHA-256 of a file, in hexadecimal; a file that cannot be read is bad input.
pub fn sha256(path: &Path) -> Result<String> {
    let bytes = read(path).map_err(|error| unreadable(path, &error))?;
    Ok(hex(&Sha256::digest(&bytes)))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path for a shell: in single quotes if it has blanks or other characters that a shell
/// interprets.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Rejects a folder inside `outer` that is a link to a folder outside of it: files written there
/// would land elsewhere.
///
/// # Errors
/// The link leads out of `outer`.
pub fn check_inside(outer: &Path, inner: &Path) -> Result<()> {
    let (Ok(outer_place), Ok(inner_place)) = (outer.canonicalize(), inner.canonicalize()) else {
        return Ok(());
    };
    if inner_place.starts_with(&outer_place) {
        return Ok(());
    }
    let (inner, outer) = (inner.display(), outer.display());
    Err(Error::input(format!(
        "{inner}: is a link that leads out of {outer}, to {}",
        inner_place.display()
    ))
    .hint("remove the link, or choose another folder with --out DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("runs/first-1.0")), "runs/first-1.0");
        assert_eq!(quoted(Path::new("my runs/a")), "'my runs/a'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("$HOME")), "'$HOME'");
    }

    #[test]
    fn a_folder_that_is_a_link_may_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["report/real", "elsewhere"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        std::os::unix::fs::symlink("real", path("report/in")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", path("report/out")).unwrap();
        for name in ["report/real", "report/in", "report/missing"] {
            check_inside(&path("report"), &path(name)).unwrap();
        }
        let error = check_inside(&path("report"), &path("report/out")).unwrap_err();
        assert!(
            error
                .message
                .contains("report/out: is a link that leads out of "),
            "{error}"
        );
    }

    #[test]
    fn pipes_and_devices_are_not_read() {
        assert!(
            read(Path::new("/dev/zero"))
                .unwrap_err()
                .to_string()
                .contains("it is a device, expected a file")
        );
        let dir = tempfile::tempdir().unwrap();
        assert!(
            read_text(dir.path())
                .unwrap_err()
                .message
                .contains("it is a folder, expected a file")
        );
        assert_eq!(
            read_text_if_there(&dir.path().join("nothing")).unwrap(),
            None
        );
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        assert!(read_text_if_there(&dir.path().join("loop")).is_err());
    }
}

//! The golden models: every folder of `tests/golden/`.

use std::path::{Path, PathBuf};

/// The folder of a golden model.
pub(crate) fn folder(name: &str) -> PathBuf {
    root().join(name)
}

/// The names of all golden models, sorted.
///
/// # Panics
/// If there are none.
pub(crate) fn names() -> Vec<String> {
    let mut names = Vec::new();
    for entry in root().read_dir().unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort_unstable();
    assert!(!names.is_empty(), "no folder in {}", root().display());
    names
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

//! What the targets share: where they write files for code that reads files only.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder of the repository.
pub fn repository(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder)
}

/// An empty folder of this process in the folder for temporary files. It is left behind when the process ends.
pub fn scratch() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("upright-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

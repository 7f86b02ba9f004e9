//! Errors for paths that do not exist, with the nearest path that does.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::Error;
use crate::suggest::nearest;

/// Maximum number of entries of a folder that are compared with a misspelled name.
const MOST_ENTRIES: usize = 10_000;

/// Whether nothing is at the path. A broken link is something, and so is a path that may not be
/// looked up.
pub fn is_missing(path: &Path) -> bool {
    let Err(error) = fs::symlink_metadata(path) else {
        return false;
    };
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Error for the missing path of the argument `name`; `kind` is what should be there, such as
/// "folder". The hint is the nearest existing path, else `otherwise`, else what a relative path is
/// relative to.
pub fn missing(name: &str, kind: &str, path: &Path, otherwise: &str) -> Error {
    let error = Error::input(format!("{name}: there is no {kind} `{}`", path.display()));
    if let Some(close) = nearest_path(path) {
        return error.hint(format!("did you mean `{}`?", close.display()));
    }
    let here = std::env::current_dir().unwrap_or_default();
    if otherwise.is_empty() && path.is_relative() {
        error.hint(format!("the path is relative to {}", here.display()))
    } else {
        error.hint(otherwise)
    }
}

/// The existing path that is spelled most like a missing path. `None` if a part of the path
/// resembles nothing in its folder.
pub fn nearest_path(path: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for component in path.components() {
        let exact = found.join(component);
        if !is_missing(&exact) {
            found = exact;
            continue;
        }
        let Component::Normal(name) = component else {
            return None;
        };
        let close = nearest_entry(&found, name.to_str()?)?;
        found.push(close);
    }
    (!found.as_os_str().is_empty()).then_some(found)
}

/// The entry of a folder whose name is nearest. Case is ignored, and entries of the same ending come
/// first. If no stem is near, the stem is compared with the first word of each entry of the same
/// ending, or of any ending if the name has none: `alpca.json` finds `alpaca_en_demo.json`.
fn nearest_entry(folder: &Path, name: &str) -> Option<String> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let name = name.to_lowercase();
    let (stem, ending) = split(&name);
    let mut entries: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(folder).ok()?.take(MOST_ENTRIES) {
        if let Ok(written) = entry.ok()?.file_name().into_string() {
            entries.push((written.to_lowercase(), written));
        }
    }
    entries.sort_by_key(|(lower, written)| (split(lower).1 != ending, written.clone()));
    let mut stems: Vec<&str> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for (lower, _) in &entries {
        let (other, other_ending) = split(lower);
        stems.push(other);
        let word = other.split(['_', '-', '.', ' ']).next().unwrap_or(other);
        let is_like = ending.is_empty() || other_ending == ending;
        words.push(if is_like { word } else { "" });
    }
    for known in [stems, words] {
        if let Some(close) = nearest(stem, known.iter().copied().filter(|stem| !stem.is_empty())) {
            let index = known.iter().position(|stem| *stem == close)?;
            return Some(entries[index].1.clone());
        }
    }
    None
}

/// A name's stem, and its ending with the dot; the ending may be empty.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_path_is_suggested() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("data/more")).unwrap();
        fs::create_dir(root.join("SmolLM2-135M")).unwrap();
        for name in ["alpaca_en_demo.json", "alpaca_en.parquet", "pairs.jsonl"] {
            fs::write(root.join("data").join(name), "").unwrap();
        }
        let near = |path: &str| {
            let found = nearest_path(&root.join(path))?;
            Some(found.strip_prefix(root).unwrap().to_owned())
        };
        for (path, expected) in [
            ("data/pair.jsonl", "data/pairs.jsonl"),
            ("data/alpca.json", "data/alpaca_en_demo.json"),
            ("data/pair", "data/pairs.jsonl"),
            ("data/Alpaca", "data/alpaca_en.parquet"),
            ("data/alpaca.parquet", "data/alpaca_en.parquet"),
            ("dta/Pairs.json", "data/pairs.jsonl"),
            ("smollm", "SmolLM2-135M"),
            ("data/mores/", "data/more"),
        ] {
            assert_eq!(near(path), Some(expected.into()), "{path}");
        }
        for path in ["zebra", "data/zebra.json", "zebra/pairs.jsonl"] {
            assert_eq!(near(path), None, "{path}");
        }
    }

    #[test]
    fn the_error_names_the_argument_and_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rows.jsonl"), "").unwrap();
        let at = |name: &str| folder.path().join(name);
        let error = missing("sft", "file", &at("row.jsonl"), "give a file");
        assert!(error.message.starts_with("sft: there is no file `/"));
        assert!(error.hint.starts_with("did you mean `/") && error.hint.contains("rows.jsonl"));
        assert_eq!(
            missing("sft", "file", &at("x.csv"), "give a file").hint,
            "give a file"
        );
        let hint = missing("sft", "file", Path::new("no-such-folder/x.csv"), "").hint;
        assert!(hint.starts_with("the path is relative to /"), "{hint}");
        assert_eq!(missing("sft", "file", &at("x.csv"), "").hint, "");
    }

    #[test]
    fn a_broken_link_is_not_missing() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(!is_missing(&link));
        assert!(is_missing(&folder.path().join("nowhere")));
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(is_missing(&folder.path().join("file/below")));
    }
}

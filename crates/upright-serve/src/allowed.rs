//! The folder below which requests may name adapters.

use std::{
    fs,
    path::{Path, PathBuf},
};

use upright_base::{Error, Result};
use upright_train::run::adapters::adapter_in;

use crate::protocol::error::ApiError;

/// A folder below which requests may name adapters, with all links resolved.
#[derive(Clone, Debug)]
pub(crate) struct AllowedFolder(PathBuf);

impl AllowedFolder {
    /// Resolves a folder that the command line names.
    ///
    /// # Errors
    /// It is not a folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        match folder.canonicalize() {
            Ok(resolved) if resolved.is_dir() => Ok(Self(resolved)),
            _ => Err(Error::input(format!(
                "allow-adapters: {} is not a folder",
                folder.display()
            ))
            .hint("give the folder that holds the adapters")),
        }
    }

    /// The folder of an adapter that a request names, relative to the allowed folder or absolute.
    /// A folder of a run has its adapter below it.
    ///
    /// # Errors
    /// The folder, its adapter or one of its files is not below the allowed folder after all links
    /// are resolved, or does not exist: the error does not tell which. A run is not finished.
    pub(crate) fn adapter(&self, given: &str) -> std::result::Result<PathBuf, ApiError> {
        // An absolute path replaces the allowed folder.
        let folder = self.resolve(&self.0.join(given))?;
        let adapter = adapter_in(&folder).map_err(|error| ApiError::of_path(&error))?;
        let adapter = self.resolve(&adapter)?;
        // A path that is no folder has no files. Opening it says what is wrong.
        for file in fs::read_dir(&adapter).into_iter().flatten().flatten() {
            self.resolve(&file.path())?;
        }
        Ok(folder)
    }

    fn resolve(&self, path: &Path) -> std::result::Result<PathBuf, ApiError> {
        match path.canonicalize() {
            Ok(resolved) if resolved.starts_with(&self.0) => Ok(resolved),
            _ => Err(ApiError::path_not_allowed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Whether a path is refused without a word on what is there.
    fn is_refused(allowed: &AllowedFolder, given: &str) -> bool {
        allowed.adapter(given) == Err(ApiError::path_not_allowed())
    }

    #[test]
    fn only_paths_that_end_below_the_folder_are_allowed() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        for folder in ["in/a/b", "in-too/a", "out"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("out/file"), "x").unwrap();
        symlink(root.join("out"), root.join("in/link")).unwrap();
        symlink(root.join("in"), root.join("out/back")).unwrap();
        symlink(root.join("nowhere"), root.join("in/dangling")).unwrap();
        symlink("loop", root.join("in/loop")).unwrap();
        let allowed = AllowedFolder::new(&root.join("out/back")).unwrap();
        let expected = root.join("in/a");
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        for given in [
            "a".to_owned(),
            "./a/".to_owned(),
            "a/b/..".to_owned(),
            "link/back/a".to_owned(),
            text(root.join("in/a")),
            text(root.join("out/back/a")),
        ] {
            assert_eq!(allowed.adapter(&given), Ok(expected.clone()), "{given}");
        }
        for given in [
            "missing".to_owned(),
            "..".to_owned(),
            "../out".to_owned(),
            "a/../../out".to_owned(),
            "link".to_owned(),
            "link/file".to_owned(),
            "link/missing".to_owned(),
            "dangling".to_owned(),
            "loop".to_owned(),
            "missing/../a".to_owned(),
            "a\0b".to_owned(),
            "x/".repeat(5000),
            text(root.join("in-too/a")),
            text(root.join("out")),
            text(root.join("missing")),
            "/etc/passwd".to_owned(),
            "/".to_owned(),
        ] {
            assert!(is_refused(&allowed, &given), "{given}");
        }
    }

    #[test]
    fn files_that_are_links_stay_below_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        for folder in ["in/blobs", "in/good", "in/bad"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("in/blobs/weights"), "x").unwrap();
        fs::write(root.join("secret"), "x").unwrap();
        symlink("../blobs/weights", root.join("in/good/weights")).unwrap();
        symlink("../../secret", root.join("in/bad/weights")).unwrap();
        let allowed = AllowedFolder::new(&root.join("in")).unwrap();
        assert_eq!(allowed.adapter("good"), Ok(root.join("in/good")));
        assert!(is_refused(&allowed, "bad"));
    }

    #[test]
    fn what_is_allowed_must_be_a_folder() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [file, place.path().join("missing")] {
            let error = AllowedFolder::new(&path).unwrap_err();
            assert!(error.message.ends_with("is not a folder"), "{error}");
        }
    }
}

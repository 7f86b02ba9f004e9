//! The cache that later runs use again, and folders for a while.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::create_dir;
use crate::{Error, Result};

/// A folder for as long as this value lives.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new folder among the system's temporary files.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clear away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where things that later runs can use again are kept: `UPRIGHT_CACHE`, else `upright` in the user's cache folder.
pub fn cache_dir() -> PathBuf {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("UPRIGHT_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("upright")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/upright")))
        .unwrap_or_else(own_temporary)
}

/// Where caches are of a user without a home: among the system's temporary files, which every user can write. Nothing in
/// it is read before [`check_own`].
pub fn own_temporary() -> PathBuf {
    std::env::temp_dir().join(format!(
        "upright-cache-{}",
        rustix::process::getuid().as_raw()
    ))
}

/// Makes the folder of [`own_temporary`], where a path lies in it, and refuses one that somebody else may have prepared.
///
/// # Errors
/// It cannot be made, belongs to another user, is a link, or others may write into it.
pub fn check_own(path: &Path) -> Result<()> {
    let own = own_temporary();
    if !path.starts_with(&own) {
        return Ok(());
    }
    let made = fs::DirBuilder::new().mode(0o700).create(&own);
    if let Err(error) = made.as_ref()
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(unwritable_cache(&own, error));
    }
    let metadata = fs::symlink_metadata(&own).map_err(|error| unwritable_cache(&own, &error))?;
    let is_own = metadata.is_dir() && metadata.uid() == rustix::process::getuid().as_raw();
    if !is_own || metadata.mode() & 0o022 != 0 {
        let problem = format!(
            "{}: the cache was made by another user, or others can write into it",
            own.display()
        );
        return Err(Error::input(problem)
            .hint("set HOME, or UPRIGHT_CACHE and HF_HOME to folders of your own"));
    }
    Ok(())
}

/// A folder of the cache, made where it is missing.
pub fn cache(name: &str) -> Result<PathBuf> {
    let path = cache_dir().join(name);
    check_own(&path)?;
    fs::create_dir_all(&path).map_err(|error| unwritable_cache(&path, &error))?;
    Ok(path)
}

/// A cache that cannot be written is met before a run begins, and can be put elsewhere.
pub fn unwritable_cache(path: &Path, error: &std::io::Error) -> Error {
    Error::input(format!(
        "{}: the cache cannot be written: {error}",
        path.display()
    ))
    .hint("set UPRIGHT_CACHE to a folder that can be")
}

//! The cache that later runs reuse, and temporary folders.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::create_dir;
use crate::{Error, Result};

/// A temporary folder that is removed when this value is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates a folder in the system's temporary folder.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        create_dir(&path)?;
        Ok(Self(path))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left for the system to clean up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The cache folder, for results that later runs can reuse: `UPRIGHT_CACHE`, else `upright` in the
/// user's cache folder.
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

/// The cache folder of a user without a home folder. It lies in the system's temporary folder,
/// where every user can write, so nothing in it is read before [`check_own`].
pub fn own_temporary() -> PathBuf {
    std::env::temp_dir().join(format!(
        "upright-cache-{}",
        rustix::process::getuid().as_raw()
    ))
}

/// If `path` is inside the folder of [`own_temporary`], creates that folder. Rejects a folder that
/// another user may have prepared.
///
/// # Errors
/// The folder cannot be created, belongs to another user, is a link, or is writable by others.
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
            "{}: the cache folder belongs to another user or is writable by others",
            own.display()
        );
        return Err(Error::input(problem)
            .hint("set HOME, or set UPRIGHT_CACHE and HF_HOME to folders that you own"));
    }
    Ok(())
}

/// A folder in the cache, created if missing.
pub fn cache(name: &str) -> Result<PathBuf> {
    let path = cache_dir().join(name);
    check_own(&path)?;
    fs::create_dir_all(&path).map_err(|error| unwritable_cache(&path, &error))?;
    Ok(path)
}

/// The error of a cache that cannot be written. It is bad input: it occurs before a run starts, and
/// the user can move the cache.
pub fn unwritable_cache(path: &Path, error: &std::io::Error) -> Error {
    Error::input(format!(
        "{}: the cache cannot be written: {error}",
        path.display()
    ))
    .hint("set UPRIGHT_CACHE to a writable folder")
}

//! Where NCCL is searched.

use std::path::{Path, PathBuf};

use upright_base::{Error, Result, python};

use super::library::Library;
use crate::launch::Environment;

/// The name of the library.
const NAME: &str = "libnccl.so.2";

/// Looks for NCCL, for a report on this machine: where it was opened, and its version; or why it
/// cannot be used.
///
/// # Errors
/// The library is missing, or cannot be opened.
pub fn library(env: Environment<'_>) -> Result<(PathBuf, String)> {
    let library = open(env)?;
    let version = library.version()?;
    Ok((library.path, version))
}

/// Opens NCCL: the file that `UPRIGHT_NCCL` names, or by its name, or from a Python environment.
///
/// # Errors
/// The library is missing, or cannot be opened.
pub(super) fn open(env: Environment<'_>) -> Result<Library> {
    if let Some(path) = env("UPRIGHT_NCCL").filter(|path| !path.is_empty()) {
        return Library::open(Path::new(&path)).map_err(|problem| {
            Error::input(format!("UPRIGHT_NCCL={path}: {problem}"))
                .hint("name the path of NCCL's library, libnccl.so.2")
        });
    }
    let mut problem = match Library::open(Path::new(NAME)) {
        Ok(library) => return Ok(library),
        Err(problem) => problem,
    };
    for packages in python::packages(env) {
        let path = packages.join("nvidia/nccl/lib").join(NAME);
        if !path.is_file() {
            continue;
        }
        match Library::open(&path) {
            Ok(library) => return Ok(library),
            Err(cause) => problem = cause,
        }
    }
    Err(Error::input(format!("NCCL cannot be opened: {problem}")).hint(
        "install NCCL: `pip install nvidia-nccl-cu13` in the active Python environment, or use --ranks mpi",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_with_a_way_out() {
        let named = |name: &str| (name == "UPRIGHT_NCCL").then(|| "/nonexistent".to_owned());
        let error = open(&named).unwrap_err();
        assert!(
            error.message.starts_with("UPRIGHT_NCCL=/nonexistent: "),
            "{error}"
        );
        let named = |name: &str| (name == "UPRIGHT_NCCL").then(|| "libc.so.6".to_owned());
        let error = open(&named).unwrap_err();
        assert!(error.message.contains("has no ncclGetVersion"), "{error}");
    }
}

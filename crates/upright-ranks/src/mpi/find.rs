//! Where MPI's libraries are searched.

use std::path::{Path, PathBuf};

use upright_base::{Error, Result};

use super::library::{Library, Scope};
use crate::launch::{Environment, Launcher};

/// Names of the libraries: the standard interface, Open MPI's, MPICH's, and MPICH's on Debian.
const STANDARD: &str = "libmpi_abi.so.1";
const OPEN_MPI: &str = "libmpi.so.40";
const MPICH: &str = "libmpi.so.12";
const MPICH_OF_DEBIAN: &str = "libmpich.so.12";

/// Why a library that is nowhere cannot be used.
const NOT_FOUND: &str = "not found";

/// An MPI library on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, by which it is searched.
    pub name: String,
    /// Its file and version; or why it cannot be used.
    pub library: std::result::Result<(PathBuf, String), String>,
}

/// Looks for MPI libraries, for a report on this machine. Starts no MPI.
#[must_use]
pub fn libraries(env: Environment<'_>) -> Vec<Found> {
    let mut all = Vec::new();
    for name in named(env).unwrap_or_else(|| names(None, env)) {
        let library = search(&name, Scope::Local, env).map(|library| {
            let version = library.version();
            (library.path, version)
        });
        all.push(Found { name, library });
    }
    all
}

/// Opens the library that suits the launcher best.
///
/// # Errors
/// None was found, or `UPRIGHT_MPI` names one that cannot be opened.
pub(super) fn open(launcher: Option<Launcher>, env: Environment<'_>) -> Result<Library> {
    if let Some(named) = named(env) {
        let name = named.concat();
        return search(&name, Scope::Global, env).map_err(|problem| {
            Error::input(format!("UPRIGHT_MPI={name}: {problem}"))
                .hint("name the path of an MPI library, such as /usr/lib/libmpi.so.40")
        });
    }
    let names = names(launcher, env);
    let mut problem = format!("no MPI library was found: no {}", names.join(", no "));
    for name in names {
        match search(&name, Scope::Global, env) {
            Ok(library) => return Ok(library),
            // One that is there and lacks something says more than one that is not.
            Err(cause) if cause != NOT_FOUND => problem = cause,
            Err(_) => {}
        }
    }
    Err(Error::input(problem).hint("install MPICH or Open MPI: `pip install mpich` in the active Python environment, or the system's package; UPRIGHT_MPI names a library elsewhere"))
}

/// The library that the user names.
fn named(env: Environment<'_>) -> Option<Vec<String>> {
    let name = env("UPRIGHT_MPI").filter(|name| !name.is_empty())?;
    Some(vec![name])
}

/// Names of libraries, those of the launcher's family first. A library of another family would see
/// one rank only.
fn names(launcher: Option<Launcher>, env: Environment<'_>) -> Vec<String> {
    // Open MPI 5 speaks PMIx only, and Slurm sets this for `srun --mpi=pmix`.
    let is_pmix = launcher == Some(Launcher::Slurm) && env("PMIX_RANK").is_some();
    let order = match launcher {
        Some(Launcher::OpenMpi) => [OPEN_MPI, STANDARD, MPICH, MPICH_OF_DEBIAN],
        _ if is_pmix => [OPEN_MPI, STANDARD, MPICH, MPICH_OF_DEBIAN],
        _ => [STANDARD, MPICH, MPICH_OF_DEBIAN, OPEN_MPI],
    };
    order.map(str::to_owned).to_vec()
}

/// Opens a library by a path, or by a name: by the dynamic linker, then in the folders of MPI.
fn search(name: &str, scope: Scope, env: Environment<'_>) -> std::result::Result<Library, String> {
    let first = Library::open(Path::new(name), scope);
    if first.is_ok() || name.contains('/') {
        return first;
    }
    // A message about another file is about one that the library needs.
    let is_there = |problem: &String| !problem.starts_with(&format!("{name}: cannot open"));
    if first.as_ref().is_err_and(is_there) {
        return first;
    }
    for folder in folders(env) {
        let path = folder.join(name);
        if path.is_file() {
            return Library::open(&path, scope);
        }
    }
    Err(NOT_FOUND.to_owned())
}

/// Folders of libraries: beside `mpirun`, beside the program that started this one, and in environments that are active.
fn folders(env: Environment<'_>) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    let path = env("PATH").unwrap_or_default();
    for folder in std::env::split_paths(&path) {
        for program in ["mpirun", "mpiexec"] {
            let program = folder.join(program);
            if !program.is_file() {
                continue;
            }
            roots.extend(folder.parent().map(Path::to_path_buf));
            // What it is a link to, such as /opt/openmpi/bin/mpirun.
            if let Ok(program) = program.canonicalize() {
                let root = program.parent().and_then(Path::parent);
                roots.extend(root.map(Path::to_path_buf));
            }
        }
    }
    // A launcher that was named by its path.
    let parent = format!("/proc/{}/exe", std::os::unix::process::parent_id());
    if let Ok(program) = std::fs::read_link(parent) {
        let root = program.parent().and_then(Path::parent);
        roots.extend(root.map(Path::to_path_buf));
    }
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX", "MPI_HOME"] {
        roots.extend(env(variable).map(PathBuf::from));
    }
    let mut folders = Vec::new();
    for root in roots {
        for folder in ["lib", "lib64"] {
            let folder = root.join(folder);
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_family_comes_first() {
        let none = |_: &str| None;
        let pmix = |name: &str| (name == "PMIX_RANK").then(|| "0".to_owned());
        let first = |launcher, env: Environment<'_>| names(launcher, env).swap_remove(0);
        assert_eq!(first(None, &none), STANDARD);
        assert_eq!(first(Some(Launcher::Hydra), &none), STANDARD);
        assert_eq!(first(Some(Launcher::OpenMpi), &none), OPEN_MPI);
        assert_eq!(first(Some(Launcher::Slurm), &none), STANDARD);
        assert_eq!(first(Some(Launcher::Slurm), &pmix), OPEN_MPI);
        // Kubeflow's pods may have it from elsewhere.
        assert_eq!(first(Some(Launcher::Hydra), &pmix), STANDARD);
    }

    #[test]
    fn a_named_library_that_is_not_there_is_an_error() {
        let env = |name: &str| (name == "UPRIGHT_MPI").then(|| "/nonexistent".to_owned());
        let error = open(None, &env).unwrap_err();
        assert!(
            error.message.starts_with("UPRIGHT_MPI=/nonexistent: "),
            "{error}"
        );
        let found = libraries(&env);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "/nonexistent");
        assert!(found[0].library.is_err());
    }

    #[test]
    fn a_library_that_is_not_mpi_is_an_error() {
        let env = |name: &str| (name == "UPRIGHT_MPI").then(|| "libc.so.6".to_owned());
        let error = open(None, &env).unwrap_err();
        assert!(error.message.ends_with("has no MPI_Abort"), "{error}");
    }

    #[test]
    fn folders_are_those_beside_mpirun_and_of_environments() {
        let root = std::env::temp_dir().join(format!("upright-mpi-{}", std::process::id()));
        std::fs::create_dir_all(root.join("real/bin")).unwrap();
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::write(root.join("real/bin/mpirun"), "").unwrap();
        std::os::unix::fs::symlink(root.join("real/bin/mpirun"), root.join("bin/mpirun")).unwrap();
        let path = root.join("bin").display().to_string();
        let env = |name: &str| match name {
            "PATH" => Some(format!("/nonexistent/bin:{path}")),
            "CONDA_PREFIX" => Some("/conda".to_owned()),
            _ => None,
        };
        let real = root.canonicalize().unwrap().join("real");
        let folders = folders(&env);
        let mut last = 0;
        for root in [root.as_path(), &real, Path::new("/conda")] {
            for lib in ["lib", "lib64"] {
                let place = folders.iter().position(|folder| *folder == root.join(lib));
                let place = place.expect("the folder is searched");
                assert!(place >= last);
                last = place;
            }
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}

//! Packages of the Python environments that are active, in which NVIDIA's libraries may be installed.

use std::path::{Path, PathBuf};

/// The `site-packages` folders of the environments that are active: of `VIRTUAL_ENV`, of `CONDA_PREFIX`, and of the first `python3` in
/// `PATH`. `env` looks up an environment variable.
pub fn packages(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        roots.extend(env(variable).map(PathBuf::from));
    }
    let path = env("PATH").unwrap_or_default();
    let python = std::env::split_paths(&path).find(|folder| folder.join("python3").is_file());
    if let Some(folder) = python {
        roots.extend(folder.parent().map(Path::to_path_buf));
    }
    let mut folders = Vec::new();
    for root in roots {
        let Ok(versions) = std::fs::read_dir(root.join("lib")) else {
            continue;
        };
        for version in versions.flatten() {
            folders.push(version.path().join("site-packages"));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_are_searched() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("lib/python3.11");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::create_dir(root.path().join("bin")).unwrap();
        std::fs::File::create(root.path().join("bin/python3")).unwrap();
        let text = root.path().display().to_string();
        let by_variable = |name: &str| (name == "VIRTUAL_ENV").then(|| text.clone());
        let by_path = |name: &str| (name == "PATH").then(|| format!("/nonexistent:{text}/bin"));
        for env in [&by_variable as &dyn Fn(&str) -> Option<String>, &by_path] {
            assert_eq!(packages(env), [lib.join("site-packages")]);
        }
    }
}

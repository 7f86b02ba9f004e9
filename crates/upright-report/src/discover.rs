//! Which folders hold runs: those given, or those somewhere below them.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use super::study;
use upright_base::{Error, Result, files};
use upright_runs::run_dir;

/// How far below a given folder runs are looked for.
const DEEPEST: usize = 8;

/// A run's folder, and how it is named on the page: by its way from the folder that was given, or by its own name.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) place: String,
}

/// Every run in or below the folders, each once, in order of their names. A folder without any is bad input.
pub(super) fn runs(folders: &[PathBuf]) -> Result<Vec<Found>> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for folder in folders {
        if !folder.is_dir() {
            let what = if folder.exists() {
                "is not a folder"
            } else {
                "there is no such folder"
            };
            return Err(Error::input(format!("{}: {what}", folder.display()))
                .hint("give the folder of a run, or one that holds runs"));
        }
        let before = seen.len();
        let below = match study::listed(folder)? {
            Some(runs) => runs
                .into_iter()
                .filter(|run| run_dir::holds_run(run))
                .collect(),
            None => {
                let mut below = Vec::new();
                search(folder, DEEPEST, &mut below)?;
                below.sort();
                below
            }
        };
        for path in &below {
            if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                found.push(Found {
                    place: place(folder, path),
                    path: path.clone(),
                });
            }
        }
        if below.is_empty() && seen.len() == before {
            return Err(Error::input(format!("{}: holds no run", folder.display()))
                .hint("a run's folder has a plan.toml; upright train --out DIR makes one"));
        }
    }
    // Runs of the same name in several folders are told apart by the folder.
    for index in 0..found.len() {
        let twins = found
            .iter()
            .filter(|other| other.place == found[index].place)
            .count();
        if twins > 1 {
            found[index].place = format!("{} ({})", found[index].place, index + 1);
        }
    }
    Ok(found)
}

/// Runs in a folder. What lies in a run is its own: checkpoints, and a reference it may hold. Those in the cache, references
/// that later runs use again, are nobody's results.
fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if run_dir::holds_run(folder) {
        found.push(folder.to_owned());
        return Ok(());
    }
    if files::cache_dir()
        .canonicalize()
        .is_ok_and(|cache| folder.canonicalize().is_ok_and(|folder| folder == cache))
    {
        return Ok(());
    }
    let entries = fs::read_dir(folder)
        .map_err(|error| Error::input(format!("{}: cannot read: {error}", folder.display())))?;
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_name() != "checkpoints")
    {
        let path = entry.path();
        // Of links only those to runs are followed: others may lead in circles.
        let real = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if depth > 0 && (real || run_dir::holds_run(&path)) {
            search(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

fn place(folder: &Path, run: &Path) -> String {
    let inside = run
        .strip_prefix(folder)
        .ok()
        .filter(|inside| !inside.as_os_str().is_empty());
    let named = || {
        run.canonicalize()
            .ok()?
            .file_name()
            .map(|name| name.display().to_string())
    };
    inside
        .map(|inside| inside.display().to_string())
        .or_else(named)
        .unwrap_or_else(|| run.display().to_string())
}

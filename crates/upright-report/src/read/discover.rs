//! Finds run folders: the given folders, or folders below them.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use super::study;
use upright_base::{Error, Result, files};
use upright_runs::run_dir;

/// Depth below a given folder to which runs are searched.
const DEEPEST: usize = 8;

/// A run folder and its name on the page: its path relative to the given folder, or its own name.
pub(super) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) place: String,
}

/// Finds every run in or below the folders, each once, ordered by name. A folder without a run is
/// an input error.
pub(crate) fn runs(folders: &[PathBuf]) -> Result<Vec<Found>> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for folder in folders {
        if !folder.is_dir() {
            let what = if folder.exists() {
                "is not a folder"
            } else {
                "no such folder"
            };
            return Err(Error::input(format!("{}: {what}", folder.display()))
                .hint("give a run folder, or a folder that contains runs"));
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
            return Err(
                Error::input(format!("{}: contains no run", folder.display()))
                    .hint("a run folder has a plan.toml; upright train --out DIR creates one"),
            );
        }
    }
    // Runs with the same name in several folders get a number.
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

/// Searches a folder for runs. Folders inside a run are not searched: they hold its checkpoints and
/// possibly its reference. The cache is skipped too: its runs are references for later runs, not
/// results.
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
        // Only links to runs are followed; other links may form cycles.
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

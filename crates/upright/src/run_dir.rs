//! The folder of a run: what was asked, what it means, a line a step, a line an evaluation, checkpoints, and at the end the
//! adapter. Everything a report needs is in it, so a copied folder reports the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    Error, Result,
    files::{self, Lines, Lock, write_atomic},
};

/// A run's folder, locked while the run is at work.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    steps: Lines,
    evals: Lines,
    _lock: Lock,
}

/// Whether a folder holds a run.
pub fn holds_run(path: &Path) -> bool {
    path.join("plan.toml").exists()
}

/// Refuses a folder that a new run must not write into.
pub fn check_free(path: &Path) -> Result<()> {
    if holds_run(path) {
        return Err(Error::input(format!("{}: holds a run already", path.display()))
            .hint("--resume continues it; another --out starts a new one"));
    }
    if let Some(file) = path.ancestors().find(|part| part.exists()).filter(|part| !part.is_dir()) {
        return Err(Error::input(format!("{}: is not a folder", file.display())).hint("give --out a folder's name"));
    }
    let foreign = |entry: &fs::DirEntry| entry.file_name() != ".lock";
    let occupied = fs::read_dir(path).into_iter().flatten().flatten().find(foreign);
    if let Some(entry) = occupied {
        return Err(Error::input(format!(
            "{}: is not empty: it holds {}",
            path.display(),
            entry.file_name().display()
        ))
        .hint("give --out a new or an empty folder"));
    }
    Ok(())
}

/// The step a line belongs to.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64()
}

impl RunDir {
    /// Creates the folder of a new run, or opens that of one to continue; then `steps` says how many steps are done, and
    /// lines past them are cut.
    pub fn open(path: &Path, config: &str, plan: &str, steps: usize) -> Result<Self> {
        files::create_dir(path)?;
        let lock = Lock::try_take(&path.join(".lock"))?;
        if !holds_run(path) {
            write_atomic(&path.join("config.toml"), config.as_bytes())?;
            // Last, because it is what makes the folder a run.
            write_atomic(&path.join("plan.toml"), plan.as_bytes())?;
        }
        let done = steps as u64;
        Ok(Self {
            steps: Lines::open(&path.join("steps.jsonl"), |line| step_of(line).is_some_and(|step| step < done))?,
            evals: Lines::open(&path.join("evals.jsonl"), |line| step_of(line).is_some_and(|step| step <= done))?,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where checkpoints are.
    pub fn checkpoints(path: &Path) -> PathBuf {
        path.join("checkpoints")
    }

    /// Appends a line to `steps.jsonl`.
    pub fn step(&mut self, line: &Map<String, Value>) -> Result<()> {
        self.steps.push(&serde_json::to_string(line).expect("plain data"))
    }

    /// Appends a line to `evals.jsonl`.
    pub fn evaluation(&mut self, line: &Map<String, Value>) -> Result<()> {
        self.evals.push(&serde_json::to_string(line).expect("plain data"))
    }
}

/// Whether the evaluation after `step` steps is on record.
pub fn has_evaluation(path: &Path, step: usize) -> Result<bool> {
    let lines = read_lines(&path.join("evals.jsonl"))?;
    Ok(lines.iter().any(|line| line.get("step").and_then(Value::as_u64) == Some(step as u64)))
}

/// All whole lines of a `.jsonl` file of a run, in order; none if it is not there.
pub fn read_lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read_text(path)?;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(line) => lines.push(line),
            // A torn last line is what a kill leaves; anywhere else the file was damaged by somebody.
            Err(_) if number + 1 == text.lines().count() && !text.ends_with('\n') => {}
            Err(error) => {
                return Err(Error::input(format!("{}: line {}: {error}", path.display(), number + 1)));
            }
        }
    }
    Ok(lines)
}

//! The folder of a run: what was asked, what it means, a line a step, a line an evaluation, checkpoints, and at the end the
//! adapter. Everything a report needs is in it, so a copied folder reports the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::settings::FILE;
use upright_base::{
    Error, Result,
    files::{self, Lines, Lock, write_atomic},
};

/// A run's folder, locked while the run is at work.
#[derive(Debug)]
pub struct RunDir {
    steps: Lines,
    evals: Lines,
    _lock: Lock,
}

/// Locked by the process that works in the folder; the empty file stays.
const LOCK: &str = ".lock";

/// Whether a folder holds a run.
pub fn holds_run(path: &Path) -> bool {
    path.join("plan.toml").exists()
}

/// Whether the run in a folder came to its end: its adapter is the last thing written, and the adapter's config the last
/// of that.
pub fn is_finished(run: &Path) -> bool {
    adapter_dir(run)
        .join(upright_model::peft::CONFIG_FILE)
        .exists()
}

/// Where a run's trained adapter is.
pub fn adapter_dir(run: &Path) -> PathBuf {
    run.join("adapter")
}

/// Refuses a folder that a new run must not write into.
pub fn check_free(path: &Path) -> Result<()> {
    if holds_run(path) {
        return Err(
            Error::input(format!("{}: holds a run already", path.display()))
                .hint("--resume continues it; another --out starts a new one"),
        );
    }
    if let Some(file) = path
        .ancestors()
        .find(|part| part.exists())
        .filter(|part| !part.is_dir())
    {
        return Err(Error::input(format!("{}: is not a folder", file.display()))
            .hint("give --out a folder's name"));
    }
    // What a start that was killed before the folder became a run leaves behind.
    let foreign =
        |entry: &fs::DirEntry| entry.file_name() != LOCK && !files::is_partial(&entry.file_name());
    let occupied = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .find(foreign);
    if let Some(entry) = occupied {
        return Err(Error::input(format!(
            "{}: is not empty: it holds {}",
            path.display(),
            entry.file_name().display()
        ))
        .hint("give --out a new or an empty folder"));
    }
    let above = path
        .ancestors()
        .find(|part| part.exists())
        .unwrap_or(Path::new("."));
    files::check_writable(above).map_err(|error| {
        Error::input(format!("{}: cannot write there: {error}", above.display()))
            .hint("give --out a folder that can be written")
    })
}

/// The step a line belongs to.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line)
        .ok()?
        .get("step")?
        .as_u64()
}

/// Refuses to go on from a checkpoint of `done` steps where a record has lost the line of one of the steps `due`.
fn check_records(path: &Path, due: impl Iterator<Item = usize>, done: usize) -> Result<()> {
    let lines = read_lines(path)?;
    let mut found = lines
        .iter()
        .map(|line| line.get("step").and_then(Value::as_u64));
    for step in due {
        if !found.any(|found| found == Some(step as u64)) {
            return Err(Error::input(format!(
                "{}: the line of step {step} is missing, and the newest checkpoint has {done} steps",
                path.display()
            ))
            .hint("put the file back, or remove the checkpoints that are ahead of it"));
        }
    }
    Ok(())
}

impl RunDir {
    /// Takes a folder for this process. For a new run it is created, and a run that another process was faster to put
    /// there is refused.
    pub fn take(path: &Path, new: bool) -> Result<Lock> {
        files::create_dir(path)?;
        let lock = Lock::try_take(&path.join(LOCK))?;
        if new {
            check_free(path)?;
        }
        Ok(lock)
    }

    /// Opens a folder that was taken, and makes it a run if it is none; `steps` says how many steps are done, and lines
    /// past them are cut. Evaluations are due at the start and after every `eval_every` steps; 0: at the start alone.
    ///
    /// # Errors
    /// A record of what was done before is missing, or the folder cannot be read or written.
    pub fn open(
        path: &Path,
        lock: Lock,
        config: &str,
        plan: &str,
        steps: usize,
        eval_every: usize,
    ) -> Result<Self> {
        // Nobody else is at work here, so what is unfinished stays so.
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        for left in entries.filter(|entry| files::is_partial(&entry.file_name())) {
            let _ = fs::remove_file(left.path());
        }
        // The plan goes first, because it is what makes the folder a run: what a kill leaves out is made up for.
        for (name, text) in [("plan.toml", plan), (FILE, config)] {
            if !path.join(name).exists() {
                write_atomic(&path.join(name), text.as_bytes())?;
            }
        }
        let (done, records) = (steps as u64, path.join("steps.jsonl"));
        check_records(&records, 0..steps, steps)?;
        // The evaluation at the checkpoint itself may not have been made yet.
        let (evaluations, every) = (
            path.join("evals.jsonl"),
            if eval_every == 0 {
                steps.max(1)
            } else {
                eval_every
            },
        );
        check_records(&evaluations, (0..steps).step_by(every), steps)?;
        let steps = Lines::open(&records, |line| {
            step_of(line).is_some_and(|step| step < done)
        })?;
        let evals = Lines::open(&evaluations, |line| {
            step_of(line).is_some_and(|step| step <= done)
        })?;
        Ok(Self {
            steps,
            evals,
            _lock: lock,
        })
    }

    /// Brings all lines to the disk, so that no checkpoint is ahead of them.
    pub fn sync(&self) -> Result<()> {
        self.steps.sync()?;
        self.evals.sync()
    }

    /// Where checkpoints are.
    pub fn checkpoints(path: &Path) -> PathBuf {
        path.join("checkpoints")
    }

    /// Appends a line to `steps.jsonl`.
    pub fn step(&mut self, line: &Map<String, Value>) -> Result<()> {
        self.steps
            .push(&serde_json::to_string(line).expect("plain data"))
    }

    /// Appends a line to `evals.jsonl`.
    pub fn evaluation(&mut self, line: &Map<String, Value>) -> Result<()> {
        self.evals
            .push(&serde_json::to_string(line).expect("plain data"))
    }
}

/// The evaluation after `step` steps, if it is on record.
pub fn evaluation(path: &Path, step: usize) -> Result<Option<Map<String, Value>>> {
    let lines = read_lines(&path.join("evals.jsonl"))?;
    Ok(lines
        .into_iter()
        .find(|line| line.get("step").and_then(Value::as_u64) == Some(step as u64)))
}

/// All whole lines of a `.jsonl` file of a run, in order; none if it is not there.
pub fn read_lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let Some(text) = files::read_text_if_there(path)? else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(line) => lines.push(with_new_names(line)),
            // A torn last line is what a kill leaves; anywhere else the file was damaged by somebody.
            Err(_) if number + 1 == text.lines().count() && !text.ends_with('\n') => {}
            Err(error) => {
                return Err(Error::input(format!(
                    "{}: line {}: {error}",
                    path.display(),
                    number + 1
                )));
            }
        }
    }
    Ok(lines)
}

/// A line with the names of this build: older ones spelled one differently.
fn with_new_names(line: Map<String, Value>) -> Map<String, Value> {
    line.into_iter()
        .map(|(key, value)| match &key[..] {
            "utilisation" => ("utilization".to_owned(), value),
            _ => (key, value),
        })
        .collect()
}

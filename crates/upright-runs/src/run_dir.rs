//! The run folder: settings, plan, one record per step, one record per evaluation, checkpoints, and
//! finally the adapter. It holds everything that a report needs, so a copy gives the same report.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::plan_record::PLAN;
use crate::records::{EvalRecord, StepRecord};
use crate::settings::FILE;
use upright_base::{
    Error, Result,
    files::{self, Lines, Lock, write_atomic},
};

/// A run folder, locked while the run is in progress.
#[derive(Debug)]
pub struct RunDir {
    steps: Lines,
    evals: Lines,
    _lock: Lock,
}

/// Lock file of the process that writes to the folder. The empty file is never removed.
const LOCK: &str = ".lock";

/// File of the records of steps.
const STEPS: &str = "steps.jsonl";

/// File of the records of evaluations.
const EVALUATIONS: &str = "evals.jsonl";

/// Whether a folder holds a run.
pub fn holds_run(path: &Path) -> bool {
    path.join(PLAN).exists()
}

/// Whether the run in a folder is finished. The adapter is written last, and its config file last
/// of all.
pub fn is_finished(run: &Path) -> bool {
    adapter_dir(run)
        .join(upright_model::peft::CONFIG_FILE)
        .exists()
}

/// Folder of the averaged adapter, beside an [`adapter_dir`] that holds the last one.
pub fn average_dir(run: &Path) -> PathBuf {
    run.join("adapter-average")
}

/// Folder of the last adapter, beside an [`adapter_dir`] that holds the averaged one.
pub fn last_dir(run: &Path) -> PathBuf {
    run.join("adapter-last")
}

/// Folder of the trained adapter of a run.
pub fn adapter_dir(run: &Path) -> PathBuf {
    run.join("adapter")
}

/// Returns an error if a new run must not write to this folder.
pub fn check_free(path: &Path) -> Result<()> {
    if holds_run(path) {
        return Err(
            Error::input(format!("{}: already holds a run", path.display()))
                .hint("--resume continues it; another --out starts a new one"),
        );
    }
    if let Some(file) = path
        .ancestors()
        .find(|part| part.exists())
        .filter(|part| !part.is_dir())
    {
        return Err(Error::input(format!("{}: is not a folder", file.display()))
            .hint("give --out the name of a folder"));
    }
    // A start that is killed early leaves only a lock and partial files behind.
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
            .hint("give --out a writable folder")
    })
}

/// The step number of a record.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line)
        .ok()?
        .get("step")?
        .as_u64()
}

/// Returns an error if the file has no record of one of the steps in `due`, given that the newest
/// checkpoint is at `done` steps.
fn check_records(path: &Path, due: impl Iterator<Item = usize>, done: usize) -> Result<()> {
    let lines = read_lines(path)?;
    let mut found = lines
        .iter()
        .map(|line| line.get("step").and_then(Value::as_u64));
    for step in due {
        if !found.any(|found| found == Some(step as u64)) {
            return Err(Error::input(format!(
                "{}: the line of step {step} is missing, but the newest checkpoint is at step {done}",
                path.display()
            ))
            .hint("put the file back, or remove the checkpoints after that step"));
        }
    }
    Ok(())
}

impl RunDir {
    /// Creates the folder if needed and locks it for this process. A new run returns an error if
    /// another process has started a run there in the meantime.
    pub fn take(path: &Path, new: bool) -> Result<Lock> {
        files::create_dir(path)?;
        let lock = Lock::try_take(&path.join(LOCK))?;
        if new {
            check_free(path)?;
        }
        Ok(lock)
    }

    /// Opens a locked folder, and makes it a run folder if it is not one yet. `steps` is the number
    /// of finished steps out of `length`; records beyond it are removed. Evaluations are expected at
    /// the start, after every `eval_every` steps (0 means never), and after the last step. An
    /// evaluation after `steps` that is not expected there is removed too: the run was shorter when
    /// it was recorded.
    ///
    /// # Errors
    /// A record of a finished step is missing, or the folder cannot be read or written.
    pub fn open(
        path: &Path,
        lock: Lock,
        config: &str,
        plan: &str,
        steps: usize,
        length: usize,
        eval_every: usize,
    ) -> Result<Self> {
        // The lock is held, so no other process will finish these partial files.
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        for left in entries.filter(|entry| files::is_partial(&entry.file_name())) {
            let _ = fs::remove_file(left.path());
        }
        // The plan makes the folder a run, so it is written first. A resume writes what a kill left
        // out.
        for (name, text) in [(PLAN, plan), (FILE, config)] {
            if !path.join(name).exists() {
                write_atomic(&path.join(name), text.as_bytes())?;
            }
        }
        let (done, records) = (steps as u64, path.join(STEPS));
        check_records(&records, 0..steps, steps)?;
        // The evaluation at the checkpoint itself may be pending.
        let (evaluations, every) = (
            path.join(EVALUATIONS),
            if eval_every == 0 {
                steps.max(1)
            } else {
                eval_every
            },
        );
        check_records(&evaluations, (0..steps).step_by(every), steps)?;
        let is_expected = steps == length || steps.is_multiple_of(every);
        let steps = Lines::open(&records, |line| {
            step_of(line).is_some_and(|step| step < done)
        })?;
        let evals = Lines::open(&evaluations, |line| {
            step_of(line).is_some_and(|step| step < done || step == done && is_expected)
        })?;
        Ok(Self {
            steps,
            evals,
            _lock: lock,
        })
    }

    /// Flushes all records to disk, so that no checkpoint is ahead of them.
    pub fn sync(&self) -> Result<()> {
        self.steps.sync()?;
        self.evals.sync()
    }

    /// Folder of the checkpoints of a run.
    pub fn checkpoints(path: &Path) -> PathBuf {
        path.join("checkpoints")
    }

    /// Appends a record to `steps.jsonl`.
    pub fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.steps
            .push(&serde_json::to_string(record).expect("plain data"))
    }

    /// Appends a record to `evals.jsonl`.
    pub fn evaluation(&mut self, record: &EvalRecord) -> Result<()> {
        self.evals
            .push(&serde_json::to_string(record).expect("plain data"))
    }
}

/// The recorded evaluation after `step` steps, if there is one.
///
/// # Errors
/// Those of [`read_evaluations`].
pub fn evaluation(run: &Path, step: usize) -> Result<Option<EvalRecord>> {
    let records = read_evaluations(run)?;
    Ok(records.into_iter().find(|record| record.step == step))
}

/// The steps of a run, in order; none if it has no `steps.jsonl`.
///
/// # Errors
/// The file cannot be read, or a line is damaged.
pub fn read_steps(run: &Path) -> Result<Vec<StepRecord>> {
    read_records(&run.join(STEPS))
}

/// The evaluations of a run, in order; none if it has no `evals.jsonl`.
///
/// # Errors
/// The file cannot be read, or a line is damaged.
pub fn read_evaluations(run: &Path) -> Result<Vec<EvalRecord>> {
    read_records(&run.join(EVALUATIONS))
}

fn read_records<T>(path: &Path) -> Result<Vec<T>>
where
    T: TryFrom<Map<String, Value>, Error = &'static str>,
{
    let mut records = Vec::new();
    for (index, line) in read_lines(path)?.into_iter().enumerate() {
        let record = T::try_from(line).map_err(|problem| {
            Error::input(format!("{}: line {}: {problem}", path.display(), index + 1))
        })?;
        records.push(record);
    }
    Ok(records)
}

/// All complete records of a `.jsonl` file of a run, in order; empty if the file does not exist.
pub fn read_lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let Some(text) = files::read_text_if_there(path)? else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(line) => lines.push(with_new_names(line)),
            // A kill may truncate the last line. Damage anywhere else is an error.
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

/// Renames the key that older builds spelled differently.
fn with_new_names(line: Map<String, Value>) -> Map<String, Value> {
    line.into_iter()
        .map(|(key, value)| match &key[..] {
            "utilisation" => ("utilization".to_owned(), value),
            _ => (key, value),
        })
        .collect()
}

//! Studies. A file states what to compare ([`Study`]), it becomes a graph of jobs ([`Graph`]), and
//! each job is done once ([`Experiment::run`]). `upright train` could do every run from its
//! `config.toml`. A study adds what runs compute for each other: references, optima, the front,
//! sums of adapters.

mod answers;
pub mod benchmarks;
mod builder;
mod estimate;
mod execute;
mod forms;
mod front;
mod graph;
pub mod keys;
mod study;

pub use estimate::Estimate;
pub use forms::MixForm;
pub use graph::{Graph, Job, JobKind, Setup};
pub use study::{Baseline, Front, Questions, Study, Sweep};

use std::path::{Path, PathBuf};

use serde::Serialize;

use upright_base::ErrorKind;
use upright_base::progress::{Progress, Quiet};
use upright_base::{Error, Result, files};
use upright_report::{ANSWERS, Report, STUDY};
use upright_runs::run_dir;
use upright_train::run;

/// Name of the study file in the folder of the study.
const FILE: &str = "experiment.toml";

/// A study in its folder.
pub struct Experiment {
    study: Study,
    graph: Graph,
    opened: benchmarks::Opened,
    out: PathBuf,
}

/// The state of a job after the work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It was finished before.
    Found,
    /// It was done now.
    Done,
    /// It failed, and why.
    Failed(String),
    /// A job that it needs failed, by name.
    Skipped(String),
}

/// A job with its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub part: String,
    /// Its run folder; none for a reference, which is in the cache.
    pub folder: Option<PathBuf>,
    /// Its state.
    pub state: State,
}

impl Outcome {
    /// Whether its result exists.
    pub fn is_good(&self) -> bool {
        matches!(self.state, State::Found | State::Done)
    }
}

/// The result of a study.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// The requested jobs, in the order of the work.
    pub parts: Vec<Outcome>,
    /// Path of the report page; none if no run exists.
    pub report: Option<PathBuf>,
}

/// A job for a scheduler: the jobs that must be finished first, and the command that does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduledJob {
    /// Name of the job.
    pub part: String,
    /// Names of the jobs that it needs.
    pub needs: Vec<String>,
    /// The command, relative to the current folder.
    pub command: Vec<String>,
}

/// With fewer seeds, a standard error says little.
const FEW_SEEDS: usize = 3;

impl Experiment {
    /// Opens a study in its folder: reads the file, opens models, reads data, and checks every run.
    /// It trains nothing and writes nothing.
    pub fn open(file: &Path, out: &Path, observer: &mut dyn Progress) -> Result<Self> {
        let study = Study::read(file)?;
        check_free(out)?;
        let graph = Graph::of(&study, out, observer).map_err(|error| error.at(file.display()))?;
        if study.seeds.len() < FEW_SEEDS {
            observer.note(&format!(
                "the study has fewer than {FEW_SEEDS} seeds ({}): its standard errors say little; list more seeds",
                study.seeds.len()
            ));
        }
        let opened = benchmarks::Opened::new(&study.benchmarks, &graph.grounds, observer)
            .map_err(|error| error.at(file.display()))?;
        Ok(Self {
            study,
            graph,
            opened,
            out: out.to_owned(),
        })
    }

    /// The run folder of a job; none for a reference.
    pub fn folder(&self, part: &Job) -> Option<PathBuf> {
        Some(self.out.join(part.folder.as_ref()?))
    }

    /// Whether a job needs no more work, judged by the study folder alone. A reference needs none
    /// once every run that uses it is finished.
    pub fn is_finished(&self, part: &Job) -> bool {
        let needs = |other: &&Job| {
            other
                .needs
                .iter()
                .any(|need| self.graph.parts[*need].hash == part.hash)
        };
        match self.folder(part) {
            Some(folder) => run_dir::is_finished(&folder),
            None => self
                .graph
                .parts
                .iter()
                .filter(needs)
                .all(|other| self.is_finished(other)),
        }
    }

    /// Whether a job needs no more work. A reference is also looked up in the cache, which takes a
    /// while.
    fn is_there(&self, part: &Job, observer: &mut dyn Progress) -> Result<bool> {
        match self.is_finished(part) {
            false if part.kind == JobKind::Reference => {
                run::has_reference(&part.plan, &mut Quiet(observer))
            }
            finished => Ok(finished),
        }
    }

    /// The jobs for a scheduler, with `file` and `out` as they were given.
    pub fn jobs(&self, file: &Path, only: &[String]) -> Result<Vec<ScheduledJob>> {
        let name = |index: &usize| self.graph.parts[*index].name.clone();
        let job = |index: usize| ScheduledJob {
            part: name(&index),
            needs: self.graph.parts[index].needs.iter().map(name).collect(),
            command: [
                "upright",
                "experiment",
                &file.display().to_string(),
                "--out",
                &self.out.display().to_string(),
            ]
            .into_iter()
            .map(str::to_owned)
            .chain(["--only".to_owned(), name(&index)])
            .collect(),
        };
        Ok(self.graph.only(only)?.into_iter().map(job).collect())
    }

    /// Does the jobs in `only` and the jobs that they need, or all jobs if `only` is empty, and
    /// writes the report. Finished jobs are not repeated and interrupted jobs resume. If a job
    /// fails, only the jobs that need it are skipped.
    ///
    /// # Errors
    /// The study folder cannot be written, or a stop was requested.
    pub fn run(&self, only: &[String], observer: &mut dyn Progress) -> Result<Outcomes> {
        let wanted = self.graph.only(only)?;
        files::create_dir(&self.out)?;
        self.write_file()?;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; self.graph.parts.len()];
        observer.begin("jobs of the study", wanted.len());
        let worked = wanted.iter().enumerate().try_for_each(|(done, &index)| {
            let part = &self.graph.parts[index];
            observer.advance(done, &part.name);
            let state = self.state(index, &outcomes, observer)?;
            let outcome = Outcome {
                part: part.name.clone(),
                folder: self.folder(part),
                state,
            };
            observer.note(&format!(
                "{} of {}: {}",
                done + 1,
                wanted.len(),
                outcome.describe()
            ));
            outcomes[index] = Some(outcome);
            Ok(())
        });
        observer.end();
        worked.map_err(|error: Error| match error.kind {
            ErrorKind::Interrupted => error.hint("run the same command to continue"),
            ErrorKind::Input | ErrorKind::Failure => error,
        })?;
        let parts: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        // Several processes may work on single jobs at once; responses and benchmarks need the whole
        // study.
        let mut answered = Ok(());
        let mut measured = Ok(());
        if only.is_empty() {
            answered = self.answer(observer);
            if answered.is_ok() {
                measured = self.take_benchmarks(observer);
            }
        }
        let report = self.report(observer)?;
        answered.and(measured).map(|()| Outcomes { report, parts })
    }

    fn state(
        &self,
        index: usize,
        outcomes: &[Option<Outcome>],
        observer: &mut dyn Progress,
    ) -> Result<State> {
        let part = &self.graph.parts[index];
        let failed = part
            .needs
            .iter()
            .filter_map(|need| outcomes[*need].as_ref())
            .find(|need| !need.is_good());
        if let Some(need) = failed {
            return Ok(State::Skipped(need.part.clone()));
        }
        let ended = match self.is_finished(part) {
            true => Ok(State::Found),
            false => self.work(part, &mut Quiet(observer)),
        };
        match ended.and_then(|state| self.write_front(index).map(|()| state)) {
            Ok(state) => Ok(state),
            Err(error) if error.kind == ErrorKind::Interrupted => Err(error),
            Err(error) if error.hint.is_empty() => Ok(State::Failed(error.message)),
            Err(error) => Ok(State::Failed(format!("{} ({})", error.message, error.hint))),
        }
    }

    /// Run folders of this study that contain a run, in the order of the graph.
    fn runs(&self) -> Vec<PathBuf> {
        let folders = self.graph.parts.iter().filter_map(|part| self.folder(part));
        folders
            .filter(|folder| run_dir::holds_run(folder))
            .collect()
    }

    /// Copies the study file beside its runs. Deletes the responses if prompts or length changed.
    fn write_file(&self) -> Result<()> {
        let path = self.out.join(FILE);
        let asked = |text: &str| {
            text.parse::<toml::Table>()
                .ok()
                .and_then(|table| table.get("answers").cloned())
        };
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        if asked(&before) != asked(&self.study.text) {
            let _ = std::fs::remove_file(self.out.join(ANSWERS));
        }
        files::write_atomic(&path, self.study.text.as_bytes())
    }

    /// Writes the report of the existing runs.
    fn report(&self, observer: &mut dyn Progress) -> Result<Option<PathBuf>> {
        let runs = self.runs();
        if runs.is_empty() {
            return Ok(None);
        }
        // Runs of an earlier version of the file remain, but are not part of this study.
        let inside = |run: &PathBuf| run.strip_prefix(&self.out).map(Path::to_owned).ok();
        let said = |text: &str| (!text.is_empty()).then(|| text.trim().to_owned());
        let study = upright_report::Study {
            title: said(&self.study.title),
            about: said(&self.study.about),
            runs: Some(runs.iter().filter_map(inside).collect()),
        };
        let text = toml::to_string(&study).map_err(|error| Error::failure(error.to_string()))?;
        files::write_atomic(&self.out.join(STUDY), text.as_bytes())?;
        let report = Report::read(std::slice::from_ref(&self.out))?;
        report.write(&self.out.join("report"), observer).map(Some)
    }
}

/// Rejects a folder that is not empty and contains no study, because the report would cover only
/// the runs of the study.
fn check_free(out: &Path) -> Result<()> {
    let held = std::fs::read_dir(out).into_iter().flatten().flatten();
    match held
        .map(|entry| entry.file_name())
        .find(|name| !files::is_partial(name))
    {
        Some(name) if !out.join(FILE).is_file() => {
            let problem = format!("{}: holds {}, but no study", out.display(), name.display());
            Err(Error::input(problem)
                .hint("give --out a new or an empty folder, or the folder of a study"))
        }
        _ => Ok(()),
    }
}

impl Outcome {
    /// Describes it in one line.
    pub fn describe(&self) -> String {
        match &self.state {
            State::Found => format!("{}: finished before", self.part),
            State::Done => format!("{}: done", self.part),
            State::Failed(why) => format!("{}: failed: {why}", self.part),
            State::Skipped(need) => format!("{}: skipped, because {need} failed", self.part),
        }
    }
}

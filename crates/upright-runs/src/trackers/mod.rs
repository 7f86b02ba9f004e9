//! Trackers of a run: tools beside the run folder that receive every record. A new tracker is a file here and an entry of
//! [`TRACKERS`].

mod tensorboard;

use std::path::Path;

use upright_base::{Error, Result, progress::Progress};
use upright_math::registry::Registry;

use crate::{
    plan::checks::{no_such, wrong},
    records::{EvalRecord, StepRecord},
    settings::{Config, peers},
};

/// All trackers, in the order of the help.
pub static TRACKERS: Registry<TrackerSpec> = Registry::new(&[&tensorboard::TENSORBOARD]);

/// The value of `--report-to` that names no tracker.
const NONE: &str = "none";

/// What a tracker is called, and how it is opened.
pub struct TrackerSpec {
    /// Name in `--report-to`.
    pub name: &'static str,
    /// What it writes and where, as a noun phrase.
    pub about: &'static str,
    /// Opens it for the run in a folder, which need not exist yet. Writes nothing.
    pub open: fn(&Path) -> Box<dyn Tracker>,
}

/// Receives the records of a run, after the run folder has them. Every method does nothing by default.
pub trait Tracker: Send {
    /// A step.
    ///
    /// # Errors
    /// The record cannot be written. The run goes on without this tracker.
    fn step(&mut self, _record: &StepRecord) -> Result<()> {
        Ok(())
    }

    /// An evaluation.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    fn evaluation(&mut self, _record: &EvalRecord) -> Result<()> {
        Ok(())
    }
}

/// The help of `--report-to`.
pub(crate) fn help() -> String {
    let mut text = "Also send every record to trackers, a comma-separated list: none".to_owned();
    for spec in TRACKERS.all() {
        text += &format!(", {} ({})", spec.name, spec.about);
    }
    text
}

/// The trackers that the settings name, each once.
///
/// # Errors
/// A name is unknown, or `none` stands beside the name of a tracker.
pub fn named(config: &Config) -> Result<Vec<&'static TrackerSpec>> {
    let mut names: Vec<&str> = Vec::new();
    if let Some(list) = &config.report_to {
        names.extend(list.0.iter().map(String::as_str));
    }
    if config.tensorboard {
        names.push(tensorboard::TENSORBOARD.name);
    }
    let mut is_none = false;
    let mut found: Vec<&'static TrackerSpec> = Vec::new();
    for name in names {
        if name == NONE {
            is_none = true;
            continue;
        }
        let spec = TRACKERS.all().iter().find(|spec| spec.name == name);
        let spec = *spec.ok_or_else(|| unknown(name))?;
        if !found.iter().any(|known| known.name == spec.name) {
            found.push(spec);
        }
    }
    if let (true, Some(spec)) = (is_none, found.first()) {
        return Err(wrong(
            "report-to",
            &format!("not name none beside {}", spec.name),
            config.report_to.as_ref().expect("it names none"),
        )
        .hint("leave out one of them"));
    }
    Ok(found)
}

/// The error of an unknown tracker. Names of other tools get the advice that their own flags get.
fn unknown(name: &str) -> Error {
    let mut known = vec![NONE];
    for spec in TRACKERS.all() {
        known.push(spec.name);
    }
    let error = no_such("report-to", name, known);
    match peers::answer(name) {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

/// The open trackers of one run.
#[derive(Default)]
pub struct Trackers(Vec<Open>);

/// An open tracker.
struct Open {
    name: &'static str,
    tracker: Box<dyn Tracker>,
}

impl Trackers {
    /// No trackers.
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens the trackers that the settings name, for the run in a folder.
    ///
    /// # Errors
    /// Those of [`named`].
    pub fn open(config: &Config, run: &Path) -> Result<Self> {
        let mut trackers = Self::none();
        for spec in named(config)? {
            trackers.add(spec.name, (spec.open)(run));
        }
        Ok(trackers)
    }

    /// Adds an open tracker. Messages call it `name`.
    pub fn add(&mut self, name: &'static str, tracker: Box<dyn Tracker>) {
        self.0.push(Open { name, tracker });
    }

    /// Sends a step to every tracker.
    pub fn step(&mut self, record: &StepRecord, observer: &mut dyn Progress) {
        self.send(observer, |tracker| tracker.step(record));
    }

    /// Sends an evaluation to every tracker.
    pub fn evaluation(&mut self, record: &EvalRecord, observer: &mut dyn Progress) {
        self.send(observer, |tracker| tracker.evaluation(record));
    }

    /// Sends a record to every tracker. A tracker that fails is dropped with a warning, because a run does not fail for it.
    fn send(&mut self, observer: &mut dyn Progress, send: impl Fn(&mut dyn Tracker) -> Result<()>) {
        self.0.retain_mut(|open| match send(&mut *open.tracker) {
            Ok(()) => true,
            Err(error) => {
                observer.note(&format!(
                    "warning: {error}; the run goes on without the tracker {}",
                    open.name
                ));
                false
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(toml: &str) -> Result<Vec<&'static str>> {
        let config = Config::parse(toml, "the settings")?;
        Ok(named(&config)?.iter().map(|spec| spec.name).collect())
    }

    #[test]
    fn settings_name_trackers() {
        let nobody: [&str; 0] = [];
        assert_eq!(names("").unwrap(), nobody);
        assert_eq!(names("report-to = 'none'").unwrap(), nobody);
        assert_eq!(names("report-to = []").unwrap(), nobody);
        for toml in [
            "tensorboard = true",
            "report-to = 'tensorboard'",
            "report-to = ['tensorboard', 'tensorboard']",
            "report-to = 'tensorboard'\ntensorboard = true",
        ] {
            assert_eq!(names(toml).unwrap(), ["tensorboard"], "{toml}");
        }
    }

    #[test]
    fn other_names_are_errors() {
        let error = names("report-to = 'zebra'").unwrap_err();
        assert_eq!(
            error.message,
            "report-to must be one of none, tensorboard, found `zebra`"
        );
        let error = names("report-to = 'tensorbord'").unwrap_err();
        assert_eq!(error.hint, "did you mean `tensorboard`?");
        for name in ["wandb", "mlflow", "trackio", "comet_ml"] {
            let error = names(&format!("report-to = 'tensorboard,{name}'")).unwrap_err();
            assert!(error.message.contains("none, tensorboard"), "{error}");
            assert!(error.hint.contains("wandb sync"), "{name}: {error}");
        }
        for toml in [
            "report-to = 'none,tensorboard'",
            "report-to = 'none'\ntensorboard = true",
        ] {
            let error = names(toml).unwrap_err();
            assert!(error.message.contains("not name none beside"), "{error}");
        }
    }

    /// Fails at its second record.
    struct Full(usize);

    impl Tracker for Full {
        fn step(&mut self, _: &StepRecord) -> Result<()> {
            self.0 += 1;
            match self.0 {
                1 => Ok(()),
                _ => Err(Error::failure("the disk is full")),
            }
        }
    }

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Progress for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn a_tracker_that_fails_is_dropped_once() {
        let mut trackers = Trackers::none();
        trackers.add("one", Box::new(Full(0)));
        trackers.add("two", Box::new(Full(1)));
        let mut notes = Notes::default();
        for _ in 0..3 {
            trackers.step(&StepRecord::default(), &mut notes);
        }
        trackers.evaluation(&EvalRecord::default(), &mut notes);
        assert_eq!(
            notes.0,
            [
                "warning: the disk is full; the run goes on without the tracker two",
                "warning: the disk is full; the run goes on without the tracker one",
            ]
        );
    }
}

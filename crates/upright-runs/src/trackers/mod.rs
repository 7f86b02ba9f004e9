//! Trackers of a run: tools beside the run folder that receive every record. A new tracker is a file here and an entry of
//! [`TRACKERS`].

mod tensorboard;

pub(crate) use tensorboard::TENSORBOARD;

use std::path::Path;

use upright_base::{Result, progress::Progress};
use upright_math::registry::Registry;

use crate::records::{EvalRecord, StepRecord};

/// All trackers, in the order of the help.
pub static TRACKERS: Registry<TrackerSpec> = Registry::new(&[&TENSORBOARD]);

/// The value of `--report-to` that names no tracker.
pub(crate) const NONE: &str = "none";

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

    /// Opens trackers for the run in a folder.
    pub fn open(specs: &[&'static TrackerSpec], run: &Path) -> Self {
        let mut trackers = Self::none();
        for spec in specs {
            trackers.add(spec.name, (spec.open)(run));
        }
        trackers
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
    use upright_base::Error;

    use super::*;

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

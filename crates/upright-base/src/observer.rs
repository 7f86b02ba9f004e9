//! Observers of a run: a terminal, a tracker, or nobody.

use serde_json::{Map, Value};

/// Receives the events of a run, and may request a stop. Every method does nothing by default, so a
/// tracker is one small `impl`.
pub trait Observer: Send {
    /// A message that stays visible: a default that was chosen, rows that were dropped.
    fn note(&mut self, _text: &str) {}
    /// A task of `total` units starts.
    fn begin(&mut self, _what: &str, _total: usize) {}
    /// The task continues earlier work: `done` units were finished before it started, so they say
    /// nothing about its speed.
    fn resume(&mut self, _done: usize) {}
    /// `done` units of the task are finished; `note` shows its latest figures.
    fn advance(&mut self, _done: usize, _note: &str) {}
    /// The task is over.
    fn end(&mut self) {}
    /// A line of `steps.jsonl`.
    fn step(&mut self, _line: &Map<String, Value>) {}
    /// A line of `evals.jsonl`.
    fn evaluation(&mut self, _line: &Map<String, Value>) {}
    /// Whether the run should save its state and stop.
    fn stop_requested(&self) -> bool {
        false
    }
}

/// Forwards progress and drops notes: for work that consists of many runs.
pub struct Quiet<'o>(pub &'o mut dyn Observer);

impl Observer for Quiet<'_> {
    fn begin(&mut self, what: &str, total: usize) {
        self.0.begin(what, total);
    }
    fn resume(&mut self, done: usize) {
        self.0.resume(done);
    }
    fn advance(&mut self, done: usize, note: &str) {
        self.0.advance(done, note);
    }
    fn end(&mut self) {
        self.0.end();
    }
    fn stop_requested(&self) -> bool {
        self.0.stop_requested()
    }
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

//! Whoever watches a run: a terminal, a tracker, or nobody.

use serde_json::{Map, Value};

/// Told what happens; may ask the run to stop. Every method has a default that does nothing, so a tracker is one small
/// `impl`.
pub trait Observer: Send {
    /// Something worth a line that stays: a default that was chosen, rows that were dropped.
    fn note(&mut self, _text: &str) {}
    /// A stretch of work begins, `total` units long.
    fn begin(&mut self, _what: &str, _total: usize) {}
    /// `done` units of it are finished; `note` is its newest figures.
    fn advance(&mut self, _done: usize, _note: &str) {}
    /// It is over.
    fn end(&mut self) {}
    /// A line of `steps.jsonl`.
    fn step(&mut self, _line: &Map<String, Value>) {}
    /// A line of `evals.jsonl`.
    fn evaluation(&mut self, _line: &Map<String, Value>) {}
    /// Whether the run should save itself and leave.
    fn stop_requested(&self) -> bool {
        false
    }
}

/// Passes progress on, and keeps the notes of single runs to itself: of work that is made of many runs.
pub struct Quiet<'o>(pub &'o mut dyn Observer);

impl Observer for Quiet<'_> {
    fn begin(&mut self, what: &str, total: usize) {
        self.0.begin(what, total);
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

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

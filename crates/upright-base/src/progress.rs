//! The progress of work: who is told of it, and how it is asked to stop.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Receives the progress of work: a terminal, or nobody. Every method does nothing by default.
pub trait Progress: Send {
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
    /// The request to stop that the work checks between its units. Nobody requests it by default.
    fn stop(&self) -> Stop {
        Stop::never()
    }
}

/// A request to save the state and stop, as the work sees it. Clones share the request.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<Check>>);

/// Says whether a stop is requested.
type Check = dyn Fn() -> bool + Send + Sync;

impl Stop {
    /// A request that nobody makes.
    pub const fn never() -> Self {
        Self(None)
    }

    /// A request that is made by setting a flag.
    pub fn flag(flag: &Arc<AtomicBool>) -> Self {
        let flag = Arc::clone(flag);
        Self::when(move || flag.load(Ordering::Relaxed))
    }

    /// A request that is made while `check` returns true. Work may check it often.
    pub fn when(check: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(check)))
    }

    /// A request that is made by either of two requests.
    pub fn or(self, other: Self) -> Self {
        match (&self.0, &other.0) {
            (_, None) => self,
            (None, _) => other,
            (Some(_), Some(_)) => Self::when(move || self.is_requested() || other.is_requested()),
        }
    }

    /// Whether the work should save its state and stop.
    pub fn is_requested(&self) -> bool {
        self.0.as_ref().is_some_and(|check| check())
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_requested()).finish()
    }
}

/// Forwards progress and drops notes: for work that consists of many runs.
pub struct Quiet<'p>(pub &'p mut dyn Progress);

impl Progress for Quiet<'_> {
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
    fn stop(&self) -> Stop {
        self.0.stop()
    }
}

/// Ignores all progress, and never requests a stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_request_stops() {
        let first = Arc::new(AtomicBool::new(false));
        let second = Arc::new(AtomicBool::new(false));
        let either = Stop::flag(&first).or(Stop::flag(&second));
        let shared = either.clone();
        assert!(!either.is_requested());
        second.store(true, Ordering::Relaxed);
        assert!(either.is_requested() && shared.is_requested());
        second.store(false, Ordering::Relaxed);
        first.store(true, Ordering::Relaxed);
        assert!(either.is_requested());
        let never = Stop::never();
        assert!(!never.is_requested());
        assert!(never.clone().or(Stop::flag(&first)).is_requested());
        assert!(Stop::flag(&first).or(never).is_requested());
    }
}

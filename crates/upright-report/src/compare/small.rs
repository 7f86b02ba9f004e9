//! Small samples: what a number rests on, where that is too little for a conclusion.

use serde::Serialize;

use crate::read::run::Run;
use upright_base::counted;

/// Held-out rows below which a result is an anecdote.
pub(crate) const ROWS: usize = 30;
/// Seeds below which a result is an anecdote.
const SEEDS: usize = 3;
/// Epochs below which a result is an anecdote.
const EPOCHS: f64 = 1.0;

/// The sizes of a sample that are too small for a conclusion; none for those that are large enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Small {
    /// Held-out rows of the objective that has the fewest, if these are under 30.
    pub held_out: Option<usize>,
    /// Whether these rows are pairs of responses.
    pub pairs: bool,
    /// Seeds of the arm that has the fewest, if these are under three.
    pub seeds: Option<usize>,
    /// Epochs of the arm that trained for the fewest, if these are under one. They count for the
    /// objective that an arm trains most.
    pub epochs: Option<f64>,
}

impl Small {
    /// The sizes of an arm's sample.
    pub(crate) fn of(runs: &[&Run], objectives: &[String]) -> Self {
        let mut small = Self::default();
        for run in runs {
            for name in objectives {
                let Some((count, pairs)) = held_out(run, name) else {
                    continue;
                };
                if count < ROWS && small.held_out.is_none_or(|fewest| count < fewest) {
                    (small.held_out, small.pairs) = (Some(count), pairs);
                }
            }
            let fewest = small.epochs.unwrap_or(EPOCHS);
            small.epochs = run
                .epochs()
                .filter(|epochs| *epochs < fewest)
                .or(small.epochs);
        }
        small.seeds = Some(runs.len()).filter(|seeds| *seeds < SEEDS);
        small
    }

    /// A sample of some seeds, of which nothing else is known.
    pub(crate) fn of_seeds(seeds: usize) -> Self {
        Self {
            seeds: Some(seeds).filter(|seeds| *seeds < SEEDS),
            ..Self::default()
        }
    }

    /// The smaller sizes of two samples.
    pub(crate) fn and(self, other: Self) -> Self {
        let fewer = match (self.held_out, other.held_out) {
            (Some(own), Some(others)) => own <= others,
            (own, _) => own.is_some(),
        };
        let rows = if fewer { self } else { other };
        let epochs = [self.epochs, other.epochs].into_iter().flatten();
        Self {
            held_out: rows.held_out,
            pairs: rows.pairs,
            seeds: [self.seeds, other.seeds].into_iter().flatten().min(),
            epochs: epochs.reduce(f64::min),
        }
    }

    /// Whether no size is too small.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The sizes in words, such as `1 held-out pair, 2 seeds`; empty if none is too small.
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if let Some(rows) = self.held_out {
            words.push(if self.pairs {
                counted(rows, "held-out pair")
            } else {
                counted(rows, "held-out row")
            });
        }
        if let Some(seeds) = self.seeds {
            words.push(counted(seeds, "seed"));
        }
        if let Some(epochs) = self.epochs {
            words.push(format!("{} epochs", few(epochs)));
        }
        words.join(", ")
    }
}

/// A number below 1 with two decimals, or a bound for a tiny one.
fn few(epochs: f64) -> String {
    if epochs < 0.01 {
        "under 0.01".into()
    } else {
        // Rounding down keeps the number below 1.
        format!("{:.2}", (epochs * 100.0).floor() / 100.0)
    }
}

/// Number of held-out rows that an evaluation of a run measures an objective on, and whether they
/// are pairs. None if the run does not have the objective, or measures it on training rows alone.
pub(crate) fn held_out(run: &Run, objective: &str) -> Option<(usize, bool)> {
    let id = run.objective(objective)?;
    let count = run.written.facts.data[id].eval_rows;
    let measured = count.min(run.plan().eval_rows);
    (count > 0).then(|| (measured, run.plan().objectives[id].is_preference()))
}

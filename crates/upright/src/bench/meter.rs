//! The engine's counters around every call of a learner.

use upright_engine::cpu::counters::Counts;

use crate::{
    Result,
    train::{Learner, ObjectiveId},
};

/// What one step took, one entry an objective.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Of looking at a loss. Where that objective is descended in the same step, its forward pass is in here.
    pub looked_at: Vec<Counts>,
    /// Of descending it.
    pub descended: Vec<Counts>,
}

impl StepCounts {
    fn new(objectives: usize) -> Self {
        Self {
            looked_at: vec![Counts::default(); objectives],
            descended: vec![Counts::default(); objectives],
        }
    }

    /// Everything.
    pub fn total(&self) -> Counts {
        self.looked_at.iter().chain(&self.descended).copied().sum()
    }

    /// Objectives that were looked at and not descended: what a method that compares losses pays for its comparison.
    pub fn losers(&self) -> Counts {
        let lost = |(looked_at, descended): (&Counts, &Counts)| {
            if *descended == Counts::default() {
                *looked_at
            } else {
                Counts::default()
            }
        };
        self.looked_at.iter().zip(&self.descended).map(lost).sum()
    }
}

/// A learner whose work is counted. The counters are those of the process: one learner at a time.
#[derive(Debug)]
pub struct Meter<L> {
    /// The learner.
    pub learner: L,
    /// The step in progress.
    step: StepCounts,
}

impl<L: Learner> Meter<L> {
    /// Nothing is counted yet.
    pub fn new(learner: L) -> Self {
        Self {
            step: StepCounts::new(learner.objectives()),
            learner,
        }
    }

    /// What was counted since the last call.
    pub fn take(&mut self) -> StepCounts {
        std::mem::replace(&mut self.step, StepCounts::new(self.learner.objectives()))
    }
}

impl<L: Learner> Learner for Meter<L> {
    fn objectives(&self) -> usize {
        self.learner.objectives()
    }

    fn loss(&mut self, id: ObjectiveId) -> Result<f64> {
        let before = Counts::now();
        let loss = self.learner.loss(id)?;
        self.step.looked_at[id.0] = self.step.looked_at[id.0] + (Counts::now() - before);
        Ok(loss)
    }

    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64> {
        let before = Counts::now();
        let loss = self.learner.accumulate(id, weight)?;
        self.step.descended[id.0] = self.step.descended[id.0] + (Counts::now() - before);
        Ok(loss)
    }

    fn update(&mut self) -> Result<()> {
        self.learner.update()
    }
}

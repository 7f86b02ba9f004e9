//! The engine's counters around every call of the learner.

use upright_base::Error;
use upright_core::train::{Learner, ObjectiveId};
use upright_engine::Counts;
use upright_train::learner::ModelLearner;

/// The arithmetic of one step, one entry per objective.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Of probing a loss. Where that objective is trained on in the same step, its forward pass is in here.
    pub probed: Vec<Counts>,
    /// Of training on it.
    pub trained: Vec<Counts>,
}

impl StepCounts {
    fn new(objectives: usize) -> Self {
        Self {
            probed: vec![Counts::default(); objectives],
            trained: vec![Counts::default(); objectives],
        }
    }

    /// Everything.
    pub fn total(&self) -> Counts {
        self.probed.iter().chain(&self.trained).copied().sum()
    }

    /// Objectives that were probed and not trained on: what a method that compares losses pays for its comparison.
    pub fn losers(&self) -> Counts {
        let mut losers = Counts::default();
        for (probed, trained) in self.probed.iter().zip(&self.trained) {
            if *trained == Counts::default() {
                losers = losers + *probed;
            }
        }
        losers
    }
}

/// A learner whose work is counted. The counters are those of the process: one learner at a time.
#[derive(Debug)]
pub struct Meter<'a> {
    /// The learner.
    pub learner: ModelLearner<'a>,
    /// The step in progress.
    step: StepCounts,
}

impl<'a> Meter<'a> {
    /// Nothing is counted yet.
    pub fn new(learner: ModelLearner<'a>) -> Self {
        Self {
            step: StepCounts::new(learner.objectives()),
            learner,
        }
    }

    /// What was counted since the last call.
    pub fn take(&mut self) -> StepCounts {
        std::mem::replace(&mut self.step, StepCounts::new(self.learner.objectives()))
    }

    fn counts(&self) -> Counts {
        self.learner.decoder.usage().counts
    }
}

impl Learner for Meter<'_> {
    type Error = Error;

    fn objectives(&self) -> usize {
        self.learner.objectives()
    }

    fn loss(&mut self, id: ObjectiveId) -> Result<f64, Error> {
        let before = self.counts();
        let loss = self.learner.loss(id)?;
        self.step.probed[id.0] = self.step.probed[id.0] + (self.counts() - before);
        Ok(loss)
    }

    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64, Error> {
        let before = self.counts();
        let loss = self.learner.accumulate(id, weight)?;
        self.step.trained[id.0] = self.step.trained[id.0] + (self.counts() - before);
        Ok(loss)
    }

    fn update(&mut self) -> Result<(), Error> {
        self.learner.update()
    }
}

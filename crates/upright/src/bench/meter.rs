//! Reads the counters of the engine around every call of the learner.

use upright_base::Error;
use upright_core::train::{Learner, ObjectiveId};
use upright_engine::Counts;
use upright_train::learner::ModelLearner;

/// Operation counts of one step, one entry per objective.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Counts of probing a loss. Includes the forward pass of an objective that is trained on in
    /// the same step.
    pub probed: Vec<Counts>,
    /// Counts of training on the objective.
    pub trained: Vec<Counts>,
}

impl StepCounts {
    fn new(objectives: usize) -> Self {
        Self {
            probed: vec![Counts::default(); objectives],
            trained: vec![Counts::default(); objectives],
        }
    }

    /// Counts of the whole step.
    pub fn total(&self) -> Counts {
        self.probed.iter().chain(&self.trained).copied().sum()
    }

    /// Counts of objectives that were probed but not trained on: the extra cost of a method that
    /// compares losses.
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

/// A learner whose operations are counted. The counters belong to the process, so only one learner
/// may run at a time.
#[derive(Debug)]
pub struct Meter<'a> {
    /// The learner.
    pub learner: ModelLearner<'a>,
    /// Counts of the current step.
    step: StepCounts,
}

impl<'a> Meter<'a> {
    /// Wraps a learner, with all counts at 0.
    pub fn new(learner: ModelLearner<'a>) -> Self {
        Self {
            step: StepCounts::new(learner.objectives()),
            learner,
        }
    }

    /// Returns the counts since the last call, and resets them.
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

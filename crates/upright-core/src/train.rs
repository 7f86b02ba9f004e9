//! The training loop. A [`Learner`] has several losses and can take a step on any of them. A
//! [`Method`] chooses which. [`train`] is the loop between the two. Nothing here knows about
//! tensors, models or files: the toy problems of the theorems are learners too, and run through
//! this same loop.

use std::ops::{ControlFlow, Range};

/// Index of an objective in the plan. The plan holds the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectiveId(pub usize);

/// A model with several losses over one set of parameters, and the gradient of each.
pub trait Learner {
    /// Error of a pass or an update; [`std::convert::Infallible`] for a toy problem.
    type Error;

    /// Number of objectives; ids count from 0.
    fn objectives(&self) -> usize;

    /// Loss of the objective's next batch, without a gradient. A loss that is not finite is an error.
    fn loss(&mut self, id: ObjectiveId) -> Result<f64, Self::Error>;

    /// Adds `weight` times the gradient of the objective's next batch, and returns that batch's
    /// unweighted loss. If [`Learner::loss`] probed a batch in this step, it is the same batch.
    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64, Self::Error>;

    /// Takes one optimizer step on the accumulated gradient. A batch that was probed but not
    /// trained on moves to the end of its epoch.
    fn update(&mut self) -> Result<(), Self::Error>;
}

/// Chooses the objectives of a step and their weights. Losses reach a method already reduced over all machines.
pub trait Method {
    /// Objectives whose losses decide this step: they are probed first.
    fn probes(&self, _step: usize) -> Vec<ObjectiveId> {
        Vec::new()
    }

    /// Receives a measured loss: from a probe, or from the gradient of a chosen objective.
    fn observe(&mut self, _id: ObjectiveId, _loss: f64) {}

    /// One weight per objective for this step. An objective with weight 0 is not computed.
    fn weights(&mut self, step: usize) -> Vec<f64>;

    /// State of the method for a checkpoint, finite numbers only. Random draws need no state: they
    /// depend only on the step.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Restores a state that [`Method::state`] returned for the same method and plan.
    fn restore(&mut self, _state: &[f64]) {}
}

/// Record of one update. All lists have one entry per objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Index of the step, from 0.
    pub index: usize,
    /// The method's weights.
    pub weights: Vec<f64>,
    /// Losses of the batches that were trained on.
    pub losses: Vec<Option<f64>>,
    /// Losses that were probed to choose the objective.
    pub probed: Vec<Option<f64>>,
}

/// Runs the given steps. After each step, `on_step` records, evaluates and saves, and may stop the
/// loop. A run can start at any step: to resume, restore the learner and the method first.
pub fn train<L: Learner>(
    learner: &mut L,
    method: &mut dyn Method,
    steps: Range<usize>,
    mut on_step: impl FnMut(&Step, &mut L, &dyn Method) -> Result<ControlFlow<()>, L::Error>,
) -> Result<(), L::Error> {
    for index in steps {
        let mut probed = vec![None; learner.objectives()];
        for id in method.probes(index) {
            let loss = learner.loss(id)?;
            method.observe(id, loss);
            probed[id.0] = Some(loss);
        }
        let weights = method.weights(index);
        let mut losses = vec![None; weights.len()];
        for id in (0..weights.len())
            .map(ObjectiveId)
            .filter(|id| weights[id.0] > 0.0)
        {
            let loss = learner.accumulate(id, weights[id.0])?;
            method.observe(id, loss);
            losses[id.0] = Some(loss);
        }
        learner.update()?;
        if on_step(
            &Step {
                index,
                weights,
                losses,
                probed,
            },
            learner,
            method,
        )?
        .is_break()
        {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{Mix, bowls::Bowls};

    #[test]
    fn a_run_can_start_in_the_middle_and_stop_early() {
        let mut toy = Bowls::new(vec![[0.0, 0.0]], 0.1);
        let mut seen = vec![];
        train(
            &mut toy,
            &mut Mix { weights: vec![1.0] },
            5..50,
            |step, _, _| {
                seen.push(step.index);
                Ok(if step.index == 8 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            },
        )
        .unwrap();
        assert_eq!(seen, [5, 6, 7, 8]);
    }

    /// Probes the first of two objectives, trains on the second.
    struct Watcher;
    impl Method for Watcher {
        fn probes(&self, step: usize) -> Vec<ObjectiveId> {
            if step == 1 {
                vec![ObjectiveId(0)]
            } else {
                vec![]
            }
        }
        fn weights(&mut self, _: usize) -> Vec<f64> {
            vec![0.0, 1.0]
        }
    }

    #[test]
    fn only_what_was_asked_for_is_computed_and_a_step_tells_all_of_it() {
        let mut toy = Bowls::new(vec![[-1.0, 0.0], [1.0, 0.0]], 0.1);
        let mut steps = vec![];
        train(&mut toy, &mut Watcher, 0..2, |step, _, _| {
            steps.push(step.clone());
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!((toy.probed, toy.trained), (vec![1, 0], vec![0, 2]));
        assert!(steps[0].probed == [None, None] && steps[1].probed[0].is_some());
        assert!(steps[0].losses[0].is_none() && steps[0].losses[1].is_some());
    }
}

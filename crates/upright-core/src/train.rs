//! The loop. A [`Learner`] has several losses and can take a step on any of them; a [`Method`] chooses which; [`train`]
//! is the loop between the two. Nothing here knows of a tensor, a model or a file: the toys of the theorems are learners
//! too, and run this same loop.

use std::ops::{ControlFlow, Range};

/// Index of an objective in the plan. Names live in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectiveId(pub usize);

/// A model with several losses over one set of parameters, and the gradient of each.
pub trait Learner {
    /// What can go wrong in a pass or an update; [`std::convert::Infallible`] for a toy.
    type Error;

    /// How many objectives there are; ids count from 0.
    fn objectives(&self) -> usize;

    /// Loss of the objective's next batch, without a gradient. A loss that is not finite is an error.
    fn loss(&mut self, id: ObjectiveId) -> Result<f64, Self::Error>;

    /// Adds `weight` times the gradient of the objective's next batch (the one that [`Learner::loss`] probed in this
    /// step, if it did) and returns that batch's unweighted loss.
    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64, Self::Error>;

    /// One optimizer step on what was accumulated. A batch that was probed but not trained on moves to the end of its
    /// epoch.
    fn update(&mut self) -> Result<(), Self::Error>;
}

/// Chooses the objectives of a step and their weights. Losses reach a method already reduced over all machines.
pub trait Method {
    /// Objectives whose losses decide this step: they are probed first.
    fn probes(&self, _step: usize) -> Vec<ObjectiveId> {
        Vec::new()
    }

    /// A loss that was measured: by a probe, or by the gradient of an objective that was chosen.
    fn observe(&mut self, _id: ObjectiveId, _loss: f64) {}

    /// One weight an objective for this step; an objective of weight zero is not computed.
    fn weights(&mut self, step: usize) -> Vec<f64>;

    /// What a checkpoint has to keep of the method, finite numbers only. Draws need none: they depend on the step alone.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Puts back what [`Method::state`] of the same method under the same plan gave.
    fn restore(&mut self, _state: &[f64]) {}
}

/// One update, as those who watch the loop see it. All lists are one entry an objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The step, from 0.
    pub index: usize,
    /// The method's weights.
    pub weights: Vec<f64>,
    /// Losses of the batches that were trained on.
    pub losses: Vec<Option<f64>>,
    /// Losses that were probed to decide.
    pub probed: Vec<Option<f64>>,
}

/// Takes the given steps. After each, `on_step` records, evaluates and saves as it likes, and may stop the loop. A run
/// starts at any step: whoever resumes restores the learner and the method first.
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

    /// The first of two is probed, the second is trained on.
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

//! Sequential (Algorithm 1): one objective after the other. A baseline that forgets.

use super::one_hot;
use crate::train::Method;

/// Trains on the objective of the current stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequential {
    /// Number of objectives.
    pub objectives: usize,
    /// Stages in order, at least one: its objective, and the step at which it ends (exclusive).
    pub stages: Vec<(usize, usize)>,
}

impl Method for Sequential {
    fn weights(&mut self, step: usize) -> Vec<f64> {
        let stage = self
            .stages
            .iter()
            .find(|(_, end)| step < *end)
            .or(self.stages.last());
        one_hot(self.objectives, stage.expect("a plan has a stage").0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_and_an_objective_may_return() {
        let mut method = Sequential {
            objectives: 3,
            stages: vec![(1, 2), (0, 3), (1, 5)],
        };
        let chosen: Vec<_> = (0..6)
            .map(|step| method.weights(step).iter().position(|w| *w == 1.0).unwrap())
            .collect();
        assert_eq!(chosen, [1, 1, 0, 1, 1, 1]);
        assert_eq!(method.weights(0), [0.0, 1.0, 0.0]);
    }
}

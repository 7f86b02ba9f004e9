//! Sequential (Algorithm 1): one objective after the other. A baseline that forgets.

use super::{Form, MethodSpec, one_hot};
use crate::train::Method;

/// One objective after the other (Algorithm 1).
pub static SEQUENTIAL: MethodSpec = MethodSpec {
    has_stages: true,
    ..MethodSpec::new("sequential", &FORMS, |context| {
        Box::new(Sequential {
            objectives: context.weights.len(),
            stages: context.stages,
        })
    })
};

static FORMS: [Form; 1] = [Form {
    name: "sequential",
    label: "sequential",
    title: "Sequential",
    about: "Trains one objective, then the other. This is common practice.",
    decides: "switches once",
    when: None,
    place: 1,
    look: [1, 1],
}];

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

//! A method: the objectives take turns of a few steps each. It ignores the weights, except that an objective with weight 0 has no
//! turn.

use upright_core::{
    Method,
    methods::{Form, MethodSpec, one_hot},
    settings::Setting,
};

/// The method, as the program knows it.
pub(crate) static TURNS: MethodSpec = MethodSpec {
    settings: &[
        Setting::count(LENGTH, "Steps of a turn, with turns", "STEPS", 2).short("length", false),
    ],
    ..MethodSpec::new("turns", &FORMS, |context| {
        let mut order = Vec::new();
        for (objective, weight) in context.weights.iter().enumerate() {
            if *weight > 0.0 {
                order.push(objective);
            }
        }
        Box::new(Turns {
            objectives: context.weights.len(),
            order,
            length: context.settings.count(LENGTH),
        })
    })
};

const LENGTH: &str = "turn-length";

static FORMS: [Form; 1] = [Form::new(
    "turns",
    "Turns",
    "Trains on one objective per step. The objectives take turns of a few steps each.",
    "gives every objective a turn",
)];

/// What the method knows while it trains.
struct Turns {
    objectives: usize,
    order: Vec<usize>,
    length: usize,
}

impl Method for Turns {
    fn weights(&mut self, step: usize) -> Vec<f64> {
        let turn = step / self.length % self.order.len();
        one_hot(self.objectives, self.order[turn])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_take_turns() {
        let mut turns = Turns {
            objectives: 3,
            order: vec![0, 2],
            length: 2,
        };
        let mut chosen = Vec::new();
        for step in 0..6 {
            chosen.push(turns.weights(step).iter().position(|weight| *weight == 1.0));
        }
        assert_eq!(chosen, [0, 0, 2, 2, 0, 0].map(Some));
    }
}

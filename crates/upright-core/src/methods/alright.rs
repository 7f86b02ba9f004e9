//! ALRIGHT (Algorithm 2): draws one objective by its weight, i ~ Bernoulli(lambda) for two
//! objectives, and trains on its plain gradient. In expectation this is the gradient of f_mix, at
//! the cost of one objective.
//!
//! [`Balanced`] pays out the same shares by error diffusion instead. The end of a run then does not
//! hang on the last few draws.

use super::{Form, MethodContext, MethodSpec, one_hot, owed::Owed};
use crate::settings::{Recorded, Setting};
use crate::train::Method;
use upright_math::random::uniform;

/// One objective per step, drawn by its weight (Algorithm 2).
pub static ALRIGHT: MethodSpec = MethodSpec {
    settings: &[Setting::choice(
        DRAWS,
        "How alright pays out the weights: random (draw an objective in every step), balanced (spread the steps of every \
         objective evenly)",
        "DRAWS",
        &["random", BALANCED],
    )
    .recorded(Recorded::Changed)],
    ..MethodSpec::new("alright", &FORMS, build)
};

const DRAWS: &str = "draws";
const BALANCED: &str = "balanced";

static FORMS: [Form; 2] = [
    Form {
        name: "alright",
        label: "alright",
        title: "ALRIGHT",
        about: "Trains on one objective per step, sampled by weight.",
        decides: "samples one objective by weight",
        when: None,
        place: 4,
        look: [0, 0],
    },
    Form {
        name: "balanced",
        label: "alright balanced",
        title: "ALRIGHT balanced",
        about: "As ALRIGHT, with the steps of every objective spread evenly instead of drawn.",
        decides: "",
        when: Some((DRAWS, BALANCED)),
        place: 5,
        look: [0, 0],
    },
];

fn build(context: MethodContext) -> Box<dyn Method> {
    if context.settings.choice(DRAWS) == BALANCED {
        return Box::new(Balanced::new(context.weights, &context.tie_ranks));
    }
    Box::new(Alright {
        weights: context.weights,
        seed: context.seed,
    })
}

/// Draws one objective per step.
#[derive(Clone, Debug, PartialEq)]
pub struct Alright {
    /// Probability of each objective; they sum to 1.
    pub weights: Vec<f64>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Method for Alright {
    fn weights(&mut self, step: usize) -> Vec<f64> {
        let mut left = uniform(self.seed, step as u64);
        let drawn = self.weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        // Weights that sum to slightly less than 1 leave a gap at the end. It belongs to the last
        // objective that can be drawn.
        let last = || self.weights.iter().rposition(|weight| *weight > 0.0);
        one_hot(
            self.weights.len(),
            drawn.or_else(last).expect("a plan has a weight above 0"),
        )
    }
}

/// ALRIGHT without chance: every objective has its share of the steps, spread evenly.
#[derive(Clone, Debug, PartialEq)]
pub struct Balanced {
    weights: Vec<f64>,
    owed: Owed,
}

impl Balanced {
    /// One weight and tie rank per objective; the weights sum to 1, and the smallest rank wins.
    pub fn new(weights: Vec<f64>, tie_ranks: &[usize]) -> Self {
        let owed = Owed::new(&weights, tie_ranks);
        Self { weights, owed }
    }
}

impl Method for Balanced {
    fn weights(&mut self, _step: usize) -> Vec<f64> {
        one_hot(self.weights.len(), self.owed.pay(&self.weights))
    }

    fn state(&self) -> Vec<f64> {
        self.owed.balances().to_vec()
    }

    fn restore(&mut self, state: &[f64]) {
        self.owed.restore(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(weights: &[f64], seed: u64, step: usize) -> usize {
        Alright {
            weights: weights.to_vec(),
            seed,
        }
        .weights(step)
        .iter()
        .position(|w| *w == 1.0)
        .unwrap()
    }

    #[test]
    fn every_objective_is_drawn_by_its_weight() {
        let weights = [0.2, 0.0, 0.5, 0.3];
        for seed in [0, 1, 42, u64::MAX] {
            let mut count = [0usize; 4];
            (0..100_000).for_each(|step| count[draw(&weights, seed, step)] += 1);
            for (n, weight) in count.iter().zip(weights) {
                // Five standard deviations of a binomial.
                let allowed = 5.0 * (weight * (1.0 - weight) * 1e5f64).sqrt();
                assert!(
                    (*n as f64 - weight * 1e5).abs() <= allowed,
                    "seed {seed}: {count:?}"
                );
            }
        }
    }

    #[test]
    fn neighbours_in_step_and_seed_are_independent() {
        for (steps, seeds) in [(1, 0), (0, 1), (2, 0)] {
            let same = (0..100_000usize)
                .filter(|&i| {
                    draw(&[0.5, 0.5], i as u64 / 300, i)
                        == draw(&[0.5, 0.5], i as u64 / 300 + seeds, i + steps)
                })
                .count();
            assert!(same.abs_diff(50_000) < 800, "{same}");
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_step_alone() {
        let mut straight = Alright {
            weights: vec![0.6, 0.4],
            seed: 7,
        };
        let all: Vec<_> = (0..200).map(|step| straight.weights(step)).collect();
        let mut resumed = Alright {
            weights: vec![0.6, 0.4],
            seed: 7,
        };
        for step in [199, 3, 120, 3, 0] {
            assert_eq!(resumed.weights(step), all[step]);
        }
        assert_ne!(
            (0..64).map(|s| draw(&[0.5, 0.5], 7, s)).collect::<Vec<_>>(),
            (0..64).map(|s| draw(&[0.5, 0.5], 8, s)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn lambda_0_and_1_are_one_objective_alone() {
        assert!(
            (0..10_000)
                .all(|step| draw(&[1.0, 0.0], 3, step) == 0 && draw(&[0.0, 1.0], 3, step) == 1)
        );
    }

    #[test]
    fn weights_that_sum_to_less_never_fall_on_an_objective_of_weight_0() {
        assert!((0..1000).all(|step| draw(&[0.0, 1e-9, 0.0], 3, step) == 1));
    }

    /// Lambda 1/4: DPO in the third of every four steps, and the same after a restore.
    #[test]
    fn balanced_draws_are_spread_evenly() {
        let mut straight = Balanced::new(vec![0.75, 0.25], &[1, 0]);
        let mut restored = straight.clone();
        let mut decisions = Vec::new();
        for step in 0..12 {
            restored.restore(&straight.state());
            let weights = straight.weights(step);
            assert_eq!(restored.weights(step), weights);
            decisions.push(weights[1] as usize);
        }
        assert_eq!(decisions, [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0]);
    }
}

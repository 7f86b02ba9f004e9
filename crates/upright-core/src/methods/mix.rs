//! Mix: all objectives in every step, weighted: the gradient of f_mix (6). The baseline that pays
//! for all objectives.

use super::{Cost, Form, MethodSpec};
use crate::settings::{Recorded, Setting, Values};
use crate::train::Method;

/// All objectives in every step, weighted. With half batches, a step on two objectives costs as much as a step on one.
pub static MIX: MethodSpec = MethodSpec {
    settings: &[Setting::choice(
        BATCHES,
        "Batches of mix: full, half (half of the rows of every objective, so that a step on two objectives costs as much as a \
         step of alright)",
        "BATCHES",
        &["full", HALF],
    )
    .recorded(Recorded::Changed)],
    cost: Cost::All,
    batch_divisor,
    ..MethodSpec::new("mix", &FORMS, |context| {
        Box::new(Mix {
            weights: context.weights,
        })
    })
};

/// Name of the setting that halves the batches of Mix.
pub const BATCHES: &str = "mix-batches";
const HALF: &str = "half";

static FORMS: [Form; 2] = [
    Form {
        name: "mix",
        label: "mix",
        title: "Mix",
        about: "Trains on all objectives in every step, weighted. It keeps all of them and pays for all.",
        decides: "trains on all objectives in every step",
        when: None,
        place: 2,
        look: [3, 2],
    },
    Form {
        name: "mix-half",
        label: "mix, half batches",
        title: "Mix with half batches",
        about: "As Mix, with half a batch of every objective per step.",
        decides: "",
        when: Some((BATCHES, HALF)),
        place: 3,
        look: [6, 2],
    },
];

fn batch_divisor(settings: &Values) -> usize {
    if settings.choice(BATCHES) == HALF {
        2
    } else {
        1
    }
}

/// The same weights in every step.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// One weight per objective.
    pub weights: Vec<f64>,
}

impl Method for Mix {
    fn weights(&mut self, _step: usize) -> Vec<f64> {
        self.weights.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_never_change() {
        let mut mix = Mix {
            weights: vec![0.75, 0.25, 0.0],
        };
        assert_eq!(mix.weights(0), mix.weights(17));
        assert_eq!(mix.weights(3), [0.75, 0.25, 0.0]);
        assert!(mix.probes(0).is_empty() && mix.state().is_empty());
    }
}

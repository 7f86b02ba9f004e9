//! Mix: all objectives in every step, weighted: the gradient of f_mix (6). The baseline that pays
//! for all objectives.

use crate::train::Method;

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

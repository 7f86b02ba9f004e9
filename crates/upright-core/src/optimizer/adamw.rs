//! AdamW without its vectors: the settings, the count of updates, and the scalars of the next
//! update. Parameters and moments live with the model.

use upright_math::adamw::AdamWStep;

/// Settings that stay the same during a run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct AdamWConfig {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the denominator, after the bias correction.
    pub eps: f64,
    /// Decoupled weight decay: parameters shrink by learning rate times this value.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// The defaults of the authors' code.
    fn default() -> Self {
        Self {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The optimizer's scalar state, which is part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Settings that stay the same during a run.
    pub config: AdamWConfig,
    /// Updates since the start or the last reset.
    pub updates: u64,
}

impl AdamW {
    /// An optimizer before its first update.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, updates: 0 }
    }

    /// Counts the next update and returns its scalars.
    pub fn next(&mut self, learning_rate: f64) -> AdamWStep {
        self.updates += 1;
        let AdamWConfig {
            betas,
            eps,
            weight_decay,
        } = self.config;
        AdamWStep::new(betas, eps, weight_decay, learning_rate, self.updates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_counted_from_1() {
        let mut adamw = AdamW::new(AdamWConfig::default());
        let first = adamw.next(0.1);
        let second = adamw.next(0.1);
        assert_eq!(adamw.updates, 2);
        assert_eq!(first, AdamWStep::new([0.9, 0.95], 1e-8, 0.0, 0.1, 1));
        assert!(second.step_size < first.step_size);
    }

    #[test]
    fn weight_decay_is_decoupled() {
        let config = AdamWConfig {
            weight_decay: 0.5,
            ..AdamWConfig::default()
        };
        let mut p = [2.0f32];
        let step = AdamW::new(config).next(0.1);
        step.apply(&mut p, &[0.0], &mut [0.0], &mut [0.0]);
        assert_eq!(p, [2.0 * 0.95]);
    }
}

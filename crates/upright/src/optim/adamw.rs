//! AdamW (Loshchilov and Hutter 2019), as `torch.optim.AdamW` computes it on one tensor.

use serde::{Deserialize, Serialize};

/// Numbers that stay the same through a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Added to the denominator, after the bias correction.
    pub eps: f64,
    /// Decoupled: parameters shrink by learning rate times this.
    pub weight_decay: f64,
}

impl Default for Settings {
    /// Those of the authors' code.
    fn default() -> Self {
        Self {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The optimiser with its state, which is part of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Numbers that stay the same.
    pub settings: Settings,
    /// First moment, as long as the parameters.
    pub m: Vec<f32>,
    /// Second moment, as long as the parameters.
    pub v: Vec<f32>,
    /// Updates so far.
    pub updates: u64,
}

impl AdamW {
    /// A fresh state for `len` parameters.
    pub fn new(settings: Settings, len: usize) -> Self {
        Self {
            settings,
            m: vec![0.0; len],
            v: vec![0.0; len],
            updates: 0,
        }
    }

    /// Forgets the state, as at a stage boundary of Sequential.
    pub fn reset(&mut self) {
        *self = Self::new(self.settings, self.m.len());
    }

    /// One update. With t updates counted from 1:
    /// p = p (1 - rate * decay); m = m + (1 - b1)(g - m); v = b2 v + (1 - b2) g^2;
    /// p = p - rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps).
    ///
    /// Scalars are computed in f64 and rounded once, elements in f32, as torch does.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(&mut self, parameters: &mut [f32], gradient: &[f32], learning_rate: f64) {
        assert!(
            parameters.len() == self.m.len() && gradient.len() == self.m.len(),
            "one moment a parameter"
        );
        let Settings {
            betas: [b1, b2],
            eps,
            weight_decay,
        } = self.settings;
        self.updates += 1;
        let exponent = self.updates as f64;
        let step_size = (learning_rate / (1.0 - b1.powf(exponent))) as f32;
        let correction = (1.0 - b2.powf(exponent)).sqrt() as f32;
        let shrink = (1.0 - learning_rate * weight_decay) as f32;
        let (fresh1, keep2, fresh2, eps) =
            ((1.0 - b1) as f32, b2 as f32, (1.0 - b2) as f32, eps as f32);
        let moments = self.m.iter_mut().zip(&mut self.v);
        for ((p, g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *p *= shrink;
            *m += fresh1 * (g - *m);
            *v = keep2 * *v + fresh2 * g * g;
            *p -= step_size * *m / (v.sqrt() / correction + eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Update 1 from zero moments: m = 0.1 g, v = 0.05 g^2, corrections 0.1 and 0.05, so p moves by
    /// rate * g / (|g| + eps): by the rate itself, whatever the gradient's size.
    #[test]
    fn the_first_update_moves_by_the_rate() {
        let mut adam = AdamW::new(Settings::default(), 3);
        let mut p = [1.0f32, -2.0, 0.5];
        adam.update(&mut p, &[0.3, -7.0, 1e-3], 0.01);
        for (after, before) in p.iter().zip([0.99f32, -1.99, 0.49]) {
            assert!((after - before).abs() < 1e-6, "{p:?}");
        }
        assert_eq!(adam.updates, 1);
    }

    /// The published formula in f64, another order of operations: p_t from m_hat and v_hat.
    #[test]
    fn many_updates_agree_with_the_formula() {
        let settings = Settings {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
        };
        let mut adam = AdamW::new(settings, 2);
        let mut p = [0.7f32, -1.3];
        let (mut q, mut m, mut v) = ([0.7f64, -1.3], [0.0f64; 2], [0.0f64; 2]);
        for t in 1..=200 {
            let rate = 0.01 / f64::from(t).sqrt();
            let g = [
                (f64::from(t) * 0.7).sin() as f32,
                (f64::from(p[1]) * 0.5) as f32,
            ];
            adam.update(&mut p, &g, rate);
            for i in 0..2 {
                let gi = f64::from(g[i]);
                m[i] = 0.9 * m[i] + 0.1 * gi;
                v[i] = 0.95 * v[i] + 0.05 * gi * gi;
                let (m_hat, v_hat) = (
                    m[i] / (1.0 - 0.9f64.powi(t)),
                    v[i] / (1.0 - 0.95f64.powi(t)),
                );
                q[i] -= rate * 0.1 * q[i];
                q[i] -= rate * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        assert!(
            (0..2).all(|i| (f64::from(p[i]) - q[i]).abs() < 2e-6),
            "{p:?} {q:?}"
        );
    }

    #[test]
    fn weight_decay_is_decoupled() {
        let mut adam = AdamW::new(
            Settings {
                weight_decay: 0.5,
                ..Settings::default()
            },
            1,
        );
        let mut p = [2.0f32];
        adam.update(&mut p, &[0.0], 0.1);
        assert_eq!(p, [2.0 * 0.95]);
    }

    #[test]
    fn a_reset_state_is_a_fresh_one() {
        let mut adam = AdamW::new(Settings::default(), 1);
        adam.update(&mut [1.0], &[1.0], 0.1);
        adam.reset();
        assert_eq!(adam, AdamW::new(Settings::default(), 1));
    }
}

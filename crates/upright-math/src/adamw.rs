//! AdamW (Loshchilov and Hutter 2019), as `torch.optim.AdamW` computes it on one tensor.

/// The scalars of one update: computed in f64 and rounded to f32 once, as torch does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate divided by the first moment's bias correction.
    pub step_size: f32,
    /// Square root of the second moment's bias correction.
    pub correction: f32,
    /// Factor of the decoupled weight decay, 1 - learning rate * decay.
    pub shrink: f32,
    /// Weight of the gradient in the first moment, 1 - beta1.
    pub fresh1: f32,
    /// Weight of the old second moment, beta2.
    pub keep2: f32,
    /// Weight of the squared gradient in the second moment, 1 - beta2.
    pub fresh2: f32,
    /// Added to the denominator.
    pub eps: f32,
}

impl AdamWStep {
    /// The scalars of update number `update`, counted from 1.
    pub fn new(
        betas: [f64; 2],
        eps: f64,
        weight_decay: f64,
        learning_rate: f64,
        update: u64,
    ) -> Self {
        let [b1, b2] = betas;
        let exponent = update as f64;
        Self {
            step_size: (learning_rate / (1.0 - b1.powf(exponent))) as f32,
            correction: (1.0 - b2.powf(exponent)).sqrt() as f32,
            shrink: (1.0 - learning_rate * weight_decay) as f32,
            fresh1: (1.0 - b1) as f32,
            keep2: b2 as f32,
            fresh2: (1.0 - b2) as f32,
            eps: eps as f32,
        }
    }

    /// All scalars, in the order of their fields.
    pub fn scalars(&self) -> [f32; 7] {
        [
            self.step_size,
            self.correction,
            self.shrink,
            self.fresh1,
            self.keep2,
            self.fresh2,
            self.eps,
        ]
    }

    /// Updates a slice of the parameters and its two moments in place:
    ///
    /// ```text
    /// p = p (1 - lr * decay);  m = m + (1 - b1)(g - m);  v = b2 v + (1 - b2) g^2
    /// p = p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    /// ```
    ///
    /// Each element depends only on its own four values, so a vector may be split anywhere.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn apply(&self, parameters: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
        let len = parameters.len();
        assert!(
            gradient.len() == len && m.len() == len && v.len() == len,
            "one gradient and two moments per parameter"
        );
        let moments = m.iter_mut().zip(v);
        for ((p, g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *p *= self.shrink;
            *m += self.fresh1 * (g - *m);
            *v = self.keep2 * *v + self.fresh2 * g * g;
            *p -= self.step_size * *m / (v.sqrt() / self.correction + self.eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Update 1 from zero moments: m = 0.1 g, v = 0.05 g^2, corrections 0.1 and 0.05, so p moves by
    /// lr * g / (|g| + eps): by the learning rate itself, whatever the magnitude of the gradient.
    #[test]
    fn the_first_update_moves_by_the_rate() {
        let step = AdamWStep::new([0.9, 0.95], 1e-8, 0.0, 0.01, 1);
        let mut p = [1.0f32, -2.0, 0.5];
        step.apply(&mut p, &[0.3, -7.0, 1e-3], &mut [0.0; 3], &mut [0.0; 3]);
        for (after, before) in p.iter().zip([0.99f32, -1.99, 0.49]) {
            assert!((after - before).abs() < 1e-6, "{p:?}");
        }
    }

    /// The published formula in f64, with another order of operations: p_t from m_hat and v_hat.
    #[test]
    fn many_updates_agree_with_the_formula() {
        let [b1, b2] = [0.9, 0.95];
        let (eps, decay, rate) = (1e-8, 0.1, 0.03);
        let mut p = [0.7f32, -1.3];
        let mut m = [0.0f32; 2];
        let mut v = [0.0f32; 2];
        let mut expected = [0.7f64, -1.3];
        let mut expected_m = [0.0f64; 2];
        let mut expected_v = [0.0f64; 2];
        for update in 1..=50 {
            let phase = update as f64;
            let gradient = [phase.sin() as f32, (0.3 * phase).cos() as f32];
            AdamWStep::new([b1, b2], eps, decay, rate, update)
                .apply(&mut p, &gradient, &mut m, &mut v);
            for i in 0..2 {
                let g = f64::from(gradient[i]);
                expected_m[i] = b1 * expected_m[i] + (1.0 - b1) * g;
                expected_v[i] = b2 * expected_v[i] + (1.0 - b2) * g * g;
                let m_hat = expected_m[i] / (1.0 - b1.powf(phase));
                let v_hat = expected_v[i] / (1.0 - b2.powf(phase));
                expected[i] -= rate * decay * expected[i];
                expected[i] -= rate * m_hat / (v_hat.sqrt() + eps);
            }
        }
        for i in 0..2 {
            assert!(
                (f64::from(p[i]) - expected[i]).abs() < 1e-5,
                "{p:?} {expected:?}"
            );
        }
    }
}

//! The learning-rate schedule of a stage, as in transformers' `get_constant_schedule_with_warmup`,
//! `get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup` (half a wave).

/// Shape of the schedule after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Curve {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to 0.
    Linear,
    /// Falls to 0 along half a cosine wave.
    Cosine,
}

impl Curve {
    /// All shapes, in the order of the help texts.
    pub const ALL: &'static [Self] = &[Self::Constant, Self::Linear, Self::Cosine];

    /// Name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        }
    }
}

/// The learning-rate schedule of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// Maximum learning rate.
    pub peak: f64,
    /// Shape of the schedule after the warm-up.
    pub curve: Curve,
    /// Number of warm-up steps, over which the learning rate rises linearly from 0.
    pub warmup: usize,
    /// Number of steps in the stage.
    pub steps: usize,
}

impl LearningRate {
    /// Learning rate of a step; steps count from 0. As in transformers, the first step of a warm-up
    /// has learning rate 0, and step `warmup` has the peak. A falling schedule reaches 0 at
    /// `steps`, one past the last step, so the last step still trains.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let length = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let done = (step - self.warmup) as f64 / length;
        match self.curve {
            Curve::Constant => self.peak,
            Curve::Linear => self.peak * (1.0 - done).max(0.0),
            Curve::Cosine => {
                self.peak * (0.5 * (1.0 + (std::f64::consts::PI * done).cos())).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates<const N: usize>(
        curve: Curve,
        warmup: usize,
        steps: usize,
        at: [usize; N],
    ) -> [f64; N] {
        at.map(|step| {
            LearningRate {
                peak: 2.0,
                curve,
                warmup,
                steps,
            }
            .at(step)
        })
    }

    #[test]
    fn warm_up_rises_from_0_to_the_peak() {
        assert_eq!(
            rates(Curve::Constant, 4, 10, [0, 1, 2, 3, 4, 9]),
            [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
        );
        assert_eq!(rates(Curve::Constant, 0, 10, [0, 9]), [2.0, 2.0]);
    }

    /// transformers: max(0, (steps - step) / (steps - warmup)).
    #[test]
    fn linear_falls_to_0() {
        assert_eq!(
            rates(Curve::Linear, 2, 10, [0, 1, 2, 4, 6, 8, 10, 12]),
            [0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0]
        );
        assert_eq!(rates(Curve::Linear, 0, 4, [0, 1, 3]), [2.0, 1.5, 0.5]);
    }

    /// transformers: 0.5 * (1 + cos(pi * (step - warmup) / (steps - warmup))); at thirds 1, 3/4, 1/4.
    #[test]
    fn cosine_falls_to_0() {
        let expected = [2.0, 1.5, 0.5, 0.0];
        let found = rates(Curve::Cosine, 1, 4, [1, 2, 3, 4]);
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-15),
            "{found:?}"
        );
    }

    #[test]
    fn a_warm_up_as_long_as_the_stage_or_longer_is_a_rise_alone() {
        assert_eq!(rates(Curve::Cosine, 8, 4, [0, 3, 8]), [0.0, 0.75, 2.0]);
        assert_eq!(rates(Curve::Linear, 4, 4, [3, 4]), [1.5, 2.0]);
    }
}

//! The learning rate over the steps of a stage, as transformers' `get_constant_schedule_with_warmup`,
//! `get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup` (half a wave) give it.

/// What happens after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Curve {
    /// The peak to the end.
    Constant,
    /// A straight line down to 0.
    Linear,
    /// Half a cosine wave down to 0.
    Cosine,
}

impl Curve {
    /// All of them, in the order of help texts.
    pub const ALL: &'static [Self] = &[Self::Constant, Self::Linear, Self::Cosine];

    /// Its name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        }
    }
}

/// The rate of every step of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// The largest rate.
    pub peak: f64,
    /// What happens after the warm-up.
    pub curve: Curve,
    /// Steps over which the rate rises from 0 in a straight line.
    pub warmup: usize,
    /// Steps of the stage.
    pub steps: usize,
}

impl LearningRate {
    /// The rate of a step, from 0. As in transformers the first step of a warm-up has rate 0 and step `warmup` the peak;
    /// a stage's end, `steps`, would have 0, so its last step still moves.
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

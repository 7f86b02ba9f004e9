//! The polynomial-decay average of the iterates (Shamir and Zhang, "Stochastic Gradient Descent for
//! Non-smooth Optimization", 2013). With eta = 3, iterate t has a weight proportional to
//! t (t + 1) (t + 2), so that early iterates fade. The average needs no horizon.

/// Whether a run keeps an average of its iterates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Average {
    /// No average.
    #[default]
    None,
    /// The polynomial-decay average.
    Polynomial,
}

/// An iterate of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Iterate {
    /// The parameters after the last update.
    #[default]
    Last,
    /// The average of the iterates.
    Average,
}

impl Average {
    /// All values, in the order of the help texts.
    pub const ALL: &'static [Self] = &[Self::None, Self::Polynomial];

    /// Name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Polynomial => "polynomial",
        }
    }

    /// Whether there is no average.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Iterate {
    /// All values, in the order of the help texts.
    pub const ALL: &'static [Self] = &[Self::Last, Self::Average];

    /// Name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Average => "average",
        }
    }

    /// Whether it is the last iterate.
    pub fn is_last(&self) -> bool {
        *self == Self::Last
    }
}

/// The exponent of the decay.
const ETA: f64 = 3.0;

/// Weight c of the newest iterate p in the average x: `x += c (p - x)`. `updates` counts from 1,
/// and the first iterate has weight 1.
pub fn newest_weight(updates: u64) -> f32 {
    ((ETA + 1.0) / (updates as f64 + ETA)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recursion equals the explicit sum with weights t (t + 1) (t + 2).
    #[test]
    fn later_iterates_weigh_more_by_a_cubic_polynomial() {
        let (mut average, mut explicit, mut sum) = (0.0, 0.0, 0.0);
        for t in 1..=200u64 {
            let iterate = (t as f64).sqrt();
            average += f64::from(newest_weight(t)) * (iterate - average);
            let weight = (t * (t + 1) * (t + 2)) as f64;
            explicit += weight * iterate;
            sum += weight;
        }
        assert!((average - explicit / sum).abs() < 1e-5, "{average}");
    }

    #[test]
    fn the_first_iterate_is_the_first_average() {
        assert_eq!(newest_weight(1), 1.0);
        assert_eq!(newest_weight(2), 0.8);
    }
}

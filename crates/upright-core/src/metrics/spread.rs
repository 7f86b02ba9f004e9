//! A mean with its standard error, and whether it is below a limit.

/// Mean over runs, and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard error: the standard deviation (n - 1) divided by the square root of n. A single
    /// value has none.
    pub error: Option<f64>,
}

impl Spread {
    /// Mean and standard error of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            error: (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt()),
        }
    }

    /// The mean of independent means, at least one. If one of them has no error, the result has
    /// none.
    pub fn mean_of(all: &[Self]) -> Self {
        let n = all.len() as f64;
        let squares: Option<f64> = all
            .iter()
            .map(|spread| Some(spread.error? * spread.error?))
            .sum();
        let mean = all.iter().map(|spread| spread.mean).sum::<f64>() / n;
        Self {
            mean,
            error: squares.map(|squares| squares.sqrt() / n),
        }
    }

    /// Converts to another unit: multiplies mean and error by `factor`.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self {
            mean: factor * self.mean,
            error: self.error.map(|error| factor.abs() * error),
        }
    }

    /// How far the error reaches to either side; 0 without an error.
    pub fn reach(&self) -> f64 {
        self.error.unwrap_or(0.0)
    }

    /// Whether the mean is below a limit. Within [`CLEAR`] standard errors of the limit it is too
    /// close to call. Without an error, the mean alone decides, and the caller has to say so.
    pub fn is_below(&self, limit: f64) -> Call {
        let room = limit - self.mean;
        if room.abs() <= CLEAR * self.reach() {
            Call::TooCloseToCall
        } else if room > 0.0 {
            Call::Yes
        } else {
            Call::No
        }
    }
}

/// Number of standard errors by which a difference must exceed 0 to be called.
pub const CLEAR: f64 = 2.0;

/// The answer to a question about numbers that have errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "kebab-case")
)]
pub enum Call {
    /// Clearly yes.
    Yes,
    /// Clearly no.
    No,
    /// The difference is within its error.
    TooCloseToCall,
}

impl Call {
    /// The answer to several questions at once: no if one of them is no, yes if all are yes. `None` without questions.
    pub fn all(calls: &[Self]) -> Option<Self> {
        if calls.is_empty() {
            None
        } else if calls.contains(&Self::No) {
            Some(Self::No)
        } else if calls.contains(&Self::TooCloseToCall) {
            Some(Self::TooCloseToCall)
        } else {
            Some(Self::Yes)
        }
    }

    /// The answer in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::TooCloseToCall => "too close to call",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_the_mean() {
        // Deviations -1, 0, 1: variance 1, over 3 values.
        let spread = Spread::of(&[1.0, 2.0, 3.0]);
        assert!(
            (spread.mean - 2.0).abs() < 1e-15
                && (spread.reach() - (1f64 / 3.0).sqrt()).abs() < 1e-15
        );
        // Equal values have an error of 0; a single value has none.
        assert_eq!(
            (Spread::of(&[4.0, 4.0]).error, Spread::of(&[4.0]).error),
            (Some(0.0), None)
        );
        // Errors 0.3 and 0.4: half of 0.5.
        let spread = |mean, error| Spread { mean, error };
        assert_eq!(
            Spread::mean_of(&[spread(1.0, Some(0.3)), spread(2.0, Some(0.4))]),
            spread(1.5, Some(0.25))
        );
        assert_eq!(
            Spread::mean_of(&[spread(1.0, Some(0.3)), spread(2.0, None)]),
            spread(1.5, None)
        );
        assert_eq!(
            spread(0.5, Some(0.25)).times(-100.0),
            spread(-50.0, Some(25.0))
        );
    }

    #[test]
    fn a_mean_within_two_errors_of_a_limit_is_too_close_to_call() {
        let below = |mean, error| {
            Spread {
                mean,
                error: Some(error),
            }
            .is_below(1.0)
        };
        assert_eq!(below(0.5, 0.125), Call::Yes);
        assert_eq!(below(1.5, 0.125), Call::No);
        // Exactly two errors away, on either side, is not clear. Earlier versions needed only one
        // error.
        assert_eq!(
            [below(0.5, 0.25), below(1.5, 0.25), below(0.5, 0.3)],
            [Call::TooCloseToCall; 3]
        );
        // No error at all, known or not: only equal numbers are too close.
        let bare = |mean| Spread { mean, error: None }.is_below(1.0);
        assert_eq!(
            [bare(0.999), bare(1.0), bare(1.001)],
            [Call::Yes, Call::TooCloseToCall, Call::No]
        );
        assert_eq!(
            [below(0.999, 0.0), below(1.0, 0.0)],
            [Call::Yes, Call::TooCloseToCall]
        );
    }

    #[test]
    fn several_questions_fail_by_one_and_hold_by_all() {
        use Call::{No, TooCloseToCall, Yes};
        assert_eq!(Call::all(&[Yes, Yes]), Some(Yes));
        assert_eq!(Call::all(&[Yes, TooCloseToCall]), Some(TooCloseToCall));
        assert_eq!(Call::all(&[TooCloseToCall, No, Yes]), Some(No));
        assert_eq!(Call::all(&[]), None);
    }
}

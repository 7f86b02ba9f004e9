//! A mean with its standard error.

use serde::Serialize;

/// Mean of some runs, and the standard error of that mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (n - 1) over the root of n; a single value has none.
    pub error: Option<f64>,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, error: (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt()) }
    }

    /// The mean of independent means, at least one. Where one of them has no error it has none either.
    pub fn mean_of(all: &[Self]) -> Self {
        let n = all.len() as f64;
        let squares: Option<f64> = all.iter().map(|spread| Some(spread.error? * spread.error?)).sum();
        let mean = all.iter().map(|spread| spread.mean).sum::<f64>() / n;
        Self { mean, error: squares.map(|squares| squares.sqrt() / n) }
    }

    /// The same in another unit.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self { mean: factor * self.mean, error: self.error.map(|error| factor.abs() * error) }
    }

    /// How far the error reaches to either side: nowhere where there is none.
    pub fn reach(&self) -> f64 {
        self.error.unwrap_or(0.0)
    }

    /// Whether this mean lies below another by more than the standard error of their difference, as far as that is known:
    /// of two single values the smaller one does, which whoever asks has to say.
    pub fn clearly_below(&self, other: &Self) -> bool {
        other.mean - self.mean > self.reach().hypot(other.reach())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_the_mean() {
        // Deviations -1, 0, 1: variance 1, over 3 values.
        let spread = Spread::of(&[1.0, 2.0, 3.0]);
        assert!((spread.mean - 2.0).abs() < 1e-15 && (spread.reach() - (1f64 / 3.0).sqrt()).abs() < 1e-15);
        // Equal values have an error, of 0; a single one has none.
        assert_eq!((Spread::of(&[4.0, 4.0]).error, Spread::of(&[4.0]).error), (Some(0.0), None));
        assert!(Spread::of(&[1.0, 1.1]).clearly_below(&Spread::of(&[2.0, 2.1])));
        assert!(!Spread::of(&[1.0, 3.0]).clearly_below(&Spread::of(&[2.0, 4.0])));
        // Errors 0.3 and 0.4: half of 0.5.
        let spread = |mean, error| Spread { mean, error };
        assert_eq!(Spread::mean_of(&[spread(1.0, Some(0.3)), spread(2.0, Some(0.4))]), spread(1.5, Some(0.25)));
        assert_eq!(Spread::mean_of(&[spread(1.0, Some(0.3)), spread(2.0, None)]), spread(1.5, None));
        assert_eq!(spread(0.5, Some(0.25)).times(-100.0), spread(-50.0, Some(25.0)));
    }
}

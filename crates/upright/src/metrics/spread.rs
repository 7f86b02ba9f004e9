//! A mean with its standard error.

use serde::Serialize;

/// Mean of some runs, and the standard error of that mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (n - 1) over the root of n; 0 for a single value.
    pub error: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = if values.len() > 1 { (squares / (n - 1.0) / n).sqrt() } else { 0.0 };
        Self { mean, error }
    }

    /// The mean of independent means, at least one.
    pub fn mean_of(all: &[Self]) -> Self {
        let n = all.len() as f64;
        let squares: f64 = all.iter().map(|spread| spread.error * spread.error).sum();
        Self { mean: all.iter().map(|spread| spread.mean).sum::<f64>() / n, error: squares.sqrt() / n }
    }

    /// Whether this mean lies below another by more than the standard error of their difference.
    pub fn clearly_below(&self, other: &Self) -> bool {
        other.mean - self.mean > self.error.hypot(other.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_the_mean() {
        // Deviations -1, 0, 1: variance 1, over 3 values.
        let spread = Spread::of(&[1.0, 2.0, 3.0]);
        assert!((spread.mean - 2.0).abs() < 1e-15 && (spread.error - (1f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(Spread::of(&[4.0]).error, 0.0);
        assert!(Spread::of(&[1.0, 1.1]).clearly_below(&Spread::of(&[2.0, 2.1])));
        assert!(!Spread::of(&[1.0, 3.0]).clearly_below(&Spread::of(&[2.0, 4.0])));
        // Errors 0.3 and 0.4: half of 0.5.
        let both = [Spread { mean: 1.0, error: 0.3 }, Spread { mean: 2.0, error: 0.4 }];
        assert_eq!(Spread::mean_of(&both), Spread { mean: 1.5, error: 0.25 });
    }
}

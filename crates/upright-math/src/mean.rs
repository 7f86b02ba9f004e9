//! Means with standard errors.

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean; not a number without values.
    pub mean: f64,
    /// Its standard error; `None` for fewer than two values.
    pub error: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl Mean {
    /// The mean of some values. The standard error is the sample's standard deviation, with n - 1,
    /// over the root of the number of values.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let mut error = None;
        if count > 1 {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let deviation = (squares / (count - 1) as f64).sqrt();
            error = Some(deviation / (count as f64).sqrt());
        }
        Self { mean, error, count }
    }

    /// The same in other units.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            mean: self.mean * factor,
            error: self.error.map(|error| error * factor),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-15, "{found}, {wanted}");
    }

    #[test]
    fn the_error_of_a_mean_is_that_of_the_sample() {
        // Mean 0.75; squares 3 (0.25)^2 + (0.75)^2 = 0.75; deviation sqrt(0.75 / 3) = 0.5; over 2.
        let mean = Mean::of(&[1.0, 1.0, 0.0, 1.0]);
        close(mean.mean, 0.75);
        close(mean.error.unwrap(), 0.25);
        assert_eq!(Mean::of(&[1.0]).error, None);
        close(mean.times(100.0).error.unwrap(), 25.0);
    }
}

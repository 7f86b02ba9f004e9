//! Means with standard errors, computed as in lm-eval's `api/metrics.py`.

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its standard error; `None` for fewer than two values.
    pub error: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl Mean {
    /// The mean of at least one value, as `mean` and `mean_stderr`: the sample's standard deviation
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

    /// The mean over all values of several parts, at least one, as `aggregate_subtask_metrics` and
    /// `pooled_sample_stderr`. With K parts of n_i values, N in total, and errors s_i, the error is
    /// sqrt(sum (n_i - 1) s_i^2 n_i / (N - K) / N). `None` if a part has no error.
    pub fn pooled(parts: &[Self]) -> Self {
        let count: usize = parts.iter().map(|part| part.count).sum();
        let mut weighted = 0.0;
        let mut variance = Some(0.0);
        for part in parts {
            weighted += part.mean * part.count as f64;
            variance = variance.zip(part.error).map(|(sum, error)| {
                sum + (part.count - 1) as f64 * error.powi(2) * part.count as f64
            });
        }
        let variance = variance.map(|sum| sum / (count - parts.len()) as f64);
        Self {
            mean: weighted / count as f64,
            error: variance.map(|variance| (variance / count as f64).sqrt()),
            count,
        }
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

    #[test]
    fn parts_are_pooled_by_their_size() {
        let parts = [
            Mean::of(&[1.0, 1.0, 0.0, 1.0]),
            Mean::of(&[0.0, 1.0]),
            Mean::of(&[0.0, 0.0, 1.0]),
        ];
        // lm_eval.api.metrics.pooled_sample_stderr([0.25, 0.5, 1/3], [4, 2, 3]) with Python 3.11.
        let pooled = Mean::pooled(&parts);
        close(pooled.mean, 5.0 / 9.0);
        close(pooled.error.unwrap(), POOLED);
        assert_eq!(pooled.count, 9);
        let single = [parts[0], Mean::of(&[1.0])];
        assert_eq!(Mean::pooled(&single).error, None);
    }

    /// sqrt((3/16 * 4 + 1/4 * 2 + 2/9 * 3) / (9 - 3) / 9)
    const POOLED: f64 = 0.188_398_055_086_813;
}

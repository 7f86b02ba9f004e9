//! Means over subjects, computed as in lm-eval's `api/metrics.py`.

use upright_math::mean::Mean;

/// The mean over all values of several parts, at least one, as `aggregate_subtask_metrics` and
/// `pooled_sample_stderr`. With K parts of n_i values, N in total, and errors s_i, the error is
/// sqrt(sum (n_i - 1) s_i^2 n_i / (N - K) / N). `None` if a part has no error.
pub fn pooled(parts: &[Mean]) -> Mean {
    let count: usize = parts.iter().map(|part| part.count).sum();
    let mut weighted = 0.0;
    let mut variance = Some(0.0);
    for part in parts {
        weighted += part.mean * part.count as f64;
        variance = variance
            .zip(part.error)
            .map(|(sum, error)| sum + (part.count - 1) as f64 * error.powi(2) * part.count as f64);
    }
    let variance = variance.map(|sum| sum / (count - parts.len()) as f64);
    Mean {
        mean: weighted / count as f64,
        error: variance.map(|variance| (variance / count as f64).sqrt()),
        count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-15, "{found}, {wanted}");
    }

    #[test]
    fn parts_are_pooled_by_their_size() {
        let parts = [
            Mean::of(&[1.0, 1.0, 0.0, 1.0]),
            Mean::of(&[0.0, 1.0]),
            Mean::of(&[0.0, 0.0, 1.0]),
        ];
        // lm_eval.api.metrics.pooled_sample_stderr([0.25, 0.5, 1/3], [4, 2, 3]) with Python 3.11.
        let whole = pooled(&parts);
        close(whole.mean, 5.0 / 9.0);
        close(whole.error.unwrap(), POOLED);
        assert_eq!(whole.count, 9);
        let single = [parts[0], Mean::of(&[1.0])];
        assert_eq!(pooled(&single).error, None);
    }

    /// sqrt((3/16 * 4 + 1/4 * 2 + 2/9 * 3) / (9 - 3) / 9)
    const POOLED: f64 = 0.188_398_055_086_813;
}

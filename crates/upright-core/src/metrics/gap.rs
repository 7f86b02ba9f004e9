//! Optimality gap and distance to the ideal point (Section 6.1 of the paper).

/// f_i(theta) - f*_i. Negative if the given optimum was not the minimum. Not clamped, so that this
/// is visible.
pub fn gap(loss: f64, optimum: f64) -> f64 {
    loss - optimum
}

/// Distance to the ideal point, where every objective is at its optimum: the Euclidean norm of the
/// gaps.
pub fn ideal_distance(gaps: &[f64]) -> f64 {
    gaps.iter().map(|gap| gap * gap).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_the_norm_of_the_gaps() {
        assert_eq!(ideal_distance(&[gap(1.5, -1.5), gap(4.0, 0.0)]), 5.0);
        assert_eq!(ideal_distance(&[]), 0.0);
    }

    /// The authors' front at lambda 1/2: SFT 1.5889 and DPO 0.3331 with optima 1.4980 and 0.0647: gaps 0.0909 and 0.2684,
    /// distance sqrt(0.00826 + 0.07204) = 0.28337.
    #[test]
    fn the_authors_front() {
        let distance = ideal_distance(&[gap(1.5889, 1.498), gap(0.3331, 0.0647)]);
        assert!((distance - 0.283_375).abs() < 1e-6, "{distance}");
    }

    #[test]
    fn gaps_below_zero_count_as_distance_too() {
        assert_eq!(gap(1.0, 1.5), -0.5);
        assert_eq!(ideal_distance(&[-3.0, 4.0]), 5.0);
    }
}

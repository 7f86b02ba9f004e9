//! Optimality gap and ideal distance (Section 6.1 of the paper).

/// f_i(theta) - f*_i. Below 0 where the optimum was not the best there is; never cut off, so that this shows.
pub fn gap(loss: f64, optimum: f64) -> f64 {
    loss - optimum
}

/// The gap of every objective whose optimum is known.
pub fn gaps(losses: &[f64], optima: &[Option<f64>]) -> Vec<Option<f64>> {
    losses.iter().zip(optima).map(|(loss, optimum)| optimum.map(|optimum| gap(*loss, optimum))).collect()
}

/// Distance from the ideal point, at which every objective has its optimum: the Euclidean norm of the gaps. None unless
/// every gap is known.
pub fn ideal_distance(gaps: &[Option<f64>]) -> Option<f64> {
    gaps.iter().map(|gap| gap.map(|gap| gap * gap)).sum::<Option<f64>>().map(f64::sqrt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_the_norm_of_the_gaps() {
        let known = gaps(&[1.5, 4.0], &[Some(-1.5), Some(0.0)]);
        assert_eq!(known, [Some(3.0), Some(4.0)]);
        assert_eq!(ideal_distance(&known), Some(5.0));
    }

    /// The authors' front at lambda 1/2: SFT 1.5889 and DPO 0.3331 with optima 1.4980 and 0.0647: gaps 0.0909 and 0.2684,
    /// distance sqrt(0.00826 + 0.07204) = 0.28337.
    #[test]
    fn the_authors_front() {
        let distance = ideal_distance(&gaps(&[1.5889, 0.3331], &[Some(1.498), Some(0.0647)])).unwrap();
        assert!((distance - 0.283_375).abs() < 1e-6, "{distance}");
    }

    #[test]
    fn gaps_below_zero_count_as_distance_too() {
        assert_eq!(gap(1.0, 1.5), -0.5);
        assert_eq!(ideal_distance(&[Some(-3.0), Some(4.0)]), Some(5.0));
    }

    #[test]
    fn one_unknown_optimum_leaves_the_distance_unknown() {
        let partly = gaps(&[1.0, 2.0], &[None, Some(0.5)]);
        assert_eq!(partly, [None, Some(1.5)]);
        assert_eq!(ideal_distance(&partly), None);
        assert_eq!(ideal_distance(&[]), Some(0.0));
    }
}

//! When a joint method has come as far as it can (Sections D.2 and D.3 of the paper).

/// Whether the losses have reached any of the points: f_i <= p_i + `within` for every objective.
/// The points of a reference front are the end points of ALRIGHT runs; the ideal point may be one
/// of them.
///
/// The authors' code stops when *any* objective has reached its own optimum. A run that forgets the
/// other objectives does that too.
pub fn reached(losses: &[f64], points: &[Vec<f64>], within: f64) -> bool {
    points.iter().any(|point| {
        losses
            .iter()
            .zip(point)
            .all(|(loss, target)| *loss <= target + within)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_reached_by_all_objectives_at_once() {
        let front = [vec![1.6, 0.2], vec![1.5, 0.6]];
        assert!(reached(&[1.6, 0.2], &front, 0.0) && reached(&[1.4, 0.6], &front, 0.0));
        // Each is as good as one of the points, but for one objective only.
        assert!(!reached(&[1.5, 0.7], &front, 0.0) && !reached(&[2.0, 0.01], &front, 0.0));
        assert!(reached(&[1.605, 0.205], &front, 0.01) && !reached(&[1.62, 0.2], &front, 0.01));
    }

    #[test]
    fn what_is_not_asked_for_may_be_anything() {
        assert!(reached(&[1.0, 9.0], &[vec![1.0, f64::INFINITY]], 0.0));
        assert!(!reached(&[1.0], &[], 1.0));
    }
}

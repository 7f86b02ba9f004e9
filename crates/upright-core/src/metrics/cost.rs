//! How much more one method costs than another (Appendix D.4 of the paper).

use super::Spread;

/// A / B of two independent means. The error is of first order; there is no error if A or B has
/// none. `None` if B is not above 0.
pub fn quotient(a: &Spread, b: &Spread) -> Option<Spread> {
    if !(b.mean > 0.0 && a.mean.is_finite()) {
        return None;
    }
    let ratio = a.mean / b.mean;
    let error = a
        .error
        .zip(b.error)
        .map(|(own, other)| (own / b.mean).hypot(ratio * other / b.mean));
    Some(Spread { mean: ratio, error })
}

/// (A - B) / B in percent: the increase in runtime (57) if A and B are seconds, in utilization (58)
/// if they are medians of utilization over the run. The error is that of [`quotient`]. `None` if B
/// is not above 0.
pub fn increase_percent(a: &Spread, b: &Spread) -> Option<Spread> {
    let Spread { mean, error } = quotient(a, b)?;
    Some(
        Spread {
            mean: mean - 1.0,
            error,
        }
        .times(100.0),
    )
}

/// The median: the middle value, or the mean of the two middle values of an even number. `None`
/// without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spread(mean: f64, error: f64) -> Spread {
        Spread {
            mean,
            error: Some(error),
        }
    }

    /// 12 s against 8 s is 50% more. With errors 0.4 and 0.2: 0.4 / 8 = 0.05, 1.5 * 0.2 / 8 = 0.0375, together 0.0625.
    #[test]
    fn an_increase_is_a_share_of_the_baseline() {
        let found = increase_percent(&spread(12.0, 0.4), &spread(8.0, 0.2)).unwrap();
        assert!(
            (found.mean - 50.0).abs() < 1e-12 && (found.reach() - 6.25).abs() < 1e-12,
            "{found:?}"
        );
        assert_eq!(
            increase_percent(&spread(6.0, 0.0), &spread(8.0, 0.0)),
            Some(spread(-25.0, 0.0))
        );
        assert_eq!(increase_percent(&spread(1.0, 0.0), &spread(0.0, 0.0)), None);
        // A single run has no error.
        let single = Spread::of(&[12.0]);
        assert_eq!(
            increase_percent(&single, &spread(8.0, 0.2)),
            Some(Spread {
                mean: 50.0,
                error: None
            })
        );
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}

//! The Pareto front of a set of end points, and how evenly points lie along it. Every objective is
//! a loss: smaller is better.

/// Whether `a` is nowhere worse than `b` and somewhere better.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b) && a.iter().zip(b).any(|(a, b)| a < b)
}

/// Indices of the points that no other point dominates, in the order given. Equal points are all on the front.
pub fn pareto_front(points: &[Vec<f64>]) -> Vec<usize> {
    (0..points.len())
        .filter(|i| !points.iter().any(|other| dominates(other, &points[*i])))
        .collect()
}

/// Deb's Delta for two objectives (Deb et al. 2002, NSGA-II): how unevenly the non-dominated points
/// lie between two extremes.
///
/// Order the front by the first loss. Let d_i be the distances between neighbors, d their mean, and
/// d_f and d_l the distances of the first and the last point from their extremes. The extremes here
/// are where training each objective alone ends. Delta = (d_f + d_l + sum |d_i - d|) / (d_f + d_l +
/// (n - 1) d). It is 0 if the points reach both extremes at even distances, and about 1 if they
/// coincide. `None` without points.
pub fn spread_along(points: &[[f64; 2]], extremes: [[f64; 2]; 2]) -> Option<f64> {
    let all: Vec<Vec<f64>> = points.iter().map(|point| point.to_vec()).collect();
    let mut front: Vec<[f64; 2]> = pareto_front(&all).into_iter().map(|i| points[i]).collect();
    front.sort_by(|a, b| a[0].total_cmp(&b[0]).then(b[1].total_cmp(&a[1])));
    let [mut low, mut high] = extremes;
    if low[0] > high[0] {
        (low, high) = (high, low);
    }
    let distance = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let ends = distance(*front.first()?, low) + distance(*front.last()?, high);
    let gaps: Vec<f64> = front
        .windows(2)
        .map(|pair| distance(pair[0], pair[1]))
        .collect();
    let sum: f64 = gaps.iter().sum();
    let mean = sum / gaps.len().max(1) as f64;
    let uneven: f64 = gaps.iter().map(|gap| (gap - mean).abs()).sum();
    // If all points and both extremes coincide, they are as even as possible.
    Some(if ends + sum > 0.0 {
        (ends + uneven) / (ends + sum)
    } else {
        0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_beats() {
        let points = [
            [1.0, 4.0],
            [2.0, 2.0],
            [3.0, 3.0],
            [4.0, 1.0],
            [2.0, 2.0],
            [4.0, 2.0],
        ]
        .map(|p| p.to_vec());
        assert_eq!(pareto_front(&points), [0, 1, 3, 4]);
        // With three objectives, a point is dominated only by a point that is nowhere worse.
        let points = [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [3.0, 2.0, 3.0]].map(|p| p.to_vec());
        assert_eq!(pareto_front(&points), [0, 1]);
        assert!(pareto_front(&[]).is_empty());
        assert!(!dominates(&[1.0, 1.0], &[1.0, 1.0]));
    }

    /// On the line from (0, 4) to (4, 0) a step of 1 along x is sqrt(2) long. Points at 1, 2 and 3: ends 1 + 1, even, so
    /// Delta = 2 / (2 + 2). At 0, 1 and 4: distances 1 and 3, mean 2, so (0 + 1 + 1) / (0 + 4) = 1/2. All in one place:
    /// only the ends count.
    #[test]
    fn even_points_that_reach_the_extremes_have_a_delta_of_0() {
        let on_line = |xs: &[f64]| xs.iter().map(|x| [*x, 4.0 - x]).collect::<Vec<_>>();
        let delta = |xs: &[f64]| spread_along(&on_line(xs), [[4.0, 0.0], [0.0, 4.0]]).unwrap();
        let near = |xs: &[f64], value: f64| {
            assert!((delta(xs) - value).abs() < 1e-12, "{xs:?}: {}", delta(xs));
        };
        near(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.0);
        near(&[3.0, 1.0, 2.0], 0.5);
        near(&[0.0, 1.0, 4.0], 0.5);
        near(&[3.5, 3.5, 3.5], 1.0);
        near(&[3.5], 1.0);
        // A dominated point is ignored.
        let with = [[0.0, 4.0], [3.0, 3.9], [2.0, 2.0], [4.0, 0.0]];
        assert!(spread_along(&with, [[0.0, 4.0], [4.0, 0.0]]).unwrap() < 1e-12);
        assert_eq!(spread_along(&[], [[0.0, 4.0], [4.0, 0.0]]), None);
    }
}

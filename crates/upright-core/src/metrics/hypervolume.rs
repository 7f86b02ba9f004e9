//! Hypervolume: the volume between a set of points and a reference point that the points dominate.
//! Larger is better.

use super::front::pareto_front;

/// Exact volume of the union of the boxes between each point and the reference point, for any
/// number of objectives. A point that is not better than the reference in every objective adds
/// nothing.
///
/// Slices along the last objective (Zitzler 2001). Between two neighboring values of it, the
/// cross-section is the hypervolume of the points below in the remaining objectives.
pub fn hypervolume(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    let inside = |point: &&Vec<f64>| point.iter().zip(reference).all(|(x, end)| x < end);
    let points: Vec<Vec<f64>> = points.iter().filter(inside).cloned().collect();
    let Some((end, below)) = reference.split_last() else {
        return 0.0;
    };
    let mut front: Vec<&Vec<f64>> = pareto_front(&points)
        .into_iter()
        .map(|i| &points[i])
        .collect();
    if below.is_empty() {
        return front.first().map_or(0.0, |point| end - point[0]);
    }
    let depth = below.len();
    front.sort_by(|a, b| a[depth].total_cmp(&b[depth]));
    let mut volume = 0.0;
    for (i, point) in front.iter().enumerate() {
        let next = front.get(i + 1).map_or(*end, |next| next[depth]);
        if next > point[depth] {
            let section: Vec<Vec<f64>> = front[..=i]
                .iter()
                .map(|point| point[..depth].to_vec())
                .collect();
            volume += (next - point[depth]) * hypervolume(&section, below);
        }
    }
    volume
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume<const N: usize>(points: &[[f64; N]], reference: [f64; N]) -> f64 {
        hypervolume(
            &points
                .iter()
                .map(|point| point.to_vec())
                .collect::<Vec<_>>(),
            &reference,
        )
    }

    /// Against (4, 4): boxes 3 x 1, 2 x 2 and 1 x 3 overlap in a staircase of 3 + 2 + 1 squares.
    #[test]
    fn a_staircase_is_the_sum_of_its_squares() {
        assert_eq!(
            volume(&[[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]], [4.0, 4.0]),
            6.0
        );
        // Dominated, equal and outside points add nothing.
        assert_eq!(
            volume(
                &[
                    [1.0, 3.0],
                    [2.0, 2.0],
                    [2.0, 2.0],
                    [3.0, 1.0],
                    [3.0, 3.0],
                    [0.0, 4.0]
                ],
                [4.0, 4.0]
            ),
            6.0
        );
        assert_eq!(volume::<2>(&[], [4.0, 4.0]), 0.0);
        assert_eq!(volume(&[[1.5], [3.0]], [4.0]), 2.5);
    }

    /// Against (2, 2, 2): the cube from (1, 1, 0) is 1 x 1 x 2 = 2, the cube from (0, 0, 1) is 2 x
    /// 2 x 1 = 4; they share 1 x 1 x 1.
    #[test]
    fn boxes_of_three_objectives_are_not_counted_twice() {
        assert_eq!(volume(&[[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [2.0; 3]), 5.0);
        assert_eq!(
            volume(
                &[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
                [2.0; 3]
            ),
            7.0
        );
    }

    /// Compared with the fraction of random positions that some point dominates, for four
    /// objectives.
    #[test]
    fn volumes_are_those_that_chance_finds() {
        let draw = |i: u64| upright_math::random::uniform(7, i);
        let points: Vec<Vec<f64>> = (0..6)
            .map(|i| (0..4).map(|k| draw(4 * i + k)).collect())
            .collect();
        let beaten = |place: &[f64]| {
            points
                .iter()
                .any(|point| point.iter().zip(place).all(|(a, b)| a <= b))
        };
        let tries = 40_000u64;
        let hits = (0..tries)
            .filter(|i| beaten(&[0, 1, 2, 3].map(|k| draw(100 + 4 * i + k))))
            .count();
        let (exact, found) = (hypervolume(&points, &[1.0; 4]), hits as f64 / tries as f64);
        assert!((exact - found).abs() < 0.01, "{exact} {found}");
    }
}

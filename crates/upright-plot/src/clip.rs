//! Clips lines and areas at the edges of a panel.

use super::drawing::Point;

/// A box: left, right, top, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) x: [f64; 2],
    pub(super) y: [f64; 2],
}

impl Frame {
    pub(super) fn contains(&self, [x, y]: Point) -> bool {
        // A small tolerance, so that rounding does not lose a point on the edge.
        let inside =
            |value: f64, [low, high]: [f64; 2]| value >= low - 0.01 && value <= high + 0.01;
        inside(x, self.x) && inside(y, self.y)
    }

    /// The segment of a straight line that lies inside (Liang-Barsky).
    fn piece(&self, a: Point, b: Point) -> Option<[Point; 2]> {
        let (mut from, mut to) = (0.0, 1.0);
        for (start, step, [low, high]) in [(a[0], b[0] - a[0], self.x), (a[1], b[1] - a[1], self.y)]
        {
            if step == 0.0 {
                if start < low || start > high {
                    return None;
                }
                continue;
            }
            let (one, other) = ((low - start) / step, (high - start) / step);
            (from, to) = (f64::max(from, one.min(other)), f64::min(to, one.max(other)));
        }
        let at = |share: f64| [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
        (from <= to).then(|| [at(from), at(to)])
    }

    /// The parts of a polyline that lie inside. A non-finite point breaks the line.
    pub(super) fn line(&self, points: &[Point]) -> Vec<Vec<Point>> {
        let mut pieces: Vec<Vec<Point>> = Vec::new();
        let mut open = false;
        for pair in points.windows(2) {
            let finite = pair.iter().flatten().all(|x| x.is_finite());
            let Some([from, to]) = self.piece(pair[0], pair[1]).filter(|_| finite) else {
                open = false;
                continue;
            };
            match pieces.last_mut() {
                Some(piece) if open && from == pair[0] => piece.push(to),
                _ => pieces.push(vec![from, to]),
            }
            open = to == pair[1];
        }
        pieces
    }

    /// The part of a polygon that lies inside (Sutherland-Hodgman).
    pub(super) fn area(&self, points: &[Point]) -> Vec<Point> {
        let edges = [
            (0, self.x[0], 1.0),
            (0, self.x[1], -1.0),
            (1, self.y[0], 1.0),
            (1, self.y[1], -1.0),
        ];
        edges
            .iter()
            .fold(points.to_vec(), |points, &(axis, edge, side)| {
                let depth = |point: &Point| (point[axis] - edge) * side;
                let mut kept = Vec::new();
                for (i, point) in points.iter().enumerate() {
                    let before = &points[(i + points.len() - 1) % points.len()];
                    let (d0, d1) = (depth(before), depth(point));
                    if (d0 < 0.0) != (d1 < 0.0) {
                        let share = d0 / (d0 - d1);
                        kept.push(
                            [0, 1].map(|k: usize| before[k] + share * (point[k] - before[k])),
                        );
                    }
                    if d1 >= 0.0 {
                        kept.push(*point);
                    }
                }
                kept
            })
    }
}

/// Simplifies a line to as few points as possible without a visible difference (Douglas-Peucker).
pub(super) fn simplified(line: &[Point]) -> Vec<Point> {
    const SEEN: f64 = 0.15;
    let mut kept = vec![false; line.len()];
    let mut open = vec![(0, line.len() - 1)];
    while let Some((from, to)) = open.pop() {
        (kept[from], kept[to]) = (true, true);
        let distance = |i: &usize| from_piece(line[*i], line[from], line[to]);
        let farthest = (from + 1..to).max_by(|a, b| distance(a).total_cmp(&distance(b)));
        if let Some(middle) = farthest.filter(|i| distance(i) > SEEN) {
            open.extend([(from, middle), (middle, to)]);
        }
    }
    line.iter()
        .zip(kept)
        .filter(|(_, kept)| *kept)
        .map(|(point, _)| *point)
        .collect()
}

/// Distance of a point from the segment between two others.
fn from_piece([x, y]: Point, a: Point, b: Point) -> f64 {
    let along = [b[0] - a[0], b[1] - a[1]];
    let squared = along[0] * along[0] + along[1] * along[1];
    let share = ((x - a[0]) * along[0] + (y - a[1]) * along[1]) / squared;
    // A segment without length has no direction.
    let share = if squared > 0.0 {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    (x - a[0] - share * along[0]).hypot(y - a[1] - share * along[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Frame = Frame {
        x: [0.0, 1.0],
        y: [0.0, 1.0],
    };

    #[test]
    fn lines_are_cut_at_the_edges_and_may_come_back() {
        let line = [
            [-1.0, 0.5],
            [0.5, 0.5],
            [0.5, 2.0],
            [0.75, 2.0],
            [0.75, 0.5],
        ];
        let pieces = UNIT.line(&line);
        assert_eq!(
            pieces,
            [
                vec![[0.0, 0.5], [0.5, 0.5], [0.5, 1.0]],
                vec![[0.75, 1.0], [0.75, 0.5]]
            ]
        );
        assert!(UNIT.line(&[[2.0, 0.0], [3.0, 1.0]]).is_empty());
        let broken = [
            [0.1, 0.1],
            [0.2, 0.2],
            [f64::NAN, 0.3],
            [0.4, 0.4],
            [0.5, 0.5],
        ];
        assert_eq!(UNIT.line(&broken).len(), 2);
    }

    #[test]
    fn areas_are_cut_at_the_edges() {
        let area = UNIT.area(&[[-1.0, -1.0], [2.0, -1.0], [2.0, 0.5], [-1.0, 0.5]]);
        assert_eq!(area.len(), 4);
        assert!(area.iter().all(|p| UNIT.contains(*p)) && area.contains(&[1.0, 0.5]));
        assert!(UNIT.area(&[[2.0, 2.0], [3.0, 2.0], [3.0, 3.0]]).is_empty());
    }

    #[test]
    fn what_is_simplified_looks_the_same() {
        let straight: Vec<Point> = (0..=1000)
            .map(|i| [f64::from(i) / 10.0, f64::from(i) / 30.0])
            .collect();
        assert_eq!(simplified(&straight), [straight[0], straight[1000]]);
        let arc: Vec<Point> = (0..=1000)
            .map(|i| f64::from(i) * 0.006)
            .map(|a| [50.0 * a.cos(), 50.0 * a.sin()])
            .collect();
        let few = simplified(&arc);
        assert!(
            few.len() < 80 && few[0] == arc[0] && few.last() == arc.last(),
            "{}",
            few.len()
        );
        let nearest = |point: &Point| {
            few.windows(2)
                .map(|w| from_piece(*point, w[0], w[1]))
                .fold(f64::MAX, f64::min)
        };
        assert!(arc.iter().all(|point| nearest(point) <= 0.15));
        let (there, back) = ([0.0, 0.0], [9.0, 0.0]);
        assert_eq!(simplified(&[there, back, there]), [there, back, there]);
        assert_eq!(simplified(&[there, there]), [there, there]);
    }
}

//! Contour lines on a grid: marching squares with linear interpolation.

use std::collections::HashMap;

use super::figure::Grid;

/// An edge of the grid: its lower left point, and whether it goes up from there.
type Edge = (usize, bool);

/// The contour lines of the grid at `level`, as polylines in data units.
pub(super) fn lines(grid: &Grid, level: f64) -> Vec<Vec<[f64; 2]>> {
    let (columns, rows) = (grid.columns, grid.values.len() / grid.columns);
    let above = |point: usize| grid.values[point] > level;
    // A crossed edge has one segment in each of the two cells that share it.
    let mut next: HashMap<Edge, Vec<Edge>> = HashMap::new();
    let mut order = Vec::new();
    for row in 0..rows - 1 {
        for column in 0..columns - 1 {
            let corner = row * columns + column;
            // Around the cell: bottom, right, top, left, each with its two ends.
            let edges: [(Edge, usize, usize); 4] = [
                ((corner, false), corner, corner + 1),
                ((corner + 1, true), corner + 1, corner + columns + 1),
                (
                    (corner + columns, false),
                    corner + columns,
                    corner + columns + 1,
                ),
                ((corner, true), corner, corner + columns),
            ];
            if edges.iter().any(|(_, from, to)| {
                !grid.values[*from].is_finite() || !grid.values[*to].is_finite()
            }) {
                continue;
            }
            let crossed: Vec<Edge> = edges
                .iter()
                .filter(|(_, from, to)| above(*from) != above(*to))
                .map(|(edge, ..)| *edge)
                .collect();
            // A saddle has four crossings; neighbors around the lower corner are connected.
            for pair in crossed.chunks(2) {
                if let [a, b] = pair {
                    next.entry(*a).or_default().push(*b);
                    next.entry(*b).or_default().push(*a);
                    order.extend([*a, *b]);
                }
            }
        }
    }
    let mut taken = std::collections::HashSet::new();
    // Open lines are traced from an end, closed lines from anywhere.
    let ends = order.iter().filter(|edge| next[*edge].len() == 1);
    let mut lines = Vec::new();
    for start in ends.chain(&order) {
        if !taken.insert(*start) {
            continue;
        }
        let (mut line, mut edge) = (vec![*start], *start);
        while let Some(step) = next[&edge].iter().find(|step| taken.insert(**step)) {
            line.push(*step);
            edge = *step;
        }
        if next[&edge].contains(start) && line.len() > 2 {
            line.push(*start);
        }
        lines.push(
            line.into_iter()
                .map(|edge| crossing(grid, rows, edge, level))
                .collect(),
        );
    }
    lines
}

/// The point on an edge at which the value crosses the level.
fn crossing(grid: &Grid, rows: usize, (from, up): Edge, level: f64) -> [f64; 2] {
    let to = from + if up { grid.columns } else { 1 };
    let share = (level - grid.values[from]) / (grid.values[to] - grid.values[from]);
    let (column, row) = ((from % grid.columns) as f64, (from / grid.columns) as f64);
    let (column, row) = if up {
        (column, row + share)
    } else {
        (column + share, row)
    };
    let at = |[low, high]: [f64; 2], place: f64, count: usize| {
        low + (high - low) * place / (count - 1) as f64
    };
    [at(grid.x, column, grid.columns), at(grid.y, row, rows)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cone_has_circles_and_a_plane_has_straight_lines() {
        let cone = Grid::of([-2.0, 2.0], [-2.0, 2.0], 81, |x, y| x.hypot(y));
        let circles = lines(&cone, 1.0);
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].first(), circles[0].last());
        assert!(
            circles[0].len() > 100
                && circles[0]
                    .iter()
                    .all(|[x, y]| (x.hypot(*y) - 1.0).abs() < 1e-3)
        );
        let plane = Grid::of([0.0, 4.0], [0.0, 1.0], 9, |x, y| x + y);
        let straight = lines(&plane, 2.25);
        assert_eq!(straight.len(), 1);
        assert!(
            straight[0]
                .iter()
                .all(|[x, y]| (x + y - 2.25).abs() < 1e-12)
        );
        let along: f64 = straight[0]
            .windows(2)
            .map(|w| (w[1][0] - w[0][0]).hypot(w[1][1] - w[0][1]))
            .sum();
        assert!(
            (along - 2f64.sqrt()).abs() < 1e-9,
            "walked once, without jumps: {along}"
        );
        assert!(lines(&plane, 9.0).is_empty());
    }

    #[test]
    fn a_saddle_has_two_lines() {
        let saddle = Grid::of([-1.0, 1.0], [-1.0, 1.0], 21, |x, y| x * y);
        assert_eq!(lines(&saddle, 0.1).len(), 2);
    }
}

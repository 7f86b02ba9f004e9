//! Scores of benchmarks over lambda, one panel per benchmark.

use super::{Shown, WIDTH};
use crate::compare::{Report, grid::Grid, labels};
use upright_plot::{Axis, Dash, Figure, Ink, Mark, Panel, Style};

/// The figure; none without a benchmark that was scored at several lambdas.
pub(super) fn benchmarks(report: &Report, looks: &[Style]) -> Option<Shown> {
    let grid = Grid::of(report);
    let mut figure = Figure::new("Benchmarks by lambda", 2, [408.0, 240.0]);
    for benchmark in 0..report.benchmarks.len() {
        figure.panels.extend(panel(report, &grid, benchmark, looks));
    }
    if figure.panels.is_empty() {
        return None;
    }
    let mut caption = "The scores of the table over lambda, with their standard errors.".to_owned();
    let arms = grid.rows.iter().flat_map(|row| &row.arms);
    let mut weighed = arms.filter(|(_, column)| grid.columns[*column].weights.is_some());
    if weighed.any(|(arm, _)| report.arms[*arm].is_sequential()) {
        caption += " Sequential is at the lambda that it is compared with.";
    }
    if figure.panels.iter().any(has_reference) {
        caption += " Horizontal lines are models that are no run of this report.";
    }
    Some(Shown {
        name: "benchmarks",
        heading: "Benchmarks",
        figure: figure.fit(WIDTH),
        caption,
        table: "benchmarks",
    })
}

fn has_reference(panel: &Panel) -> bool {
    panel
        .layers
        .iter()
        .any(|layer| matches!(layer.mark, Mark::Horizontal(_)))
}

/// The panel of a benchmark; none if fewer than two of its columns have a lambda.
fn panel(report: &Report, grid: &Grid, benchmark: usize, looks: &[Style]) -> Option<Panel> {
    let scores = &report.benchmarks[benchmark];
    let mut lambdas = Vec::new();
    for column in grid.used(report, benchmark) {
        let lambda = lambda(report, grid, column);
        lambdas.extend(lambda.map(|lambda| (column, lambda)));
    }
    if lambdas.len() < 2 {
        return None;
    }
    let unit = match &scores.unit[..] {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    let better = if scores.higher_is_better {
        "higher is better"
    } else {
        "lower is better"
    };
    let y = Axis::linear(format!("score{unit}, {better}"));
    let mut panel = Panel::new(&scores.title[..], Axis::linear("lambda"), y);
    for (of, dash) in scores.references.iter().zip(DASHES) {
        let style = Style::thin(Ink::Muted).dash(dash);
        let mean = of.score.sample.spread.mean;
        panel.add(Mark::Horizontal(mean), style, &of.name);
    }
    for (number, row) in grid.rows.iter().enumerate() {
        let mut line = Vec::new();
        let mut bars = Vec::new();
        for (column, lambda) in &lambdas {
            let Some(score) = grid.score(report, benchmark, number, *column) else {
                continue;
            };
            let spread = score.sample.spread;
            line.push([*lambda, spread.mean]);
            bars.extend(spread.error.map(|error| [*lambda, spread.mean, error]));
        }
        let Some((arm, _)) = row.arms.first().filter(|_| !line.is_empty()) else {
            continue;
        };
        let style = looks[*arm];
        panel.add(Mark::ErrorBars(bars), style.unmarked(), "");
        panel.add(Mark::Line(line), style, &row.name);
    }
    Some(panel)
}

/// The dashes of references. A panel shows as many of them.
const DASHES: [Dash; 3] = [Dash::Solid, Dash::Dashed, Dash::Dotted];

/// The lambda of a column; none if its weights are not a lambda.
fn lambda(report: &Report, grid: &Grid, column: usize) -> Option<f64> {
    let weights = grid.columns[column].weights.as_ref()?;
    let arm = (0..grid.rows.len()).find_map(|row| grid.arm(row, column))?;
    let plan = report.runs[report.arms[arm].runs[0]].plan();
    labels::lambda(plan, weights, &report.objectives)
}

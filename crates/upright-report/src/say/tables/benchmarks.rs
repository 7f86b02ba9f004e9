//! The tables of benchmarks: the scores as in Table 1 of the paper, and all numbers behind them.

use crate::{
    compare::{Report, Scores, grid::Grid, labels},
    say::table::{Cell, Column, Table},
};
use upright_core::metrics::Call;

/// The scores of every method, the columns grouped by benchmark; none without benchmarks.
pub(crate) fn benchmarks(report: &Report) -> Option<Table> {
    if report.benchmarks.is_empty() {
        return None;
    }
    let grid = Grid::of(report);
    let mut columns = vec![Column::new("model")];
    // The benchmark and the grid's column of every column but the first.
    let mut places = Vec::new();
    for (benchmark, scores) in report.benchmarks.iter().enumerate() {
        let heading = heading(report, scores);
        for column in grid.used(report, benchmark) {
            let name = grid.columns[column].name.clone();
            columns.push(Column::of(&heading, name, None));
            places.push((benchmark, column));
        }
    }
    let mut table = Table::new("benchmarks", "Benchmarks by method", columns);
    for (number, row) in grid.rows.iter().enumerate() {
        let mut cells = vec![Cell::Text(row.name.clone())];
        for (benchmark, column) in &places {
            let score = grid.score(report, *benchmark, number, *column);
            let decimals = report.benchmarks[*benchmark].decimals();
            cells.push(Cell::spread(
                score.map(|score| score.sample.spread),
                decimals,
            ));
        }
        if row.is_reference() {
            table.references.push(number);
        }
        table.rows.push(cells);
    }
    for (position, (benchmark, column)) in places.iter().enumerate() {
        for row in 0..grid.rows.len() {
            if is_clearly_best(report, &grid, *benchmark, row, *column) {
                table.marked.push((row, position + 1));
            }
        }
    }
    Some(table)
}

/// Whether a cell has the best score of its column, by more than two standard errors of every
/// difference. The arms of a setting and training budget are compared with each other.
fn is_clearly_best(
    report: &Report,
    grid: &Grid,
    benchmark: usize,
    row: usize,
    column: usize,
) -> bool {
    let scores = &report.benchmarks[benchmark];
    let contends = |arm: usize| {
        let arm = &report.arms[arm];
        report.contends(arm) && !arm.unfinished
    };
    let Some(own) = grid.arm(row, column).filter(|arm| contends(*arm)) else {
        return false;
    };
    let mut calls = Vec::new();
    for other in 0..grid.rows.len() {
        let Some(other) = grid.arm(other, column) else {
            continue;
        };
        let group = |arm: usize| report.group(&report.arms[arm]);
        if other == own || !contends(other) || group(other) != group(own) {
            continue;
        }
        let Some(shortfall) = scores.shortfall(own, other) else {
            continue;
        };
        // A bare mean is not clear.
        if shortfall.error.is_none() {
            return false;
        }
        calls.push(shortfall.is_below(0.0));
    }
    Call::all(&calls) == Some(Call::Yes)
}

/// The title of a benchmark with its unit. Benchmarks with the same title have their names too.
fn heading(report: &Report, scores: &Scores) -> String {
    let twins = report
        .benchmarks
        .iter()
        .filter(|other| other.title == scores.title);
    let mut heading = scores.title.clone();
    if twins.count() > 1 {
        heading += &format!(" [{}]", scores.name);
    }
    if !scores.unit.is_empty() {
        heading += &format!(" ({})", scores.unit);
    }
    heading
}

/// All numbers of every model on every benchmark; none without benchmarks.
pub(crate) fn scores(report: &Report) -> Option<Table> {
    if report.benchmarks.is_empty() {
        return None;
    }
    let columns = vec![
        Column::new("model"),
        Column::new("benchmark"),
        Column::new("score"),
        Column::new("difference to base"),
        Column::new("error over"),
        Column::new("seeds"),
        Column::new("questions"),
        Column::of("missing verdicts", "number", None),
        Column::of("missing verdicts", "score if lost", None),
        Column::of("missing verdicts", "score if won", None),
    ];
    let title = "Scores of every model on every benchmark";
    let mut table = Table::new("scores", title, columns);
    for scores in &report.benchmarks {
        let mut models = Vec::new();
        for of in &scores.references {
            table.references.push(table.rows.len() + models.len());
            models.push((of.name.clone(), None, &of.score));
        }
        for of in &scores.arms {
            let seeds = Some(of.score.seeds as f64);
            models.push((labels::named(&report.arms[of.arm]), seeds, &of.score));
        }
        let decimals = scores.decimals();
        for (name, seeds, score) in models {
            let [low, high] = match score.bounds {
                Some(bounds) => bounds.map(Some),
                None => [None; 2],
            };
            table.rows.push(vec![
                Cell::Text(name),
                Cell::Text(heading(report, scores)),
                Cell::Spread(score.sample.spread, decimals),
                Cell::spread(score.difference, decimals),
                Cell::Text(score.error_over().into()),
                Cell::number(seeds, 0),
                Cell::Number(score.count, 0),
                Cell::Number(score.missing as f64, 0),
                Cell::number(low, decimals),
                Cell::number(high, decimals),
            ]);
        }
    }
    Some(table)
}

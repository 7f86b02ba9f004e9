//! The layout of benchmarks as in Table 1 of the paper: a row per method, and a column per weights.

use std::collections::HashMap;

use super::{
    labels,
    matching::{distinct, matching, same},
    report::Report,
    scores::ModelScore,
};

/// Rows and columns of the scores of all benchmarks.
pub(crate) struct Grid {
    /// The columns of every benchmark. A benchmark may have no score in some of them.
    pub(crate) columns: Vec<GridColumn>,
    /// References first, then the arms in the order of the report.
    pub(crate) rows: Vec<Row>,
}

/// A column of each benchmark.
pub(crate) struct GridColumn {
    /// `lambda 0.25`.
    pub(crate) name: String,
    /// The weights of its arms; none for models that have no weights.
    pub(crate) weights: Option<Vec<f64>>,
}

/// A method, or a single model.
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// For a model that is no run of the report, its position among the references of every
    /// benchmark that scored it; empty for arms.
    references: Vec<Option<usize>>,
    /// Indices of arms, each with its column. No two have the same column.
    pub(crate) arms: Vec<(usize, usize)>,
    /// Whether its arms differ only in their weights, and more of them may join.
    is_method: bool,
}

/// Name of the only column.
const ONLY: &str = "score";

impl Grid {
    /// Lays out the benchmarks of a report. With fewer than two weights there is one column, and
    /// every arm is a row.
    pub(crate) fn of(report: &Report) -> Self {
        let weighed = report.arms.iter().filter(|arm| labels::has_weights(arm));
        let weights = distinct(weighed);
        let mut scored: Vec<(usize, Option<usize>)> = Vec::new();
        for index in 0..report.arms.len() {
            if report.benchmarks.iter().any(|of| of.arm(index).is_some()) {
                scored.push((index, weights_of(report, &weights, index)));
            }
        }
        let references = references(report);
        // The column of every scored arm.
        let mut columns = Vec::new();
        let mut places: Vec<Option<usize>> = vec![None; weights.len()];
        let alone = !references.is_empty() || scored.iter().any(|(_, own)| own.is_none());
        if alone {
            columns.push(GridColumn {
                name: String::new(),
                weights: None,
            });
        }
        for (number, weights) in weights.iter().enumerate() {
            let Some((index, _)) = scored.iter().find(|(_, own)| *own == Some(number)) else {
                continue;
            };
            let plan = report.runs[report.arms[*index].runs[0]].plan();
            places[number] = Some(columns.len());
            columns.push(GridColumn {
                name: labels::weighed(plan, weights, &report.objectives),
                weights: Some(weights.clone()),
            });
        }
        let several = columns.len() - usize::from(alone) > 1;
        let mut grid = Self {
            columns,
            rows: references,
        };
        if !several {
            grid.columns = vec![GridColumn {
                name: ONLY.into(),
                weights: None,
            }];
        } else if alone {
            let lambdas = grid.columns[1..].iter();
            let lambdas = lambdas.filter(|column| column.name.starts_with("lambda "));
            let is_lambda = lambdas.count() + 1 == grid.columns.len();
            let name = if is_lambda { "no lambda" } else { "no weights" };
            grid.columns[0].name = name.into();
        }
        for (index, own) in scored {
            match own.and_then(|own| places[own]).filter(|_| several) {
                Some(column) => grid.add_to_method(report, index, column),
                None => grid.add_alone(report, index, 0),
            }
        }
        grid
    }

    /// Adds an arm to the row of its method, or to a row of its own if its cell is taken.
    fn add_to_method(&mut self, report: &Report, index: usize, column: usize) {
        let arm = &report.arms[index];
        let mut is_taken = false;
        for row in self.rows.iter_mut().filter(|row| row.is_method) {
            let first = &report.arms[row.arms[0].0];
            if first.sweep != arm.sweep || first.comparison() != arm.comparison() {
                continue;
            }
            if row.arms.iter().all(|(_, other)| *other != column) {
                row.arms.push((index, column));
                return;
            }
            is_taken = true;
        }
        if is_taken {
            self.add_alone(report, index, column);
            return;
        }
        self.rows.push(Row {
            name: report.method_name(&arm.front_name, arm.comparison()),
            references: Vec::new(),
            arms: vec![(index, column)],
            is_method: true,
        });
    }

    /// Adds an arm as a row of its own.
    fn add_alone(&mut self, report: &Report, index: usize, column: usize) {
        self.rows.push(Row {
            name: labels::named(&report.arms[index]),
            references: Vec::new(),
            arms: vec![(index, column)],
            is_method: false,
        });
    }

    /// The arm in a cell.
    pub(crate) fn arm(&self, row: usize, column: usize) -> Option<usize> {
        let arms = &self.rows[row].arms;
        let found = arms.iter().find(|(_, own)| *own == column);
        found.map(|(arm, _)| *arm)
    }

    /// The score of a benchmark, by index, in a cell. References are in the first column.
    pub(crate) fn score<'r>(
        &self,
        report: &'r Report,
        benchmark: usize,
        row: usize,
        column: usize,
    ) -> Option<&'r ModelScore> {
        let scores = &report.benchmarks[benchmark];
        if let Some(arm) = self.arm(row, column) {
            return scores.arm(arm);
        }
        let position = self.rows[row].references.get(benchmark).copied().flatten();
        let position = position.filter(|_| column == 0)?;
        Some(&scores.references[position].score)
    }

    /// The columns in which a benchmark has a score.
    pub(crate) fn used(&self, report: &Report, benchmark: usize) -> Vec<usize> {
        let mut used = Vec::new();
        for column in 0..self.columns.len() {
            let has = |row: usize| self.score(report, benchmark, row, column).is_some();
            if (0..self.rows.len()).any(has) {
                used.push(column);
            }
        }
        used
    }
}

impl Row {
    /// Whether it is a model that is no run of the report.
    pub(crate) fn is_reference(&self) -> bool {
        self.arms.is_empty()
    }
}

/// A row for every model that is no run of the report.
fn references(report: &Report) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut known: HashMap<&String, usize> = HashMap::new();
    for (benchmark, scores) in report.benchmarks.iter().enumerate() {
        for (position, of) in scores.references.iter().enumerate() {
            let row = *known.entry(&of.name).or_insert(rows.len());
            if row == rows.len() {
                rows.push(Row {
                    name: of.name.clone(),
                    references: vec![None; report.benchmarks.len()],
                    arms: Vec::new(),
                    is_method: false,
                });
            }
            rows[row].references[benchmark] = Some(position);
        }
    }
    rows
}

/// The number of the weights whose column an arm is in: its own weights, or for Sequential those of
/// the joint arms that it is compared with.
fn weights_of(report: &Report, weights: &[Vec<f64>], index: usize) -> Option<usize> {
    let arm = &report.arms[index];
    let own = if labels::has_weights(arm) {
        arm
    } else if arm.is_sequential() {
        let compared = |other: &usize| {
            report.arms[*other].is_joint() && matching(&report.arms, *other).contains(&index)
        };
        &report.arms[(0..report.arms.len()).find(compared)?]
    } else {
        return None;
    };
    weights.iter().position(|other| same(other, &own.weights))
}

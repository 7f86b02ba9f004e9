//! The figures of the page, each with a caption that explains it.

mod bars;
mod benchmarks;
mod curves;
mod decisions;
mod distances;
mod facets;
mod plane;
mod probes;
mod style;

use crate::{
    compare::{Report, arm::Arm},
    read::Run,
    say::prose,
};
use upright_plot::{Axis, Figure};

/// A figure with its heading, caption and table.
pub(crate) struct Shown {
    /// Name of its files, without the ending.
    pub(crate) name: &'static str,
    /// Heading of its section.
    pub(crate) heading: &'static str,
    pub(crate) figure: Figure,
    /// The caption.
    pub(crate) caption: String,
    /// Name of the table with its numbers.
    pub(crate) table: &'static str,
}

/// Names of all possible figures.
pub(crate) const NAMES: [&str; 10] = [
    "trajectories",
    "curves",
    "distance-tokens",
    "distance-seconds",
    "gaps",
    "cost",
    "decisions",
    "fronts",
    "probes",
    "benchmarks",
];

/// All figures for which the report has numbers, in the order of the page.
pub(crate) fn figures(report: &Report) -> Vec<Shown> {
    let looks = style::looks(report);
    let all = [
        plane::trajectories(report, &looks),
        curves::curves(report, &looks),
        distances::by_tokens(report, &looks),
        distances::by_seconds(report, &looks),
        bars::gaps(report, &looks),
        bars::cost(report, &looks),
        decisions::decisions(report),
        plane::fronts(report, &looks),
        probes::probes(report),
        benchmarks::benchmarks(report, &looks),
    ];
    all.into_iter().flatten().collect()
}

/// Width of every figure.
const WIDTH: f64 = 1040.0;

/// `dpo loss (nats)`.
fn loss_name(report: &Report, objective: usize) -> String {
    let name = &report.objectives[objective];
    loss_unit(report, objective).map_or_else(
        || format!("{name} loss"),
        |unit| format!("{name} loss ({unit})"),
    )
}

/// The unit of a loss, if all runs agree. Some losses have none, because they are sums of different
/// terms or squares.
fn loss_unit(report: &Report, objective: usize) -> Option<&'static str> {
    let unit = |run: &Run| {
        let index = run.objective(&report.objectives[objective])?;
        Some(run.plan().objectives[index].loss.unit)
    };
    let mut units = report.runs.iter().filter_map(unit);
    let first = units.next()?;
    first.filter(|_| units.all(|other| other == first))
}

/// Ratio of the largest to the smallest value above which an axis is logarithmic.
const MANY_TIMES: f64 = 10.0;

/// Whether values need a log scale and can have one.
fn spans_decades(values: impl Iterator<Item = f64>) -> bool {
    let [low, high] = values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| {
        [low.min(x), high.max(x)]
    });
    low > 0.0 && high > MANY_TIMES * low
}

/// An axis for losses, logarithmic if `ratios` is set.
fn loss_axis(name: String, ratios: bool) -> Axis {
    if !ratios {
        return Axis::linear(name);
    }
    Axis::log(match name.strip_suffix(')') {
        Some(start) => format!("{start}, log scale)"),
        None => format!("{name} (log scale)"),
    })
}

/// Arms that compete with each other: all except those that train one objective alone, unless there
/// are no others.
fn contenders(report: &Report) -> Vec<usize> {
    (0..report.arms.len())
        .filter(|i| report.contends(&report.arms[*i]))
        .collect()
}

/// An axis with the labels of arms, the first at the top.
fn names(arms: &[&Arm]) -> Axis {
    let names: Vec<&str> = arms.iter().rev().map(|arm| &arm.label[..]).collect();
    Axis::categories("", &names)
}

/// Height of a panel with one row per arm. `row` is the height of a row, unless labels need more.
fn height(report: &Report, arms: &[usize], row: f64) -> f64 {
    let labels = arms
        .iter()
        .map(|i| upright_plot::label_height(&report.arms[*i].label));
    arms.len() as f64 * labels.fold(row, f64::max) + 8.0
}

/// A sentence for captions of figures whose distances rest on optima that were given; empty for
/// none.
fn given(report: &Report) -> String {
    let given = prose::rests_on_given(report);
    if given.is_empty() {
        given
    } else {
        format!(" {given}")
    }
}

/// The name of an ideal point or of an optimum, marked if it was given and not trained.
fn marked(name: &str, trained: bool) -> String {
    if trained {
        name.to_owned()
    } else {
        format!("{name} ({})", prose::GIVEN)
    }
}

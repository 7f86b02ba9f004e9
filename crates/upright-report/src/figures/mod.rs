//! The figures of the page, each with a caption that says what there is to see.

mod bars;
mod curves;
mod decisions;
mod facets;
mod plane;
mod probes;
mod style;

use super::{Report, Run, arm::Arm};
use upright_core::objectives::LossKind;
use upright_plot::{Axis, Figure};

/// A figure with what belongs to it.
pub(super) struct Shown {
    /// Name of its files.
    pub(super) name: &'static str,
    /// Heading of its section.
    pub(super) heading: &'static str,
    pub(super) figure: Figure,
    /// What there is to see, in plain words.
    pub(super) caption: String,
    /// The table that holds its numbers.
    pub(super) table: &'static str,
}

/// Names of all figures there can be.
pub(super) const NAMES: [&str; 7] = [
    "trajectories",
    "curves",
    "gaps",
    "cost",
    "decisions",
    "fronts",
    "probes",
];

/// Every figure that the report has numbers for, in the order of the page.
pub(super) fn figures(report: &Report) -> Vec<Shown> {
    let looks = style::looks(report);
    let all = [
        plane::trajectories(report, &looks),
        curves::curves(report, &looks),
        bars::gaps(report, &looks),
        bars::cost(report, &looks),
        decisions::decisions(report),
        plane::fronts(report, &looks),
        probes::probes(report),
    ];
    all.into_iter().flatten().collect()
}

/// How wide every figure is.
const WIDTH: f64 = 1040.0;

/// `dpo loss (nats)`.
fn loss_name(report: &Report, objective: usize) -> String {
    let name = &report.objectives[objective];
    loss_unit(report, objective).map_or_else(
        || format!("{name} loss"),
        |unit| format!("{name} loss ({unit})"),
    )
}

/// What a loss is measured in, if all runs say the same: some losses are sums of different things, or squares.
fn loss_unit(report: &Report, objective: usize) -> Option<&'static str> {
    let kind =
        |run: &Run| Some(run.plan().objectives[run.objective(&report.objectives[objective])?].loss);
    let unit = |kind: LossKind| match kind {
        LossKind::Sft => Some("nats a token"),
        LossKind::Dpo => Some("nats"),
        LossKind::Ipo | LossKind::Rpo | LossKind::Orpo | LossKind::Simpo => None,
    };
    let mut units = report.runs.iter().filter_map(kind).map(unit);
    let first = units.next()?;
    first.filter(|_| units.all(|other| other == first))
}

/// Values whose largest is so many times the smallest are shown on a scale of equal ratios.
const MANY_TIMES: f64 = 10.0;

/// Whether values ask for a scale of equal ratios, and can have one.
fn spans_decades(values: impl Iterator<Item = f64>) -> bool {
    let [low, high] = values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| {
        [low.min(x), high.max(x)]
    });
    low > 0.0 && high > MANY_TIMES * low
}

/// An axis for losses, of equal ratios where it says so.
fn loss_axis(name: String, ratios: bool) -> Axis {
    if !ratios {
        return Axis::linear(name);
    }
    Axis::log(match name.strip_suffix(')') {
        Some(start) => format!("{start}, log scale)"),
        None => format!("{name} (log scale)"),
    })
}

/// Arms that are compared with each other: all but those that train one objective alone, unless there are no others.
fn contenders(report: &Report) -> Vec<usize> {
    (0..report.arms.len())
        .filter(|i| report.contends(&report.arms[*i]))
        .collect()
}

/// Names of arms for an axis on which the first stands at the top.
fn names(arms: &[&Arm]) -> Axis {
    let names: Vec<&str> = arms.iter().rev().map(|arm| &arm.label[..]).collect();
    Axis::categories("", &names)
}

//! Distance to the ideal point over what training costs: over tokens, and over seconds.

use super::{
    Shown, WIDTH, contenders,
    curves::{SET_WORDS, add_lines},
    facets::{Facet, facets},
    given, loss_axis, spans_decades,
};
use crate::{
    compare::{Report, paths::Stop},
    say::SET_NAMES,
};
use upright_core::metrics::Spread;
use upright_plot::{Axis, Figure, Panel, Style};
use upright_runs::records::EvalSet;

/// What a distance is drawn over.
struct Cost {
    name: &'static str,
    heading: &'static str,
    /// Name of the axis.
    axis: &'static str,
    /// The cost of a path up to a stop.
    of: fn(&Stop) -> Spread,
    /// What the caption says about the axis.
    caption: &'static str,
}

const TOKENS: Cost = Cost {
    name: "distance-tokens",
    heading: "Distance by tokens",
    axis: "tokens trained on",
    of: |stop| stop.tokens,
    caption: "The axis counts the tokens of all batches that were trained on, prompts included. \
              Tokens that were only probed are not counted.",
};

const SECONDS: Cost = Cost {
    name: "distance-seconds",
    heading: "Distance by seconds",
    axis: "seconds of training steps",
    of: |stop| stop.seconds,
    caption: "The axis counts the wall-clock seconds of all training steps, probes included, \
              without evaluations and checkpoints.",
};

/// Distance over tokens; none if no ideal point is known.
pub(super) fn by_tokens(report: &Report, looks: &[Style]) -> Option<Shown> {
    distances(report, looks, &TOKENS)
}

/// Distance over seconds; none if no ideal point is known.
pub(super) fn by_seconds(report: &Report, looks: &[Style]) -> Option<Shown> {
    distances(report, looks, &SECONDS)
}

fn distances(report: &Report, looks: &[Style], cost: &Cost) -> Option<Shown> {
    let mut paths: Vec<Vec<Stop>> = Vec::new();
    for arm in &report.arms {
        paths.push(report.path(arm));
    }
    let facets = facets(report);
    let height = if facets.len() == 1 { 240.0 } else { 190.0 };
    let mut figure = Figure::new(cost.heading, 2, [400.0, height]);
    for facet in &facets {
        for set in EvalSet::ALL {
            figure
                .panels
                .extend(panel(report, looks, &paths, facet, set, cost));
        }
    }
    if figure.panels.is_empty() {
        return None;
    }
    let mut caption = format!(
        "Each line is the mean over the runs of an arm, with a band of one standard error. Its \
         points are the evaluations. Lower is better, and of two lines at the same height the one \
         farther left is cheaper. {}",
        cost.caption
    );
    if report.arms.iter().any(|arm| report.ends_apart(arm)) {
        caption += " A line ends where the first run of its arm ends.";
    }
    caption += &given(report);
    Some(Shown {
        name: cost.name,
        heading: cost.heading,
        figure: figure.fit(WIDTH),
        caption,
        table: "distances",
    })
}

/// The distances of a path on a set of rows, by cost. A path without a step has none.
fn line(path: &[Stop], set: EvalSet, cost: &Cost) -> Vec<(f64, Spread)> {
    let mut line = Vec::new();
    for stop in path {
        if let Some(distance) = stop.ideal_distance[set] {
            line.push(((cost.of)(stop).mean, distance));
        }
    }
    if line.iter().all(|(x, _)| *x == 0.0) {
        line.clear();
    }
    line
}

/// The panel of a facet; none if no distance was measured.
fn panel(
    report: &Report,
    looks: &[Style],
    paths: &[Vec<Stop>],
    facet: &Facet,
    set: EvalSet,
    cost: &Cost,
) -> Option<Panel> {
    // All facets of a setting share their axes.
    let mut all: Vec<Spread> = Vec::new();
    let mut both: Vec<f64> = Vec::new();
    let mut lines: Vec<(usize, Vec<(f64, Spread)>)> = Vec::new();
    for index in contenders(report) {
        if report.arms[index].setting != facet.setting {
            continue;
        }
        let own = line(&paths[index], set, cost);
        all.extend(own.iter().map(|(_, distance)| *distance));
        for set in EvalSet::ALL {
            let values = line(&paths[index], set, cost);
            both.extend(values.iter().map(|(_, distance)| distance.mean));
        }
        if facet.arms.contains(&index) && !own.is_empty() {
            lines.push((index, own));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let axis = loss_axis("distance".into(), spans_decades(both.into_iter()));
    let mut reached = Vec::new();
    for distance in &all {
        reached.push(distance.mean - distance.reach());
        reached.push(distance.mean + distance.reach());
    }
    let ends = axis.ends(reached.into_iter());
    let title = if facet.name.is_empty() {
        format!("Distance on {}", SET_NAMES[set])
    } else {
        format!("{}: {}", facet.name, SET_WORDS[set])
    };
    let mut panel = Panel::new(title, Axis::linear(cost.axis), axis.within(ends));
    add_lines(&mut panel, report, looks, &lines);
    Some(panel)
}

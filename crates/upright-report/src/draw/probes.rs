//! Methods that probe, by probe interval (the paper's Figure 4).

use super::{Shown, WIDTH};
use crate::{
    compare::{Arm, Report, labels, matching},
    say::SET_NAMES,
};
use upright_core::metrics::Spread;
use upright_plot::{Axis, Dash, Figure, Mark, Panel, Style};
use upright_runs::records::EvalSet;

/// Error bars at each k, for values that have an error.
fn bars(points: &[(f64, Spread)]) -> Mark {
    Mark::ErrorBars(
        points
            .iter()
            .filter_map(|(k, value)| Some([*k, value.mean, value.error?]))
            .collect(),
    )
}

/// The figure; none if k does not vary.
pub(super) fn probes(report: &Report) -> Option<Shown> {
    let groups = report.probed();
    if groups.is_empty() {
        return None;
    }
    let axis = || Axis::log("k, steps between probes (log scale)");
    let mut far = Panel::new(
        "Distance to the ideal point",
        axis(),
        Axis::linear("distance"),
    );
    let time = matching::time(&report.arms);
    let mut long = Panel::new("Cost", axis(), Axis::linear(time.name));
    for (index, group) in groups.iter().enumerate() {
        let arms: Vec<&Arm> = group.iter().map(|i| &report.arms[*i]).collect();
        let run = &report.runs[arms[0].runs[0]];
        let weights = labels::weighed(run.plan(), &arms[0].weights, &report.objectives);
        let named = [weights, report.comparison_name(arms[0].comparison())];
        let name = named
            .into_iter()
            .filter(|words| !words.is_empty())
            .collect::<Vec<_>>()
            .join(", ");
        let k = |arm: &Arm| arm.probe_every.unwrap_or(1) as f64;
        let look = Style::series(index).dash(Dash::Solid);
        for set in EvalSet::ALL {
            let points: Vec<_> = arms
                .iter()
                .filter_map(|arm| Some((k(arm), arm.ideal_distance[set]?)))
                .collect();
            if points.is_empty() {
                continue;
            }
            let style = match set {
                EvalSet::HeldOut => look,
                EvalSet::Training => look.dash(Dash::Dashed),
            };
            far.add(bars(&points), style.unmarked(), "");
            let line = points.iter().map(|(k, far)| [*k, far.mean]).collect();
            far.add(
                Mark::Line(line),
                style,
                &format!("{name}, {}", SET_NAMES[set]),
            );
        }
        let points: Vec<_> = arms
            .iter()
            .filter_map(|arm| Some((k(arm), (time.mean)(arm)?)))
            .collect();
        long.add(bars(&points), look.unmarked(), "");
        long.add(
            Mark::Line(
                points
                    .iter()
                    .map(|(k, seconds)| [*k, seconds.mean])
                    .collect(),
            ),
            look,
            &name,
        );
    }
    let probing = report.probing();
    let mut figure = Figure::new(format!("{probing} by probe interval k"), 2, [408.0, 240.0]);
    let measured = !far.layers.is_empty();
    figure.panels = if measured {
        vec![far, long]
    } else {
        vec![long]
    };
    let caption = format!(
        "{probing} probes the losses of all objectives every k steps; between probes it uses the \
         losses it saw last. A small k uses up-to-date losses and pays for the probes; a large k \
         is cheap but may oscillate between the objectives. Lower is better in both panels."
    );
    Some(Shown {
        name: "probes",
        heading: "Probe interval",
        figure: figure.fit(WIDTH),
        caption,
        table: "probes",
    })
}

//! MAXRIGHT by how often it looks at all losses (the paper's Figure 4).

use super::{Shown, WIDTH};
use crate::{Arm, Report, labels, tables::SET_NAMES};
use upright_core::metrics::Spread;
use upright_plot::{Axis, Dash, Figure, Mark, Panel, Style};

/// Errors at their k, of those that have one.
fn bars(points: &[(f64, Spread)]) -> Mark {
    Mark::ErrorBars(
        points
            .iter()
            .filter_map(|(k, value)| Some([*k, value.mean, value.error?]))
            .collect(),
    )
}

/// The figure; none where k does not vary.
pub(super) fn probes(report: &Report) -> Option<Shown> {
    let groups = report.probed();
    if groups.is_empty() {
        return None;
    }
    let axis = || Axis::log("k, steps between two looks (log scale)");
    let mut far = Panel::new(
        "Distance to the ideal point",
        axis(),
        Axis::linear("distance"),
    );
    let mut long = Panel::new("Runtime", axis(), Axis::linear("seconds"));
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
        for set in 0..2 {
            let points: Vec<_> = arms
                .iter()
                .filter_map(|arm| Some((k(arm), arm.ideal_distance[set]?)))
                .collect();
            if points.is_empty() {
                continue;
            }
            let style = if set == 0 {
                look
            } else {
                look.dash(Dash::Dashed)
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
            .filter_map(|arm| Some((k(arm), arm.seconds?)))
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
    let mut figure = Figure::new(
        "MAXRIGHT by how often it looks at all losses",
        2,
        [408.0, 240.0],
    );
    let measured = !far.layers.is_empty();
    figure.panels = if measured {
        vec![far, long]
    } else {
        vec![long]
    };
    let caption =
        "Every k steps MAXRIGHT looks at the losses of all objectives; in between it decides by what it saw last. A \
                   small k decides by fresh losses and pays for looking; a large k is cheap and may swing between the \
                   objectives. Low is good in both panels."
            .to_owned();
    Some(Shown {
        name: "probes",
        heading: "How often MAXRIGHT looks",
        figure: figure.fit(WIDTH),
        caption,
        table: "probes",
    })
}

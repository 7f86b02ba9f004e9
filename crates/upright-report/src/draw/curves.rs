//! Loss curves, one panel per objective and set of rows.

use super::{
    Shown, WIDTH,
    facets::{Facet, facets},
    loss_axis, loss_name, loss_unit, marked, spans_decades,
};
use crate::{
    compare::{Report, paths::Stop},
    say::SET_NAMES,
};
use upright_core::metrics::Spread;
use upright_plot::{Axis, Dash, Figure, Ink, Mark, Panel, Style, axis::Scale};
use upright_runs::records::{EvalSet, PerSet};

/// The two sets of rows in titles of small panels.
pub(super) const SET_WORDS: PerSet<&str> = PerSet {
    held_out: "held-out",
    training: "training",
};

/// Lines with more evaluations than this have no markers.
const MARKED: usize = 16;

/// The figure; none if there are no evaluations.
pub(super) fn curves(report: &Report, looks: &[Style]) -> Option<Shown> {
    let mut sets = EvalSet::ALL.to_vec();
    sets.retain(|set| measured(report, *set));
    let facets = facets(report);
    let count = report.objectives.len() * sets.len();
    // With many facets, each facet is a row.
    let (columns, height) = match facets.len() {
        1 => (sets.len(), 220.0),
        _ if count <= 4 => (count, 150.0),
        _ => (sets.len(), 150.0),
    };
    let mut figure = Figure::new("Losses by step", columns, [220.0, height]);
    let paths: Vec<Vec<Stop>> = report.arms.iter().map(|arm| report.path(arm)).collect();
    for facet in &facets {
        for objective in 0..report.objectives.len() {
            for &set in &sets {
                figure
                    .panels
                    .push(panel(report, looks, &paths, facet, objective, set));
            }
        }
    }
    if figure.panels.is_empty() {
        return None;
    }
    let caption = "Each line is the mean over the runs of an arm, with a band of one standard \
                   error. An objective whose loss rises again while another is trained is being \
                   forgotten. If the loss keeps falling on training rows but not on held-out rows, \
                   the model is overfitting.";
    let apart = report.arms.iter().any(|arm| report.ends_apart(arm));
    let caption = caption.to_owned()
        + if apart {
            " A line ends at the step where the first run of its arm ends."
        } else {
            ""
        };
    Some(Shown {
        name: "curves",
        heading: "Loss curves",
        figure: figure.fit(WIDTH),
        caption,
        table: "curves",
    })
}

/// Mean losses of an arm on a set of rows, by step.
fn line(path: &[Stop], objective: usize, set: EvalSet) -> Vec<(f64, Spread)> {
    path.iter()
        .filter_map(|stop| Some((stop.step as f64, stop.losses[set][objective]?)))
        .collect()
}

fn panel(
    report: &Report,
    looks: &[Style],
    paths: &[Vec<Stop>],
    facet: &Facet,
    objective: usize,
    set: EvalSet,
) -> Panel {
    let optimum = report.settings[facet.setting].ideal[set][objective].as_ref();
    let trained = optimum.is_none_or(|optimum| optimum.trained);
    let optimum = optimum.map(|optimum| optimum.value);
    // All facets of a setting share their axes.
    let whole = (0..report.arms.len()).filter(|i| report.arms[*i].setting == facet.setting);
    let losses: Vec<Spread> = whole
        .flat_map(|i| line(&paths[i], objective, set))
        .map(|(_, loss)| loss)
        .collect();
    let values: Vec<f64> = losses.iter().map(|loss| loss.mean).chain(optimum).collect();
    // Both sets of rows share their scale.
    let sets = paths
        .iter()
        .flat_map(|path| EvalSet::ALL.map(|set| line(path, objective, set)));
    let ratios = spans_decades(sets.flatten().map(|(_, loss)| loss.mean).chain(optimum));
    let name = &report.objectives[objective];
    let title = if facet.name.is_empty() {
        format!("{name} on {}", SET_NAMES[set])
    } else {
        format!("{}: {name}, {}", facet.name, SET_WORDS[set])
    };
    let axis = loss_axis(loss_name(report, objective), ratios);
    let axis = match axis.scale {
        Scale::Linear => axis,
        // With many panels, the panel's title names the loss.
        Scale::Log if facet.name.is_empty() => axis,
        Scale::Log => {
            let unit = if loss_unit(report, objective).is_some() {
                "nats, "
            } else {
                ""
            };
            Axis {
                name: format!("{unit}log scale"),
                ..axis
            }
        }
    };
    let bands = losses
        .iter()
        .flat_map(|loss| [loss.mean - loss.reach(), loss.mean + loss.reach()]);
    let ends = axis.ends(values.into_iter().chain(bands));
    let mut panel = Panel::new(title, Axis::linear("step"), axis.within(ends));
    let lines: Vec<_> = facet
        .arms
        .iter()
        .map(|i| (*i, line(&paths[*i], objective, set)))
        .collect();
    add_bands(&mut panel, looks, &lines);
    if let Some(optimum) = optimum {
        panel.add(
            Mark::Horizontal(optimum),
            Style::thin(Ink::Text).dash(Dash::Dotted).width(1.5),
            &marked("optimum", trained),
        );
    }
    add_means(&mut panel, report, looks, &lines);
    panel
}

/// Adds the lines of arms, given by their index, with bands of one standard error below.
pub(super) fn add_lines(
    panel: &mut Panel,
    report: &Report,
    looks: &[Style],
    lines: &[(usize, Vec<(f64, Spread)>)],
) {
    add_bands(panel, looks, lines);
    add_means(panel, report, looks, lines);
}

fn add_bands(panel: &mut Panel, looks: &[Style], lines: &[(usize, Vec<(f64, Spread)>)]) {
    for (index, line) in lines {
        let ends = |loss: &Spread| [loss.mean - loss.reach(), loss.mean + loss.reach()];
        let band = line
            .iter()
            .map(|(step, loss)| [*step, ends(loss)[0], ends(loss)[1]])
            .collect();
        if line.iter().any(|(_, loss)| loss.reach() > 0.0) {
            panel.add(
                Mark::Band(band),
                Style::thin(looks[*index].ink).opacity(0.16),
                "",
            );
        }
    }
}

fn add_means(
    panel: &mut Panel,
    report: &Report,
    looks: &[Style],
    lines: &[(usize, Vec<(f64, Spread)>)],
) {
    for (index, line) in lines {
        let points = line.iter().map(|(step, loss)| [*step, loss.mean]).collect();
        let style = if line.len() > MARKED {
            looks[*index].unmarked()
        } else {
            looks[*index]
        };
        if !line.is_empty() {
            panel.add(
                Mark::Line(points),
                style.width(1.8),
                &report.arms[*index].method,
            );
        }
    }
}

/// Whether any loss was measured on a set of rows.
fn measured(report: &Report, set: EvalSet) -> bool {
    report
        .arms
        .iter()
        .any(|arm| arm.ends[set].iter().any(Option::is_some))
}

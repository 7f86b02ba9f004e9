//! Which objective was updated when: a strip an arm.

use super::{Shown, WIDTH, contenders, names};
use crate::{Arm, Report};
use upright_plot::{Axis, Figure, Ink, Mark, Panel, Style};

/// Inks of objectives; those of methods mean methods.
const INKS: [Ink; 5] = [
    Ink::Series(4),
    Ink::Muted,
    Ink::Series(5),
    Ink::Series(3),
    Ink::Series(1),
];

/// The figure; none where no arm takes a step on an objective compared.
pub(super) fn decisions(report: &Report) -> Option<Shown> {
    let arms: Vec<&Arm> = contenders(report)
        .iter()
        .map(|i| &report.arms[*i])
        .collect();
    // Arms that descend an objective of their own have nothing to decide.
    let decides = |arm: &&Arm| {
        let descends = arm
            .updates
            .iter()
            .flatten()
            .any(|updates| updates.mean > 0.0);
        descends && report.runs[arm.runs[0]].steps > 0
    };
    let arms: Vec<&Arm> = arms.into_iter().filter(decides).collect();
    let most = arms
        .iter()
        .map(|arm| report.runs[arm.runs[0]].steps)
        .max()?;
    let axis = Axis::linear("step").from(0.0, most as f64);
    let mut panel = Panel::new("", axis, names(&arms));
    for (k, name) in report.objectives.iter().enumerate() {
        let style = Style::thin(INKS[k % INKS.len()]).opacity(0.9);
        for (row, arm) in arms.iter().enumerate() {
            let middle = (arms.len() - 1 - row) as f64;
            let mut band = Vec::new();
            for (from, to, shares) in report.decisions(arm) {
                let low = middle - 0.38 + 0.76 * shares[..k].iter().sum::<f64>();
                let high = low + 0.76 * shares[k];
                band.extend([[from as f64, low, high], [to as f64, low, high]]);
            }
            panel.add(Mark::Band(band), style, name);
        }
    }
    let mut figure = Figure::new(
        "Which objective was updated when",
        1,
        [600.0, arms.len() as f64 * 26.0 + 6.0],
    );
    figure.panels.push(panel);
    let caption =
        "One row an arm (its first run), one sliver a step, from left to right. Sequential changes over once, Mix \
                   updates all objectives in every step, ALRIGHT draws one by its weight, MAXRIGHT takes the one whose \
                   weighted gap is larger."
            .to_owned();
    Some(Shown {
        name: "decisions",
        heading: "Who was updated when",
        figure: figure.fit(WIDTH),
        caption,
        table: "decisions",
    })
}

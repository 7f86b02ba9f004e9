//! Which objective each step trained on: one strip per arm.

use super::{Shown, WIDTH, contenders, height, names};
use crate::{
    compare::{Arm, Report, Role},
    say::table::listed,
};
use upright_core::methods::{self, SEQUENTIAL};
use upright_plot::{Axis, Figure, Ink, Mark, Panel, Style};

/// Inks of objectives, different from those of the methods.
const INKS: [Ink; 5] = [
    Ink::Series(4),
    Ink::Muted,
    Ink::Series(5),
    Ink::Series(3),
    Ink::Series(1),
];

/// The figure; none if no arm takes a step on a compared objective.
pub(super) fn decisions(report: &Report) -> Option<Shown> {
    // Arms that train on an objective that the others lack have nothing to decide.
    let decides = |arm: &Arm| {
        let descends = arm
            .updates
            .iter()
            .flatten()
            .any(|updates| updates.mean > 0.0);
        descends && report.runs[arm.runs[0]].steps > 0 && !arm.is_averaged()
    };
    let mut shown = contenders(report);
    shown.retain(|i| decides(&report.arms[*i]));
    let arms: Vec<&Arm> = shown.iter().map(|i| &report.arms[*i]).collect();
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
        "Which objective each step trained on",
        1,
        [600.0, height(report, &shown, 26.0)],
    );
    figure.panels.push(panel);
    let mut decisions = Vec::new();
    for form in methods::all().iter().flat_map(|method| method.forms) {
        let is_shown = arms.iter().any(|arm| match &arm.role {
            Role::Joint(joint) => joint.form == form,
            Role::Sequential(_) => *form == SEQUENTIAL.forms[0],
            _ => false,
        });
        if is_shown && !form.decides.is_empty() {
            decisions.push(format!("{} {}", form.title, form.decides));
        }
    }
    let mut caption = "One row per arm (its first run), with steps from left to right.".to_owned();
    if !decisions.is_empty() {
        caption += &format!(" {}.", listed(&decisions));
    }
    Some(Shown {
        name: "decisions",
        heading: "Objective per step",
        figure: figure.fit(WIDTH),
        caption,
        table: "decisions",
    })
}

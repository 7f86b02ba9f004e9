//! Styles of arms. The color is the method; dash and marker distinguish arms of the same color,
//! also in gray. Arms of one family, which differ only in their weights, look the same: they are in
//! separate panels or have markers by weight. Averaged arms look like the last iterates of the same
//! runs, because they are in panels of their own too.

use crate::compare::{Arm, Report, Role};
use upright_plot::{Dash, Ink, Marker, Style};

const MARKERS: [Marker; 5] = [
    Marker::Circle,
    Marker::Square,
    Marker::Triangle,
    Marker::Diamond,
    Marker::Down,
];
const DASHES: [Dash; 4] = [Dash::Solid, Dash::Dashed, Dash::DashDotted, Dash::Dotted];

/// A style for every arm of the report.
pub(super) fn looks(report: &Report) -> Vec<Style> {
    let mut families: Vec<(&str, (usize, usize, usize))> = Vec::new();
    for arm in report.arms.iter().filter(|arm| !arm.is_averaged()) {
        if families.iter().any(|(family, _)| *family == arm.family) {
            continue;
        }
        let objective = |name: &String| {
            report
                .objectives
                .iter()
                .position(|other| other == name)
                .unwrap_or(0)
        };
        let (ink, marker) = match &arm.role {
            Role::Joint(joint) => (joint.form.look[0], joint.form.look[1]),
            Role::Sequential(names) if objective(&names[0]) == 0 => (1, 3),
            Role::Sequential(_) => (1, 1),
            Role::Alone(name) => (4, objective(name)),
            Role::Other(_) | Role::Sum | Role::Measured(_) => (5, 3),
        };
        // A family that shares its ink gets the next dash and marker. Arms that train one objective
        // start with the dotted line, so that they differ from the methods in gray too.
        let alike = families
            .iter()
            .filter(|(_, (other, ..))| *other == ink)
            .count();
        let dash = if matches!(arm.role, Role::Alone(_)) {
            DASHES.len() - 1 - alike % DASHES.len()
        } else {
            alike % DASHES.len()
        };
        let taken = |marker: usize| {
            families
                .iter()
                .any(|(_, look)| *look == (ink, marker, dash))
        };
        let marker = (0..MARKERS.len())
            .map(|i| (marker + i) % MARKERS.len())
            .find(|m| !taken(*m))
            .unwrap_or(marker);
        families.push((&arm.family, (ink, marker, dash)));
    }
    let look = |arm: &Arm| {
        let found = families.iter().find(|(family, _)| *family == arm.method);
        let (ink, marker, dash) = found.map(|(_, look)| *look).unwrap_or_default();
        let style = Style {
            ink: Ink::Series(ink),
            dash: DASHES[dash],
            width: 2.0,
            marker: None,
            opacity: 1.0,
        };
        style.marker(MARKERS[marker])
    };
    report.arms.iter().map(look).collect()
}

/// The style of averaged arms in a panel that has the last iterates too.
pub(super) fn beside_last(style: Style) -> Style {
    let dash = DASHES.iter().position(|dash| *dash == style.dash);
    let other = dash.unwrap_or(0) + DASHES.len() / 2;
    style.dash(DASHES[other % DASHES.len()])
}

/// The marker with number `index`.
pub(super) fn marker(index: usize) -> Marker {
    MARKERS[index % MARKERS.len()]
}

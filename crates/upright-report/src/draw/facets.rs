//! Facets: one panel per weights, iterate and setting, so that no panel has too many lines.

use crate::compare::{
    Arm, Report, Role, labels,
    matching::{distinct, matching, same},
};
use upright_core::optimizer::Iterate;

/// The arms of one panel.
pub(super) struct Facet {
    /// What the arms have in common; empty if there is only one facet.
    pub(super) name: String,
    pub(super) setting: usize,
    /// The adapters that its lines are of.
    pub(super) iterate: Iterate,
    /// Indices of the report's arms.
    pub(super) arms: Vec<usize>,
}

/// All facets. Arms that are neither joint nor sequential are in every facet of their setting.
pub(super) fn facets(report: &Report) -> Vec<Facet> {
    let mut places = Vec::new();
    for setting in 0..report.settings.len() {
        for iterate in report.iterates() {
            places.push((setting, iterate));
        }
    }
    let mut facets = Vec::new();
    for (setting, iterate) in places {
        let here = |arm: &Arm| arm.setting == setting && arm.iterate == iterate;
        let own: Vec<usize> = (0..report.arms.len())
            .filter(|i| here(&report.arms[*i]))
            .collect();
        if own.is_empty() {
            continue;
        }
        let arm = |i: &usize| &report.arms[*i];
        let everywhere = |arm: &Arm| {
            matches!(
                arm.role,
                Role::Alone(_) | Role::Other(_) | Role::Sum | Role::Measured(_)
            )
        };
        let weights = distinct(own.iter().map(arm).filter(|arm| arm.is_joint()));
        if weights.is_empty() {
            facets.push(Facet {
                name: String::new(),
                setting,
                iterate,
                arms: own,
            });
            continue;
        }
        let mut placed: Vec<usize> = Vec::new();
        let mut of_setting = Vec::new();
        for weights in &weights {
            let joint: Vec<usize> = own
                .iter()
                .copied()
                .filter(|i| arm(i).is_joint() && same(&arm(i).weights, weights))
                .collect();
            let mut sequential: Vec<usize> = joint
                .iter()
                .flat_map(|i| matching(&report.arms, *i))
                .collect();
            sequential.sort_unstable();
            sequential.dedup();
            placed.extend(&sequential);
            of_setting.push((weights.clone(), [joint, sequential].concat()));
        }
        let left = || {
            own.iter()
                .filter(|i| arm(i).is_sequential() && !placed.contains(i))
        };
        for weights in distinct(left().map(arm)) {
            let arms = left()
                .copied()
                .filter(|i| same(&arm(i).weights, &weights))
                .collect();
            of_setting.push((weights, arms));
        }
        for (weights, mut arms) in of_setting {
            arms.extend(own.iter().filter(|i| everywhere(arm(i))));
            arms.sort_unstable();
            let run = &report.runs[report.settings[setting].runs[0]];
            facets.push(Facet {
                name: labels::weighed(run.plan(), &weights, &report.objectives),
                setting,
                iterate,
                arms,
            });
        }
    }
    let first = facets.first().map(|facet| facet.name.clone());
    let alike = facets
        .iter()
        .all(|facet| Some(&facet.name) == first.as_ref());
    if alike && (report.settings.len() == 1 || facets.len() == 1) {
        facets.iter_mut().for_each(|facet| facet.name.clear());
    }
    for facet in &mut facets {
        let mut words = vec![facet.name.clone()];
        words.extend(report.iterate_name(facet.iterate));
        if report.settings.len() > 1 {
            words.push(report.setting_name(facet.setting));
        }
        words.retain(|word| !word.is_empty());
        facet.name = words.join(", ");
    }
    facets
}

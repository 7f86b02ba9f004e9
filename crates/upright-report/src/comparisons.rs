//! The comparisons that claims are tested on: arms with the same weights, setting and training
//! budget.

use super::{
    Report,
    arm::Comparison,
    arm::{Arm, Role},
    labels,
    matching::{distinct, matching, same},
};

/// The arms of one comparison: those with the same weights, setting and training budget.
pub(super) struct Place<'r> {
    /// Describes weights, budget and setting, each only if there are several.
    pub(super) at: String,
    pub(super) sequential: Vec<&'r Arm>,
    pub(super) mix: Option<&'r Arm>,
    /// ALRIGHT and MAXRIGHT, if they were run.
    pub(super) alternating: Vec<&'r Arm>,
    pub(super) maxright: Option<&'r Arm>,
    /// All other arms with the same measurement and weights: other k, baselines, sums, adapters.
    pub(super) beside: Vec<&'r Arm>,
}

/// The probe interval of the paper, in steps. If it was not run, the smallest interval is used.
const USUAL_PROBES: usize = 10;

/// Every comparison in which a joint method was finished.
pub(super) fn places(report: &Report) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    let finished = |arm: &&Arm| !arm.unfinished;
    for comparison in report.comparisons() {
        let own = move |arm: &&Arm| arm.comparison() == comparison;
        let joint = || {
            report
                .arms
                .iter()
                .filter(finished)
                .filter(own)
                .filter(|arm| arm.is_joint())
        };
        for weights in distinct(joint()) {
            let with = |role: Role| {
                let mut found: Vec<&Arm> = joint()
                    .filter(|arm| arm.role == role && same(&arm.weights, &weights))
                    .collect();
                found.sort_by_key(|arm| (arm.probe_every != Some(USUAL_PROBES), arm.probe_every));
                found.first().copied()
            };
            let any = report.arms.iter().position(|arm| {
                own(&arm) && !arm.unfinished && arm.is_joint() && same(&arm.weights, &weights)
            });
            let sequential = any
                .map(|index| matching(&report.arms, index))
                .unwrap_or_default();
            let (mix, alright, maxright) =
                (with(Role::Mix), with(Role::Alright), with(Role::Maxright));
            let taken: Vec<&Arm> = [mix, alright, maxright].into_iter().flatten().collect();
            let in_setting =
                |arm: &Arm| arm.setting == comparison.setting && arm.iterate == comparison.iterate;
            let here = |arm: &&Arm| match arm.role {
                _ if arm.is_joint() => own(arm) && same(&arm.weights, &weights),
                Role::Other(_) => own(arm),
                Role::Sum => in_setting(arm) && same(&arm.weights, &weights),
                Role::Measured(_) => in_setting(arm),
                _ => false,
            };
            let beside = report.arms.iter().filter(finished).filter(here);
            places.push(Place {
                at: place(report, comparison, &weights),
                sequential: sequential
                    .into_iter()
                    .map(|i| &report.arms[i])
                    .filter(finished)
                    .collect(),
                mix,
                alternating: [alright, maxright].into_iter().flatten().collect(),
                maxright,
                beside: beside
                    .filter(|arm| taken.iter().all(|other| other.label != arm.label))
                    .collect(),
            });
        }
    }
    places
}

/// Describes weights, budget and setting, each only if there are several.
pub(super) fn place(report: &Report, comparison: Comparison, weights: &[f64]) -> String {
    let of = |arm: &&Arm| arm.is_joint() && !arm.unfinished;
    let mut words = Vec::new();
    if distinct(report.arms.iter().filter(of)).len() > 1 {
        let run = &report.runs[report.settings[comparison.setting].runs[0]];
        words.push(labels::weighed(run.plan(), weights, &report.objectives));
    }
    words.push(report.comparison_name(comparison));
    words.retain(|words| !words.is_empty());
    words.join(", ")
}

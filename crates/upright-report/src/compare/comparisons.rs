//! The comparisons that claims are tested on: arms with the same weights, setting and iterate, at
//! equal steps or at equal tokens.

use super::{
    arm::{Arm, Comparison, Role},
    labels,
    level::Level,
    matching::{distinct, matching, same},
    report::Report,
};
use upright_core::{
    methods::{ALRIGHT, MAXRIGHT, MIX, MethodSpec},
    optimizer::Iterate,
};

/// The arms of one comparison: those with the same weights and setting that took as many steps or
/// trained on as many tokens.
pub(crate) struct Place<'r> {
    /// Describes weights, budget, iterate and setting, each only if there are several.
    pub(crate) at: String,
    /// The adapters that are compared.
    pub(crate) iterate: Iterate,
    /// At equal tokens, about how many.
    pub(crate) tokens: Option<f64>,
    pub(crate) sequential: Vec<&'r Arm>,
    /// Mix, if it was run. At equal tokens, Mix of any length and with half batches.
    pub(crate) mixes: Vec<&'r Arm>,
    /// ALRIGHT and MAXRIGHT, if they were run.
    pub(crate) alternating: Vec<&'r Arm>,
    pub(crate) maxright: Option<&'r Arm>,
    /// All other arms with the same measurement and weights: other k, baselines, sums, adapters.
    pub(crate) beside: Vec<&'r Arm>,
}

/// The probe interval of the paper, in steps. If it was not run, the smallest interval is used.
const USUAL_PROBES: usize = 10;

impl<'r> Place<'r> {
    /// Sorts finished arms by what they do. Mix is what `mixes` accepts.
    fn of(at: String, iterate: Iterate, arms: &[&'r Arm], mixes: fn(&Arm) -> bool) -> Self {
        let alright = with(arms, &ALRIGHT);
        let maxright = with(arms, &MAXRIGHT);
        let mut place = Self {
            at,
            iterate,
            tokens: None,
            sequential: Vec::new(),
            mixes: Vec::new(),
            alternating: alright.into_iter().chain(maxright).collect(),
            maxright,
            beside: Vec::new(),
        };
        for arm in arms {
            if arm.is_sequential() {
                place.sequential.push(arm);
            } else if mixes(arm) {
                place.mixes.push(arm);
            } else if place.alternating.iter().all(|own| own.label != arm.label) {
                place.beside.push(arm);
            }
        }
        place
    }
}

/// The first arm of a method; if it probes, the one with the usual probe interval.
fn with<'r>(arms: &[&'r Arm], method: &MethodSpec) -> Option<&'r Arm> {
    let mut found: Vec<&Arm> = arms
        .iter()
        .copied()
        .filter(|arm| arm.role.is(method))
        .collect();
    found.sort_by_key(|arm| (arm.probe_every != Some(USUAL_PROBES), arm.probe_every));
    found.first().copied()
}

/// Every comparison at equal steps in which a joint method was finished.
pub(crate) fn places(report: &Report) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for comparison in report.comparisons() {
        let own = |arm: &Arm| arm.comparison() == comparison && !arm.unfinished;
        let joint = |arm: &&Arm| own(arm) && arm.is_joint();
        for weights in distinct(report.arms.iter().filter(joint)) {
            let mut arms = Vec::new();
            let any = report
                .arms
                .iter()
                .position(|arm| joint(&arm) && same(&arm.weights, &weights));
            for index in any
                .map(|any| matching(&report.arms, any))
                .unwrap_or_default()
            {
                arms.push(&report.arms[index]);
            }
            arms.retain(|arm| !arm.unfinished);
            let in_setting =
                |arm: &Arm| arm.setting == comparison.setting && arm.iterate == comparison.iterate;
            let here = |arm: &Arm| match arm.role {
                _ if arm.is_joint() => own(arm) && same(&arm.weights, &weights),
                Role::Other(_) => own(arm),
                Role::Sum => in_setting(arm) && same(&arm.weights, &weights),
                Role::Measured(_) => in_setting(arm),
                _ => false,
            };
            for arm in &report.arms {
                if here(arm) && !arm.unfinished {
                    arms.push(arm);
                }
            }
            let at = place(report, comparison, &weights);
            let iterate = comparison.iterate;
            places.push(Place::of(at, iterate, &arms, |arm| arm.role.is(&MIX)));
        }
    }
    places
}

/// Every comparison at equal tokens.
pub(crate) fn level_places(report: &Report) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for level in &report.levels {
        let arms: Vec<&Arm> = level.arms.iter().map(|i| &report.arms[*i]).collect();
        let mut place = Place::of(
            level_place(report, level),
            level.iterate,
            &arms,
            Arm::is_mix,
        );
        place.tokens = Some(level.tokens);
        places.push(place);
    }
    places
}

/// Describes weights, budget, iterate and setting, each only if there are several.
pub(crate) fn place(report: &Report, comparison: Comparison, weights: &[f64]) -> String {
    let mut words = weights_in(report, comparison.setting, weights);
    words.push(report.comparison_name(comparison));
    words.retain(|words| !words.is_empty());
    words.join(", ")
}

/// Describes the weights of a level and its [`Report::level_name`].
fn level_place(report: &Report, level: &Level) -> String {
    let mut words = weights_in(report, level.setting, &level.weights);
    words.push(report.level_name(level));
    words.retain(|words| !words.is_empty());
    words.join(", ")
}

/// Describes weights, if the report has several.
fn weights_in(report: &Report, setting: usize, weights: &[f64]) -> Vec<String> {
    let of = |arm: &&Arm| arm.is_joint() && !arm.unfinished;
    if distinct(report.arms.iter().filter(of)).len() < 2 {
        return Vec::new();
    }
    let run = &report.runs[report.settings[setting].runs[0]];
    vec![labels::weighed(run.plan(), weights, &report.objectives)]
}

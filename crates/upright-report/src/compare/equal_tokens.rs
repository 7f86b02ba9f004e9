//! Finds the comparisons at equal tokens, and names them.

use super::{
    arm::{Arm, Comparison},
    level::{Level, is_level},
    matching::{distinct, matching, same},
    report::Report,
};
use upright_core::methods::{ALRIGHT, MIX};
use upright_core::metrics::Spread;

/// Every comparison at equal tokens that differs from the one at equal steps: one in which a Mix of
/// another length or with half batches competes.
pub(super) fn levels(report: &Report) -> Vec<Level> {
    let mut levels = Vec::new();
    for comparison in report.comparisons() {
        let joint =
            |arm: &&Arm| arm.comparison() == comparison && arm.is_joint() && !arm.unfinished;
        for weights in distinct(report.arms.iter().filter(joint)) {
            levels.extend(level(report, comparison, weights));
        }
    }
    levels
}

/// The level of a comparison at some weights; none if it does not differ from the comparison at
/// equal steps.
fn level(report: &Report, comparison: Comparison, weights: Vec<f64>) -> Option<Level> {
    let terms = comparison.terms?;
    let index = report.arms.iter().position(|arm| {
        let own = arm.comparison() == comparison && arm.is_joint() && !arm.unfinished;
        own && same(&arm.weights, &weights)
    })?;
    let sequential = matching(&report.arms, index);
    let set_by = set_by(report, comparison, &weights, &sequential);
    let tokens: Option<Vec<Spread>> = set_by.iter().map(|arm| arm.tokens).collect();
    let tokens = tokens.filter(|tokens| !tokens.is_empty())?;
    let tokens = Spread::mean_of(&tokens).mean;
    let mut arms = Vec::new();
    let mut differs = false;
    for (other, arm) in report.arms.iter().enumerate() {
        let family = arm.terms.map(|terms| report.families[terms]);
        let alike = arm.setting == comparison.setting
            && arm.iterate == comparison.iterate
            && family == Some(report.families[terms]);
        let weighed = same(&arm.weights, &weights) || sequential.contains(&other);
        let plays = weighed && (arm.is_joint() || arm.is_sequential());
        if alike && plays && !arm.unfinished && is_level(arm, tokens) {
            arms.push(other);
            differs |= arm.is_mix() && (!arm.role.is(&MIX) || arm.terms != Some(terms));
        }
    }
    (differs && arms.len() > 1).then(|| Level {
        setting: comparison.setting,
        terms: comparison.terms,
        iterate: comparison.iterate,
        set_by: set_by.iter().map(|arm| arm.label.clone()).collect(),
        weights,
        tokens,
        arms,
    })
}

/// The arms that set the number of tokens: ALRIGHT, or the sequential arms without it.
fn set_by<'r>(
    report: &'r Report,
    comparison: Comparison,
    weights: &[f64],
    sequential: &[usize],
) -> Vec<&'r Arm> {
    for arm in &report.arms {
        let own = arm.comparison() == comparison && !arm.unfinished;
        if own && arm.role.is(&ALRIGHT) && same(&arm.weights, weights) {
            return vec![arm];
        }
    }
    let mut found: Vec<&Arm> = sequential.iter().map(|i| &report.arms[*i]).collect();
    found.retain(|arm| !arm.unfinished);
    found
}

impl Report {
    /// Names a level: the arms that set its tokens, the iterate and the setting, each only if there
    /// are several.
    pub(crate) fn level_name(&self, level: &Level) -> String {
        let mut words = Vec::new();
        let several = |other: &Level| {
            other.setting == level.setting
                && other.terms != level.terms
                && same(&other.weights, &level.weights)
        };
        if self.levels.iter().any(several) {
            words.push(format!("tokens of \u{201c}{}\u{201d}", level.set_by[0]));
        }
        words.extend(self.iterate_name(level.iterate));
        if self.settings.len() > 1 {
            words.push(self.setting_name(level.setting));
        }
        words.join(", ")
    }
}

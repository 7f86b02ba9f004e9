//! Comparisons at equal tokens: arms of any length and batches that trained on about as many tokens
//! as ALRIGHT.

use serde::Serialize;

use super::{
    Report,
    arm::{Arm, Comparison, Role},
    matching::{distinct, matching, same},
};
use upright_core::{metrics::Spread, optimizer::Iterate};

/// Largest difference in tokens at which two arms still trained on about as many, as a share.
const WITHIN: f64 = 0.1;

/// What is equal in a comparison. A text says it only if the report has comparisons of both kinds.
pub(crate) const AT_EQUAL_STEPS: &str = " at equal steps";
pub(crate) const AT_EQUAL_TOKENS: &str = " at equal tokens";

/// Arms with the same setting, batches, adapter shape, optimizer, iterate and weights that trained
/// on about as many tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Level {
    /// Index of the report's setting.
    pub setting: usize,
    /// Index of the training budget of the arms that set the number of tokens.
    pub terms: Option<usize>,
    /// The adapters that are compared.
    pub iterate: Iterate,
    /// Weights of the objectives.
    pub weights: Vec<f64>,
    /// Labels of the arms that set the number of tokens: ALRIGHT, or Sequential if ALRIGHT was not
    /// run.
    pub set_by: Vec<String>,
    /// Their mean tokens trained on.
    pub tokens: f64,
    /// Indices of the report's arms within a tenth of these tokens.
    pub arms: Vec<usize>,
}

impl Level {
    /// The comparison at equal steps of the arms that set the number of tokens.
    pub(crate) fn comparison(&self) -> Comparison {
        Comparison {
            setting: self.setting,
            terms: self.terms,
            iterate: self.iterate,
        }
    }
}

/// Every comparison at equal tokens that differs from the one at equal steps: one in which a Mix of
/// another length or with half batches competes.
pub(crate) fn levels(report: &Report) -> Vec<Level> {
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
            differs |= arm.is_mix() && (arm.role == Role::MixHalf || arm.terms != Some(terms));
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
        if own && arm.role == Role::Alright && same(&arm.weights, weights) {
            return vec![arm];
        }
    }
    let mut found: Vec<&Arm> = sequential.iter().map(|i| &report.arms[*i]).collect();
    found.retain(|arm| !arm.unfinished);
    found
}

/// Whether an arm trained on about as many tokens. A difference of exactly a tenth counts.
fn is_level(arm: &Arm, tokens: f64) -> bool {
    let rounding = 1e-9 * tokens;
    arm.tokens
        .is_some_and(|own| (own.mean - tokens).abs() <= WITHIN * tokens + rounding)
}

/// Whether the tokens of some arms differ by more than a tenth of the fewest.
pub(crate) fn differ_in_tokens(arms: &[&Arm]) -> bool {
    let mut fewest = f64::INFINITY;
    let mut most: f64 = 0.0;
    for arm in arms {
        if let Some(tokens) = arm.tokens {
            fewest = fewest.min(tokens.mean);
            most = most.max(tokens.mean);
        }
    }
    most > fewest * (1.0 + WITHIN) * (1.0 + 1e-9)
}

/// A number of tokens in words, with four digits or more: `1080 tokens`, `62.1k tokens`.
pub(crate) fn in_words(tokens: f64) -> String {
    if tokens >= 1e7 {
        format!("{:.1}M tokens", tokens / 1e6)
    } else if tokens >= 1e4 {
        format!("{:.1}k tokens", tokens / 1e3)
    } else {
        format!("{tokens:.0} tokens")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_in_words() {
        let words = [0.0, 1080.4, 9999.0, 62_100.0, 12_340_000.0].map(in_words);
        assert_eq!(
            words,
            [
                "0 tokens",
                "1080 tokens",
                "9999 tokens",
                "62.1k tokens",
                "12.3M tokens"
            ]
        );
    }
}

//! Comparisons at equal tokens: arms of any length and batches that trained on about as many tokens
//! as ALRIGHT.

use serde::Serialize;

use super::arm::{Arm, Comparison};
use upright_core::optimizer::Iterate;

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

/// Whether an arm trained on about as many tokens. A difference of exactly a tenth counts.
pub(super) fn is_level(arm: &Arm, tokens: f64) -> bool {
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

//! Inputs and outputs of a pass: log-probabilities, and the derivative of a loss with respect to
//! them.

use upright_base::{Error, Result};
use upright_model::pack::Pack;

/// Log-probabilities of a pack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `log pi(token)` of every target of the pack, in nats.
    pub logp: Vec<f64>,
}

/// The derivative of a loss with respect to the log-probabilities of a pack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slopes {
    /// `d loss / d logp` of every target of the pack.
    pub logp: Vec<f64>,
}

/// Rejects a pack with tokens outside the vocabulary.
///
/// # Panics
/// If a target's row is not a row of the pack.
pub(crate) fn check_tokens(pack: &Pack, vocab: usize) -> Result<()> {
    let len = pack.tokens.len();
    assert!(
        pack.targets.iter().all(|target| target.row < len),
        "a target's row is a row of the pack"
    );
    let targets = pack.targets.iter().map(|target| &target.token);
    for token in pack.tokens.iter().chain(targets) {
        if *token as usize >= vocab {
            return Err(Error::input(format!(
                "token id {token} is outside the model's vocabulary of {vocab} tokens"
            ))
            .hint("use the tokenizer of this model"));
        }
    }
    Ok(())
}

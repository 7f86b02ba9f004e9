//! Prompts whose keys and values are kept, so that a later prompt that begins alike is not computed
//! from its start. The prompts that were used longest ago go first.

use upright_engine::generation::{Following, SequenceId};

/// Least tokens in common for which a kept prompt is used.
const LEAST: usize = 16;

/// Most prompts that are kept.
const MOST: usize = 64;

/// A kept prompt.
#[derive(Debug)]
pub(super) struct Prefix {
    /// The number of the model that computed it.
    pub(super) model: u64,
    /// Its sequence.
    pub(super) sequence: SequenceId,
    /// Its tokens. The sequence may have more, which are not used.
    pub(super) tokens: Vec<u32>,
    /// What follows each token but the last, if it was scored.
    pub(super) following: Vec<Following>,
    /// Candidates per position of `following`; `None` if it was not scored.
    pub(super) score: Option<usize>,
    /// Bytes of its sequence.
    pub(super) bytes: usize,
}

/// The part of a prompt that is known.
#[derive(Debug, PartialEq)]
pub(super) struct Known {
    /// The sequence that begins alike.
    pub(super) sequence: SequenceId,
    /// Tokens that need not be computed.
    pub(super) tokens: usize,
    /// What follows each of these tokens, if scores are requested.
    pub(super) following: Vec<Following>,
}

/// Length of the common prefix of two prompts.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// All kept prompts, the one used longest ago first.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<Prefix>);

impl Prefixes {
    /// Bytes of all kept prompts.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|prefix| prefix.bytes).sum()
    }

    /// The longest known beginning of a prompt. With `score`, the kept prompt must have been scored
    /// with as many candidates. Its last token in common is computed again, because the token that
    /// follows it differs.
    pub(super) fn find(
        &mut self,
        model: u64,
        prompt: &[u32],
        score: Option<usize>,
    ) -> Option<Known> {
        let mut best = None;
        for (index, prefix) in self.0.iter().enumerate() {
            if prefix.model != model {
                continue;
            }
            let common = common(&prefix.tokens, prompt);
            let tokens = match score {
                None => common.min(prompt.len() - 1),
                Some(score) if prefix.score.is_some_and(|kept| kept >= score) => {
                    common.saturating_sub(1)
                }
                Some(_) => 0,
            };
            if tokens >= LEAST && best.is_none_or(|(_, most)| tokens > most) {
                best = Some((index, tokens));
            }
        }
        let (index, tokens) = best?;
        let prefix = self.0.remove(index);
        let mut following = Vec::new();
        if let Some(score) = score {
            following.extend_from_slice(&prefix.following[..tokens]);
            for one in &mut following {
                one.best.truncate(score);
            }
        }
        let known = Known {
            sequence: prefix.sequence,
            tokens,
            following,
        };
        self.0.push(prefix);
        Some(known)
    }

    /// Keeps a prompt. Returns the prompts that go: those that begin it and know no more, and those
    /// beyond the limit.
    pub(super) fn keep(&mut self, new: Prefix) -> Vec<Prefix> {
        let is_part = |old: &mut Prefix| {
            old.model == new.model
                && new.tokens.starts_with(&old.tokens)
                && old.score.unwrap_or(0) <= new.score.unwrap_or(0)
                && (new.score.is_some() || old.score.is_none())
        };
        let mut gone: Vec<Prefix> = self.0.extract_if(.., is_part).collect();
        self.0.push(new);
        if self.0.len() > MOST {
            gone.push(self.0.remove(0));
        }
        gone
    }

    /// Removes the prompts of a model, whose sequences end together with it.
    pub(super) fn forget(&mut self, model: u64) {
        self.0.retain(|prefix| prefix.model != model);
    }

    /// The sequence of the prompt that was used longest ago.
    pub(super) fn oldest(&self) -> Option<SequenceId> {
        self.0.first().map(|prefix| prefix.sequence)
    }

    /// Removes the prompt that was used longest ago.
    pub(super) fn evict(&mut self) -> Option<Prefix> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}

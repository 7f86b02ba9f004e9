//! The most likely tokens of a row, found chunk by chunk of the vocabulary.

use crate::next::Candidate;

/// The most likely tokens of one row. Their log-probabilities have the bits of targets'
/// log-probabilities.
pub(super) struct Best {
    count: usize,
    /// Largest logits so far, best first; ties go to the smaller token.
    found: Vec<Candidate>,
}

impl Best {
    /// No tokens yet, `count` of them in the end.
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            found: Vec::with_capacity(count),
        }
    }

    /// Adds the logits of the tokens from `first` on.
    pub(super) fn absorb(&mut self, first: usize, z: &[f32]) {
        if self.count == 0 {
            return;
        }
        for (token, &z) in (first..).zip(z) {
            let z = f64::from(z);
            let is_full = self.found.len() == self.count;
            if is_full && self.found.last().is_some_and(|last| z <= last.logp) {
                continue;
            }
            let place = self.found.partition_point(|other| other.logp >= z);
            self.found.truncate(self.count - 1);
            let token = token as u32;
            self.found.insert(place, Candidate { token, logp: z });
        }
    }

    /// Turns the logits into log-probabilities, given the log-sum-exp of all logits.
    pub(super) fn finish(&mut self, log_sum_exp: f64) {
        for candidate in &mut self.found {
            candidate.logp -= log_sum_exp;
        }
    }

    /// The tokens, best first.
    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        self.found
    }
}

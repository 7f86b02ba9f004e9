//! Next-token predictions.

use std::cmp::Ordering;

/// Which part of the next-token prediction to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// All logits.
    Logits,
    /// The N most likely tokens.
    Best(usize),
}

/// The next-token prediction of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The logits `[V]`.
    Logits(Vec<f32>),
    /// The most likely tokens, best first; ties go to the smaller id.
    Best(Vec<Candidate>),
}

/// What the model predicts after a token of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Following {
    /// Log-probability of the token that follows in the prompt, in nats.
    pub logp: f64,
    /// The most likely tokens, best first; ties go to the smaller id. The log-probability of the
    /// following token has the same bits here.
    pub best: Vec<Candidate>,
}

/// A candidate for the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub token: u32,
    /// Log-probability, in nats.
    pub logp: f64,
}

impl Next {
    /// The prediction that `want` asks for, from the logits of one row.
    pub(crate) fn of_logits(logits: &[f32], want: Want) -> Self {
        let count = match want {
            Want::Logits => return Self::Logits(logits.to_vec()),
            Want::Best(count) => count.min(logits.len()),
        };
        let better =
            |a: &usize, b: &usize| -> Ordering { logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)) };
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if count > 0 && count < order.len() {
            order.select_nth_unstable_by(count - 1, better);
        }
        order.truncate(count);
        order.sort_unstable_by(better);
        let (largest, sum) = normalizer(logits);
        let mut best = Vec::with_capacity(count);
        for token in order {
            best.push(Candidate {
                token: token as u32,
                logp: f64::from(logits[token] - largest) - sum.ln(),
            });
        }
        Self::Best(best)
    }

    /// The most likely tokens, best first: `count` of them, or fewer if fewer were requested from
    /// the engine.
    pub fn candidates(&self, count: usize) -> Vec<Candidate> {
        match self {
            Self::Best(best) => best[..count.min(best.len())].to_vec(),
            Self::Logits(logits) => Self::of_logits(logits, Want::Best(count)).best().to_vec(),
        }
    }

    /// Log-probability of a token, in nats, with the bits of [`Next::candidates`].
    ///
    /// # Panics
    /// If the token is not among those that were requested from the engine.
    pub fn logp(&self, token: u32) -> f64 {
        match self {
            Self::Best(best) => {
                let found = best.iter().find(|candidate| candidate.token == token);
                found.expect("a token that was requested").logp
            }
            Self::Logits(logits) => {
                let (largest, sum) = normalizer(logits);
                f64::from(logits[token as usize] - largest) - sum.ln()
            }
        }
    }

    /// The logits.
    ///
    /// # Panics
    /// If they were not requested.
    pub fn logits(&self) -> &[f32] {
        match self {
            Self::Logits(logits) => logits,
            Self::Best(_) => panic!("logits were not requested"),
        }
    }

    /// The best tokens.
    ///
    /// # Panics
    /// If they were not requested.
    pub fn best(&self) -> &[Candidate] {
        match self {
            Self::Best(best) => best,
            Self::Logits(_) => panic!("the best tokens were not requested"),
        }
    }
}

/// The largest logit, and the sum of `exp(logit - largest)`.
fn normalizer(logits: &[f32]) -> (f32, f64) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for z in logits {
        sum += f64::from(z - largest).exp();
    }
    (largest, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities are e^0, e^3, e^1, e^3, e^-2 over their sum, 44.02. The first of two equal
    /// logits comes first.
    #[test]
    fn the_best_tokens_come_with_their_log_probabilities() {
        let logits = [0.0, 3.0, 1.0, 3.0, -2.0];
        let best = Next::of_logits(&logits, Want::Best(3));
        let tokens: Vec<u32> = best
            .best()
            .iter()
            .map(|candidate| candidate.token)
            .collect();
        assert_eq!(tokens, [1, 3, 2]);
        for (candidate, share) in best.best().iter().zip([0.4563, 0.4563, 0.0617]) {
            assert!((candidate.logp.exp() - share).abs() < 1e-4, "{candidate:?}");
        }
        assert_eq!(Next::of_logits(&logits, Want::Best(9)).best().len(), 5);
        let whole = Next::of_logits(&logits, Want::Logits);
        assert_eq!(whole.candidates(3), best.best());
        assert_eq!(best.candidates(2), best.best()[..2]);
        assert_eq!(whole.logp(2), best.logp(2));
        assert_eq!(Next::of_logits(&logits, Want::Logits).logits(), logits);
    }
}

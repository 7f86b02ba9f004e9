//! The first pass over prompts: which tokens are computed, and where each prompt finds its own.

use upright_model::pack::{Pack, SHARED, Target};

use crate::next::{Candidate, Following, Next};

/// A prompt of a pass. Sequences are numbered as in [`Sequences`](crate::backend::Sequences).
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewPrompt<'t> {
    /// Its tokens, at least one.
    pub(crate) tokens: &'t [u32],
    /// A sequence, and how many of its first tokens are the prompt's first tokens; fewer than the
    /// prompt has.
    pub(crate) after: Option<(usize, usize)>,
    /// The sequence to start, if the prompt is continued later.
    pub(crate) keep: Option<usize>,
}

impl NewPrompt<'_> {
    /// Number of tokens whose keys and values are known.
    pub(crate) fn known(&self) -> usize {
        self.after.map_or(0, |(_, tokens)| tokens)
    }
}

/// The pack of some prompts.
#[derive(Debug)]
pub(crate) struct Prefill {
    /// All tokens, with common prefixes once, without targets.
    pub(crate) pack: Pack,
    /// For every span, how many of its first tokens are known.
    pub(crate) known: Vec<usize>,
    /// For every span with known tokens, a sequence that has them.
    pub(crate) sources: Vec<Option<usize>>,
    /// Rows of the pack that are computed, ascending.
    pub(crate) computed: Vec<usize>,
    /// For every prompt, the rows of the pack that hold its tokens.
    pub(crate) paths: Vec<Vec<usize>>,
}

impl Prefill {
    /// Lays the prompts into one pack.
    ///
    /// # Panics
    /// If a prompt is empty, or all of its tokens are known.
    pub(crate) fn new(prompts: &[NewPrompt<'_>]) -> Self {
        let mut pack = Pack::default();
        for prompt in prompts {
            assert!(
                prompt.known() < prompt.tokens.len(),
                "a prompt has a token to compute"
            );
            let start = pack.tokens.len();
            pack.root(prompt.tokens);
            // Targets follow their rows when prefixes are shared.
            for row in start..pack.tokens.len() {
                pack.targets.push(Target { row, token: 0 });
            }
        }
        let mut pack = pack.with_shared_beginnings(SHARED);
        let mut targets = std::mem::take(&mut pack.targets).into_iter();
        let mut paths = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let mut path = Vec::with_capacity(prompt.tokens.len());
            for target in targets.by_ref().take(prompt.tokens.len()) {
                path.push(target.row);
            }
            paths.push(path);
        }

        // A token is known if it is known to every prompt that has it.
        let mut span_of = Vec::with_capacity(pack.tokens.len());
        for (index, span) in pack.spans.iter().enumerate() {
            span_of.resize(span_of.len() + span.len, index);
        }
        let mut known: Vec<usize> = pack.spans.iter().map(|span| span.len).collect();
        let mut sources = vec![None; pack.spans.len()];
        for (prompt, path) in prompts.iter().zip(&paths) {
            let mut at = 0;
            while at < path.len() {
                let span = span_of[path[at]];
                let len = pack.spans[span].len;
                let here = prompt.known().saturating_sub(at).min(len);
                known[span] = known[span].min(here);
                if sources[span].is_none() {
                    sources[span] = prompt.after.map(|(sequence, _)| sequence);
                }
                at += len;
            }
        }
        let mut computed = Vec::new();
        for (index, span) in pack.spans.iter().enumerate() {
            if known[index] == 0 {
                sources[index] = None;
            }
            computed.extend(span.start + known[index]..span.start + span.len);
        }
        Self {
            pack,
            known,
            sources,
            computed,
            paths,
        }
    }

    /// Positions and tokens of the computed rows.
    pub(crate) fn computed_tokens(&self) -> (Vec<usize>, Vec<u32>) {
        let all = self.pack.positions();
        let mut positions = Vec::with_capacity(self.computed.len());
        let mut tokens = Vec::with_capacity(self.computed.len());
        for &row in &self.computed {
            positions.push(all[row]);
            tokens.push(self.pack.tokens[row]);
        }
        (positions, tokens)
    }

    /// Index among the `wanted` computed rows of a row of the pack.
    ///
    /// # Panics
    /// If the row is not wanted.
    pub(crate) fn wanted_index(&self, wanted: &[usize], row: usize) -> usize {
        let computed = self.computed_index(row);
        wanted.binary_search(&computed).expect("the row is wanted")
    }

    /// The tokens that follow in the prompts, as targets of the `wanted` rows, prompt by prompt.
    pub(crate) fn following_targets(
        &self,
        prompts: &[NewPrompt<'_>],
        wanted: &[usize],
    ) -> Vec<Target> {
        let mut targets = Vec::new();
        for (prompt, path) in prompts.iter().zip(&self.paths) {
            for at in prompt.known()..path.len() - 1 {
                targets.push(Target {
                    row: self.wanted_index(wanted, path[at]),
                    token: prompt.tokens[at + 1],
                });
            }
        }
        targets
    }

    /// Index of a row of the pack among the computed rows.
    ///
    /// # Panics
    /// If the row is not computed.
    pub(crate) fn computed_index(&self, row: usize) -> usize {
        self.computed
            .binary_search(&row)
            .expect("the row is computed")
    }
}

/// What every prompt is told: its next token, and what follows each of its `targets`, given their log-probabilities and the most likely
/// tokens of every wanted row.
pub(crate) fn readings(
    prompts: &[NewPrompt<'_>],
    next: Vec<Next>,
    targets: &[Target],
    logp: Vec<f64>,
    best: &[Vec<Candidate>],
) -> Vec<(Next, Vec<Following>)> {
    let mut scores = targets.iter().zip(logp);
    let mut read = Vec::with_capacity(prompts.len());
    for (prompt, next) in prompts.iter().zip(next) {
        let count = prompt.tokens.len() - 1 - prompt.known();
        let mut following = Vec::with_capacity(count);
        for (target, logp) in scores.by_ref().take(count) {
            following.push(Following {
                logp,
                best: best[target.row].clone(),
            });
        }
        read.push((next, following));
    }
    read
}

/// Computed rows whose hidden states are needed, ascending: the last row of every prompt, and with
/// `is_scored` all rows from which a token of a prompt is predicted.
pub(crate) fn wanted_rows(
    prompts: &[NewPrompt<'_>],
    prefill: &Prefill,
    is_scored: bool,
) -> Vec<usize> {
    let mut wanted = Vec::new();
    for (prompt, path) in prompts.iter().zip(&prefill.paths) {
        let first = if is_scored {
            prompt.known()
        } else {
            path.len() - 1
        };
        for &row in &path[first..] {
            wanted.push(prefill.computed_index(row));
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two prompts share 20 tokens. One knows 25 of its 30 tokens and the other 18 of its 24, so 18
    /// tokens of the prefix are known, and 5 of the first prompt's own 10.
    #[test]
    fn what_every_prompt_knows_is_not_computed() {
        let prefix: Vec<u32> = (0..20).collect();
        let first: Vec<u32> = prefix.iter().copied().chain(100..110).collect();
        let second: Vec<u32> = prefix.iter().copied().chain(200..204).collect();
        let prompts = [
            NewPrompt {
                tokens: &first,
                after: Some((7, 25)),
                keep: None,
            },
            NewPrompt {
                tokens: &second,
                after: Some((8, 18)),
                keep: Some(3),
            },
        ];
        let prefill = Prefill::new(&prompts);
        let lengths: Vec<usize> = prefill.pack.spans.iter().map(|span| span.len).collect();
        assert_eq!(lengths, [20, 10, 4]);
        assert_eq!(prefill.known, [18, 5, 0]);
        assert_eq!(prefill.sources, [Some(7), Some(7), None]);
        let rows: Vec<usize> = (18..20).chain(25..34).collect();
        assert_eq!(prefill.computed, rows);
        assert_eq!(prefill.computed_index(25), 2);
        let tokens = |path: &[usize]| -> Vec<u32> {
            path.iter().map(|row| prefill.pack.tokens[*row]).collect()
        };
        assert_eq!(tokens(&prefill.paths[0]), first);
        assert_eq!(tokens(&prefill.paths[1]), second);
        assert!(prefill.pack.targets.is_empty());
    }
}

//! Continuations of prompts: greedy or sampled, several at a time.

use std::path::Path;

use serde_json::Value;
use upright_base::{Error, Result, files, progress::Progress};
use upright_data::{Template, Tokenizer};
use upright_engine::{
    Decoder, DeviceAdapter,
    generation::{Next, SequenceId, Want},
};
use upright_math::random::uniform;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Maximum tokens of a response.
    pub max_tokens: usize,
    /// 0 selects the most likely token; otherwise the logits are divided by the temperature.
    pub temperature: f64,
    /// Nucleus: tokens are drawn only from the most likely ones that together have this
    /// probability.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// What to request from the engine: only the most likely token if nothing is drawn.
    fn want(&self) -> Want {
        if self.temperature == 0.0 {
            Want::Best(1)
        } else {
            Want::Logits
        }
    }

    /// The next token, from logits, or from the most likely token if the temperature is 0. `response`
    /// and `position` number the draw.
    ///
    /// # Panics
    /// If a token has to be drawn and there are no logits.
    pub fn choose(&self, next: &Next, response: usize, position: usize) -> u32 {
        if self.temperature == 0.0 {
            next.candidates(1)[0].token
        } else {
            self.draw(next.logits(), response, position)
        }
    }

    /// Draws the next token. The draw is a function of the seed, the response's index and the
    /// position in the response.
    fn draw(&self, logits: &[f32], response: usize, position: usize) -> u32 {
        let likelier = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let mut sorted = LIKELY.min(order.len());
        if sorted < order.len() {
            order.select_nth_unstable_by(sorted - 1, likelier);
        }
        order[..sorted].sort_unstable_by(likelier);
        let largest = f64::from(logits[order[0]]);
        let share = |token: usize| ((f64::from(logits[token]) - largest) / self.temperature).exp();
        let total: f64 = (0..logits.len()).map(share).sum();
        let uniform = uniform(
            self.seed ^ (response as u64).rotate_left(32),
            position as u64,
        );
        // The most likely tokens almost always decide. All tokens are sorted only if they do not.
        if let Some(token) = self.drawn(&order[..sorted], &share, total, uniform) {
            return token as u32;
        }
        sorted = order.len();
        order.sort_unstable_by(likelier);
        let drawn = self.drawn(&order, &share, total, uniform);
        drawn.unwrap_or(order[sorted - 1]) as u32
    }

    /// The drawn token among the likeliest tokens, best first; `None` if they do not decide. `total`
    /// is the sum of the shares of all tokens.
    fn drawn(
        &self,
        likeliest: &[usize],
        share: &impl Fn(usize) -> f64,
        total: f64,
        uniform: f64,
    ) -> Option<usize> {
        let mut nucleus = 0;
        let mut mass = 0.0;
        for &token in likeliest {
            if mass / total >= self.top_p {
                break;
            }
            mass += share(token);
            nucleus += 1;
        }
        if nucleus == likeliest.len() && mass / total < self.top_p {
            // The nucleus is larger. Its mass is known only if it has all tokens.
            if self.top_p < 1.0 {
                return None;
            }
            mass = total;
        }
        let mut left = uniform * mass;
        for &token in &likeliest[..nucleus] {
            left -= share(token);
            if left < 0.0 {
                return Some(token);
            }
        }
        (mass < total).then(|| likeliest[nucleus - 1])
    }
}

/// Number of the likeliest tokens that are sorted first.
const LIKELY: usize = 256;

/// A model's response to a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Token ids of the response, without the token that ended it.
    pub tokens: Vec<u32>,
    /// Whether a token ended it, rather than the maximum length.
    pub ended: bool,
}

/// Gets responses as they are generated, with the index of their prompt.
pub struct TokenSink<'a> {
    /// Gets every token as it is chosen.
    pub heard: &'a mut dyn FnMut(usize, u32),
    /// Gets every complete response, in the order of the prompts.
    pub answered: &'a mut dyn FnMut(usize, &Generated) -> Result<()>,
}

/// The tokens that end a response: the template's, the tokenizer's, and every `eos_token_id` of the
/// model's `generation_config.json`, or of its `config.json` if the former has none.
///
/// # Errors
/// One of these files is not JSON, or its `eos_token_id` is not a token id.
pub fn ends(model: &Path, template: &Template, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut ends = template.ends(tokenizer);
    ends.push(tokenizer.eos());
    for path in ["generation_config.json", "config.json"].map(|name| model.join(name)) {
        let Some(bytes) = files::read_if_there(&path)? else {
            continue;
        };
        let wrong = |what: String| Error::input(format!("{}: {what}", path.display()));
        let config: Value = serde_json::from_slice(&bytes).map_err(|error| {
            wrong(format!("broken JSON: {error}")).hint("download the file again")
        })?;
        let named = match &config["eos_token_id"] {
            Value::Null => continue,
            Value::Array(ids) => &ids[..],
            id => std::slice::from_ref(id),
        };
        for id in named {
            let id = id.as_i64().ok_or_else(|| {
                wrong(format!(
                    "eos_token_id must be a token id or a list of them, found `{id}`"
                ))
                .hint("correct the key or remove it: the tokenizer also has an end token")
            })?;
            // A negative id means none.
            ends.extend(u32::try_from(id));
        }
        break;
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// What to generate, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// The adapter, if any.
    pub adapter: Option<&'a DeviceAdapter>,
    /// Each of these tokens ends a response.
    pub ends: &'a [u32],
    /// The prompts, at least one token each.
    pub prompts: &'a [Vec<u32>],
    /// Index of the first prompt to respond to. Earlier ones have their responses.
    pub first: usize,
    /// How tokens are chosen.
    pub sampling: &'a Sampling,
    /// Maximum number of sequences at once; fewer if their key-value caches do not fit into memory.
    pub batch: usize,
}

/// A sequence in generation.
struct Live {
    /// Index of its prompt.
    prompt: usize,
    sequence: SequenceId,
    /// Its next-token prediction.
    next: Next,
}

/// Generates a response to every prompt. A response does not depend on the other prompts.
///
/// # Errors
/// A token is outside the vocabulary, the key-value cache of a prompt does not fit into memory, or
/// a stop was requested.
pub fn generate(
    request: &Request<'_>,
    observer: &mut dyn Progress,
    sink: TokenSink<'_>,
) -> Result<()> {
    observer.begin("generating", request.prompts.len());
    observer.resume(request.first);
    let done = continue_all(request, observer, sink);
    observer.end();
    done
}

fn continue_all(
    request: &Request<'_>,
    observer: &mut dyn Progress,
    sink: TokenSink<'_>,
) -> Result<()> {
    let Request {
        prompts, sampling, ..
    } = *request;
    let want = sampling.want();
    let stop = observer.stop();
    let mut generation = request.decoder.generation(request.adapter, None);
    let unanswered = Generated {
        tokens: Vec::new(),
        ended: false,
    };
    let mut responses = vec![unanswered; prompts.len()];
    let mut is_done = vec![false; prompts.len()];
    let mut live: Vec<Live> = Vec::new();
    let mut started = request.first;
    let mut told = request.first;
    loop {
        // Prompts replace sequences that have left. The first prompt is tried even if it seems too
        // large.
        let mut joining: Vec<&[u32]> = Vec::new();
        let mut lengths = Vec::new();
        while started + joining.len() < prompts.len()
            && live.len() + joining.len() < request.batch.max(1)
        {
            let prompt = &prompts[started + joining.len()][..];
            lengths.push(prompt.len());
            let is_first = live.is_empty() && joining.is_empty();
            if !is_first && !generation.fits(&lengths, sampling.max_tokens) {
                break;
            }
            joining.push(prompt);
        }
        for (sequence, next) in generation.join(&joining, want)? {
            live.push(Live {
                prompt: started,
                sequence,
                next,
            });
            started += 1;
        }
        if live.is_empty() {
            return Ok(());
        }
        if stop.is_requested() {
            return Err(Error::interrupted("before every prompt was answered"));
        }

        let mut continuing: Vec<(usize, SequenceId, [u32; 1])> = Vec::new();
        for Live {
            prompt,
            sequence,
            next,
        } in live.drain(..)
        {
            let response = &mut responses[prompt];
            let token = sampling.choose(&next, prompt, response.tokens.len());
            response.ended = request.ends.contains(&token);
            if !response.ended {
                response.tokens.push(token);
                (sink.heard)(prompt, token);
            }
            if response.ended || response.tokens.len() >= sampling.max_tokens {
                is_done[prompt] = true;
                generation.leave(sequence);
            } else {
                continuing.push((prompt, sequence, [token]));
            }
        }
        while told < prompts.len() && is_done[told] {
            (sink.answered)(told, &responses[told])?;
            told += 1;
            observer.advance(told, "");
        }
        let mut tokens: Vec<(SequenceId, &[u32])> = Vec::with_capacity(continuing.len());
        for (_, sequence, token) in &continuing {
            tokens.push((*sequence, token));
        }
        let next = generation.advance(&tokens, want)?;
        for ((prompt, sequence, _), next) in continuing.iter().zip(next) {
            live.push(Live {
                prompt: *prompt,
                sequence: *sequence,
                next,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use upright_engine::generation::Candidate;

    use super::*;

    const LOGITS: [f32; 5] = [0.0, 3.0, 1.0, 3.0, -2.0];

    fn sampling(temperature: f64, top_p: f64) -> Sampling {
        Sampling {
            max_tokens: 8,
            temperature,
            top_p,
            seed: 3,
        }
    }

    #[test]
    fn greedy_asks_for_one_token_and_takes_it() {
        let greedy = sampling(0.0, 1.0);
        assert_eq!(greedy.want(), Want::Best(1));
        let best = Next::Best(vec![Candidate {
            token: 1,
            logp: -0.5,
        }]);
        assert_eq!(greedy.choose(&best, 0, 0), 1);
    }

    /// Against sorting all tokens, for flat and peaked distributions over more tokens than are sorted
    /// first.
    #[test]
    fn the_likeliest_tokens_decide_as_all_tokens_do() {
        let vocabulary = 3 * LIKELY + 11;
        let mut beyond = 0;
        for case in 0..400usize {
            let spread = [0.01, 1.0, 4.0][case % 3];
            let mut logits = Vec::with_capacity(vocabulary);
            for token in 0..vocabulary {
                let z = uniform(case as u64, token as u64) - 0.5;
                logits.push((spread * z * 8.0) as f32);
            }
            let sampling = sampling([1.0, 0.7][case % 2], [1.0, 0.95, 0.5, 0.01][case % 4]);
            let mut order: Vec<usize> = (0..vocabulary).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            let share = |token: usize| (f64::from(logits[token]) / sampling.temperature).exp();
            let total: f64 = order.iter().map(|token| share(*token)).sum();
            let mut nucleus = Vec::new();
            let mut kept = 0.0;
            for &token in &order {
                if kept >= sampling.top_p * total {
                    break;
                }
                kept += share(token);
                nucleus.push(token);
            }
            let mut left = uniform(sampling.seed ^ (7u64 << 32), case as u64) * kept;
            let mut expected = nucleus[nucleus.len() - 1];
            for &token in &nucleus {
                left -= share(token);
                if left < 0.0 {
                    expected = token;
                    break;
                }
            }
            beyond += usize::from(nucleus.len() > LIKELY);
            assert_eq!(sampling.draw(&logits, 7, case) as usize, expected, "{case}");
        }
        assert!(beyond > 50, "{beyond} cases beyond the first tokens");
    }

    #[test]
    fn draws_follow_the_softmax_and_stay_in_the_nucleus() {
        let draw = |s: Sampling| {
            let mut counts = [0usize; 5];
            (0..20_000).for_each(|i| counts[s.draw(&LOGITS, i / 100, i % 100) as usize] += 1);
            counts
        };
        // Probabilities at temperature 1: e^0, e^3, e^1, e^3, e^-2 over their sum, 44.02.
        let found = draw(sampling(1.0, 1.0));
        for (count, share) in found
            .into_iter()
            .zip([0.0227, 0.4563, 0.0617, 0.4563, 0.0031])
        {
            assert!((count as f64 / 2e4 - share).abs() < 0.012, "{found:?}");
        }
        // The two most likely tokens have 0.9126 together, so they are the nucleus of 0.9.
        let nucleus = draw(sampling(1.0, 0.9));
        assert_eq!(nucleus[1] + nucleus[3], 20_000);
        assert!(draw(sampling(0.05, 1.0))[2] == 0);
    }
}

//! Continuations of prompts: greedy or sampled, several at a time.

use std::path::Path;

use serde_json::Value;
use upright_engine::{adapter::Adapter, decoder::Decoder, generation::Generation};

use crate::{
    Error, Result,
    data::{Template, Tokenizer},
    files,
    observer::Observer,
    random::uniform,
};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Most tokens of a response.
    pub max_tokens: usize,
    /// 0 takes the likeliest token; otherwise logits are divided by it.
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability are drawn from.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// The next token. The draw is a function of the seed, the response's number and the position in it.
    fn choose(&self, logits: &[f32], response: usize, position: usize) -> u32 {
        let likelier = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        if self.temperature == 0.0 {
            return (0..logits.len()).min_by(likelier).unwrap_or(0) as u32;
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_unstable_by(likelier);
        let largest = f64::from(logits[order[0]]);
        let share = |token: usize| ((f64::from(logits[token]) - largest) / self.temperature).exp();
        let total: f64 = order.iter().map(|&token| share(token)).sum();
        let mut kept = 0.0;
        let nucleus = order.iter().take_while(|&&token| {
            let before = kept;
            kept += share(token) / total;
            before < self.top_p
        });
        let nucleus: Vec<usize> = nucleus.copied().collect();
        let mass: f64 = nucleus.iter().map(|&token| share(token)).sum();
        let mut draw = uniform(
            self.seed ^ (response as u64).rotate_left(32),
            position as u64,
        ) * mass;
        let drawn = nucleus.iter().find(|&&token| {
            draw -= share(token);
            draw < 0.0
        });
        *drawn.unwrap_or(&nucleus[nucleus.len() - 1]) as u32
    }
}

/// What a model says to a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Ids of the response, without the token that ended it.
    pub tokens: Vec<u32>,
    /// Whether it ended by itself.
    pub ended: bool,
}

/// Told of answers as they come, with the number of their prompt.
pub struct Ear<'a> {
    /// Every token as it is chosen.
    pub heard: &'a mut dyn FnMut(usize, u32),
    /// Every whole answer, in the order of the prompts.
    pub answered: &'a mut dyn FnMut(usize, &Generated) -> Result<()>,
}

/// The tokens that end a response: the template's, the tokenizer's, and every `eos_token_id` of the model's
/// `generation_config.json`, or where that names none of its `config.json`.
///
/// # Errors
/// One of these files is no JSON, or holds something there that is no id.
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
                .hint("correct it, or take it out: the tokenizer names an end, too")
            })?;
            // A negative one means none.
            ends.extend(u32::try_from(id));
        }
        break;
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// Continues every prompt (each at least one token), `batch` at a time; each of the tokens `ends` ends a response.
pub fn generate(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    ends: &[u32],
    prompts: &[Vec<u32>],
    sampling: &Sampling,
    batch: usize,
    observer: &mut dyn Observer,
    ear: Ear<'_>,
) -> Result<()> {
    observer.begin("generating", prompts.len());
    let done = prompts
        .chunks(batch.max(1))
        .enumerate()
        .try_for_each(|(round, chunk)| {
            let first = round * batch.max(1);
            let views: Vec<&[u32]> = chunk.iter().map(|prompt| &prompt[..]).collect();
            let (mut generation, logits) = Generation::start(decoder, adapter, &views)?;
            let mut responses = vec![
                Generated {
                    tokens: Vec::new(),
                    ended: false
                };
                chunk.len()
            ];
            let mut live: Vec<(usize, Vec<f32>)> = logits.into_iter().enumerate().collect();
            while !live.is_empty() {
                if observer.stop_requested() {
                    return Err(Error::interrupted("before every prompt was answered"));
                }
                let mut next = Vec::new();
                for (index, logits) in &live {
                    let response = &mut responses[*index];
                    let token = sampling.choose(logits, first + index, response.tokens.len());
                    if ends.contains(&token) {
                        response.ended = true;
                        continue;
                    }
                    response.tokens.push(token);
                    (ear.heard)(first + index, token);
                    if response.tokens.len() < sampling.max_tokens {
                        next.push((*index, token));
                    }
                }
                live = if next.is_empty() {
                    Vec::new()
                } else {
                    next.iter()
                        .map(|(index, _)| *index)
                        .zip(generation.advance(&next)?)
                        .collect()
                };
            }
            for (index, response) in responses.iter().enumerate() {
                (ear.answered)(first + index, response)?;
            }
            observer.advance(first + chunk.len(), "");
            Ok(())
        });
    observer.end();
    done
}

#[cfg(test)]
mod tests {
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
    fn greedy_takes_the_first_of_the_likeliest() {
        assert_eq!(sampling(0.0, 1.0).choose(&LOGITS, 0, 0), 1);
    }

    #[test]
    fn draws_follow_the_softmax_and_stay_in_the_nucleus() {
        let draw = |s: Sampling| {
            let mut counts = [0usize; 5];
            (0..20_000).for_each(|i| counts[s.choose(&LOGITS, i / 100, i % 100) as usize] += 1);
            counts
        };
        // Shares at temperature 1: e^0, e^3, e^1, e^3, e^-2 over their sum, 44.02.
        let found = draw(sampling(1.0, 1.0));
        for (count, share) in found
            .into_iter()
            .zip([0.0227, 0.4563, 0.0617, 0.4563, 0.0031])
        {
            assert!((count as f64 / 2e4 - share).abs() < 0.012, "{found:?}");
        }
        // 0.9126 lies in the two likeliest: a nucleus of 0.9 is those.
        let nucleus = draw(sampling(1.0, 0.9));
        assert_eq!(nucleus[1] + nucleus[3], 20_000);
        assert!(draw(sampling(0.05, 1.0))[2] == 0);
    }
}

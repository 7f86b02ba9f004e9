//! Generation on the CPU: every sequence has its own key-value cache in every block.

use std::{collections::BTreeMap, ops::Range};

use upright_base::Result;
use upright_model::pack::Pack;

use super::{
    block::Block,
    buffer::Buffer,
    decoder::Decoder,
    kernels::{
        attention::{Cache, Earlier, Known},
        rope::Angles,
    },
    linear::HostAdapter,
};
use crate::{
    adapter::{DeviceAdapter, Held},
    backend::Sequences,
    next::{Following, Next, Want},
    prefill::{NewPrompt, Prefill, readings, wanted_rows},
};

/// Sequences in generation.
pub(crate) struct CpuSequences<'a> {
    decoder: &'a Decoder,
    adapter: Option<Held<'a>>,
    sequences: BTreeMap<usize, Sequence>,
}

/// One sequence: its key-value cache per block, and its number of tokens so far.
#[derive(Clone)]
struct Sequence {
    caches: Vec<Cache>,
    length: usize,
}

impl<'a> CpuSequences<'a> {
    pub(super) fn new(decoder: &'a Decoder, adapter: Option<Held<'a>>) -> Self {
        Self {
            decoder,
            adapter,
            sequences: BTreeMap::new(),
        }
    }

    fn adapter(&self) -> Option<HostAdapter<'_>> {
        self.adapter.as_deref().map(DeviceAdapter::on_host)
    }

    /// Runs the blocks over prompts. Returns the caches of every prompt that is kept, one per block,
    /// and the hidden states of the `wanted` computed rows.
    fn prefill(
        &self,
        prompts: &[NewPrompt<'_>],
        prefill: &Prefill,
        wanted: &[usize],
    ) -> (Vec<Vec<Cache>>, Buffer<f32>) {
        let decoder = self.decoder;
        let pack = &prefill.pack;
        let (positions, tokens) = prefill.computed_tokens();
        let angles = Angles::new(&decoder.config.rotary, &positions);
        let width = decoder.config.kv_heads * decoder.config.head_size;
        let mut x = decoder.embed(&tokens);
        let mut kept: Vec<Vec<Cache>> = vec![Vec::new(); prompts.len()];
        for layer in 0..decoder.config.layers {
            let mut caches = Vec::with_capacity(pack.spans.len());
            for source in &prefill.sources {
                caches.push(source.map(|id| &self.sequences[&id].caches[layer]));
            }
            let earlier = Earlier {
                known: Known(Some(&prefill.known)),
                caches,
            };
            let block = Block {
                earlier: Some(&earlier),
                ..decoder.block(pack, &angles, self.adapter(), layer, Some(wanted))
            };
            let (y, trace) = block.forward(x);
            x = y;
            for ((prompt, path), kept) in prompts.iter().zip(&prefill.paths).zip(&mut kept) {
                if prompt.keep.is_none() {
                    continue;
                }
                let mut cache = Cache::new(decoder.tier);
                if let Some((sequence, tokens)) = prompt.after {
                    let known = &self.sequences[&sequence].caches[layer];
                    cache.extend_from(known, width, tokens);
                }
                for run in runs(&path[prompt.known()..]) {
                    let start = prefill.computed_index(run.start);
                    block.extend(&mut cache, &trace, start..start + run.len());
                }
                kept.push(cache);
            }
        }
        (kept, x)
    }

    /// The next-token prediction of every row of `x`, `[rows, H]`.
    fn next(&self, x: &[f32], want: Want) -> Vec<Next> {
        let vocab = self.decoder.config.vocab;
        let logits = self.decoder.pool.install(|| self.decoder.head().logits(x));
        logits
            .chunks(vocab)
            .map(|logits| Next::of_logits(logits, want))
            .collect()
    }
}

/// A pack with one span per sequence.
fn roots<'t>(tokens: impl Iterator<Item = &'t [u32]>) -> Pack {
    let mut pack = Pack::default();
    for tokens in tokens {
        pack.root(tokens);
    }
    pack
}

/// Runs of consecutive numbers in an ascending list.
fn runs(numbers: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// The last row of every span.
fn last_rows(pack: &Pack) -> Vec<usize> {
    pack.spans
        .iter()
        .map(|span| span.start + span.len - 1)
        .collect()
}

impl Sequences for CpuSequences<'_> {
    fn read(
        &mut self,
        prompts: &[NewPrompt<'_>],
        best: Option<usize>,
        want: Want,
    ) -> Result<Vec<(Next, Vec<Following>)>> {
        let prefill = Prefill::new(prompts);
        let wanted = wanted_rows(prompts, &prefill, best.is_some());
        let decoder = self.decoder;
        decoder.counters.forward(prefill.computed.len());
        let (kept, x) = decoder
            .pool
            .install(|| self.prefill(prompts, &prefill, &wanted));
        for (prompt, caches) in prompts.iter().zip(kept) {
            if let Some(id) = prompt.keep {
                let length = prompt.tokens.len();
                self.sequences.insert(id, Sequence { caches, length });
            }
        }

        let hidden = decoder.config.hidden;
        let mut last = Vec::with_capacity(prompts.len() * hidden);
        for path in &prefill.paths {
            let row = prefill.wanted_index(&wanted, path[path.len() - 1]);
            last.extend_from_slice(&x[row * hidden..][..hidden]);
        }
        let next = self.next(&last, want);
        let Some(count) = best else {
            return Ok(next.into_iter().map(|next| (next, Vec::new())).collect());
        };
        let targets = prefill.following_targets(prompts, &wanted);
        let scored: Vec<usize> = (0..wanted.len()).collect();
        let (logp, found) = decoder
            .pool
            .install(|| decoder.head().best(&x, &scored, &targets, count));
        Ok(readings(prompts, next, &targets, logp, &found))
    }

    fn advance(&mut self, tokens: &[(usize, &[u32])], want: Want) -> Result<Vec<Next>> {
        let pack = roots(tokens.iter().map(|(_, tokens)| *tokens));
        let last = last_rows(&pack);
        let mut chosen: Vec<Sequence> = Vec::with_capacity(tokens.len());
        let mut positions = Vec::with_capacity(pack.tokens.len());
        for (id, tokens) in tokens {
            let sequence = self.sequences.remove(id).expect("a sequence that joined");
            positions.extend(sequence.length..sequence.length + tokens.len());
            chosen.push(sequence);
        }
        let decoder = self.decoder;
        let x: Buffer<f32> = decoder.pool.install(|| {
            let angles = Angles::new(&decoder.config.rotary, &positions);
            let mut x = decoder.embed(&pack.tokens);
            for layer in 0..decoder.config.layers {
                let mut caches: Vec<&mut Cache> = Vec::with_capacity(chosen.len());
                for sequence in &mut chosen {
                    caches.push(&mut sequence.caches[layer]);
                }
                let block = decoder.block(&pack, &angles, self.adapter(), layer, Some(&last));
                x = block.continue_from(x, &mut caches);
            }
            x
        });
        for ((id, tokens), mut sequence) in tokens.iter().zip(chosen) {
            sequence.length += tokens.len();
            self.sequences.insert(*id, sequence);
        }
        Ok(self.next(&x, want))
    }

    fn fork(&mut self, from: usize, to: usize) -> Result<()> {
        let copy = self.sequences[&from].clone();
        self.sequences.insert(to, copy);
        Ok(())
    }

    fn leave(&mut self, sequence: usize) {
        self.sequences.remove(&sequence);
    }

    fn bytes(&self, tokens: usize) -> usize {
        let config = &self.decoder.config;
        let width = config.kv_heads * config.head_size;
        config.layers * Cache::bytes(self.decoder.tier, width, tokens)
    }
}

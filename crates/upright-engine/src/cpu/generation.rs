//! Generation on the CPU: every sequence has its own key-value cache in every block.

use std::collections::BTreeMap;

use upright_model::pack::{Pack, Span};

use super::{
    buffer::Buffer,
    decoder::Decoder,
    kernels::{attention::Cache, rope::Angles},
    linear::HostAdapter,
};
use crate::{
    backend::Sequences,
    next::{Next, Want},
};

/// Sequences in generation.
pub(crate) struct CpuSequences<'a> {
    decoder: &'a Decoder,
    adapter: Option<HostAdapter<'a>>,
    sequences: BTreeMap<usize, Sequence>,
}

/// One sequence: its key-value cache per block, and its number of tokens so far.
#[derive(Clone)]
struct Sequence {
    caches: Vec<Cache>,
    length: usize,
}

impl<'a> CpuSequences<'a> {
    pub(super) fn new(decoder: &'a Decoder, adapter: Option<HostAdapter<'a>>) -> Self {
        Self {
            decoder,
            adapter,
            sequences: BTreeMap::new(),
        }
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

/// The last row of every span.
fn last_rows(pack: &Pack) -> Vec<usize> {
    pack.spans
        .iter()
        .map(|span| span.start + span.len - 1)
        .collect()
}

impl Sequences for CpuSequences<'_> {
    fn join(&mut self, prompts: &[(usize, &[u32])], want: Want) -> Vec<Next> {
        let pack = roots(prompts.iter().map(|(_, prompt)| *prompt));
        let last = last_rows(&pack);
        let decoder = self.decoder;
        let layers = decoder.config.layers;
        let (by_layer, x) = decoder.pool.install(|| {
            let angles = Angles::new(&decoder.config.rotary, &pack.positions());
            let mut x = decoder.embed(&pack);
            let mut by_layer: Vec<Vec<Cache>> = Vec::with_capacity(layers);
            for layer in 0..layers {
                let block = decoder.block(&pack, &angles, self.adapter, layer, Some(&last));
                let (y, trace) = block.forward(x);
                x = y;
                let cache = |span: &Span| block.cache(&trace, span.start..span.start + span.len);
                by_layer.push(pack.spans.iter().map(cache).collect());
            }
            (by_layer, x)
        });
        let mut sequences: Vec<Sequence> = Vec::with_capacity(prompts.len());
        for (_, prompt) in prompts {
            sequences.push(Sequence {
                caches: Vec::with_capacity(layers),
                length: prompt.len(),
            });
        }
        for caches in by_layer {
            for (sequence, cache) in sequences.iter_mut().zip(caches) {
                sequence.caches.push(cache);
            }
        }
        for ((id, _), sequence) in prompts.iter().zip(sequences) {
            self.sequences.insert(*id, sequence);
        }
        self.next(&x, want)
    }

    fn advance(&mut self, tokens: &[(usize, &[u32])], want: Want) -> Vec<Next> {
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
            let mut x = decoder.embed(&pack);
            for layer in 0..decoder.config.layers {
                let mut caches: Vec<&mut Cache> = Vec::with_capacity(chosen.len());
                for sequence in &mut chosen {
                    caches.push(&mut sequence.caches[layer]);
                }
                let block = decoder.block(&pack, &angles, self.adapter, layer, Some(&last));
                x = block.continue_from(x, &mut caches);
            }
            x
        });
        for ((id, tokens), mut sequence) in tokens.iter().zip(chosen) {
            sequence.length += tokens.len();
            self.sequences.insert(*id, sequence);
        }
        self.next(&x, want)
    }

    fn fork(&mut self, from: usize, to: usize) {
        let copy = self.sequences[&from].clone();
        self.sequences.insert(to, copy);
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

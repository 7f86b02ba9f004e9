//! Generation: one token at a time from the keys and values of what came before.

use crate::{
    Result,
    adapter::Adapter,
    cpu::{attention::Cache, rope::Angles},
    decoder::Decoder,
    pack::{Pack, Span},
};

/// Several sequences being continued, each with its own cache of keys and values.
pub struct Generation<'a> {
    decoder: &'a Decoder,
    adapter: Option<&'a Adapter>,
    /// By block, then by sequence.
    caches: Vec<Vec<Cache>>,
    lengths: Vec<usize>,
}

impl std::fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("lengths", &self.lengths)
            .finish_non_exhaustive()
    }
}

impl<'a> Generation<'a> {
    /// Reads the prompts (each at least one token); returns the logits `[V]` of the token that follows each.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub fn start(
        decoder: &'a Decoder,
        adapter: Option<&'a Adapter>,
        prompts: &[&[u32]],
    ) -> Result<(Self, Vec<Vec<f32>>)> {
        let mut pack = Pack::default();
        for prompt in prompts {
            pack.root(prompt);
        }
        decoder.check(&pack)?;
        let config = decoder.config();
        let (caches, x) = decoder.install(|| {
            let angles = Angles::new(&config.rotary, &pack.positions());
            let last: Vec<usize> = pack
                .spans
                .iter()
                .map(|span| span.start + span.len - 1)
                .collect();
            let mut x = decoder.embed(&pack);
            let mut caches = Vec::with_capacity(config.layers);
            for layer in 0..config.layers {
                let block = decoder.block(&pack, &angles, adapter, layer, Some(&last));
                let (y, trace) = block.forward(x);
                x = y;
                let cache = |span: &Span| block.cache(&trace, span.start..span.start + span.len);
                caches.push(pack.spans.iter().map(cache).collect());
            }
            (caches, x)
        });
        let generation = Self {
            decoder,
            adapter,
            caches,
            lengths: prompts.iter().map(|prompt| prompt.len()).collect(),
        };
        let logits = generation.logits(&x);
        Ok((generation, logits))
    }

    /// Continues some of the sequences by one token each, `(sequence, token)`, each sequence at most once and in
    /// ascending order; returns the logits `[V]` of the token that follows each.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    ///
    /// # Panics
    /// If the sequences are not ascending, or one is not there.
    pub fn advance(&mut self, tokens: &[(usize, u32)]) -> Result<Vec<Vec<f32>>> {
        assert!(
            tokens.is_sorted_by(|a, b| a.0 < b.0),
            "sequences ascending, each once"
        );
        let mut pack = Pack::default();
        for (_, token) in tokens {
            pack.root(&[*token]);
        }
        self.decoder.check(&pack)?;
        let positions: Vec<usize> = tokens
            .iter()
            .map(|(sequence, _)| self.lengths[*sequence])
            .collect();
        let (decoder, adapter, caches) = (self.decoder, self.adapter, &mut self.caches);
        let x = decoder.install(|| {
            let angles = Angles::new(&decoder.config().rotary, &positions);
            let mut x = decoder.embed(&pack);
            for (layer, caches) in caches.iter_mut().enumerate() {
                let chosen = caches.iter_mut().enumerate();
                let chosen = chosen
                    .filter(|(sequence, _)| tokens.iter().any(|(wanted, _)| wanted == sequence));
                let mut chosen: Vec<&mut Cache> = chosen.map(|(_, cache)| cache).collect();
                x = decoder
                    .block(&pack, &angles, adapter, layer, None)
                    .continue_from(x, &mut chosen);
            }
            x
        });
        tokens
            .iter()
            .for_each(|(sequence, _)| self.lengths[*sequence] += 1);
        Ok(self.logits(&x))
    }

    fn logits(&self, x: &[f32]) -> Vec<Vec<f32>> {
        let z = self.decoder.install(|| self.decoder.head().logits(x));
        z.chunks(self.decoder.config().vocab)
            .map(<[f32]>::to_vec)
            .collect()
    }
}

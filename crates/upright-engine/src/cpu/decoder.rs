//! A decoder in host memory, and the building blocks of its passes.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use upright_base::{Error, Result};
use upright_model::{Recompute, config::DecoderConfig, pack::Pack, weights::Weights};

use super::{
    block::Block,
    buffer::Buffer,
    head::Head,
    kernels::{counters::Counters, norm::Norm, rope::Angles},
    linear::{HostAdapter, Scope},
    tier::Tier,
};

/// A frozen decoder in host memory.
pub(crate) struct Decoder {
    pub(crate) config: Arc<DecoderConfig>,
    pub(crate) weights: Weights,
    pub(crate) tier: Tier,
    pub(crate) recompute: Recompute,
    /// Processes on this host that use its memory alike.
    pub(crate) processes: usize,
    pub(crate) pool: Arc<ThreadPool>,
    pub(crate) counters: Arc<Counters>,
}

/// Starts the threads of a decoder. Their operations are counted.
///
/// # Errors
/// The system cannot start the threads.
pub(crate) fn thread_pool(threads: usize, counters: &Arc<Counters>) -> Result<ThreadPool> {
    let counters = Arc::clone(counters);
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("engine-{i}"))
        .start_handler(move |_| Arc::clone(&counters).attach())
        .build()
        .map_err(|error| {
            Error::input(format!("cannot start {threads} threads: {error}"))
                .hint("use fewer threads (--threads)")
        })
}

impl Decoder {
    /// The input of the first block, `[T, H]`: the residual stream starts as the token embeddings.
    pub(super) fn embed(&self, tokens: &[u32]) -> Buffer<f32> {
        let hidden = self.config.hidden;
        let table = self.weights.embedding.data();
        let mut x = Buffer::new(tokens.len() * hidden);
        x.par_chunks_mut(hidden)
            .zip(tokens)
            .for_each(|(x, &token)| {
                let row = &table[token as usize * hidden..][..hidden];
                for (x, v) in x.iter_mut().zip(row) {
                    *x = v.to_f32();
                }
            });
        x
    }

    /// A block applied to a pack. The last block computes only the output rows `wanted`
    /// (ascending), or all if `None`.
    pub(super) fn block<'a>(
        &'a self,
        pack: &'a Pack,
        angles: &'a Angles,
        adapter: Option<HostAdapter<'a>>,
        layer: usize,
        wanted: Option<&'a [usize]>,
    ) -> Block<'a> {
        let is_last = layer + 1 == self.config.layers;
        Block {
            config: &self.config,
            weights: &self.weights.blocks[layer],
            pack,
            angles,
            scope: Scope {
                tier: self.tier,
                layer,
                adapter,
            },
            wanted: wanted.filter(|rows| is_last && rows.len() < pack.tokens.len()),
            earlier: None,
        }
    }

    pub(super) fn head(&self) -> Head<'_> {
        Head {
            tier: self.tier,
            norm: Norm {
                kind: self.config.norm,
                eps: self.config.norm_eps,
                weights: &self.weights.final_norm,
            },
            weight: self.weights.head(),
        }
    }
}

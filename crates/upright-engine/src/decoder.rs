//! The decoder: tokens to log-probabilities, slopes to adapter gradients.
//!
//! ```text
//! open -> score(pack)                               log-probabilities only
//!      -> forward(pack), then backward(slopes)      the same log-probabilities, then the adapter's gradient
//! ```

use std::{path::Path, sync::Arc};

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use crate::{
    Error, Result,
    adapter::Adapter,
    block::{Block, Trace},
    buffer::Buffer,
    config::DecoderConfig,
    cpu::{Tier, counters, norm::Norm, rope::Angles},
    head::{Head, HeadTrace, Keep},
    linear::Scope,
    pack::Pack,
    weights::Weights,
};

/// When blocks are computed a second time in backward instead of keeping what they need (gradient checkpointing). The
/// results are the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Where keeping would not fit into half of the memory that is available.
    #[default]
    Auto,
    /// Always: a step needs the base, one block, and one residual row per block and token.
    On,
    /// Never.
    Off,
}

/// How a decoder runs; no option changes a result except `tier`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads; 0 means one per core.
    pub threads: usize,
    /// Instruction set; `None` takes `UPRIGHT_CPU`, or the best the machine has.
    pub tier: Option<Tier>,
    /// Block recompute.
    pub recompute: Recompute,
}

/// Log-probabilities of a pack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `log pi(token)` of every target of the pack, nats.
    pub logp: Vec<f64>,
}

/// What a loss asks of a pack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slopes {
    /// `d loss / d logp` of every target of the pack.
    pub logp: Vec<f64>,
}

/// A forward pass that remembers what its backward needs.
pub struct Forward<'a> {
    /// The log-probabilities.
    pub scores: Scores,
    pack: &'a Pack,
    adapter: &'a Adapter,
    activations: Activations,
}

/// What a backward needs of its forward pass besides pack and adapter.
pub struct Activations {
    angles: Angles,
    /// Rows of the pack with a target, ascending.
    scored: Vec<usize>,
    blocks: Vec<Kept>,
    head: HeadTrace,
}

impl std::fmt::Debug for Activations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Activations").finish_non_exhaustive()
    }
}

impl<'a> Forward<'a> {
    /// Lets go of pack and adapter: for a loss that is looked at now and may be descended later.
    pub fn detach(self) -> (Scores, Activations) {
        (self.scores, self.activations)
    }

    /// The forward pass that was detached. Pack and adapter must be those it was made of, their values unchanged.
    pub fn attach(
        scores: Scores,
        activations: Activations,
        pack: &'a Pack,
        adapter: &'a Adapter,
    ) -> Self {
        Self {
            scores,
            pack,
            adapter,
            activations,
        }
    }
}

/// What is kept of a block.
enum Kept {
    /// Nothing: no adapter at it or below.
    Nothing,
    /// Its input `[T, H]`; the rest is computed again.
    Input(Buffer<f32>),
    /// Everything.
    Trace(Box<Trace>),
}

/// A frozen decoder, ready to run.
pub struct Decoder {
    config: DecoderConfig,
    weights: Weights,
    tier: Tier,
    recompute: Recompute,
    pool: Arc<ThreadPool>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("config", &self.config)
            .field("tier", &self.tier)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// Opens a Hugging Face folder (`config.json` and safetensors). Fails on a file that is missing or not what it should
    /// be, and on a tier the machine does not have.
    pub fn open(dir: &Path, options: &Options) -> Result<Self> {
        Self::with_weights(DecoderConfig::read(dir)?, options, |config| {
            Weights::open(dir, config)
        })
    }

    /// A decoder of the shape that a folder's `config.json` gives, with [`Weights::random`]: for measurements of speed.
    pub fn random(dir: &Path, seed: u64, options: &Options) -> Result<Self> {
        Self::with_weights(DecoderConfig::read(dir)?, options, |config| {
            Ok(Weights::random(config, seed))
        })
    }

    fn with_weights(
        config: DecoderConfig,
        options: &Options,
        weights: impl FnOnce(&DecoderConfig) -> Result<Weights> + Send,
    ) -> Result<Self> {
        let tier = options.tier.map_or_else(Tier::from_environment, Ok)?;
        if !tier.available() {
            return Err(Error::Setting {
                problem: format!("this machine has no tier {tier}"),
                hint: format!("take {}, the best it has", Tier::detect()),
            });
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("engine-{i}"))
            .build();
        let pool = pool.map_err(|error| Error::Setting {
            problem: format!("cannot start {} threads: {error}", options.threads),
            hint: "ask for fewer threads".into(),
        })?;
        let weights = pool.install(|| weights(&config))?;
        Ok(Self {
            config,
            weights,
            tier,
            recompute: options.recompute,
            pool: Arc::new(pool),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The frozen weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The tier every product runs on.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Threads at work.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Log-probabilities of a pack's targets under the base with an adapter, or under the base alone.
    pub fn score(&self, pack: &Pack, adapter: Option<&Adapter>) -> Result<Scores> {
        self.check(pack)?;
        counters::forward(pack.tokens.len());
        Ok(self.pool.install(|| {
            let (angles, scored) = (
                Angles::new(&self.config.rotary, &pack.positions()),
                pack.scored_rows(),
            );
            let mut x = self.embed(pack);
            for layer in 0..self.config.layers {
                x = self
                    .block(pack, &angles, adapter, layer, Some(&scored))
                    .forward(x)
                    .0;
            }
            Scores {
                logp: self
                    .head()
                    .forward(x, &scored, &pack.targets, Keep::Nothing)
                    .0,
            }
        }))
    }

    /// The same log-probabilities, to the bit, and what [`Decoder::backward`] needs.
    pub fn forward<'a>(&self, pack: &'a Pack, adapter: &'a Adapter) -> Result<Forward<'a>> {
        self.keeping(pack, adapter, Keep::Gradient)
    }

    /// The same as [`Decoder::forward`], to the bit, for a pass that may have no backward: the gradient of the head, half of
    /// its products, is left to [`Decoder::backward`] where memory allows.
    pub fn look<'a>(&self, pack: &'a Pack, adapter: &'a Adapter) -> Result<Forward<'a>> {
        let kept = self.bytes_of_traces(pack, adapter);
        // At most 4 bytes a probability.
        let softmax = 4 * pack.scored_rows().len() * self.config.vocab;
        let keep = self.recompute != Recompute::On && self.fits(kept + softmax);
        self.keeping(
            pack,
            adapter,
            if keep { Keep::Softmax } else { Keep::Gradient },
        )
    }

    fn keeping<'a>(&self, pack: &'a Pack, adapter: &'a Adapter, keep: Keep) -> Result<Forward<'a>> {
        self.check(pack)?;
        counters::forward(pack.tokens.len());
        let lowest = adapter.layout.lowest_layer();
        let keep_traces = self.keeps_traces(pack, adapter);
        Ok(self.pool.install(|| {
            let (angles, scored) = (
                Angles::new(&self.config.rotary, &pack.positions()),
                pack.scored_rows(),
            );
            let mut blocks = Vec::with_capacity(self.config.layers);
            let mut x = self.embed(pack);
            for layer in 0..self.config.layers {
                let block = self.block(pack, &angles, Some(adapter), layer, Some(&scored));
                let input = (layer >= lowest && !keep_traces).then(|| Buffer::from(&x[..]));
                let (y, trace) = block.forward(x);
                x = y;
                blocks.push(match input {
                    Some(input) => Kept::Input(input),
                    None if layer >= lowest => Kept::Trace(Box::new(trace)),
                    None => Kept::Nothing,
                });
            }
            let (logp, head) = self.head().forward(x, &scored, &pack.targets, keep);
            let activations = Activations {
                angles,
                scored,
                blocks,
                head,
            };
            Forward {
                scores: Scores { logp },
                pack,
                adapter,
                activations,
            }
        }))
    }

    /// Adds to `gradient` (the adapter's layout) the gradient of a loss whose slopes on the targets' log-probabilities
    /// are given.
    ///
    /// # Panics
    /// If the slopes or the gradient have another length than the pack's targets or the adapter.
    pub fn backward(
        &self,
        forward: Forward<'_>,
        slopes: &Slopes,
        gradient: &mut [f32],
    ) -> Result<()> {
        let Forward {
            pack,
            adapter,
            activations,
            ..
        } = forward;
        let Activations {
            angles,
            scored,
            mut blocks,
            head,
        } = activations;
        assert_eq!(slopes.logp.len(), pack.targets.len(), "one slope a target");
        assert_eq!(
            gradient.len(),
            adapter.parameters.len(),
            "the gradient has the adapter's layout"
        );
        if let Some(index) = slopes
            .logp
            .iter()
            .position(|slope| !(*slope as f32).is_finite())
        {
            return Err(Error::NotFinite {
                what: format!("the slope of target {index}: {}", slopes.logp[index]),
            });
        }
        counters::backward(pack.tokens.len());
        let lowest = adapter.layout.lowest_layer();
        self.pool.install(|| {
            let mut dx = self.head().backward(head, &pack.targets, &slopes.logp);
            for layer in (0..self.config.layers).rev() {
                let block = self.block(pack, &angles, Some(adapter), layer, Some(&scored));
                let trace = match blocks.pop().expect("one entry a block") {
                    Kept::Nothing => break,
                    Kept::Input(x) => block.forward(x).1,
                    Kept::Trace(trace) => *trace,
                };
                dx = block.backward(&trace, dx, gradient, layer > lowest);
            }
        });
        Ok(())
    }

    /// Names the first tensor that is not finite: of the base, of the adapter, or a block's output on this pack.
    pub fn find_non_finite(&self, pack: &Pack, adapter: Option<&Adapter>) -> Option<String> {
        if let Some(tensor) = self.weights.find_non_finite(self.config.family) {
            return Some(format!("the model's tensor {tensor}"));
        }
        if let Some(adapter) = adapter {
            let broken = |range: std::ops::Range<usize>| {
                adapter.parameters[range].iter().any(|v| !v.is_finite())
            };
            for target in &adapter.layout.targets {
                for (part, range) in [("lora_A", target.a()), ("lora_B", target.b())] {
                    if broken(range) {
                        return Some(format!(
                            "the adapter's tensor {}.{part}.weight",
                            target.module
                        ));
                    }
                }
            }
        }
        self.pool.install(|| {
            let (angles, scored) = (
                Angles::new(&self.config.rotary, &pack.positions()),
                pack.scored_rows(),
            );
            let mut x = self.embed(pack);
            for layer in 0..self.config.layers {
                x = self
                    .block(pack, &angles, adapter, layer, Some(&scored))
                    .forward(x)
                    .0;
                if x.iter().any(|v| !v.is_finite()) {
                    return Some(format!(
                        "the output of block {layer} (overflow; every weight is finite)"
                    ));
                }
            }
            let logp = self
                .head()
                .forward(x, &scored, &pack.targets, Keep::Nothing)
                .0;
            logp.iter()
                .any(|v| !v.is_finite())
                .then(|| "the head's log-probabilities".to_owned())
        })
    }

    /// Bytes that a forward pass keeps for its backward, for each token, without and with recompute; without it, those that
    /// depend on the adapter's rank come on top.
    pub fn bytes_per_token(&self, lowest_layer: usize) -> (usize, usize) {
        let layers = self.config.layers.saturating_sub(lowest_layer);
        (
            layers * Trace::bytes_per_token(&self.config, self.tier),
            size_of::<f32>() * layers * self.config.hidden,
        )
    }

    /// Runs work on the decoder's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    fn bytes_of_traces(&self, pack: &Pack, adapter: &Adapter) -> usize {
        let ranks: usize = adapter
            .layout
            .targets
            .iter()
            .map(|target| target.rank)
            .sum();
        pack.tokens.len()
            * (self.bytes_per_token(adapter.layout.lowest_layer()).0 + size_of::<f32>() * ranks)
    }

    fn keeps_traces(&self, pack: &Pack, adapter: &Adapter) -> bool {
        match self.recompute {
            Recompute::On => false,
            Recompute::Off => true,
            Recompute::Auto => self.fits(self.bytes_of_traces(pack, adapter)),
        }
    }

    /// Whether so many bytes fit into half of the memory that is available.
    fn fits(&self, bytes: usize) -> bool {
        // The mapped base counts as available, and must stay in memory all the same. What earlier steps left counts as used,
        // and is there for this one.
        let (mapped, spare) = (self.weights.bytes_mapped(), crate::buffer::spare_bytes());
        let left = |available: usize| (available + spare).saturating_sub(mapped);
        crate::memory::available_bytes().is_none_or(|available| bytes < left(available) / 2)
    }

    pub(crate) fn check(&self, pack: &Pack) -> Result<()> {
        assert!(
            pack.targets
                .iter()
                .all(|target| target.row < pack.tokens.len()),
            "a target's row is a row of the pack"
        );
        let unknown = |token: &u32| *token as usize >= self.config.vocab;
        let targets = pack.targets.iter().map(|target| &target.token);
        match pack
            .tokens
            .iter()
            .chain(targets)
            .find(|token| unknown(token))
        {
            None => Ok(()),
            Some(token) => Err(Error::Setting {
                problem: format!(
                    "token {token} is outside the model's vocabulary of {}",
                    self.config.vocab
                ),
                hint: "the tokenizer does not belong to this model".into(),
            }),
        }
    }

    /// The residual stream under the first block, `[T, H]`.
    pub(crate) fn embed(&self, pack: &Pack) -> Buffer<f32> {
        let (hidden, table) = (self.config.hidden, self.weights.embedding.data());
        let mut x = Buffer::new(pack.tokens.len() * hidden);
        x.par_chunks_mut(hidden)
            .zip(&pack.tokens)
            .for_each(|(x, &token)| {
                let row = &table[token as usize * hidden..][..hidden];
                x.iter_mut().zip(row).for_each(|(x, v)| *x = v.to_f32());
            });
        x
    }

    /// A block at work on a pack; the output of the last one is that of the rows `wanted`, ascending, or of all.
    pub(crate) fn block<'a>(
        &'a self,
        pack: &'a Pack,
        angles: &'a Angles,
        adapter: Option<&'a Adapter>,
        layer: usize,
        wanted: Option<&'a [usize]>,
    ) -> Block<'a> {
        let scope = Scope {
            tier: self.tier,
            layer,
            adapter,
        };
        let last = layer + 1 == self.config.layers;
        let wanted = wanted.filter(|rows| last && rows.len() < pack.tokens.len());
        Block {
            config: &self.config,
            weights: &self.weights.blocks[layer],
            pack,
            angles,
            scope,
            wanted,
        }
    }

    pub(crate) fn head(&self) -> Head<'_> {
        let norm = Norm {
            kind: self.config.norm,
            eps: self.config.norm_eps,
            weights: &self.weights.final_norm,
        };
        Head {
            tier: self.tier,
            norm,
            weight: self.weights.head(),
        }
    }
}

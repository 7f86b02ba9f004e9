//! Forward and backward passes of the decoder on the CPU.

use std::sync::Arc;

use upright_base::{Result, memory, processor};
use upright_model::{Recompute, pack::Pack};

use super::{
    block::Trace,
    buffer::{Buffer, spare_bytes},
    decoder::Decoder,
    generation::CpuSequences,
    head::{HeadTrace, Keep},
    kernels::{REVISION, rope::Angles, vector_width},
    linear::HostAdapter,
};
use crate::{
    adapter::{DeviceAdapter, Held},
    backend::{ActivationBytes, Backend, Purpose, WeightBytes, find_non_finite_tensor},
    scores::{Scores, Slopes},
    sum::Sum,
    usage::Usage,
    vector::Vector,
};

/// Saved activations of a forward pass.
pub(crate) struct Activations {
    angles: Angles,
    /// Rows of the pack with a target, ascending.
    scored: Vec<usize>,
    blocks: Vec<Kept>,
    head: HeadTrace,
}

/// Saved activations of a block.
enum Kept {
    /// Nothing: no linear of this block or a lower one is adapted.
    Nothing,
    /// The block's input `[T, H]`; gradient checkpointing recomputes the rest.
    Input(Buffer<f32>),
    /// All activations.
    Trace(Box<Trace>),
}

impl DeviceAdapter {
    pub(super) fn on_host(&self) -> HostAdapter<'_> {
        HostAdapter {
            layout: &self.layout,
            parameters: self.parameters.host(),
        }
    }
}

impl Backend for Decoder {
    type Activations = Activations;
    type Sequences<'a> = CpuSequences<'a>;

    fn score(&self, pack: &Pack, adapter: Option<&DeviceAdapter>) -> Result<Scores> {
        self.counters.forward(pack.tokens.len());
        let adapter = adapter.map(DeviceAdapter::on_host);
        let logp = self.pool.install(|| {
            let angles = Angles::new(&self.config.rotary, &pack.positions());
            let scored = pack.scored_rows();
            let mut x = self.embed(&pack.tokens);
            for layer in 0..self.config.layers {
                let block = self.block(pack, &angles, adapter, layer, Some(&scored));
                x = block.forward(x).0;
            }
            let (logp, _) = self
                .head()
                .forward(x, &scored, &pack.targets, Keep::Nothing);
            logp
        });
        Ok(Scores { logp })
    }

    fn forward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        purpose: Purpose,
    ) -> Result<(Scores, Activations)> {
        self.counters.forward(pack.tokens.len());
        let adapter = adapter.on_host();
        let keep = match purpose {
            Purpose::Train => Keep::Gradient,
            Purpose::Probe => self.keep_of_a_probe(pack, adapter),
        };
        let lowest = adapter.layout.lowest_layer();
        let keep_traces = self.keeps_traces(pack, adapter);
        self.pool.install(|| {
            let angles = Angles::new(&self.config.rotary, &pack.positions());
            let scored = pack.scored_rows();
            let mut blocks = Vec::with_capacity(self.config.layers);
            let mut x = self.embed(&pack.tokens);
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
            Ok((Scores { logp }, activations))
        })
    }

    fn backward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        activations: Activations,
        slopes: &Slopes,
        gradient: &mut Vector,
    ) -> Result<()> {
        self.counters.backward(pack.tokens.len());
        let Activations {
            angles,
            scored,
            mut blocks,
            head,
        } = activations;
        let adapter = adapter.on_host();
        let lowest = adapter.layout.lowest_layer();
        let gradient = gradient.host_mut();
        gradient.fill(0.0);
        self.pool.install(|| {
            let mut dx = self.head().backward(head, &pack.targets, &slopes.logp);
            for layer in (0..self.config.layers).rev() {
                let block = self.block(pack, &angles, Some(adapter), layer, Some(&scored));
                let trace = match blocks.pop().expect("one entry per block") {
                    Kept::Nothing => break,
                    Kept::Input(x) => block.forward(x).1,
                    Kept::Trace(trace) => *trace,
                };
                dx = block.backward(&trace, dx, gradient, layer > lowest);
            }
        });
        Ok(())
    }

    fn sequences<'a>(&'a self, adapter: Option<Held<'a>>) -> CpuSequences<'a> {
        CpuSequences::new(self, adapter)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vector> {
        Ok(Vector::on_host(values, Arc::clone(&self.pool)))
    }

    fn sum(&self, len: usize, exponent: i32) -> Result<Sum> {
        Ok(Sum::on_host(len, exponent, Arc::clone(&self.pool)))
    }

    fn find_non_finite(
        &self,
        pack: &Pack,
        adapter: Option<&DeviceAdapter>,
    ) -> Result<Option<String>> {
        let family = self.config.family;
        let tensor = find_non_finite_tensor(Some(&self.weights), family, adapter)?;
        if tensor.is_some() {
            return Ok(tensor);
        }
        let adapter = adapter.map(DeviceAdapter::on_host);
        let found = self.pool.install(|| {
            let angles = Angles::new(&self.config.rotary, &pack.positions());
            let scored = pack.scored_rows();
            let mut x = self.embed(&pack.tokens);
            for layer in 0..self.config.layers {
                let block = self.block(pack, &angles, adapter, layer, Some(&scored));
                x = block.forward(x).0;
                if x.iter().any(|v| !v.is_finite()) {
                    return Some(format!(
                        "the output of block {layer} (overflow; every weight is finite)"
                    ));
                }
            }
            let (logp, _) = self
                .head()
                .forward(x, &scored, &pack.targets, Keep::Nothing);
            let is_broken = logp.iter().any(|v| !v.is_finite());
            is_broken.then(|| "the head's log-probabilities".to_owned())
        });
        Ok(found)
    }

    fn arithmetic(&self) -> String {
        format!("{}/f32x{}/{REVISION}", self.tier.name(), vector_width())
    }

    fn usage(&self) -> Usage {
        Usage {
            peak_bytes: memory::peak_bytes(),
            busy_seconds: Some(processor::seconds()),
            energy_joules: None,
            units: std::thread::available_parallelism().map_or(1, usize::from),
            counts: self.counters.counts(),
        }
    }

    fn weight_bytes(&self) -> WeightBytes {
        WeightBytes {
            mapped: self.weights.bytes_mapped(),
            owned: self.weights.bytes_owned(),
        }
    }

    fn bytes_per_token(&self, lowest_layer: usize) -> ActivationBytes {
        let layers = self.config.layers.saturating_sub(lowest_layer);
        ActivationBytes {
            kept: layers * Trace::bytes_per_token(&self.config, self.tier),
            recomputed: size_of::<f32>() * layers * self.config.hidden,
        }
    }
}

impl Decoder {
    /// What the head keeps for a probe: the softmax if it fits into memory, which defers the head's
    /// gradient to the backward pass.
    fn keep_of_a_probe(&self, pack: &Pack, adapter: HostAdapter<'_>) -> Keep {
        let kept = self.bytes_of_traces(pack, adapter);
        // At most 4 bytes per probability.
        let softmax = 4 * pack.scored_rows().len() * self.config.vocab;
        if self.recompute != Recompute::On && self.fits(kept + softmax) {
            Keep::Softmax
        } else {
            Keep::Gradient
        }
    }

    fn bytes_of_traces(&self, pack: &Pack, adapter: HostAdapter<'_>) -> usize {
        let ranks: usize = adapter
            .layout
            .targets
            .iter()
            .map(|target| target.rank)
            .sum();
        let per_token = self.bytes_per_token(adapter.layout.lowest_layer()).kept;
        pack.tokens.len() * (per_token + size_of::<f32>() * ranks)
    }

    fn keeps_traces(&self, pack: &Pack, adapter: HostAdapter<'_>) -> bool {
        match self.recompute {
            Recompute::On => false,
            Recompute::Off => true,
            Recompute::Auto => self.fits(self.bytes_of_traces(pack, adapter)),
        }
    }

    /// Whether `bytes` fit into half of this process's share of the available memory.
    fn fits(&self, bytes: usize) -> bool {
        let Some(available) = memory::available_bytes() else {
            return true;
        };
        // The system counts the mapped base as available, but it must stay in memory. It counts
        // spare buffers of earlier steps as used, but this step reuses them.
        let left = (available + spare_bytes()).saturating_sub(self.weights.bytes_mapped());
        bytes < left / (2 * self.processes)
    }
}

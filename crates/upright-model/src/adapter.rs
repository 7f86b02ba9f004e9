//! A LoRA adapter: a layout, and one flat vector of f32 parameters. Gradient and optimizer state
//! are flat vectors with the same layout.

mod combine;
pub(crate) mod layout;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use upright_math::random::splitmix;

use crate::config::DecoderConfig;
use crate::weights::names::block_name;

pub use combine::combine;

/// The target that means every linear but the head.
pub const ALL_LINEAR: &str = "all-linear";

/// The user's settings of an adapter; with a model's config they become an [`AdapterLayout`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// R, at least 1.
    pub rank: usize,
    /// The adapter is multiplied by `alpha / R`.
    pub alpha: f64,
    /// Module names, or their last parts, such as `q_proj`; or [`ALL_LINEAR`].
    pub targets: Vec<String>,
    /// Scale by `alpha / sqrt(R)` instead of `alpha / R`.
    pub use_rslora: bool,
    /// Rank of modules whose names end in the key. If several keys match, the first in alphabetical
    /// order applies.
    pub rank_pattern: BTreeMap<String, usize>,
    /// alpha of modules whose names end in the key, by the same rule.
    pub alpha_pattern: BTreeMap<String, f64>,
}

impl LoraConfig {
    /// One rank and one alpha for all targets.
    pub fn new(rank: usize, alpha: f64, targets: Vec<String>) -> Self {
        let (rank_pattern, alpha_pattern) = (BTreeMap::new(), BTreeMap::new());
        Self {
            rank,
            alpha,
            targets,
            use_rslora: false,
            rank_pattern,
            alpha_pattern,
        }
    }
}

/// A linear of a model that can be adapted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// Block the linear belongs to.
    pub layer: usize,
    /// Which linear of the block.
    pub slot: Slot,
    /// Dotted module name, as in transformers.
    pub module: String,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// Every linear of a model but the head, sorted by layer, then slot.
pub fn linears(config: &DecoderConfig) -> Vec<LinearSpec> {
    let block = |layer: usize| {
        let name = block_name(config.family, layer);
        layout::linears_of_block(config).map(move |(slot, shape)| {
            let module = format!("{name}.{}", shape.name);
            LinearSpec {
                layer,
                slot,
                module,
                inputs: shape.inputs,
                outputs: shape.outputs,
            }
        })
    };
    (0..config.layers).flat_map(block).collect()
}

/// A linear of a block that can be adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// Fused query-key-value (GPT-NeoX).
    Qkv,
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Attention's output projection.
    Output,
    /// SwiGLU's gate.
    Gate,
    /// MLP up (GPT-NeoX: `dense_h_to_4h`).
    Up,
    /// MLP down (GPT-NeoX: `dense_4h_to_h`).
    Down,
}

/// One adapted linear: `y += scale * (x Aᵀ) Bᵀ` with A `[rank, inputs]` and B `[outputs, rank]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraTarget {
    /// Dotted module name, as in transformers.
    pub module: String,
    /// Block the linear belongs to.
    pub layer: usize,
    /// Which linear of the block.
    pub slot: Slot,
    /// Input features K.
    pub inputs: usize,
    /// Output features N.
    pub outputs: usize,
    /// R.
    pub rank: usize,
    /// `alpha / R`, or `alpha / sqrt(R)` with rsLoRA.
    pub scale: f32,
    /// Start of A in the flat vector; B follows A.
    pub offset: usize,
}

impl LoraTarget {
    /// Range of A in the flat vector.
    pub fn a(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.rank * self.inputs
    }

    /// Range of B in the flat vector.
    pub fn b(&self) -> std::ops::Range<usize> {
        let start = self.a().end;
        start..start + self.outputs * self.rank
    }
}

/// The adapted linears and the positions of their parameters. Targets are sorted by layer, then
/// slot.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayout {
    /// The adapted linears.
    pub targets: Vec<LoraTarget>,
    /// Length of the flat vector.
    pub len: usize,
}

impl AdapterLayout {
    /// The target of a linear, if the linear is adapted.
    pub fn find(&self, layer: usize, slot: Slot) -> Option<&LoraTarget> {
        self.targets
            .binary_search_by_key(&(layer, slot), |t| (t.layer, t.slot))
            .ok()
            .map(|i| &self.targets[i])
    }

    /// Names the tensor that a value of the flat vector belongs to.
    pub fn tensor_at(&self, index: usize) -> String {
        for target in &self.targets {
            for (part, range) in [("lora_A", target.a()), ("lora_B", target.b())] {
                if range.contains(&index) {
                    return format!("{}.{part}.weight", target.module);
                }
            }
        }
        format!("value {index}")
    }

    /// Names the first tensor with a value that is not finite.
    pub fn find_non_finite(&self, parameters: &[f32]) -> Option<String> {
        for target in &self.targets {
            for (part, range) in [("lora_A", target.a()), ("lora_B", target.b())] {
                if parameters[range].iter().any(|value| !value.is_finite()) {
                    return Some(format!("{}.{part}.weight", target.module));
                }
            }
        }
        None
    }

    /// Lowest block with an adapted linear; nothing below it needs a gradient.
    pub fn lowest_layer(&self) -> usize {
        self.targets.first().map_or(usize::MAX, |t| t.layer)
    }
}

/// Adapter parameters with their layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Positions of every A and B.
    pub layout: Arc<AdapterLayout>,
    /// The flat vector, length `layout.len`.
    pub parameters: Vec<f32>,
}

impl Adapter {
    /// An adapter of zeros, which changes nothing and gets no gradient: for gradients and optimizer
    /// state.
    pub fn zeros(layout: Arc<AdapterLayout>) -> Self {
        let parameters = vec![0.0; layout.len];
        Self { layout, parameters }
    }

    /// A new adapter, initialized as in PEFT: A uniform between `-1/sqrt(inputs)` and
    /// `1/sqrt(inputs)`, B zero, so that it changes nothing at first. Every value depends only on
    /// the seed, the target's index in the layout and the element.
    pub fn init(layout: Arc<AdapterLayout>, seed: u64) -> Self {
        let mut adapter = Self::zeros(layout);
        for (index, target) in adapter.layout.targets.iter().enumerate() {
            let bound = 1.0 / (target.inputs as f64).sqrt();
            let key = splitmix(splitmix(seed).wrapping_add(index as u64));
            for (element, value) in adapter.parameters[target.a()].iter_mut().enumerate() {
                let bits = splitmix(key.wrapping_add(element as u64)) >> 11;
                let unit = bits as f64 / (1_u64 << 53) as f64;
                *value = (bound * (2.0 * unit - 1.0)) as f32;
            }
        }
        adapter
    }
}

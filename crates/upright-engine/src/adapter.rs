//! A LoRA adapter: a layout, and ONE flat vector of f32 parameters. Gradient and optimiser state are flat vectors of the
//! same layout.

use std::sync::Arc;

/// A linear that a block offers for adaptation.
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
    /// Dotted module name as transformers has it.
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
    /// Where A begins in the flat vector; B follows it.
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

/// Which linears are adapted, and where their parameters lie. Targets are sorted by layer, then slot.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayout {
    /// The adapted linears.
    pub targets: Vec<LoraTarget>,
    /// Length of the flat vector.
    pub len: usize,
}

impl AdapterLayout {
    /// The target on a linear, if it is adapted.
    pub fn find(&self, layer: usize, slot: Slot) -> Option<&LoraTarget> {
        self.targets.binary_search_by_key(&(layer, slot), |t| (t.layer, t.slot)).ok().map(|i| &self.targets[i])
    }

    /// Lowest block with an adapted linear; nothing below it needs a gradient.
    pub fn lowest_layer(&self) -> usize {
        self.targets.first().map_or(usize::MAX, |t| t.layer)
    }
}

/// Adapter parameters with their layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Where each A and B lies.
    pub layout: Arc<AdapterLayout>,
    /// The flat vector, length `layout.len`.
    pub parameters: Vec<f32>,
}

//! Frozen weights: safetensors, memory-mapped, one name table a family.

use half::bf16;

/// A frozen matrix in bf16, row-major `[rows, cols]`: used where the file maps it, or cast once from f16 or f32.
#[derive(Debug)]
pub struct Matrix {
    /// Output features of a linear; vocabulary of an embedding.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Mapped { map: std::sync::Arc<memmap2::Mmap>, bytes: std::ops::Range<usize> },
    Owned(Vec<bf16>),
}

impl Matrix {
    /// All values, row-major.
    pub fn data(&self) -> &[bf16] {
        match &self.storage {
            Storage::Mapped { map, bytes } => bytemuck::cast_slice(&map[bytes.clone()]),
            Storage::Owned(values) => values,
        }
    }
}

/// A frozen linear `y = x Wᵀ + b`, W `[outputs, inputs]`.
#[derive(Debug)]
pub struct Linear {
    /// Dotted module name as transformers has it, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// W.
    pub weight: Matrix,
    /// b, length `outputs`.
    pub bias: Option<Vec<f32>>,
}

/// Scale and bias of a norm, length H (or the head size).
#[derive(Debug)]
pub struct NormWeights {
    /// Multiplies the normalised values.
    pub scale: Vec<f32>,
    /// Added afterwards; only for layer norm.
    pub bias: Option<Vec<f32>>,
}

/// The projections to queries, keys and values.
#[derive(Debug)]
pub enum Qkv {
    /// One linear whose rows are laid out `[head, (q, k, v), head_size]` (GPT-NeoX).
    Fused(Linear),
    /// Three linears.
    Split {
        /// Queries, `[heads * head_size, H]`.
        q: Linear,
        /// Keys, `[kv_heads * head_size, H]`.
        k: Linear,
        /// Values, `[kv_heads * head_size, H]`.
        v: Linear,
    },
}

/// The linears of an MLP.
#[derive(Debug)]
pub struct Mlp {
    /// `Some` for SwiGLU.
    pub gate: Option<Linear>,
    /// To the intermediate width.
    pub up: Linear,
    /// Back to H.
    pub down: Linear,
}

/// One block.
#[derive(Debug)]
pub struct BlockWeights {
    /// Norm in front of attention.
    pub attention_norm: NormWeights,
    /// Projections to queries, keys, values.
    pub qkv: Qkv,
    /// Per-head norm of queries (Qwen3), length `head_size`.
    pub q_norm: Option<NormWeights>,
    /// Per-head norm of keys (Qwen3), length `head_size`.
    pub k_norm: Option<NormWeights>,
    /// Attention's output projection.
    pub output: Linear,
    /// Norm in front of the MLP.
    pub mlp_norm: NormWeights,
    /// The MLP.
    pub mlp: Mlp,
}

/// A whole frozen decoder.
#[derive(Debug)]
pub struct Weights {
    /// Token embedding, `[V, H]`.
    pub embedding: Matrix,
    /// Blocks from the embedding upwards.
    pub blocks: Vec<BlockWeights>,
    /// Norm in front of the head.
    pub final_norm: NormWeights,
    /// Head `[V, H]`; `None` where it is the embedding.
    pub head: Option<Matrix>,
    /// SHA-256 (hex) over names, shapes and 64 evenly spaced bf16 values of every tensor: the same for any sharding.
    pub fingerprint: String,
}

impl Weights {
    /// The head's matrix, tied or not.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

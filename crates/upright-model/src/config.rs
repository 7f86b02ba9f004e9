//! Decoder architecture, parsed from a Hugging Face `config.json`.

pub(crate) mod json;
mod read;
mod rope;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use upright_base::Result;

pub use crate::families::{Activation, NormKind};
use crate::families::{Family, families};

/// How attention and MLP add to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `y = x + attention(norm1(x)) + mlp(norm2(x))`.
    Parallel,
    /// `x1 = x + attention(norm1(x)); y = x1 + mlp(norm2(x1))`.
    Sequential,
}

/// Rotary embedding in the two-halves layout of Hugging Face.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Dimensions of a head that rotate (even); the rest pass through.
    pub dims: usize,
    /// Angle per position for each of the `dims / 2` pairs, scaling included.
    pub frequencies: Vec<f64>,
}

/// Architecture of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The family's entry in the table of families.
    pub family: &'static Family,
    /// `model_type` as in the file, for messages.
    pub model_type: String,
    /// H: width of the residual stream.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of a head, even; `heads * head_size` may differ from `hidden`.
    pub head_size: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// V: vocabulary rows of the embedding and the head.
    pub vocab: usize,
    /// Maximum number of positions that the model supports.
    pub max_positions: usize,
    /// Kind of every norm.
    pub norm: NormKind,
    /// Added to the variance in every norm, under the square root.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rotary: Rotary,
    /// Sliding window of every block: a query attends to keys at most `window - 1` positions before it. Length `layers`.
    pub windows: Vec<Option<usize>>,
    /// Root-mean-square norm over each head of q and k before rotary embedding (Qwen3).
    pub qk_norm: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases on the MLP's linears.
    pub mlp_bias: bool,
    /// Residual wiring.
    pub residual: Residual,
    /// MLP nonlinearity.
    pub activation: Activation,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// `bos_token_id` of the config, if it has one.
    pub bos: Option<u32>,
    /// `eos_token_id` of the config: the first if it lists several.
    pub eos: Option<u32>,
    /// Training dropout in the config, by key, if above 0. The engine applies none.
    pub dropout: Vec<(&'static str, f64)>,
}

impl DecoderConfig {
    /// Reads `config.json` of a model folder, in the dialect of transformers 4 or 5, with transformers' defaults for keys
    /// that are missing.
    ///
    /// # Errors
    /// Bad input, naming file, key, value and a valid alternative: an unknown `model_type`, a key
    /// of the wrong type, sizes that contradict each other, quantized weights, or anything that
    /// would change the arithmetic and is not supported.
    pub fn read(dir: &Path) -> Result<Self> {
        Self::read_as(dir, families())
    }

    /// Like [`DecoderConfig::read`], with the model types of these families alone.
    pub(crate) fn read_as(dir: &Path, families: &[&'static Family]) -> Result<Self> {
        read::read(dir, families)
    }
}

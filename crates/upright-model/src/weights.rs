//! Frozen weights: safetensors, memory-mapped.

mod assemble;
pub(crate) mod digest;
pub(crate) mod file;
mod file_identity;
pub(crate) mod fingerprint;
pub(crate) mod header;
pub(crate) mod names;
pub(crate) mod open;
mod random;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

pub use digest::{DigestStore, Progress};
pub use fingerprint::Fingerprint;
use half::{bf16, f16};

use crate::config::DecoderConfig;
use crate::families::Family;
use upright_base::Result;

/// Type of the floating-point values in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16, the upper half of a single.
    Bf16,
}

impl Float {
    /// Name in safetensors.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// Name in PyTorch, and so in `config.json`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes per value.
    pub fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// The nearest representable value, ties to even; values that are too large become infinite.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Value `index` of bytes of this type.
    pub(crate) fn get(self, bytes: &[u8], index: usize) -> f32 {
        let at = &bytes[index * self.size()..][..self.size()];
        match self {
            Self::F32 => f32::from_le_bytes([at[0], at[1], at[2], at[3]]),
            Self::F16 => f16::from_le_bytes([at[0], at[1]]).to_f32(),
            Self::Bf16 => bf16::from_le_bytes([at[0], at[1]]).to_f32(),
        }
    }

    /// Writes a value, rounded, into bytes of its size.
    pub(crate) fn put(self, value: f32, into: &mut [u8]) {
        match self {
            Self::F32 => into.copy_from_slice(&value.to_le_bytes()),
            Self::F16 => into.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            Self::Bf16 => into.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }
}

/// A frozen matrix in bf16, row-major `[rows, cols]`: memory-mapped and used in place, or cast once
/// from f16 or f32.
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
    Mapped {
        map: std::sync::Arc<memmap2::Mmap>,
        bytes: std::ops::Range<usize>,
    },
    Owned(Vec<bf16>),
}

impl Matrix {
    /// A matrix of values in memory, row-major.
    ///
    /// # Panics
    /// If there are not `rows * cols` values.
    pub fn owned(rows: usize, cols: usize, values: Vec<bf16>) -> Self {
        assert_eq!(
            values.len(),
            rows * cols,
            "a matrix of {rows} rows and {cols} columns"
        );
        Self {
            rows,
            cols,
            storage: Storage::Owned(values),
        }
    }

    /// Whether the values are memory-mapped rather than owned.
    pub fn is_mapped(&self) -> bool {
        matches!(self.storage, Storage::Mapped { .. })
    }

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
    /// Dotted module name, as in transformers, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// W.
    pub weight: Matrix,
    /// b, length `outputs`.
    pub bias: Option<Vec<f32>>,
}

/// Scale and bias of a norm, length H (or the head size).
#[derive(Debug)]
pub struct NormWeights {
    /// Multiplies the normalized values.
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
    /// Norm before attention.
    pub attention_norm: NormWeights,
    /// Projections to queries, keys, values.
    pub qkv: Qkv,
    /// Per-head norm of queries (Qwen3), length `head_size`.
    pub q_norm: Option<NormWeights>,
    /// Per-head norm of keys (Qwen3), length `head_size`.
    pub k_norm: Option<NormWeights>,
    /// Attention's output projection.
    pub output: Linear,
    /// Norm before the MLP.
    pub mlp_norm: NormWeights,
    /// The MLP.
    pub mlp: Mlp,
}

impl BlockWeights {
    /// Every linear of the block: query-key-value, output, MLP.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let qkv = match &self.qkv {
            Qkv::Fused(linear) => [Some(linear), None, None],
            Qkv::Split { q, k, v } => [Some(q), Some(k), Some(v)],
        };
        let rest = [
            Some(&self.output),
            self.mlp.gate.as_ref(),
            Some(&self.mlp.up),
            Some(&self.mlp.down),
        ];
        qkv.into_iter().chain(rest).flatten()
    }
}

/// A whole frozen decoder.
#[derive(Debug)]
pub struct Weights {
    /// Token embedding, `[V, H]`.
    pub embedding: Matrix,
    /// Blocks, from the embedding to the head.
    pub blocks: Vec<BlockWeights>,
    /// Norm before the head.
    pub final_norm: NormWeights,
    /// Head `[V, H]`; `None` if it is the embedding.
    pub head: Option<Matrix>,
}

/// Checks the header of a safetensors file, given as its bytes. Returns the names of the tensors in the order of their
/// values; `path` is for messages.
///
/// # Errors
/// Bad input: the file is truncated, its header is not valid, or a tensor lies outside the file or
/// overlaps another one.
pub fn check_header(path: &Path, file: &[u8]) -> Result<Vec<String>> {
    let (_, header) = file::read_header(path, file)?;
    Ok(header.offset_keys())
}

impl Weights {
    /// The head's matrix, tied or not.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Opens the safetensors of a model folder: one `model.safetensors`, or the files of
    /// `model.safetensors.index.json`. bf16 matrices stay memory-mapped, and none of their values
    /// is read yet; f16 and f32 matrices are rounded to bf16 once. Norms and biases become f32,
    /// exactly. The files must not be changed while the weights are in use.
    ///
    /// # Errors
    /// A system error, or bad input, naming file and tensor: a file is missing or damaged, or a
    /// tensor is missing, has the wrong shape or type, or is part of a block but unknown to the
    /// config.
    pub fn open(dir: &Path, config: &DecoderConfig) -> Result<Self> {
        open::open(dir, config)
    }

    /// Random weights of the config's shape, in memory. Matrices are normal with standard deviation
    /// 0.02, in bf16, each a function of the seed and its name. Norms have their initial values, 1
    /// and 0; biases are 0. Runs on the current rayon pool.
    pub fn random(config: &DecoderConfig, seed: u64) -> Self {
        random::random(config, seed)
    }

    /// Bytes of memory-mapped matrices: shared between processes, and released under memory
    /// pressure.
    pub fn bytes_mapped(&self) -> usize {
        self.matrices()
            .filter(|m| m.is_mapped())
            .map(|m| size_of_val(m.data()))
            .sum()
    }

    /// Bytes of owned matrices and vectors.
    pub fn bytes_owned(&self) -> usize {
        let matrices: usize = self
            .matrices()
            .filter(|m| !m.is_mapped())
            .map(|m| size_of_val(m.data()))
            .sum();
        let norm = |norm: &NormWeights| norm.scale.len() + norm.bias.as_ref().map_or(0, Vec::len);
        let block = |block: &BlockWeights| {
            let norms = [
                Some(&block.attention_norm),
                Some(&block.mlp_norm),
                block.q_norm.as_ref(),
                block.k_norm.as_ref(),
            ];
            let biases: usize = block
                .linears()
                .filter_map(|linear| linear.bias.as_ref().map(Vec::len))
                .sum();
            norms.into_iter().flatten().map(norm).sum::<usize>() + biases
        };
        matrices + 4 * (norm(&self.final_norm) + self.blocks.iter().map(block).sum::<usize>())
    }

    /// Name of the first tensor of a model of `family` with a value that is not finite.
    pub fn find_non_finite(&self, family: &Family) -> Option<String> {
        let names = &family.tensors;
        let matrix = |matrix: &Matrix| matrix.data().iter().any(|v| !v.is_finite());
        let vector = |values: &[f32]| values.iter().any(|v| !v.is_finite());
        let norm = |name: String, norm: &NormWeights| {
            let scale = vector(&norm.scale).then(|| format!("{name}.weight"));
            scale.or_else(|| {
                norm.bias
                    .as_deref()
                    .is_some_and(vector)
                    .then(|| format!("{name}.bias"))
            })
        };
        if matrix(&self.embedding) {
            return Some(names.embedding.into());
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            for linear in block.linears() {
                if matrix(&linear.weight) {
                    return Some(format!("{}.weight", linear.module));
                }
                if linear.bias.as_deref().is_some_and(vector) {
                    return Some(format!("{}.bias", linear.module));
                }
            }
            let path = names::block_name(family, layer);
            let [q_norm, k_norm] = names.head_norms.unwrap_or_default();
            let norms = [
                (names.attention_norm, Some(&block.attention_norm)),
                (names.mlp_norm, Some(&block.mlp_norm)),
                (q_norm, block.q_norm.as_ref()),
                (k_norm, block.k_norm.as_ref()),
            ];
            let named = norms
                .into_iter()
                .filter_map(|(name, norm)| Some((format!("{path}.{name}"), norm?)));
            if let Some(name) = named
                .map(|(name, weights)| norm(name, weights))
                .find_map(|found| found)
            {
                return Some(name);
            }
        }
        let head = self
            .head
            .as_ref()
            .is_some_and(matrix)
            .then(|| names.heads[0].into());
        norm(names.final_norm.into(), &self.final_norm).or(head)
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let linears = self
            .blocks
            .iter()
            .flat_map(|block| block.linears().map(|linear| &linear.weight));
        std::iter::once(&self.embedding)
            .chain(&self.head)
            .chain(linears)
    }
}

//! Qwen3: Qwen2 with normalized heads, and biases only where the config asks for them.

use super::{
    Family, HeadSize, TensorNames,
    llama::{ATTENTION_BIAS, LLAMA},
    qwen2::QWEN2,
};

/// Qwen3, the dense models.
pub const QWEN3: Family = Family {
    name: "qwen3",
    model_types: &["qwen3"],
    head_size: HeadSize::Key { default: Some(128) },
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    tensors: TensorNames {
        head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
        ..LLAMA.tensors
    },
    ..QWEN2
};

//! The name table of each family: what its tensors are called, and the shapes that a config gives them.

use crate::config::{DecoderConfig, Family};

/// Names outside of the blocks.
pub(crate) struct Names {
    /// What the base model is called inside the whole; exports of the base model alone leave it out.
    pub(crate) prefix: &'static str,
    /// Token embedding, with prefix.
    pub(crate) embedding: &'static str,
    /// Norm in front of the head, with prefix.
    pub(crate) final_norm: &'static str,
    /// Head: the name in files first, then others that are in use.
    pub(crate) heads: &'static [&'static str],
}

/// One linear of a block.
pub(crate) struct LinearShape {
    /// Name below the block.
    pub(crate) name: &'static str,
    /// Input features.
    pub(crate) inputs: usize,
    /// Output features.
    pub(crate) outputs: usize,
    /// Whether it has a bias.
    pub(crate) bias: bool,
}

/// The linears of a block.
pub(crate) struct BlockShape {
    /// One fused linear, or q, k, v.
    pub(crate) qkv: Vec<LinearShape>,
    /// Attention's output projection.
    pub(crate) output: LinearShape,
    /// SwiGLU's gate.
    pub(crate) gate: Option<LinearShape>,
    /// MLP up.
    pub(crate) up: LinearShape,
    /// MLP down.
    pub(crate) down: LinearShape,
}

/// Names of a family outside of the blocks.
pub(crate) fn names(family: Family) -> Names {
    match family {
        Family::GptNeox => Names {
            prefix: "gpt_neox.",
            embedding: "gpt_neox.embed_in.weight",
            final_norm: "gpt_neox.final_layer_norm",
            // transformers 5 calls the module lm_head and keeps embed_out in files.
            heads: &["embed_out.weight", "lm_head.weight"],
        },
        Family::Llama => Names {
            prefix: "model.",
            embedding: "model.embed_tokens.weight",
            final_norm: "model.norm",
            heads: &["lm_head.weight"],
        },
    }
}

/// Dotted name of a block, e.g. `model.layers.3`.
pub(crate) fn block_name(family: Family, layer: usize) -> String {
    format!("{}layers.{layer}", names(family).prefix)
}

/// Names and shapes of the linears of every block.
pub(crate) fn block_shape(config: &DecoderConfig) -> BlockShape {
    let (hidden, wide) = (config.hidden, config.intermediate);
    let queries = config.heads * config.head_size;
    let keys = config.kv_heads * config.head_size;
    let linear = |name, inputs, outputs, bias| LinearShape { name, inputs, outputs, bias };
    match config.family {
        Family::GptNeox => BlockShape {
            qkv: vec![linear("attention.query_key_value", hidden, 3 * queries, config.qkv_bias)],
            output: linear("attention.dense", queries, hidden, config.output_bias),
            gate: None,
            up: linear("mlp.dense_h_to_4h", hidden, wide, config.mlp_bias),
            down: linear("mlp.dense_4h_to_h", wide, hidden, config.mlp_bias),
        },
        Family::Llama => BlockShape {
            qkv: vec![
                linear("self_attn.q_proj", hidden, queries, config.qkv_bias),
                linear("self_attn.k_proj", hidden, keys, config.qkv_bias),
                linear("self_attn.v_proj", hidden, keys, config.qkv_bias),
            ],
            output: linear("self_attn.o_proj", queries, hidden, config.output_bias),
            gate: Some(linear("mlp.gate_proj", hidden, wide, config.mlp_bias)),
            up: linear("mlp.up_proj", hidden, wide, config.mlp_bias),
            down: linear("mlp.down_proj", wide, hidden, config.mlp_bias),
        },
    }
}

/// Buffers that older checkpoints carry inside a block and that are computed instead of read.
pub(crate) fn is_buffer(name: &str) -> bool {
    ["rotary_emb.inv_freq", "attention.bias", "attention.masked_bias"].iter().any(|buffer| name.ends_with(buffer))
}

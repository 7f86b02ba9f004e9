//! Llama, and the base of the families that differ from it in a few values.

use super::{
    Activation, ActivationNames, Family, HeadSize, KvHeads, NormKind, NumberKey, OLD_BUFFERS,
    QkvNames, RotaryKeys, SlidingWindow, Switch, TensorNames,
};

/// Llama 1 to 3.
pub const LLAMA: Family = Family {
    name: "llama",
    model_types: &["llama"],
    norm: NormKind::Rms,
    norm_eps: NumberKey {
        key: "rms_norm_eps",
        default: 1e-6,
    },
    kv_heads: KvHeads::Key { default: None },
    head_size: HeadSize::Key { default: None },
    max_positions: 2048,
    rotary: RotaryKeys {
        theta: NumberKey {
            key: "rope_theta",
            default: 10_000.0,
        },
        fraction: NumberKey {
            key: "partial_rotary_factor",
            default: 1.0,
        },
        is_partial: false,
    },
    window: SlidingWindow::Never,
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    mlp_bias: Switch::Key {
        key: "mlp_bias",
        default: false,
    },
    parallel_residual: Switch::Off,
    activation: ActivationNames {
        default: "silu",
        known: &[("silu", Activation::SwiGlu), ("swish", Activation::SwiGlu)],
        expected: "silu",
    },
    tied_head: false,
    bos: Some(1),
    eos: Some(2),
    tensors: TensorNames {
        prefix: "model.",
        embedding: "model.embed_tokens.weight",
        blocks: "model.layers",
        final_norm: "model.norm",
        heads: &["lm_head.weight"],
        attention_norm: "input_layernorm",
        mlp_norm: "post_attention_layernorm",
        head_norms: None,
        qkv: QkvNames::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        output: "self_attn.o_proj",
        gate: Some("mlp.gate_proj"),
        up: "mlp.up_proj",
        down: "mlp.down_proj",
        buffers: OLD_BUFFERS,
    },
};

/// One key for the biases of q, k, v and of the output projection.
pub(super) const ATTENTION_BIAS: Switch = Switch::Key {
    key: "attention_bias",
    default: false,
};

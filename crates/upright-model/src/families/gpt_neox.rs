//! GPT-NeoX: layer norms, GELU, and query, key and value of a head side by side.

use super::{
    Activation, ActivationNames, Family, HeadSize, KvHeads, NormKind, NumberKey, OLD_BUFFERS,
    QkvNames, RotaryKeys, SlidingWindow, Switch, TensorNames,
};

/// GPT-NeoX and Pythia.
pub const GPT_NEOX: Family = Family {
    name: "gpt_neox",
    model_types: &["gpt_neox"],
    norm: NormKind::Layer,
    norm_eps: NumberKey {
        key: "layer_norm_eps",
        default: 1e-5,
    },
    kv_heads: KvHeads::OnePerHead,
    head_size: HeadSize::Quotient,
    max_positions: 2048,
    rotary: RotaryKeys {
        theta: NumberKey {
            key: "rotary_emb_base",
            default: 10_000.0,
        },
        fraction: NumberKey {
            key: "rotary_pct",
            default: 0.25,
        },
        is_partial: true,
    },
    window: SlidingWindow::Never,
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    mlp_bias: Switch::On,
    parallel_residual: Switch::Key {
        key: "use_parallel_residual",
        default: true,
    },
    activation: ActivationNames {
        default: "gelu",
        known: &[
            ("gelu", Activation::Gelu),
            ("gelu_python", Activation::Gelu),
            // All of these names mean the tanh approximation.
            ("gelu_new", Activation::GeluTanh),
            ("gelu_fast", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("gelu_python_tanh", Activation::GeluTanh),
            ("gelu_accurate", Activation::GeluTanh),
        ],
        expected: "gelu, gelu_new, gelu_fast or gelu_pytorch_tanh",
    },
    tied_head: false,
    bos: Some(0),
    eos: Some(2),
    tensors: TensorNames {
        prefix: "gpt_neox.",
        embedding: "gpt_neox.embed_in.weight",
        blocks: "gpt_neox.layers",
        final_norm: "gpt_neox.final_layer_norm",
        // transformers 5 calls the module lm_head and keeps embed_out in files.
        heads: &["embed_out.weight", "lm_head.weight"],
        attention_norm: "input_layernorm",
        mlp_norm: "post_attention_layernorm",
        head_norms: None,
        qkv: QkvNames::Fused("attention.query_key_value"),
        output: "attention.dense",
        gate: None,
        up: "mlp.dense_h_to_4h",
        down: "mlp.dense_4h_to_h",
        buffers: OLD_BUFFERS,
    },
};

/// One key for the biases of q, k, v and of the output projection.
const ATTENTION_BIAS: Switch = Switch::Key {
    key: "attention_bias",
    default: true,
};

//! The name table of each family: the names of its tensors, and their shapes for a config.

use crate::config::{DecoderConfig, Family, NormKind};

/// Names outside of the blocks.
pub(crate) struct Names {
    /// Prefix of the base model inside the whole model; exports of only the base model omit it.
    pub(crate) prefix: &'static str,
    /// Token embedding, with prefix.
    pub(crate) embedding: &'static str,
    /// Norm before the head, with prefix.
    pub(crate) final_norm: &'static str,
    /// Head: the name in files first, then other names in use.
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
    let linear = |name, inputs, outputs, bias| LinearShape {
        name,
        inputs,
        outputs,
        bias,
    };
    match config.family {
        Family::GptNeox => BlockShape {
            qkv: vec![linear(
                "attention.query_key_value",
                hidden,
                3 * queries,
                config.qkv_bias,
            )],
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

/// Name and shape of every tensor that a model computes with. The head has the first of its names.
pub(crate) fn tensors(config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
    let names = names(config.family);
    let mut all = vec![(
        names.embedding.to_owned(),
        vec![config.vocab, config.hidden],
    )];
    if !config.tied_head {
        all.push((names.heads[0].to_owned(), vec![config.vocab, config.hidden]));
    }
    let norm = |all: &mut Vec<_>, module: String, len: usize, kind: NormKind| {
        all.push((format!("{module}.weight"), vec![len]));
        if kind == NormKind::Layer {
            all.push((format!("{module}.bias"), vec![len]));
        }
    };
    norm(
        &mut all,
        names.final_norm.to_owned(),
        config.hidden,
        config.norm,
    );
    for layer in 0..config.layers {
        let block = block_name(config.family, layer);
        for name in ["input_layernorm", "post_attention_layernorm"] {
            norm(
                &mut all,
                format!("{block}.{name}"),
                config.hidden,
                config.norm,
            );
        }
        for name in ["q_norm", "k_norm"].into_iter().filter(|_| config.qk_norm) {
            norm(
                &mut all,
                format!("{block}.self_attn.{name}"),
                config.head_size,
                NormKind::Rms,
            );
        }
        let shape = block_shape(config);
        let linears = shape
            .qkv
            .into_iter()
            .chain([shape.output])
            .chain(shape.gate)
            .chain([shape.up, shape.down]);
        for linear in linears {
            all.push((
                format!("{block}.{}.weight", linear.name),
                vec![linear.outputs, linear.inputs],
            ));
            if linear.bias {
                all.push((
                    format!("{block}.{}.bias", linear.name),
                    vec![linear.outputs],
                ));
            }
        }
    }
    all
}

/// Whether a tensor is a buffer that older checkpoints store in a block, and that is computed
/// instead of read.
pub(crate) fn is_buffer(name: &str) -> bool {
    [
        "rotary_emb.inv_freq",
        "attention.bias",
        "attention.masked_bias",
    ]
    .iter()
    .any(|buffer| name.ends_with(buffer))
}

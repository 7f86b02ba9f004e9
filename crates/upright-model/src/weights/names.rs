//! The tensors of a model: their names, which its family declares, and their shapes for a config.

use crate::config::{DecoderConfig, NormKind};
use crate::families::{Family, QkvNames};

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

/// Dotted name of a block, e.g. `model.layers.3`.
pub(crate) fn block_name(family: &Family, layer: usize) -> String {
    format!("{}.{layer}", family.tensors.blocks)
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
    let names = &config.family.tensors;
    let qkv = match names.qkv {
        QkvNames::Fused(fused) => vec![linear(fused, hidden, 3 * queries, config.qkv_bias)],
        QkvNames::Split([q, k, v]) => vec![
            linear(q, hidden, queries, config.qkv_bias),
            linear(k, hidden, keys, config.qkv_bias),
            linear(v, hidden, keys, config.qkv_bias),
        ],
    };
    BlockShape {
        qkv,
        output: linear(names.output, queries, hidden, config.output_bias),
        gate: names
            .gate
            .map(|gate| linear(gate, hidden, wide, config.mlp_bias)),
        up: linear(names.up, hidden, wide, config.mlp_bias),
        down: linear(names.down, wide, hidden, config.mlp_bias),
    }
}

/// Name and shape of every tensor that a model computes with. The head has the first of its names.
pub(crate) fn tensors(config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
    let names = &config.family.tensors;
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
        for name in [names.attention_norm, names.mlp_norm] {
            norm(
                &mut all,
                format!("{block}.{name}"),
                config.hidden,
                config.norm,
            );
        }
        for name in names.head_norms.into_iter().flatten() {
            norm(
                &mut all,
                format!("{block}.{name}"),
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

/// Whether a tensor is a buffer that a checkpoint of the family may store, and that is computed instead of read.
pub(crate) fn is_buffer(family: &Family, name: &str) -> bool {
    family
        .tensors
        .buffers
        .iter()
        .any(|buffer| name.ends_with(buffer))
}

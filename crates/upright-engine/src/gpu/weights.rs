//! Frozen weights on a device.

use std::sync::Arc;

use half::bf16;
use upright_base::{Error, Result};
use upright_kernels::attention::{Instance, instance};
use upright_model::{
    adapter::{AdapterLayout, Slot},
    config::{Activation, DecoderConfig, NormKind},
    weights::{self as frozen, Matrix, NormWeights, Qkv},
};

use super::{
    array::Array,
    device::Device,
    linear::{Linear, Part},
};

/// How queries, keys and values lie in a row of W values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    /// Query heads.
    pub(super) queries: usize,
    /// Heads of keys, and of values.
    pub(super) keys: usize,
    /// Values of a head.
    pub(super) size: usize,
    /// Whether query, key and value of a head lie side by side (GPT-NeoX), rather than all queries before all keys.
    pub(super) grouped: bool,
    /// Factor of the scores.
    pub(super) scale: f32,
}

impl Heads {
    pub(super) fn of(config: &DecoderConfig) -> Self {
        Self {
            queries: config.heads,
            keys: config.kv_heads,
            size: config.head_size,
            grouped: config.family.tensors.qkv.is_fused(),
            scale: 1.0 / (config.head_size as f32).sqrt(),
        }
    }

    /// W.
    pub(super) fn width(&self) -> usize {
        (self.queries + 2 * self.keys) * self.size
    }

    /// Values of attention's output per token.
    pub(super) fn out_width(&self) -> usize {
        self.queries * self.size
    }

    /// Columns of the first query, key and value.
    pub(super) fn starts(&self) -> [usize; 3] {
        let (d, q, k) = (self.size, self.queries, self.keys);
        if self.grouped {
            [0, d, 2 * d]
        } else {
            [0, q * d, (q + k) * d]
        }
    }

    /// Values from one head to the next.
    pub(super) fn stride(&self) -> usize {
        if self.grouped {
            3 * self.size
        } else {
            self.size
        }
    }
}

/// A norm of rows.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
    /// `[H]`.
    pub(super) scale: Array<f32>,
    bias: Option<Array<f32>>,
}

impl Norm {
    fn open(
        device: &Arc<dyn Device>,
        config: &DecoderConfig,
        weights: Option<&NormWeights>,
    ) -> Result<Self> {
        let zeros = vec![0.0; config.hidden];
        let scale = weights.map_or(&zeros, |norm| &norm.scale);
        let bias = weights
            .and_then(|norm| norm.bias.as_ref())
            .unwrap_or(&zeros);
        let has_bias = config.norm == NormKind::Layer;
        Ok(Self {
            kind: config.norm,
            eps: config.norm_eps,
            scale: Array::from(device, scale)?,
            bias: has_bias.then(|| Array::from(device, bias)).transpose()?,
        })
    }

    /// The bias of a layer norm.
    pub(super) fn bias(&self) -> &Array<f32> {
        self.bias.as_ref().expect("a layer norm has a bias")
    }
}

/// Norms of queries and keys.
#[derive(Debug)]
pub(super) struct HeadNorms {
    pub(super) queries: Array<f32>,
    pub(super) keys: Array<f32>,
    pub(super) eps: f32,
}

/// The weights of one block.
#[derive(Debug)]
pub(super) struct BlockWeights {
    pub(super) attention_norm: Norm,
    pub(super) qkv: Linear,
    pub(super) head_norms: Option<HeadNorms>,
    pub(super) output: Linear,
    pub(super) mlp_norm: Norm,
    /// Gate and up, or up.
    pub(super) inner: Linear,
    pub(super) down: Linear,
}

/// A whole decoder.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) heads: Heads,
    /// Attention's kernels.
    pub(super) instance: &'static Instance,
    /// `[V, H]`.
    pub(super) embedding: Array<bf16>,
    pub(super) blocks: Vec<BlockWeights>,
    pub(super) final_norm: Norm,
    head: Option<Array<bf16>>,
}

/// Rejects sizes that the kernels do not take.
///
/// # Errors
/// The config has such a size.
pub(super) fn check(config: &DecoderConfig) -> Result<&'static Instance> {
    for (name, size) in [
        ("hidden size", config.hidden),
        ("intermediate size", config.intermediate),
        ("head size", config.head_size),
    ] {
        if !size.is_multiple_of(8) {
            return Err(Error::input(format!(
                "the model's {name} is {size}, and a GPU takes multiples of 8"
            ))
            .hint("use --device cpu"));
        }
    }
    instance(config.head_size).ok_or_else(|| {
        Error::input(format!(
            "the model's head size is {}, and a GPU takes at most 256",
            config.head_size
        ))
        .hint("use --device cpu")
    })
}

/// The linears of a block on the host, in the order of the device's: qkv, output, inner, down.
fn linears(block: &frozen::BlockWeights) -> [Vec<&frozen::Linear>; 4] {
    let qkv = match &block.qkv {
        Qkv::Fused(linear) => vec![linear],
        Qkv::Split { q, k, v } => vec![q, k, v],
    };
    let mut inner = Vec::new();
    inner.extend(&block.mlp.gate);
    inner.push(&block.mlp.up);
    [qkv, vec![&block.output], inner, vec![&block.mlp.down]]
}

impl Weights {
    /// Uploads a model. Without `weights`, only sizes matter, and nothing is read.
    ///
    /// # Errors
    /// A size that the kernels do not take, or the device has too little memory.
    pub(super) fn open(
        device: &Arc<dyn Device>,
        config: &DecoderConfig,
        weights: Option<&frozen::Weights>,
    ) -> Result<Self> {
        let instance = check(config)?;
        let matrix = |matrix: Option<&Matrix>| match matrix {
            Some(matrix) => Array::from(device, matrix.data()),
            None => Array::new(device, config.vocab * config.hidden),
        };
        let mut blocks = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let block = weights.map(|weights| &weights.blocks[layer]);
            blocks.push(BlockWeights::open(device, config, block)?);
        }
        let head = match weights {
            _ if config.tied_head => None,
            Some(weights) => weights.head.as_ref(),
            None => None,
        };
        Ok(Self {
            heads: Heads::of(config),
            instance,
            embedding: matrix(weights.map(|weights| &weights.embedding))?,
            blocks,
            final_norm: Norm::open(device, config, weights.map(|weights| &weights.final_norm))?,
            head: (!config.tied_head).then(|| matrix(head)).transpose()?,
        })
    }

    /// The head's matrix, tied or not.
    pub(super) fn head(&self) -> &Array<bf16> {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Shapes of the products of a block and of the head: columns, inner size, and whether B is stored transposed. The head's are
    /// those of a chunk of the vocabulary.
    pub(super) fn shapes(&self, chunk: usize) -> Vec<(usize, usize, bool)> {
        let mut shapes = Vec::new();
        for block in self.blocks.iter().take(1) {
            for linear in [&block.qkv, &block.output, &block.inner, &block.down] {
                shapes.push((linear.outputs, linear.inputs, true));
                shapes.push((linear.inputs, linear.outputs, false));
            }
        }
        let hidden = self.final_norm.scale.len();
        let chunk = chunk.min(self.head().len() / hidden);
        shapes.push((chunk, hidden, true));
        shapes.push((hidden, chunk, false));
        shapes
    }

    /// Copies an adapter's pairs into the matrices.
    pub(super) fn fold(
        &mut self,
        device: &Arc<dyn Device>,
        layout: &AdapterLayout,
        parameters: &Array<f32>,
        weights: Option<&frozen::Weights>,
    ) -> Result<()> {
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let mut sources = [const { Vec::new() }; 4];
            if let Some(weights) = weights {
                sources = linears(&weights.blocks[layer]);
            }
            let all = [
                &mut block.qkv,
                &mut block.output,
                &mut block.inner,
                &mut block.down,
            ];
            for (linear, frozen) in all.into_iter().zip(&sources) {
                linear.fold(device, layer, layout, parameters, frozen)?;
            }
        }
        Ok(())
    }
}

impl BlockWeights {
    fn open(
        device: &Arc<dyn Device>,
        config: &DecoderConfig,
        weights: Option<&frozen::BlockWeights>,
    ) -> Result<Self> {
        let heads = Heads::of(config);
        let part = |slot, outputs| Part { slot, outputs };
        let kv = heads.keys * heads.size;
        let qkv = if heads.grouped {
            vec![part(Slot::Qkv, heads.width())]
        } else {
            vec![
                part(Slot::Q, heads.out_width()),
                part(Slot::K, kv),
                part(Slot::V, kv),
            ]
        };
        let mut inner = Vec::new();
        if config.activation == Activation::SwiGlu {
            inner.push(part(Slot::Gate, config.intermediate));
        }
        inner.push(part(Slot::Up, config.intermediate));
        let mut sources = [const { Vec::new() }; 4];
        if let Some(weights) = weights {
            sources = linears(weights);
        }
        let [of_qkv, of_output, of_inner, of_down] = &sources;
        let mut head_norms = None;
        if config.qk_norm {
            let zeros = vec![0.0; config.head_size];
            let norm = |norm: Option<&NormWeights>| {
                Array::from(device, norm.map_or(&zeros, |norm| &norm.scale))
            };
            head_norms = Some(HeadNorms {
                queries: norm(weights.and_then(|weights| weights.q_norm.as_ref()))?,
                keys: norm(weights.and_then(|weights| weights.k_norm.as_ref()))?,
                eps: config.norm_eps,
            });
        }
        let norm = |weights: Option<&NormWeights>| Norm::open(device, config, weights);
        let hidden = config.hidden;
        Ok(Self {
            attention_norm: norm(weights.map(|weights| &weights.attention_norm))?,
            qkv: Linear::open(device, hidden, qkv, config.qkv_bias, of_qkv)?,
            head_norms,
            output: Linear::open(
                device,
                heads.out_width(),
                vec![part(Slot::Output, hidden)],
                config.output_bias,
                of_output,
            )?,
            mlp_norm: norm(weights.map(|weights| &weights.mlp_norm))?,
            inner: Linear::open(device, hidden, inner, config.mlp_bias, of_inner)?,
            down: Linear::open(
                device,
                config.intermediate,
                vec![part(Slot::Down, hidden)],
                config.mlp_bias,
                of_down,
            )?,
        })
    }
}

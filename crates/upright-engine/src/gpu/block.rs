//! One decoder block on a device, forward pass beside backward pass. The mirror of `cpu/block.rs`, with the same shapes.
//!
//! The residual stream is f32. Operands of products are bf16, in rows with room for a linear's LoRA columns.

use std::sync::Arc;

use half::bf16;
use upright_base::Result;
use upright_model::config::{Activation, DecoderConfig, Residual};

use super::{
    array::Array,
    device::Device,
    kernels::{
        activation,
        attention::Attention,
        heads::{self, Turns},
        norm,
        rows::{Rows, gather},
    },
    linear::{Linear, Output, Scope},
    tables::{Angles, Keys, Tables},
    weights::{BlockWeights, Heads, Norm, Weights},
};

/// A block applied to the rows of a pass.
pub(super) struct Block<'a> {
    pub(super) config: &'a DecoderConfig,
    pub(super) weights: &'a Weights,
    pub(super) layer: usize,
    pub(super) tables: &'a Tables,
    pub(super) angles: &'a Angles,
    pub(super) scope: Scope<'a>,
    /// Whether a backward pass may follow.
    pub(super) keeps: bool,
}

/// Saved activations of a block. Values that are cheap to recompute (norms, the MLP's hidden activations) are not saved.
pub(super) struct Trace {
    /// The block's input, `[T, H]`.
    x: Array<f32>,
    /// Input of the MLP's norm if it is not `x`, `[R, H]`.
    middle: Option<Array<f32>>,
    /// Queries, keys and values as attention sees them, `[T, W]`.
    qkv: Array<bf16>,
    /// Queries and keys before the per-head norms, `[T, (heads + kv_heads) d]`.
    before_head_norm: Option<Array<bf16>>,
    /// Attention's output, `[T, heads d]`, in rows with room for LoRA.
    attended: Array<bf16>,
    /// Log-sum-exp of the scores, base 2, `[T, heads]`.
    lse: Array<f32>,
    /// Input of the MLP's activation function, `[R, M]`.
    mlp: Array<bf16>,
    /// `scale x Aᵀ` of qkv, output, inner and down.
    u: [Option<Array<bf16>>; 4],
}

/// Bytes that a block saves per token, without those for the ranks of LoRA, in a pack where all rows have targets.
pub(super) fn bytes_per_token(config: &DecoderConfig) -> usize {
    let streams = match config.residual {
        Residual::Sequential => 2,
        Residual::Parallel => 1,
    };
    let qk = if config.qk_norm {
        config.heads + config.kv_heads
    } else {
        0
    };
    let width = (config.heads + 2 * config.kv_heads + config.heads + qk) * config.head_size;
    let stored = width + mlp_width(config);
    size_of::<f32>() * (streams * config.hidden + config.heads) + size_of::<bf16>() * stored
}

/// Input values per token of the MLP's activation function.
fn mlp_width(config: &DecoderConfig) -> usize {
    config.intermediate
        * if config.activation == Activation::SwiGlu {
            2
        } else {
            1
        }
}

impl<'a> Block<'a> {
    fn block(&self) -> &'a BlockWeights {
        &self.weights.blocks[self.layer]
    }

    fn device(&self) -> &'a Arc<dyn Device> {
        self.scope.device
    }

    fn heads(&self) -> &'a Heads {
        &self.weights.heads
    }

    fn window(&self) -> Option<usize> {
        self.config.windows[self.layer]
    }

    /// T.
    fn tokens(&self) -> usize {
        self.tables.tokens.len()
    }

    /// The rows that this block computes after attention, if not all.
    fn wanted(&self) -> Option<&'a super::tables::Wanted> {
        let is_last = self.layer + 1 == self.config.layers;
        self.tables.wanted.as_ref().filter(|_| is_last)
    }

    /// R.
    fn rows(&self) -> usize {
        self.wanted().map_or(self.tokens(), |wanted| wanted.count)
    }

    fn turns(&self) -> Turns<'a> {
        let [cosines, sines] = &self.angles.tables;
        Turns {
            positions: &self.tables.positions,
            tables: [cosines, sines],
            half: self.angles.half,
        }
    }

    /// Normalizes `rows` rows of `x` into the input of a linear.
    fn normed(
        &self,
        norm: &Norm,
        rows: usize,
        x: &Array<f32>,
        linear: &Linear,
    ) -> Result<(Array<bf16>, usize)> {
        let stride = linear.input_width(self.scope);
        let y = Array::new(self.device(), rows * stride)?;
        norm::forward(norm, rows, x, &y, stride)?;
        Ok((y, stride))
    }

    /// Attention over this pass's own keys and values.
    pub(super) fn attention<'q>(&self, qkv: [&'q Array<bf16>; 3]) -> Attention<'q>
    where
        'a: 'q,
    {
        let heads = self.heads();
        let strides = [heads.width(), heads.stride()];
        let [q, k, v] = qkv;
        Attention {
            heads,
            instance: self.weights.instance,
            window: self.window(),
            q,
            k,
            v,
            q_strides: strides,
            kv_strides: strides,
        }
    }

    /// Runs the block's forward pass: `x` `[T, H]` to `[R, H]`, and the activations that [`Block::backward`] needs.
    pub(super) fn forward(&self, x: Array<f32>) -> Result<(Array<f32>, Trace)> {
        self.forward_with(x, |qkv, attended, stride, lse| {
            self.attend(qkv, attended, stride, lse)
        })
    }

    /// Attention of a whole pack over its own keys and values.
    pub(super) fn attend(
        &self,
        qkv: &Array<bf16>,
        attended: &Array<bf16>,
        stride: usize,
        lse: &Array<f32>,
    ) -> Result<()> {
        let [q, k, v] = &self.heads().starts().map(|start| qkv.at(start));
        let attention = self.attention([q, k, v]);
        self.count_attention(&attention, 2);
        attention.forward(&self.tables.tiles, attended, stride, lse)
    }

    /// Counts attention with so many products per pair of a query and a key that it sees.
    pub(super) fn count_attention(&self, attention: &Attention<'_>, products: usize) {
        let work = products * self.tables.pairs(self.window()) * attention.heads.out_width();
        self.scope.counters.add_attention(work as u64);
    }

    /// Runs the block with `attend`, which gets queries, keys and values `[T, W]` and fills attention's output, in rows of the
    /// given stride, and the log-sum-exps `[T, heads]`.
    pub(super) fn forward_with(
        &self,
        x: Array<f32>,
        attend: impl FnOnce(&Array<bf16>, &Array<bf16>, usize, &Array<f32>) -> Result<()>,
    ) -> Result<(Array<f32>, Trace)> {
        let (c, w, heads, device) = (self.config, self.block(), self.heads(), self.device());
        let (scope, tokens, rows) = (self.scope, self.tokens(), self.rows());

        let (normed, stride) = self.normed(&w.attention_norm, tokens, &x, &w.qkv)?;
        let projected = Array::new(device, tokens * heads.width())?;
        let normed = Rows {
            values: &normed,
            stride,
        };
        let to = Output::F32(&projected, None);
        let u_qkv = w.qkv.forward(scope, tokens, normed, to, self.keeps)?;
        let qkv = Array::new(device, tokens * heads.width())?;
        let to = Rows {
            values: &qkv,
            stride: heads.width(),
        };
        let mut before_head_norm = None;
        if let Some(norms) = &w.head_norms {
            let width = (heads.queries + heads.keys) * heads.size;
            let before = Array::new(device, tokens * width)?;
            heads::norm_forward(heads, norms, self.turns(), &projected, &before, to)?;
            before_head_norm = Some(before);
        } else {
            heads::rotary(heads, self.turns(), &projected, to, false)?;
        }
        drop(projected);

        let stride = w.output.input_width(scope);
        let attended = Array::new(device, tokens * stride)?;
        let lse = Array::new(device, tokens * heads.queries)?;
        attend(&qkv, &attended, stride, &lse)?;
        let narrow_x = self.narrowed(&x, c.hidden, c.hidden)?;
        let narrow_attended = self.narrowed(&attended, heads.out_width(), stride)?;
        let stream = narrow_x.as_ref().unwrap_or(&x);
        let output = Rows {
            values: narrow_attended.as_ref().unwrap_or(&attended),
            stride,
        };
        // The stream with attention's part: the input of the MLP's norm, unless both branches start from `x`.
        let between = Array::new(device, rows * c.hidden)?;
        let to = Output::F32(&between, Some(stream));
        let u_output = w.output.forward(scope, rows, output, to, self.keeps)?;
        drop(narrow_attended);

        let is_sequential = c.residual == Residual::Sequential;
        let from = if is_sequential { &between } else { stream };
        let (normed, stride) = self.normed(&w.mlp_norm, rows, from, &w.inner)?;
        let mlp = Array::new(device, rows * mlp_width(c))?;
        let normed = Rows {
            values: &normed,
            stride,
        };
        let to = Output::Bf16(&mlp);
        let u_inner = w.inner.forward(scope, rows, normed, to, self.keeps)?;
        let stride = w.down.input_width(scope);
        let h = Array::new(device, rows * stride)?;
        let h = Rows { values: &h, stride };
        activation::forward(c.activation, rows, c.intermediate, &mlp, h)?;
        let y = Array::new(device, rows * c.hidden)?;
        let to = Output::F32(&y, Some(&between));
        let u_down = w.down.forward(scope, rows, h, to, self.keeps)?;
        let middle = if is_sequential {
            Some(between)
        } else {
            narrow_x
        };
        let trace = Trace {
            x,
            middle,
            qkv,
            before_head_norm,
            attended,
            lse,
            mlp,
            u: [u_qkv, u_output, u_inner, u_down],
        };
        Ok((y, trace))
    }

    /// The wanted rows of `x`, each of `width` values and `stride` apart; `None` if all are wanted.
    fn narrowed<T: super::kernels::rows::Moves>(
        &self,
        x: &Array<T>,
        width: usize,
        stride: usize,
    ) -> Result<Option<Array<T>>> {
        let Some(wanted) = self.wanted() else {
            return Ok(None);
        };
        let y = Array::new(self.device(), wanted.count * stride)?;
        let from = Rows { values: x, stride };
        let to = Rows { values: &y, stride };
        gather(wanted.count, width, from, &wanted.rows, to)?;
        Ok(Some(y))
    }

    /// Expands `y` `[R, width]` to `[T, width]`, with zeros in the rows that were not computed.
    fn widened<T: super::kernels::rows::Moves>(
        &self,
        y: Array<T>,
        width: usize,
    ) -> Result<Array<T>> {
        let Some(wanted) = self.wanted() else {
            return Ok(y);
        };
        let x = Array::new(self.device(), self.tokens() * width)?;
        let (from, to) = (
            Rows {
                values: &y,
                stride: width,
            },
            Rows {
                values: &x,
                stride: width,
            },
        );
        if wanted.count == 0 {
            x.zero()?;
        } else {
            gather(self.tokens(), width, from, &wanted.spread, to)?;
        }
        Ok(x)
    }

    /// Values of a row of a gradient with respect to the residual stream, as the operand of both linears that end in it.
    pub(super) fn slope_width(&self) -> usize {
        let w = self.block();
        let down = w.down.output_width(self.scope);
        down.max(w.output.output_width(self.scope))
    }

    /// Runs the block's backward pass: adds the adapter's gradient to `gradient` and turns `dy` `[R, H]`, the gradient of the
    /// block's output, into the gradient of its input, `[T, H]`. `rounded` is `dy` in bf16, in rows of [`Block::slope_width`]
    /// values. `below` is the row width of the same for the block below; `None` if no lower layer needs a gradient, and then
    /// nothing is returned.
    pub(super) fn backward(
        &self,
        trace: &Trace,
        keys: &Keys,
        dy: Array<f32>,
        rounded: Array<bf16>,
        gradient: &Array<f32>,
        below: Option<usize>,
    ) -> Result<Option<(Array<f32>, Array<bf16>)>> {
        let (c, w, scope) = (self.config, self.block(), self.scope);
        let is_parallel = c.residual == Residual::Parallel;
        let rows = self.rows();
        let attention_adapted = w.qkv.adapts(scope) || w.output.adapts(scope);
        let mlp_adapted = w.inner.adapts(scope) || w.down.adapts(scope);
        let through_mlp = below.is_some() || (attention_adapted && !is_parallel);
        let width = self.slope_width();
        let slopes = Rows {
            values: &rounded,
            stride: width,
        };
        // With a parallel residual, both branches start from the same gradient, and `dy` becomes the sum of their gradients.
        let dx = dy;
        if through_mlp || mlp_adapted {
            let d_normed = self.mlp_backward(trace, slopes, gradient, through_mlp)?;
            if let Some(d_normed) = d_normed {
                let x = trace.middle.as_ref().unwrap_or(&trace.x);
                let to = (!is_parallel).then_some((&rounded, width));
                norm::backward(&w.mlp_norm, rows, x, &d_normed, &dx, to)?;
            }
        }
        if below.is_none() && !attention_adapted {
            return Ok(None);
        }
        let d_normed = self.attention_backward(trace, keys, slopes, gradient, below.is_some())?;
        let (Some(width), Some(d_normed)) = (below, d_normed) else {
            return Ok(None);
        };
        let tokens = self.tokens();
        let dx = self.widened(dx, c.hidden)?;
        let rounded = Array::new(self.device(), tokens * width)?;
        let to = Some((&rounded, width));
        norm::backward(&w.attention_norm, tokens, &trace.x, &d_normed, &dx, to)?;
        Ok(Some((dx, rounded)))
    }

    /// Backward pass through down, activation, gate and up. Returns the gradient of the normalized input, `[R, H]`, if `wanted`.
    fn mlp_backward(
        &self,
        trace: &Trace,
        dy: Rows<'_, bf16>,
        gradient: &Array<f32>,
        wanted: bool,
    ) -> Result<Option<Array<f32>>> {
        let (c, w, scope, device) = (self.config, self.block(), self.scope, self.device());
        let rows = self.rows();
        let [.., u_inner, u_down] = &trace.u;
        let mut h = None;
        let stride = w.down.inputs;
        if w.down.adapts(scope) {
            let made = Array::new(device, rows * stride)?;
            let to = Rows {
                values: &made,
                stride,
            };
            activation::forward(c.activation, rows, c.intermediate, &trace.mlp, to)?;
            h = Some(made);
        }
        let h = h.as_ref().map(|values| Rows { values, stride });
        let goes_on = wanted || w.inner.adapts(scope);
        let d_h = Array::new(device, if goes_on { rows * c.intermediate } else { 0 })?;
        let to = goes_on.then_some(Output::Bf16(&d_h));
        w.down
            .backward(scope, rows, dy, h, u_down.as_ref(), gradient, to)?;
        if !goes_on {
            return Ok(None);
        }
        let stride = w.inner.output_width(scope);
        let d_inner = Array::new(device, rows * stride)?;
        let d_inner = Rows {
            values: &d_inner,
            stride,
        };
        activation::backward(
            c.activation,
            rows,
            c.intermediate,
            &trace.mlp,
            &d_h,
            d_inner,
        )?;
        drop(d_h);
        let from = trace.middle.as_ref().unwrap_or(&trace.x);
        let u = u_inner.as_ref();
        self.project_back(
            &w.inner,
            &w.mlp_norm,
            rows,
            from,
            d_inner,
            u,
            gradient,
            wanted,
        )
    }

    /// Backward pass through a linear after a norm. `from` `[rows, H]` is the norm's input. Returns the gradient of the normalized
    /// rows if `wanted`.
    #[allow(clippy::too_many_arguments, reason = "operands of one operation")]
    fn project_back(
        &self,
        linear: &Linear,
        norm: &Norm,
        rows: usize,
        from: &Array<f32>,
        dy: Rows<'_, bf16>,
        u: Option<&Array<bf16>>,
        gradient: &Array<f32>,
        wanted: bool,
    ) -> Result<Option<Array<f32>>> {
        let (scope, device, hidden) = (self.scope, self.device(), self.config.hidden);
        let mut normed = None;
        if linear.adapts(scope) {
            let made = Array::new(device, rows * hidden)?;
            norm::forward(norm, rows, from, &made, hidden)?;
            normed = Some(made);
        }
        let x = normed.as_ref().map(|values| Rows {
            values,
            stride: hidden,
        });
        let dx = wanted
            .then(|| Array::new(device, rows * hidden))
            .transpose()?;
        let to = dx.as_ref().map(|dx| Output::F32(dx, None));
        linear.backward(scope, rows, dy, x, u, gradient, to)?;
        Ok(dx)
    }

    /// Backward pass through output projection, attention, rotary, head norms and q, k, v. Returns the gradient of the normalized
    /// input, `[T, H]`, if `wanted`.
    fn attention_backward(
        &self,
        trace: &Trace,
        keys: &Keys,
        dy: Rows<'_, bf16>,
        gradient: &Array<f32>,
        wanted: bool,
    ) -> Result<Option<Array<f32>>> {
        let (w, heads, scope, device) = (self.block(), self.heads(), self.scope, self.device());
        let (tokens, rows, out) = (self.tokens(), self.rows(), heads.out_width());
        let [u_qkv, u_output, ..] = &trace.u;
        let stride = w.output.input_width(scope);
        let mut narrow = None;
        if w.output.adapts(scope) {
            narrow = self.narrowed(&trace.attended, out, stride)?;
        }
        let attended = Rows {
            values: narrow.as_ref().unwrap_or(&trace.attended),
            stride,
        };
        let goes_on = wanted || w.qkv.adapts(scope);
        let d_attended = Array::new(device, if goes_on { rows * out } else { 0 })?;
        let to = goes_on.then_some(Output::Bf16(&d_attended));
        let u = u_output.as_ref();
        w.output
            .backward(scope, rows, dy, Some(attended), u, gradient, to)?;
        if !goes_on {
            return Ok(None);
        }
        let d_attended = self.widened(d_attended, out)?;
        let d_qkv = Array::new(device, tokens * heads.width())?;
        let starts = heads.starts();
        let parts = starts.map(|start| trace.qkv.at(start));
        let [q, k, v] = &parts;
        let attention = self.attention([q, k, v]);
        self.count_attention(&attention, 5);
        attention.backward(
            &self.tables.tiles,
            keys.of(self.window()),
            (&trace.attended, stride),
            &trace.lse,
            &d_attended,
            &d_qkv,
            starts,
        )?;
        drop(d_attended);
        let stride = w.qkv.output_width(scope);
        let d_projected = Array::new(device, tokens * stride)?;
        let to = Rows {
            values: &d_projected,
            stride,
        };
        match (&w.head_norms, &trace.before_head_norm) {
            (Some(norms), Some(before)) => {
                heads::norm_backward(heads, norms, self.turns(), &d_qkv, before, to)?;
            }
            _ => heads::rotary(heads, self.turns(), &d_qkv, to, true)?,
        }
        drop(d_qkv);
        let u = u_qkv.as_ref();
        let norm = &w.attention_norm;
        self.project_back(&w.qkv, norm, tokens, &trace.x, to, u, gradient, wanted)
    }
}

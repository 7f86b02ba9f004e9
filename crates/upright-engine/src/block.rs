//! One decoder block, forward beside backward: `norm, q k v, rotary, attention, output, norm, MLP` around a residual
//! stream of f32. Shapes: T tokens, H hidden, `d` head size, W = (heads + 2 kv_heads) d, I intermediate, R rows whose output
//! is wanted: all T, but in the last block those that are scored. Keys and values are of all tokens, what follows attention
//! is of these rows alone.

use rayon::prelude::*;

use crate::{
    adapter::Slot,
    buffer::Buffer,
    config::{DecoderConfig, Residual},
    cpu::{
        activation,
        attention::{self, HeadLayout, Shape},
        gemm::{Onto, Packed, Values, View},
        norm::Norm,
        rope::Angles,
    },
    linear::{Output, Reduced, Scope},
    pack::Pack,
    rows::{gather, scatter},
    weights::{BlockWeights, NormWeights, Qkv},
};

/// A block at work on one pack.
pub(crate) struct Block<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) weights: &'a BlockWeights,
    pub(crate) pack: &'a Pack,
    pub(crate) angles: &'a Angles,
    pub(crate) scope: Scope<'a>,
    /// Rows whose output is wanted, ascending, where that is not all.
    pub(crate) wanted: Option<&'a [usize]>,
}

/// What a block's backward needs. What is cheap to make again from these (norms, the MLP's product of gate and up) is.
pub(crate) struct Trace {
    /// The block's input, `[T, H]`.
    x: Buffer<f32>,
    /// Input of the MLP's norm where that is not `x` (sequential residual, or not all rows), `[R, H]`.
    middle: Option<Buffer<f32>>,
    /// Queries, keys and values as attention sees them, `[T, W]`.
    qkv: Buffer<f32>,
    /// The same before the per-head norms, where there are any.
    before_head_norm: Option<Buffer<f32>>,
    /// Attention's output, `[T, heads d]`.
    attended: Buffer<f32>,
    /// Log-sum-exp of the scores, `[T, heads]`.
    lse: Buffer<f32>,
    /// SwiGLU's gate before activation, `[R, I]`.
    gate: Option<Buffer<f32>>,
    /// The MLP's up projection before activation, `[R, I]`.
    up: Buffer<f32>,
    /// What the adapter's A made of the inputs.
    reduced: Reduced,
}

impl Trace {
    /// Queries, keys and values, `[T, W]`.
    pub(crate) fn into_qkv(self) -> Buffer<f32> {
        self.qkv
    }

    /// f32 values that a trace keeps for each token, besides the rank of every linear that is adapted.
    pub(crate) fn floats_per_token(config: &DecoderConfig) -> usize {
        let (width, streams) = (qkv_width(config), if config.residual == Residual::Sequential { 2 } else { 1 });
        let gate = usize::from(config.activation == crate::config::Activation::SwiGlu);
        streams * config.hidden
            + width * (1 + usize::from(config.qk_norm))
            + config.heads * (config.head_size + 1)
            + (1 + gate) * config.intermediate
    }
}

pub(crate) fn qkv_width(config: &DecoderConfig) -> usize {
    (config.heads + 2 * config.kv_heads) * config.head_size
}

impl Block<'_> {
    fn tokens(&self) -> usize {
        self.pack.tokens.len()
    }

    fn norm<'w>(&self, weights: &'w NormWeights) -> Norm<'w> {
        Norm { kind: self.config.norm, eps: self.config.norm_eps, weights }
    }

    /// The norm of the rows of `x`, `[any, H]`, ready for products.
    fn normed(&self, weights: &NormWeights, x: &[f32]) -> Packed {
        let (norm, hidden) = (self.norm(weights), self.config.hidden);
        Packed::from_rows(self.scope.tier, x.len() / hidden, hidden, |t, y| norm.row(&x[t * hidden..][..hidden], y))
    }

    /// The same as f32.
    fn normed_rows(&self, weights: &NormWeights, x: &[f32]) -> Buffer<f32> {
        let mut y = Buffer::new(x.len());
        self.norm(weights).forward(x, &mut y);
        y
    }

    fn packed(&self, rows: &[f32], width: usize) -> Packed {
        Packed::new(self.scope.tier, View::rows(rows, rows.len() / width, width))
    }

    /// The wanted rows of `x` `[T, width]`, where they are not all.
    fn narrowed(&self, x: &[f32], width: usize) -> Option<Buffer<f32>> {
        self.wanted.map(|rows| gather(x, rows, width))
    }

    /// `y` `[R, width]` with zeros for the rows that are not wanted, `[T, width]`.
    fn widened(&self, y: Buffer<f32>, width: usize) -> Buffer<f32> {
        match self.wanted {
            Some(rows) => scatter(&y, rows, self.tokens(), width),
            None => y,
        }
    }

    fn shape(&self) -> Shape {
        let c = self.config;
        Shape {
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_size: c.head_size,
            window: c.windows[self.scope.layer],
            scale: 1.0 / (c.head_size as f32).sqrt(),
        }
    }

    /// Where queries, keys and values lie in a token's row of W values.
    fn layouts(&self) -> [HeadLayout; 3] {
        let (c, row) = (self.config, qkv_width(self.config));
        let d = c.head_size;
        match self.weights.qkv {
            Qkv::Fused(_) => [0, d, 2 * d].map(|offset| HeadLayout { row, head: 3 * d, offset }),
            Qkv::Split { .. } => {
                [0, c.heads * d, (c.heads + c.kv_heads) * d].map(|offset| HeadLayout { row, head: d, offset })
            }
        }
    }

    /// The per-head norms with the heads they apply to.
    fn head_norms(&self) -> impl Iterator<Item = (&NormWeights, HeadLayout, usize)> {
        let [q, k, _] = self.layouts();
        let norms = [(&self.weights.q_norm, q, self.config.heads), (&self.weights.k_norm, k, self.config.kv_heads)];
        norms.into_iter().filter_map(|(norm, layout, heads)| Some((norm.as_ref()?, layout, heads)))
    }

    /// One step up: the residual stream `x` `[T, H]` becomes the next block's, `[R, H]`, and a trace for
    /// [`Block::backward`].
    pub(crate) fn forward(&self, x: Buffer<f32>) -> (Buffer<f32>, Trace) {
        let [q, k, v] = self.layouts();
        self.forward_with(x, |qkv, attended, lse| {
            attention::forward(self.scope.tier, self.pack, &self.shape(), qkv, q, k, v, attended, lse);
        })
    }

    /// The same for one new token of each of several sequences, whose earlier queries, keys and values are in `caches`.
    pub(crate) fn continue_from(&self, x: Buffer<f32>, caches: &mut [&mut Vec<f32>]) -> Buffer<f32> {
        let (shape, layouts, width) = (self.shape(), self.layouts(), qkv_width(self.config));
        let out = shape.heads * shape.head_size;
        let attend = |qkv: &[f32], attended: &mut [f32], _: &mut [f32]| {
            caches.par_iter_mut().zip(qkv.par_chunks(width)).zip(attended.par_chunks_mut(out)).for_each(
                |((cache, row), attended)| {
                    cache.extend_from_slice(row);
                    attention::last_token(&shape, cache, layouts, attended);
                },
            );
        };
        self.forward_with(x, attend).0
    }

    /// A block around an attention that is handed `qkv` `[T, W]` and fills its output `[T, heads d]` and `[T, heads]`.
    fn forward_with(
        &self,
        x: Buffer<f32>,
        attend: impl FnOnce(&[f32], &mut [f32], &mut [f32]),
    ) -> (Buffer<f32>, Trace) {
        let (c, w) = (self.config, self.weights);
        let (tokens, d, width) = (self.tokens(), c.head_size, qkv_width(c));
        let [q, k, v] = self.layouts();

        let normed = self.normed(&w.attention_norm, &x);
        let mut qkv = Buffer::new(tokens * width);
        let mut reduced = Reduced::default();
        let mut project = |linear, slot, offset: usize| {
            let part = self.scope.part(linear, slot, &normed);
            self.scope.forward(std::slice::from_ref(&part), &mut qkv[offset..], width, Onto::Nothing);
            reduced.keep(part);
        };
        match &w.qkv {
            Qkv::Fused(linear) => project(linear, Slot::Qkv, 0),
            Qkv::Split { q: query, k: key, v: value } => {
                project(query, Slot::Q, q.offset);
                project(key, Slot::K, k.offset);
                project(value, Slot::V, v.offset);
            }
        }
        drop(normed);
        let before_head_norm = c.qk_norm.then(|| Buffer::from(&qkv[..]));
        if let Some(before) = &before_head_norm {
            for (weights, layout, heads) in self.head_norms() {
                let norm = self.norm(weights);
                qkv.par_chunks_mut(width).zip(before.par_chunks(width)).for_each(|(to, from)| {
                    for start in (0..heads).map(|head| layout.offset + head * layout.head) {
                        norm.row(&from[start..start + d], &mut to[start..start + d]);
                    }
                });
            }
        }
        self.angles.turn(&mut qkv, q, c.heads, false);
        self.angles.turn(&mut qkv, k, c.kv_heads, false);

        let (mut attended, mut lse) = (Buffer::new(tokens * c.heads * d), Buffer::new(tokens * c.heads));
        attend(&qkv, &mut attended, &mut lse);
        let (narrow_x, narrow_attended) = (self.narrowed(&x, c.hidden), self.narrowed(&attended, c.heads * d));
        let stream = narrow_x.as_deref().unwrap_or(&x);
        let attended_packed = self.packed(narrow_attended.as_deref().unwrap_or(&attended), c.heads * d);
        let output = self.scope.part(&w.output, Slot::Output, &attended_packed);
        // The residual between attention and MLP, where they follow each other.
        let between = (c.residual == Residual::Sequential).then(|| {
            let mut between = Buffer::new(stream.len());
            self.scope.forward(std::slice::from_ref(&output), &mut between, c.hidden, Onto::Rows(stream));
            between
        });

        let normed = self.normed(&w.mlp_norm, between.as_deref().unwrap_or(stream));
        let mut project = |linear, slot| {
            let (part, mut out) = (self.scope.part(linear, slot, &normed), Buffer::new(normed.rows() * c.intermediate));
            self.scope.forward(std::slice::from_ref(&part), &mut out, c.intermediate, Onto::Nothing);
            reduced.keep(part);
            out
        };
        let gate = w.mlp.gate.as_ref().map(|gate| project(gate, Slot::Gate));
        let up = project(&w.mlp.up, Slot::Up);
        drop(normed);
        let h = self.activated(gate.as_deref(), &up);
        let down = self.scope.part(&w.mlp.down, Slot::Down, &h);
        let mut y = Buffer::new(stream.len());
        let parts = [output, down];
        match &between {
            Some(between) => self.scope.forward(&parts[1..], &mut y, c.hidden, Onto::Rows(between)),
            None => self.scope.forward(&parts, &mut y, c.hidden, Onto::Rows(stream)),
        }
        parts.into_iter().for_each(|part| reduced.keep(part));
        let middle = between.or(narrow_x);
        (y, Trace { x, middle, qkv, before_head_norm, attended, lse, gate, up, reduced })
    }

    /// The MLP's hidden activations, ready for products.
    fn activated(&self, gate: Option<&[f32]>, up: &[f32]) -> Packed {
        let (c, width) = (self.config, self.config.intermediate);
        let row = |t: usize| t * width..(t + 1) * width;
        Packed::from_rows(self.scope.tier, up.len() / width, width, |t, h| {
            activation::forward(c.activation, gate.map(|gate| &gate[row(t)]), &up[row(t)], h);
        })
    }

    /// The same, `[R, I]`.
    fn activated_rows(&self, gate: Option<&[f32]>, up: &[f32]) -> Buffer<f32> {
        let width = self.config.intermediate;
        let mut h = Buffer::new(up.len());
        h.par_chunks_mut(width).enumerate().for_each(|(t, h)| {
            let row = t * width..(t + 1) * width;
            activation::forward(self.config.activation, gate.map(|gate| &gate[row.clone()]), &up[row], h);
        });
        h
    }

    /// One step down: adds the adapter's gradient to `gradient` and turns `dy` `[R, H]`, the gradient of the block's output,
    /// into that of its input, `[T, H]`. With `below` false nothing beneath needs a gradient: the result is then
    /// meaningless, and what only it would need is left out.
    pub(crate) fn backward(
        &self,
        trace: &Trace,
        mut dy: Buffer<f32>,
        gradient: &mut [f32],
        below: bool,
    ) -> Buffer<f32> {
        let parallel = self.config.residual == Residual::Parallel;
        let attention_adapted =
            [Slot::Qkv, Slot::Q, Slot::K, Slot::V, Slot::Output].into_iter().any(|slot| self.scope.adapts(slot));
        let mlp_adapted = [Slot::Gate, Slot::Up, Slot::Down].into_iter().any(|slot| self.scope.adapts(slot));
        let through_mlp = below || (attention_adapted && !parallel);
        let mut packed = self.packed(&dy, self.config.hidden);
        // With a parallel residual both ways start from `dy`, and their sum gathers in a copy of it.
        let mut sum = (parallel && below).then(|| Buffer::from(&dy[..]));
        if through_mlp || mlp_adapted {
            if let Some(d_normed) = self.mlp_backward(trace, &packed, &dy, gradient, through_mlp) {
                let x = trace.middle.as_ref().unwrap_or(&trace.x);
                self.norm(&self.weights.mlp_norm).backward(x, &d_normed, sum.as_mut().unwrap_or(&mut dy));
            }
            if !parallel {
                packed = self.packed(&dy, self.config.hidden);
            }
        }
        let d_normed = (below || attention_adapted)
            .then(|| self.attention_backward(trace, &packed, &dy, gradient, below))
            .flatten();
        let mut dx = self.widened(sum.unwrap_or(dy), self.config.hidden);
        if let Some(d_normed) = d_normed {
            self.norm(&self.weights.attention_norm).backward(&trace.x, &d_normed, &mut dx);
        }
        dx
    }

    /// Through down, activation, gate and up; returns the gradient of the normed input where it is wanted.
    fn mlp_backward(
        &self,
        trace: &Trace,
        packed: &Packed,
        dy: &[f32],
        gradient: &mut [f32],
        wanted: bool,
    ) -> Option<Buffer<f32>> {
        let (c, mlp) = (self.config, &self.weights.mlp);
        let (width, gate) = (c.intermediate, trace.gate.as_deref());
        let rows = dy.len() / c.hidden;
        let h = self.scope.adapts(Slot::Down).then(|| self.activated_rows(gate, &trace.up));
        let into_adapted = self.scope.adapts(Slot::Gate) || self.scope.adapts(Slot::Up);
        let mut d_h = Buffer::new(rows * width);
        let into_h = (wanted || into_adapted).then_some((&mut d_h[..], Onto::Nothing));
        let view = Some(View::rows(dy, rows, c.hidden));
        let down = Output { linear: &mlp.down, slot: Slot::Down, dy: packed.into(), rows: view };
        self.scope.backward(&[down], h.as_deref(), &trace.reduced, gradient, into_h);
        if !(wanted || into_adapted) {
            return None;
        }
        // The gradient of `up` takes the place of that of the hidden activations.
        let mut d_gate = gate.map(|gate| Buffer::new(gate.len()));
        activation::backward(c.activation, gate, &trace.up, &mut d_h, d_gate.as_deref_mut());

        let from = trace.middle.as_ref().unwrap_or(&trace.x);
        let normed = into_adapted.then(|| self.normed_rows(&self.weights.mlp_norm, from));
        let mut d_normed = wanted.then(|| Buffer::new(dy.len()));
        let d_up = self.packed(&d_h, width);
        let d_gate_packed = d_gate.as_deref().map(|d_gate| self.packed(d_gate, width));
        let view = |values| Some(View::rows(values, rows, width));
        let mut outputs = vec![Output { linear: &mlp.up, slot: Slot::Up, dy: (&d_up).into(), rows: view(&d_h) }];
        if let (Some(linear), Some(dy), Some(rows)) = (&mlp.gate, &d_gate_packed, &d_gate) {
            outputs.push(Output { linear, slot: Slot::Gate, dy: dy.into(), rows: view(rows) });
        }
        self.scope.backward(
            &outputs,
            normed.as_deref(),
            &trace.reduced,
            gradient,
            d_normed.as_deref_mut().map(|dx| (dx, Onto::Nothing)),
        );
        d_normed
    }

    /// Through output projection, attention, rotary, head norms and q, k, v; returns the gradient of the normed input
    /// where there is something below.
    fn attention_backward(
        &self,
        trace: &Trace,
        packed: &Packed,
        dy: &[f32],
        gradient: &mut [f32],
        below: bool,
    ) -> Option<Buffer<f32>> {
        let (c, w) = (self.config, self.weights);
        let (tokens, d, width) = (self.tokens(), c.head_size, qkv_width(c));
        let [q, k, v] = self.layouts();
        let into_adapted = [Slot::Qkv, Slot::Q, Slot::K, Slot::V].into_iter().any(|slot| self.scope.adapts(slot));
        let through = below || into_adapted;

        let rows = dy.len() / c.hidden;
        let narrow = self.scope.adapts(Slot::Output).then(|| self.narrowed(&trace.attended, c.heads * d)).flatten();
        let attended = narrow.as_deref().unwrap_or(&trace.attended);
        let mut d_attended = Buffer::new(rows * c.heads * d);
        let wanted = through.then_some((&mut d_attended[..], Onto::Nothing));
        let view = Some(View::rows(dy, rows, c.hidden));
        let output = Output { linear: &w.output, slot: Slot::Output, dy: packed.into(), rows: view };
        self.scope.backward(&[output], Some(attended), &trace.reduced, gradient, wanted);
        if !through {
            return None;
        }
        let d_attended = self.widened(d_attended, c.heads * d);
        let mut d_qkv = Buffer::new(tokens * width);
        let (shape, out, lse) = (self.shape(), &trace.attended, &trace.lse);
        attention::backward(self.scope.tier, self.pack, &shape, &trace.qkv, q, k, v, out, lse, &d_attended, &mut d_qkv);
        self.angles.turn(&mut d_qkv, q, c.heads, true);
        self.angles.turn(&mut d_qkv, k, c.kv_heads, true);
        if let Some(before) = &trace.before_head_norm {
            for (weights, layout, heads) in self.head_norms() {
                let norm = self.norm(weights);
                d_qkv.par_chunks_mut(width).zip(before.par_chunks(width)).for_each(|(d_row, from)| {
                    let mut dx = vec![0.0; d];
                    for start in (0..heads).map(|head| layout.offset + head * layout.head) {
                        dx.fill(0.0);
                        norm.row_backward(&from[start..start + d], &d_row[start..start + d], &mut dx);
                        d_row[start..start + d].copy_from_slice(&dx);
                    }
                });
            }
        }

        let normed = into_adapted.then(|| self.normed_rows(&w.attention_norm, &trace.x));
        let mut d_normed = below.then(|| Buffer::new(tokens * c.hidden));
        let projections = match &w.qkv {
            Qkv::Fused(linear) => vec![(linear, Slot::Qkv, 0)],
            Qkv::Split { q: query, k: key, v: value } => {
                vec![(query, Slot::Q, q.offset), (key, Slot::K, k.offset), (value, Slot::V, v.offset)]
            }
        };
        let views = projections.iter().map(|(linear, _, offset)| {
            View::strided(Values::F32(&d_qkv[*offset..]), tokens, linear.weight.rows, width)
        });
        let views: Vec<View<'_>> = views.collect();
        let gradients: Vec<Packed> = views.iter().map(|view| Packed::new(self.scope.tier, *view)).collect();
        let outputs: Vec<Output<'_>> = projections
            .into_iter()
            .zip(views.iter().zip(&gradients))
            .map(|((linear, slot, _), (rows, dy))| Output { linear, slot, dy: dy.into(), rows: Some(*rows) })
            .collect();
        self.scope.backward(
            &outputs,
            normed.as_deref(),
            &trace.reduced,
            gradient,
            d_normed.as_deref_mut().map(|dx| (dx, Onto::Nothing)),
        );
        d_normed
    }
}

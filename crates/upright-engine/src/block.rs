//! One decoder block, forward beside backward: `norm, q k v, rotary, attention, output, norm, MLP` around a residual
//! stream of f32. Shapes: T tokens, H hidden, `d` head size, W = (heads + 2 kv_heads) d, I intermediate.

use rayon::prelude::*;

use crate::{
    adapter::Slot,
    config::{DecoderConfig, Residual},
    cpu::{
        activation,
        attention::{self, HeadLayout, Shape},
        norm::Norm,
        rope::Angles,
    },
    linear::{Accumulate, Scope},
    pack::Pack,
    weights::{BlockWeights, NormWeights, Qkv},
};

/// A block at work on one pack.
pub(crate) struct Block<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) weights: &'a BlockWeights,
    pub(crate) pack: &'a Pack,
    pub(crate) angles: &'a Angles,
    pub(crate) scope: Scope<'a>,
}

/// What a block's backward needs. What is cheap to make again from these (norms, the MLP's product of gate and up) is.
pub(crate) struct Trace {
    /// The block's input, `[T, H]`.
    x: Vec<f32>,
    /// Input of the MLP's norm where that is not `x` (sequential residual), `[T, H]`.
    middle: Option<Vec<f32>>,
    /// Queries, keys and values as attention sees them, `[T, W]`.
    qkv: Vec<f32>,
    /// The same before the per-head norms, where there are any.
    before_head_norm: Option<Vec<f32>>,
    /// Attention's output, `[T, heads d]`.
    attended: Vec<f32>,
    /// Log-sum-exp of the scores, `[T, heads]`.
    lse: Vec<f32>,
    /// SwiGLU's gate before activation, `[T, I]`.
    gate: Option<Vec<f32>>,
    /// The MLP's up projection before activation, `[T, I]`.
    up: Vec<f32>,
}

impl Trace {
    /// Queries, keys and values, `[T, W]`.
    pub(crate) fn into_qkv(self) -> Vec<f32> {
        self.qkv
    }

    /// f32 values that a trace keeps for each token.
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

/// `y += x`, element by element.
fn add(y: &mut [f32], x: &[f32]) {
    const CHUNK: usize = 32 * 1024;
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
}

impl Block<'_> {
    fn tokens(&self) -> usize {
        self.pack.tokens.len()
    }

    fn norm<'w>(&self, weights: &'w NormWeights) -> Norm<'w> {
        Norm { kind: self.config.norm, eps: self.config.norm_eps, weights }
    }

    fn normed(&self, weights: &NormWeights, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        self.norm(weights).forward(x, &mut y);
        y
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

    /// One step up: the residual stream `x` `[T, H]` becomes the next block's, and a trace for [`Block::backward`].
    pub(crate) fn forward(&self, x: Vec<f32>) -> (Vec<f32>, Trace) {
        let [q, k, v] = self.layouts();
        self.forward_with(x, |qkv, attended, lse| {
            attention::forward(self.pack, &self.shape(), qkv, q, k, v, attended, lse);
        })
    }

    /// The same for one new token of each of several sequences, whose earlier queries, keys and values are in `caches`.
    pub(crate) fn continue_from(&self, x: Vec<f32>, caches: &mut [&mut Vec<f32>]) -> Vec<f32> {
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
    fn forward_with(&self, x: Vec<f32>, attend: impl FnOnce(&[f32], &mut [f32], &mut [f32])) -> (Vec<f32>, Trace) {
        let (c, w) = (self.config, self.weights);
        let (tokens, d, width) = (self.tokens(), c.head_size, qkv_width(c));
        let [q, k, v] = self.layouts();

        let normed = self.normed(&w.attention_norm, &x);
        let mut qkv = vec![0.0; tokens * width];
        match &w.qkv {
            Qkv::Fused(linear) => self.scope.forward(linear, Slot::Qkv, &normed, &mut qkv, width),
            Qkv::Split { q: query, k: key, v: value } => {
                self.scope.forward(query, Slot::Q, &normed, &mut qkv[q.offset..], width);
                self.scope.forward(key, Slot::K, &normed, &mut qkv[k.offset..], width);
                self.scope.forward(value, Slot::V, &normed, &mut qkv[v.offset..], width);
            }
        }
        let before_head_norm = c.qk_norm.then(|| qkv.clone());
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

        let (mut attended, mut lse) = (vec![0.0; tokens * c.heads * d], vec![0.0; tokens * c.heads]);
        attend(&qkv, &mut attended, &mut lse);
        let mut y = vec![0.0; tokens * c.hidden];
        self.scope.forward(&w.output, Slot::Output, &attended, &mut y, c.hidden);
        add(&mut y, &x);

        let middle = (c.residual == Residual::Sequential).then(|| y.clone());
        let normed = self.normed(&w.mlp_norm, middle.as_ref().unwrap_or(&x));
        let project = |linear, slot| {
            let mut out = vec![0.0; tokens * c.intermediate];
            self.scope.forward(linear, slot, &normed, &mut out, c.intermediate);
            out
        };
        let gate = w.mlp.gate.as_ref().map(|gate| project(gate, Slot::Gate));
        let up = project(&w.mlp.up, Slot::Up);
        let h = self.activated(gate.as_deref(), &up);
        let mut out = vec![0.0; tokens * c.hidden];
        self.scope.forward(&w.mlp.down, Slot::Down, &h, &mut out, c.hidden);
        add(&mut y, &out);
        (y, Trace { x, middle, qkv, before_head_norm, attended, lse, gate, up })
    }

    fn activated(&self, gate: Option<&[f32]>, up: &[f32]) -> Vec<f32> {
        let mut h = vec![0.0; up.len()];
        activation::forward(self.config.activation, gate, up, &mut h);
        h
    }

    /// One step down: adds the adapter's gradient to `gradient` and turns `dy`, the gradient of the block's output, into
    /// that of its input. With `below` false nothing beneath needs a gradient: the result is then meaningless, and what
    /// only it would need is left out.
    pub(crate) fn backward(&self, trace: &Trace, mut dy: Vec<f32>, gradient: &mut [f32], below: bool) -> Vec<f32> {
        let parallel = self.config.residual == Residual::Parallel;
        let attention_adapted =
            [Slot::Qkv, Slot::Q, Slot::K, Slot::V, Slot::Output].into_iter().any(|slot| self.scope.adapts(slot));
        let mlp_adapted = [Slot::Gate, Slot::Up, Slot::Down].into_iter().any(|slot| self.scope.adapts(slot));
        let through_mlp = below || (attention_adapted && !parallel);
        if through_mlp || mlp_adapted {
            let d_mlp = self.mlp_backward(trace, &dy, gradient, through_mlp);
            if parallel {
                let mut dx = if below { dy.clone() } else { vec![0.0; dy.len()] };
                self.add_norm_backward(&self.weights.mlp_norm, &trace.x, d_mlp, &mut dx);
                if below || attention_adapted {
                    self.attention_backward(trace, &dy, &mut dx, gradient, below);
                }
                return dx;
            }
            self.add_norm_backward(&self.weights.mlp_norm, trace.middle.as_ref().unwrap_or(&trace.x), d_mlp, &mut dy);
        }
        if below || attention_adapted {
            let mut dx = dy.clone();
            self.attention_backward(trace, &dy, &mut dx, gradient, below);
            return dx;
        }
        dy
    }

    fn add_norm_backward(&self, weights: &NormWeights, x: &[f32], d_normed: Option<Vec<f32>>, dx: &mut [f32]) {
        if let Some(d_normed) = d_normed {
            self.norm(weights).backward(x, &d_normed, dx);
        }
    }

    /// Through down, activation, gate and up; returns the gradient of the normed input where it is wanted.
    fn mlp_backward(&self, trace: &Trace, dy: &[f32], gradient: &mut [f32], wanted: bool) -> Option<Vec<f32>> {
        let (c, mlp) = (self.config, &self.weights.mlp);
        let (tokens, gate) = (self.tokens(), trace.gate.as_deref());
        let h = self.scope.adapts(Slot::Down).then(|| self.activated(gate, &trace.up));
        let into_adapted = self.scope.adapts(Slot::Gate) || self.scope.adapts(Slot::Up);
        let mut d_h = vec![0.0; tokens * c.intermediate];
        let into_h = (wanted || into_adapted).then_some((&mut d_h[..], Accumulate::Replace));
        self.scope.backward(&mlp.down, Slot::Down, h.as_deref(), dy, c.hidden, gradient, into_h);
        if !(wanted || into_adapted) {
            return None;
        }
        let mut d_up = vec![0.0; d_h.len()];
        let mut d_gate = gate.map(|gate| vec![0.0; gate.len()]);
        activation::backward(c.activation, gate, &trace.up, &d_h, &mut d_up, d_gate.as_deref_mut());
        drop(d_h);

        let from = trace.middle.as_ref().unwrap_or(&trace.x);
        let normed = into_adapted.then(|| self.normed(&self.weights.mlp_norm, from));
        let mut d_normed = wanted.then(|| vec![0.0; tokens * c.hidden]);
        let (width, mut order) = (c.intermediate, Accumulate::Replace);
        for (linear, slot, d_out) in [(Some(&mlp.up), Slot::Up, Some(d_up)), (mlp.gate.as_ref(), Slot::Gate, d_gate)] {
            if let (Some(linear), Some(d_out)) = (linear, d_out) {
                let dx = d_normed.as_deref_mut().map(|dx| (dx, order));
                self.scope.backward(linear, slot, normed.as_deref(), &d_out, width, gradient, dx);
                order = Accumulate::Add;
            }
        }
        d_normed
    }

    /// Through output projection, attention, rotary, head norms and q, k, v; adds to `dx` where there is something below.
    fn attention_backward(&self, trace: &Trace, dy: &[f32], dx: &mut [f32], gradient: &mut [f32], below: bool) {
        let (c, w) = (self.config, self.weights);
        let (tokens, d, width) = (self.tokens(), c.head_size, qkv_width(c));
        let [q, k, v] = self.layouts();
        let into_adapted = [Slot::Qkv, Slot::Q, Slot::K, Slot::V].into_iter().any(|slot| self.scope.adapts(slot));
        let through = below || into_adapted;

        let mut d_attended = vec![0.0; tokens * c.heads * d];
        let wanted = through.then_some((&mut d_attended[..], Accumulate::Replace));
        self.scope.backward(&w.output, Slot::Output, Some(&trace.attended), dy, c.hidden, gradient, wanted);
        if !through {
            return;
        }
        let mut d_qkv = vec![0.0; tokens * width];
        let (out, lse) = (&trace.attended, &trace.lse);
        attention::backward(self.pack, &self.shape(), &trace.qkv, q, k, v, out, lse, &d_attended, &mut d_qkv);
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

        let normed = into_adapted.then(|| self.normed(&w.attention_norm, &trace.x));
        let mut d_normed = below.then(|| vec![0.0; tokens * c.hidden]);
        let projections = match &w.qkv {
            Qkv::Fused(linear) => vec![(linear, Slot::Qkv, 0)],
            Qkv::Split { q: query, k: key, v: value } => {
                vec![(query, Slot::Q, q.offset), (key, Slot::K, k.offset), (value, Slot::V, v.offset)]
            }
        };
        for (index, (linear, slot, offset)) in projections.into_iter().enumerate() {
            let order = if index == 0 { Accumulate::Replace } else { Accumulate::Add };
            let dx = d_normed.as_deref_mut().map(|dx| (dx, order));
            self.scope.backward(linear, slot, normed.as_deref(), &d_qkv[offset..], width, gradient, dx);
        }
        self.add_norm_backward(&w.attention_norm, &trace.x, d_normed, dx);
    }
}

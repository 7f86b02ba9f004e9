//! One decoder block, forward pass beside backward pass:
//! `norm, q k v, rotary, attention, output, norm, MLP` around an f32 residual stream.
//!
//! Shapes: T tokens, H hidden size, `d` head size, W = (heads + 2 kv_heads) d, I intermediate size,
//! M = I (2 I if the MLP has a gate), R output rows. R is T, except in the last block, which
//! computes only rows that have targets. Queries, keys and values cover all tokens; everything
//! after attention covers the R rows only.

use std::ops::Range;

use rayon::prelude::*;

use upright_model::{
    adapter::Slot,
    config::{Activation, DecoderConfig, Residual},
    pack::Pack,
    weights::{BlockWeights, Linear, NormWeights, Qkv},
};

use super::{
    buffer::Buffer,
    kernels::{
        Saved, activation,
        attention::{self, Cache, Earlier, HeadLayout, Known, Shape},
        gather::{gather, scatter},
        gemm::{Onto, Packed, Values, View},
        norm::Norm,
        rope::Angles,
    },
    linear::{Output, Reduced, Scope},
    tier::Tier,
};

/// A block applied to one pack.
pub(crate) struct Block<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) weights: &'a BlockWeights,
    pub(crate) pack: &'a Pack,
    pub(crate) angles: &'a Angles,
    pub(crate) scope: Scope<'a>,
    /// Computed rows whose output is needed, ascending; `None` means all of them.
    pub(crate) wanted: Option<&'a [usize]>,
    /// Tokens whose keys and values are known. No row is computed for them, and only
    /// [`Block::forward`] runs.
    pub(crate) earlier: Option<&'a Earlier<'a>>,
}

/// Saved activations of a block. All but the residual stream have the precision of the tier's
/// products. Values that are cheap to recompute (norms, the MLP's product of gate and up) are not
/// saved.
pub(crate) struct Trace {
    /// The block's input, `[T, H]`.
    x: Buffer<f32>,
    /// Input of the MLP's norm if it is not `x` (sequential residual, or not all rows), `[R, H]`.
    middle: Option<Buffer<f32>>,
    /// Queries, keys and values as attention sees them, `[T, W]`.
    qkv: Saved,
    /// Queries, keys and values before the per-head norms, if the model has such norms.
    before_head_norm: Option<Saved>,
    /// Attention's output, `[T, heads d]`.
    attended: Saved,
    /// Log-sum-exp of the scores, `[T, heads]`.
    lse: Buffer<f32>,
    /// Input of the MLP's activation function, `[R, M]`.
    mlp: Saved,
    /// Inputs of the adapted linears, multiplied by the adapter's A.
    reduced: Reduced,
}

impl Trace {
    /// Saved bytes per token, without those for the rank of every adapted linear.
    pub(crate) fn bytes_per_token(config: &DecoderConfig, tier: Tier) -> usize {
        let (width, streams) = (
            qkv_width(config),
            if config.residual == Residual::Sequential {
                2
            } else {
                1
            },
        );
        let stored = width * (1 + usize::from(config.qk_norm))
            + config.heads * config.head_size
            + mlp_width(config);
        size_of::<f32>() * (streams * config.hidden + config.heads) + Saved::size(tier) * stored
    }
}

fn qkv_width(config: &DecoderConfig) -> usize {
    (config.heads + 2 * config.kv_heads) * config.head_size
}

/// Input values per token of the MLP's activation function: gate and up projection side by side for
/// SwiGLU, else the up projection.
fn mlp_width(config: &DecoderConfig) -> usize {
    config.intermediate
        * if config.activation == Activation::SwiGlu {
            2
        } else {
            1
        }
}

impl Block<'_> {
    /// Number of computed rows.
    fn tokens(&self) -> usize {
        let known = self
            .earlier
            .map_or(0, |earlier| earlier.known.total(self.pack));
        self.pack.tokens.len() - known
    }

    fn norm<'w>(&self, weights: &'w NormWeights) -> Norm<'w> {
        Norm {
            kind: self.config.norm,
            eps: self.config.norm_eps,
            weights,
        }
    }

    /// Normalizes the rows of `x`, `[any, H]`, and packs them for products.
    fn normed(&self, weights: &NormWeights, x: &[f32]) -> Packed {
        let (norm, hidden) = (self.norm(weights), self.config.hidden);
        Packed::from_rows(self.scope.tier, x.len() / hidden, hidden, |t, y| {
            norm.row(&x[t * hidden..][..hidden], y);
        })
    }

    /// Normalizes the rows of `x`, `[any, H]`, as f32.
    fn normed_rows(&self, weights: &NormWeights, x: &[f32]) -> Buffer<f32> {
        let mut y = Buffer::new(x.len());
        self.norm(weights).forward(x, &mut y);
        y
    }

    fn packed(&self, rows: &[f32], width: usize) -> Packed {
        Packed::new(self.scope.tier, View::rows(rows, rows.len() / width, width))
    }

    /// Expands `y` `[R, width]` to `[T, width]`, with zeros in the rows that were not computed.
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
            Qkv::Fused(_) => [0, d, 2 * d].map(|offset| HeadLayout {
                row,
                head: 3 * d,
                offset,
            }),
            Qkv::Split { .. } => {
                [0, c.heads * d, (c.heads + c.kv_heads) * d].map(|offset| HeadLayout {
                    row,
                    head: d,
                    offset,
                })
            }
        }
    }

    /// The per-head norms with the heads they apply to.
    fn head_norms(&self) -> impl Iterator<Item = (&NormWeights, HeadLayout, usize)> {
        let [q, k, _] = self.layouts();
        let norms = [
            (&self.weights.q_norm, q, self.config.heads),
            (&self.weights.k_norm, k, self.config.kv_heads),
        ];
        norms
            .into_iter()
            .filter_map(|(norm, layout, heads)| Some((norm.as_ref()?, layout, heads)))
    }

    /// Runs the block's forward pass: `x`, `[T, H]` without the known tokens, to `[R, H]`, and the activations that [`Block::backward`] needs.
    pub(crate) fn forward(&self, x: Buffer<f32>) -> (Buffer<f32>, Trace) {
        let [q, k, v] = self.layouts();
        let shape = self.shape();
        self.forward_with(x, |qkv, attended, lse| {
            let mut known = Known::NOTHING;
            let mut whole = None;
            if let Some(earlier) = self.earlier {
                known = earlier.known;
                whole = Some(earlier.join(self.pack, &shape, qkv, [k, v]));
            }
            attention::forward(
                self.scope.tier,
                self.pack,
                known,
                &shape,
                whole.as_ref().map_or(qkv, Saved::values),
                q,
                k,
                v,
                attended,
                lse,
            );
        })
    }

    /// Appends the keys and values of some computed rows to a cache, for [`Block::continue_from`].
    pub(crate) fn extend(&self, cache: &mut Cache, trace: &Trace, rows: Range<usize>) {
        let (width, [_, k, v]) = (qkv_width(self.config), self.layouts());
        let qkv = trace.qkv.values();
        let rows = qkv.part(rows.start * width..rows.end * width);
        cache.extend(&self.shape(), rows, [k, v]);
    }

    /// Runs [`Block::forward`] for the new tokens of several sequences, one span of the pack each.
    /// `caches` hold the sequences' earlier keys and values. Every new token also attends to the
    /// tokens before it in its span.
    pub(crate) fn continue_from(&self, x: Buffer<f32>, caches: &mut [&mut Cache]) -> Buffer<f32> {
        let shape = self.shape();
        let [q, k, v] = self.layouts();
        let width = qkv_width(self.config);
        let out = shape.heads * shape.head_size;
        let spans = &self.pack.spans;
        let attend =
            |qkv: Values<'_>, attended: &mut [f32], _: &mut [f32]| {
                let mut rest = attended;
                let mut parts = Vec::with_capacity(spans.len());
                for span in spans {
                    let (part, others) = rest.split_at_mut(span.len * out);
                    parts.push(part);
                    rest = others;
                }
                caches.par_iter_mut().zip(parts).zip(spans).for_each(
                    |((cache, attended), span)| {
                        for (row, attended) in (span.start..).zip(attended.chunks_mut(out)) {
                            let row = qkv.part(row * width..(row + 1) * width);
                            cache.extend(&shape, row, [k, v]);
                            attention::last_token(&shape, row, q, cache, attended);
                        }
                    },
                );
            };
        self.forward_with(x, attend).0
    }

    /// Runs the block with `attend`, which gets `qkv` `[T, W]` and fills the attention output
    /// `[T, heads d]` and the log-sum-exps `[T, heads]`.
    fn forward_with(
        &self,
        x: Buffer<f32>,
        attend: impl FnOnce(Values<'_>, &mut [f32], &mut [f32]),
    ) -> (Buffer<f32>, Trace) {
        let (c, w) = (self.config, self.weights);
        let (tier, tokens, d, width) = (self.scope.tier, self.tokens(), c.head_size, qkv_width(c));
        let [q, k, v] = self.layouts();

        let normed = self.normed(&w.attention_norm, &x);
        let mut qkv = Buffer::new(tokens * width);
        let mut reduced = Reduced::default();
        let mut project = |linear, slot, offset: usize| {
            let part = self.scope.part(linear, slot, &normed);
            self.scope.forward(
                std::slice::from_ref(&part),
                &mut qkv[offset..],
                width,
                Onto::Nothing,
            );
            reduced.keep(part);
        };
        match &w.qkv {
            Qkv::Fused(linear) => project(linear, Slot::Qkv, 0),
            Qkv::Split {
                q: query,
                k: key,
                v: value,
            } => {
                project(query, Slot::Q, q.offset);
                project(key, Slot::K, k.offset);
                project(value, Slot::V, v.offset);
            }
        }
        drop(normed);
        let before_head_norm = c.qk_norm.then(|| Saved::copy(tier, &qkv));
        let qkv = Saved::finished(tier, qkv, width, |token, row| {
            let mut before = vec![0.0; if c.qk_norm { d } else { 0 }];
            for (weights, layout, heads) in self.head_norms() {
                for start in (0..heads).map(|head| layout.offset + head * layout.head) {
                    before.copy_from_slice(&row[start..start + d]);
                    self.norm(weights).row(&before, &mut row[start..start + d]);
                }
            }
            self.angles.turn(token, row, q, c.heads, false);
            self.angles.turn(token, row, k, c.kv_heads, false);
        });

        let (mut attended, mut lse) = (
            Buffer::new(tokens * c.heads * d),
            Buffer::new(tokens * c.heads),
        );
        attend(qkv.values(), &mut attended, &mut lse);
        let narrow_x = self.wanted.map(|rows| gather(&x, rows, c.hidden));
        let stream = narrow_x.as_deref().unwrap_or(&x);
        let attended = Saved::new(tier, attended);
        let narrow_attended = self.wanted.map(|rows| attended.gathered(rows, c.heads * d));
        let attended_packed = Packed::new(
            tier,
            narrow_attended
                .as_ref()
                .unwrap_or(&attended)
                .view(c.heads * d),
        );
        let output = self.scope.part(&w.output, Slot::Output, &attended_packed);
        // The residual stream between attention and MLP, if one follows the other.
        let between = (c.residual == Residual::Sequential).then(|| {
            let mut between = Buffer::new(stream.len());
            self.scope.forward(
                std::slice::from_ref(&output),
                &mut between,
                c.hidden,
                Onto::Rows(stream),
            );
            between
        });

        let normed = self.normed(&w.mlp_norm, between.as_deref().unwrap_or(stream));
        let mut mlp = Buffer::new(normed.rows() * mlp_width(c));
        let mut project = |linear, slot, offset: usize| {
            let part = self.scope.part(linear, slot, &normed);
            // Without rows, there is no second part.
            let out = mlp.get_mut(offset..).unwrap_or_default();
            self.scope.forward(
                std::slice::from_ref(&part),
                out,
                mlp_width(c),
                Onto::Nothing,
            );
            reduced.keep(part);
        };
        if let Some(gate) = &w.mlp.gate {
            project(gate, Slot::Gate, 0);
        }
        project(&w.mlp.up, Slot::Up, mlp_width(c) - c.intermediate);
        drop(normed);
        let (h, mlp) = Saved::packed(tier, mlp, mlp_width(c), c.intermediate, |row, h| {
            activation::forward(c.activation, Values::F32(row), h);
        });
        let down = self.scope.part(&w.mlp.down, Slot::Down, &h);
        let mut y = Buffer::new(stream.len());
        let parts = [output, down];
        match &between {
            Some(between) => self
                .scope
                .forward(&parts[1..], &mut y, c.hidden, Onto::Rows(between)),
            None => self
                .scope
                .forward(&parts, &mut y, c.hidden, Onto::Rows(stream)),
        }
        parts.into_iter().for_each(|part| reduced.keep(part));
        let middle = between.or(narrow_x);
        (
            y,
            Trace {
                x,
                middle,
                qkv,
                before_head_norm,
                attended,
                lse,
                mlp,
                reduced,
            },
        )
    }

    /// Recomputes the MLP's hidden activations, `[R, I]`.
    fn activated(&self, mlp: &Saved) -> Buffer<f32> {
        let (c, width) = (self.config, mlp_width(self.config));
        let mut h = Buffer::new(mlp.values().len() / width * c.intermediate);
        mlp.by_rows(width, &mut h, |row, h| {
            activation::forward(c.activation, row, h);
        });
        h
    }

    /// Runs the block's backward pass: adds the adapter's gradient to `gradient` and turns `dy`
    /// `[R, H]`, the gradient of the block's output, into the gradient of its input, `[T, H]`. If
    /// `below` is false, no lower layer needs a gradient: the work for the input's gradient is
    /// skipped, and the result is meaningless.
    pub(crate) fn backward(
        &self,
        trace: &Trace,
        mut dy: Buffer<f32>,
        gradient: &mut [f32],
        below: bool,
    ) -> Buffer<f32> {
        let parallel = self.config.residual == Residual::Parallel;
        let attention_adapted = [Slot::Qkv, Slot::Q, Slot::K, Slot::V, Slot::Output]
            .into_iter()
            .any(|slot| self.scope.adapts(slot));
        let mlp_adapted = [Slot::Gate, Slot::Up, Slot::Down]
            .into_iter()
            .any(|slot| self.scope.adapts(slot));
        let through_mlp = below || (attention_adapted && !parallel);
        let mut packed = self.packed(&dy, self.config.hidden);
        // With a parallel residual, both branches start from `dy`, and their gradients add up in a
        // copy of it.
        let mut sum = (parallel && below).then(|| Buffer::from(&dy[..]));
        if through_mlp || mlp_adapted {
            if let Some(d_normed) = self.mlp_backward(trace, &packed, &dy, gradient, through_mlp) {
                let x = trace.middle.as_ref().unwrap_or(&trace.x);
                self.norm(&self.weights.mlp_norm).backward(
                    x,
                    &d_normed,
                    sum.as_mut().unwrap_or(&mut dy),
                );
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
            self.norm(&self.weights.attention_norm)
                .backward(&trace.x, &d_normed, &mut dx);
        }
        dx
    }

    /// Backward pass through down, activation, gate and up. Returns the gradient of the normalized
    /// input if `wanted`.
    fn mlp_backward(
        &self,
        trace: &Trace,
        packed: &Packed,
        dy: &[f32],
        gradient: &mut [f32],
        wanted: bool,
    ) -> Option<Buffer<f32>> {
        let (c, mlp) = (self.config, &self.weights.mlp);
        let (rows, inner, width) = (dy.len() / c.hidden, c.intermediate, mlp_width(c));
        let h = self
            .scope
            .adapts(Slot::Down)
            .then(|| self.activated(&trace.mlp));
        let into_adapted = self.scope.adapts(Slot::Gate) || self.scope.adapts(Slot::Up);
        // The gradient of the activation function's output, in the columns of `up`, becomes that of
        // its input.
        let (mut d_mlp, up) = (Buffer::new(rows * width), width - inner);
        let into_h =
            (wanted || into_adapted).then_some((d_mlp.get_mut(up..).unwrap_or_default(), width));
        let view = Some(View::rows(dy, rows, c.hidden));
        let down = Output {
            linear: &mlp.down,
            slot: Slot::Down,
            dy: packed.into(),
            rows: view,
        };
        let h = h.as_deref().map(|h| View::rows(h, rows, inner));
        self.scope
            .backward(&[down], h, &trace.reduced, gradient, into_h);
        if !(wanted || into_adapted) {
            return None;
        }
        trace.mlp.by_rows(width, &mut d_mlp, |mlp, d| {
            activation::backward(c.activation, mlp, d);
        });

        let from = trace.middle.as_ref().unwrap_or(&trace.x);
        let normed = into_adapted.then(|| self.normed_rows(&self.weights.mlp_norm, from));
        let mut d_normed = wanted.then(|| Buffer::new(dy.len()));
        let linears = [
            Some((&mlp.up, Slot::Up, up)),
            mlp.gate.as_ref().map(|gate| (gate, Slot::Gate, 0)),
        ];
        let views = linears.into_iter().flatten().map(|(linear, slot, offset)| {
            (
                linear,
                slot,
                View::strided(
                    Values::F32(d_mlp.get(offset..).unwrap_or_default()),
                    rows,
                    inner,
                    width,
                ),
            )
        });
        let views: Vec<_> = views.collect();
        self.project_back(
            &views,
            normed.as_deref().map(|x| View::rows(x, rows, c.hidden)),
            trace,
            gradient,
            d_normed.as_deref_mut(),
        );
        d_normed
    }

    /// Backward pass through linears of one input `x` `[any, H]`: from the gradients of their
    /// outputs to that of `x`.
    fn project_back(
        &self,
        outputs: &[(&Linear, Slot, View<'_>)],
        x: Option<View<'_>>,
        trace: &Trace,
        gradient: &mut [f32],
        dx: Option<&mut [f32]>,
    ) {
        let packed: Vec<Packed> = outputs
            .iter()
            .map(|(.., dy)| Packed::new(self.scope.tier, *dy))
            .collect();
        let outputs = outputs
            .iter()
            .zip(&packed)
            .map(|(&(linear, slot, rows), packed)| Output {
                linear,
                slot,
                dy: packed.into(),
                rows: Some(rows),
            });
        let outputs: Vec<Output<'_>> = outputs.collect();
        self.scope.backward(
            &outputs,
            x,
            &trace.reduced,
            gradient,
            dx.map(|dx| (dx, self.config.hidden)),
        );
    }

    /// Backward pass through output projection, attention, rotary, head norms and q, k, v. Returns
    /// the gradient of the normalized input if `below`.
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
        let into_adapted = [Slot::Qkv, Slot::Q, Slot::K, Slot::V]
            .into_iter()
            .any(|slot| self.scope.adapts(slot));
        let through = below || into_adapted;

        let rows = dy.len() / c.hidden;
        let narrow = self.wanted.filter(|_| self.scope.adapts(Slot::Output));
        let narrow = narrow.map(|rows| trace.attended.gathered(rows, c.heads * d));
        let attended = narrow.as_ref().unwrap_or(&trace.attended).view(c.heads * d);
        let mut d_attended = Buffer::new(rows * c.heads * d);
        let wanted = through.then_some((&mut d_attended[..], c.heads * d));
        let view = Some(View::rows(dy, rows, c.hidden));
        let output = Output {
            linear: &w.output,
            slot: Slot::Output,
            dy: packed.into(),
            rows: view,
        };
        self.scope
            .backward(&[output], Some(attended), &trace.reduced, gradient, wanted);
        if !through {
            return None;
        }
        let d_attended = self.widened(d_attended, c.heads * d);
        let mut d_qkv = Buffer::new(tokens * width);
        let (shape, qkv, out) = (self.shape(), trace.qkv.values(), trace.attended.values());
        let lse = &trace.lse;
        attention::backward(
            self.scope.tier,
            self.pack,
            &shape,
            qkv,
            q,
            k,
            v,
            out,
            lse,
            &d_attended,
            &mut d_qkv,
        );
        let room = || [(); 2].map(|()| vec![0.0; d]);
        d_qkv
            .par_chunks_mut(width)
            .enumerate()
            .for_each_init(room, |[room, dx], (token, row)| {
                self.angles.turn(token, row, q, c.heads, true);
                self.angles.turn(token, row, k, c.kv_heads, true);
                let Some(before) = &trace.before_head_norm else {
                    return;
                };
                let before = before.values().part(token * width..(token + 1) * width);
                for (weights, layout, heads) in self.head_norms() {
                    for start in (0..heads).map(|head| layout.offset + head * layout.head) {
                        let (dy, before) =
                            (&mut row[start..start + d], before.part(start..start + d));
                        dx.fill(0.0);
                        self.norm(weights).row_backward(before.floats(room), dy, dx);
                        dy.copy_from_slice(dx);
                    }
                }
            });

        let normed = into_adapted.then(|| self.normed_rows(&w.attention_norm, &trace.x));
        let mut d_normed = below.then(|| Buffer::new(tokens * c.hidden));
        let projections = match &w.qkv {
            Qkv::Fused(linear) => vec![(linear, Slot::Qkv, 0)],
            Qkv::Split {
                q: query,
                k: key,
                v: value,
            } => {
                vec![
                    (query, Slot::Q, q.offset),
                    (key, Slot::K, k.offset),
                    (value, Slot::V, v.offset),
                ]
            }
        };
        let views = projections.into_iter().map(|(linear, slot, offset)| {
            (
                linear,
                slot,
                View::strided(
                    Values::F32(&d_qkv[offset..]),
                    tokens,
                    linear.weight.rows,
                    width,
                ),
            )
        });
        let views: Vec<_> = views.collect();
        self.project_back(
            &views,
            normed.as_deref().map(|x| View::rows(x, tokens, c.hidden)),
            trace,
            gradient,
            d_normed.as_deref_mut(),
        );
        d_normed
    }
}

//! Attention, backward pass: probabilities are recomputed from the log-sum-exp, queries run in
//! ascending order.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    HeadLayout, KEYS, Known, Shape, Shared, around,
    forward::ROWS,
    panels::{fetch, gather, left, multiply, right},
    path, rows_of,
};
use crate::cpu::{
    buffer::Buffer,
    kernels::{
        counters,
        elementwise::dot,
        gemm::{Kernel, ValueType, Values, View, Visit, on_kernel},
        simd::{Element, Lanes, Work, dispatch, exp},
    },
    tier::Tier,
};
use upright_model::pack::Pack;

/// Minimum queries per task: every task copies the keys and values of its path.
const RUN: usize = 512;
/// Maximum tasks per span: every task holds the gradients that it adds to all earlier keys and
/// values.
const RUNS: usize = 4;

/// Runs the backward pass of attention. `out` and `lse` are those of [`forward`](super::forward()),
/// `d_out` is `[T, heads * head_size]`. `d_qkv` has the layout of `qkv` and is overwritten for
/// every query, key and value.
///
/// # Panics
/// If the shapes do not match, or only one of `qkv` and `out` is rounded.
pub(crate) fn backward(
    tier: Tier,
    pack: &Pack,
    shape: &Shape,
    qkv: Values<'_>,
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    out: Values<'_>,
    lse: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
) {
    shape.assert_fits(pack, Known::NOTHING, qkv.len(), [q, k, v], out.len(), lse);
    // Recomputed scores, and the gradients of probabilities, queries, keys and values.
    counters::attention(5 * shape.pairs(pack, Known::NOTHING) * shape.heads * shape.head_size);
    assert_eq!(out.len(), d_out.len(), "length of the output's gradient");
    assert_eq!(qkv.len(), d_qkv.len(), "length of the gradient");
    let offsets = pack.offsets();
    let d_qkv = Shared::new(d_qkv);
    let operands = Operands {
        pack,
        offsets: &offsets,
        shape,
        qkv,
        q,
        k,
        v,
        out,
        lse,
        d_out,
        d_qkv,
    };
    let runs: Vec<(usize, Range<usize>)> = (0..pack.spans.len())
        .flat_map(|span| {
            let (first, len) = (offsets[span], pack.spans[span].len);
            let step = len.div_ceil(RUNS).next_multiple_of(ROWS).max(RUN);
            (0..len)
                .step_by(step)
                .map(move |from| (span, first + from..first + len.min(from + step)))
        })
        .collect();
    let tasks: Vec<_> = runs
        .iter()
        .flat_map(|run| (0..shape.kv_heads).map(move |kv_head| (run, kv_head)))
        .collect();
    let tasks = tasks.into_par_iter().with_max_len(1);
    let above: Vec<Above> = tasks
        .map(|((span, queries), kv_head)| {
            on_kernel(
                tier,
                Backward {
                    operands,
                    span: *span,
                    queries: queries.clone(),
                    kv_head,
                },
            )
        })
        .collect();
    // Every run has written the gradients of its own keys and values. Later runs on its path add
    // theirs, in order.
    (0..shape.kv_heads).into_par_iter().for_each(|kv_head| {
        for ((span, _), above) in runs.iter().zip(above.chunks_exact(shape.kv_heads)) {
            operands.add(*span, kv_head, &above[kv_head]);
        }
    });
}

#[derive(Clone, Copy)]
struct Operands<'a> {
    pack: &'a Pack,
    offsets: &'a [usize],
    shape: &'a Shape,
    qkv: Values<'a>,
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    out: Values<'a>,
    lse: &'a [f32],
    d_out: &'a [f32],
    d_qkv: Shared,
}

/// What a run's queries add to the gradients of earlier keys and values on its path:
/// `[any, head_size]` each, for the positions from `base` on.
struct Above {
    base: usize,
    keys: Buffer<f32>,
    values: Buffer<f32>,
}

impl Operands<'_> {
    /// Adds the contributions of a run of a span to the gradients of earlier positions.
    fn add(&self, span: usize, kv_head: usize, above: &Above) {
        let (path, size) = (path(self.pack, span), self.shape.head_size);
        for (layout, gradients) in [(self.k, &above.keys), (self.v, &above.values)] {
            let rows = rows_of(&path, above.base..above.base + gradients.len() / size);
            for (row, gradient) in rows.zip(gradients.chunks_exact(size)) {
                // SAFETY: only this task accesses this key-value head.
                let sum = unsafe { self.d_qkv.part(layout.at(row, kv_head), size) };
                sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x);
            }
        }
    }
}

/// Queries of a range of positions of a span, for the query heads of one key-value head. Computes
/// their own gradients, those of the same tokens' keys and values, and their contributions to
/// earlier positions.
struct Backward<'a> {
    operands: Operands<'a>,
    span: usize,
    queries: Range<usize>,
    kv_head: usize,
}

impl Visit for Backward<'_> {
    type Output = Above;

    fn visit<K: Kernel>(self) -> Above {
        match (self.operands.qkv, self.operands.out) {
            (Values::F32(qkv), Values::F32(out)) => self.run::<K, _>(qkv, out),
            (Values::Bf16(qkv), Values::Bf16(out)) => self.run::<K, _>(qkv, out),
            _ => panic!("queries, keys, values and outputs of the same precision"),
        }
    }
}

impl Backward<'_> {
    fn run<K: Kernel, E: ValueType>(self, qkv: &[E], out: &[E]) -> Above {
        let Self {
            span,
            kv_head,
            queries,
            ..
        } = self;
        let Operands {
            pack,
            offsets,
            shape,
            q,
            k,
            v,
            lse,
            d_out,
            d_qkv,
            ..
        } = self.operands;
        let (size, group) = (shape.head_size, shape.group());
        let vector = |at: usize| &qkv[at..at + size];
        let path = path(pack, span);
        let (offset, len) = (queries.start, queries.len());
        let start = pack.spans[span].start + offset - offsets[span];
        let base = shape.seen(offset).start / KEYS * KEYS;
        let seen = || rows_of(&path, base..offset + len);
        let padded = (offset + len - base).next_multiple_of(KEYS);

        let mut vectors = Buffer::<E>::new(padded * size);
        gather(
            seen().map(|row| vector(v.at(row, kv_head))),
            &mut vectors,
            size,
        );
        let values = right::<K>(&View::of(&vectors[..], padded, size));
        gather(
            seen().map(|row| vector(k.at(row, kv_head))),
            &mut vectors,
            size,
        );
        let keys = right::<K>(&View::of(&vectors[..], padded, size));
        let keys_t = right::<K>(&View::of(&vectors[..], padded, size).t());
        drop(vectors);
        let (mut d_keys, mut d_values) = (
            Buffer::<f32>::zeroed(padded * size),
            Buffer::<f32>::zeroed(padded * size),
        );

        let step = (ROWS / group).max(1);
        let most = step * group;
        let mut queries = Buffer::<E>::new(most * size);
        let [mut d_outs, mut d_queries] = [(); 2].map(|()| Buffer::<f32>::new(most * size));
        let [mut p, mut d_p] = [(); 2].map(|()| Buffer::<f32>::new(most * padded));
        for first in (offset..offset + len).step_by(step) {
            let last = (offset + len).min(first + step);
            let rows = (last - first) * group;
            let at = |row: usize| {
                (
                    start + first - offset + row / group,
                    kv_head * group + row % group,
                )
            };
            let place = |row: usize| at(row).0 * shape.heads + at(row).1;
            let queries = &mut queries[..rows * size];
            gather(
                (0..rows)
                    .map(at)
                    .map(|(token, head)| vector(q.at(token, head))),
                queries,
                size,
            );
            let d_outs = &mut d_outs[..rows * size];
            gather(
                (0..rows).map(|row| &d_out[place(row) * size..][..size]),
                d_outs,
                size,
            );
            // Needed after the products, and just as far apart in memory.
            (0..rows).for_each(|row| fetch(&out[place(row) * size..][..size]));
            let from = (shape.seen(first).start - base) / KEYS * KEYS;
            let width = (last - base).next_multiple_of(KEYS) - from;
            let (p, d_p) = (&mut p[..rows * width], &mut d_p[..rows * width]);
            let (queries, d_outs) = (
                View::of(queries, rows, size),
                View::rows(d_outs, rows, size),
            );
            multiply::<K>(
                left::<K>(&queries).whole(),
                keys.lines(from, width),
                p,
                width,
                false,
            );
            multiply::<K>(
                left::<K>(&d_outs).whole(),
                values.lines(from, width),
                d_p,
                width,
                false,
            );
            for (row, (p, d_p)) in p
                .chunks_exact_mut(width)
                .zip(d_p.chunks_exact_mut(width))
                .enumerate()
            {
                let seen = shape.seen(first + row / group);
                let seen = seen.start.saturating_sub(base + from)..seen.end - base - from;
                let place = place(row);
                let (out, d_out) = (&out[place * size..][..size], &d_out[place * size..][..size]);
                dispatch(Probabilities {
                    p,
                    d_p,
                    seen,
                    scale: shape.scale,
                    lse: lse[place],
                    out,
                    d_out,
                });
            }
            let (p, d_p) = (View::rows(p, rows, width), View::rows(d_p, rows, width));
            let there = from * size..(from + width) * size;
            let d_values = &mut d_values[there.clone()];
            multiply::<K>(
                left::<K>(&p.t()).whole(),
                right::<K>(&d_outs.t()).whole(),
                d_values,
                size,
                true,
            );
            let d_keys = &mut d_keys[there];
            multiply::<K>(
                left::<K>(&d_p.t()).whole(),
                right::<K>(&queries.t()).whole(),
                d_keys,
                size,
                true,
            );
            let d_queries = &mut d_queries[..rows * size];
            multiply::<K>(
                left::<K>(&d_p).whole(),
                keys_t.depth::<K>(from, width),
                d_queries,
                size,
                false,
            );
            for (row, d_query) in d_queries.chunks_exact(size).enumerate() {
                let (token, head) = at(row);
                // SAFETY: only this task writes the heads of its queries.
                unsafe { d_qkv.part(q.at(token, head), size) }.copy_from_slice(d_query);
            }
        }
        let above = (offset - base) * size;
        for (layout, gradients) in [(k, &d_keys), (v, &d_values)] {
            for (row, gradient) in (start..start + len).zip(gradients[above..].chunks_exact(size)) {
                // SAFETY: only this task writes this head of its run's rows.
                unsafe { d_qkv.part(layout.at(row, kv_head), size) }.copy_from_slice(gradient);
            }
        }
        Above {
            base,
            keys: Buffer::from(&d_keys[..above]),
            values: Buffer::from(&d_values[..above]),
        }
    }
}

/// Turns a query's raw scores into probabilities, zero outside `seen`, and the gradient of the
/// probabilities into that of the raw scores. `out` and `d_out` belong to the query.
struct Probabilities<'a, E> {
    p: &'a mut [f32],
    d_p: &'a mut [f32],
    seen: Range<usize>,
    scale: f32,
    lse: f32,
    out: &'a [E],
    d_out: &'a [f32],
}

impl<E: Element> Work for Probabilities<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self {
            p,
            d_p,
            seen,
            scale,
            lse,
            out,
            d_out,
        } = self;
        assert!(p.len() == d_p.len() && p.len().is_multiple_of(KEYS) && seen.end <= p.len());
        let drop = dot::<L, E>(out, d_out);
        // SAFETY: whole vectors of the rows: the number of lanes divides KEYS.
        unsafe {
            for at in around::<L>(&seen).step_by(L::LEN) {
                let (p, d_p) = (p.as_mut_ptr().add(at), d_p.as_mut_ptr().add(at));
                let e = exp(L::load(p).mul(L::splat(scale)).sub(L::splat(lse)));
                e.store(p);
                e.mul(L::load(d_p).sub(L::splat(drop)))
                    .mul(L::splat(scale))
                    .store(d_p);
            }
        }
        for row in [p, d_p] {
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
        }
    }
}

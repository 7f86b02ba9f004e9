//! Attention, forward pass: blocks of queries against the keys of their path.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    HeadLayout, KEYS, Known, Shape, Shared, around,
    panels::{gather, left, multiply, right},
    path, rows_of,
};
use crate::cpu::{
    buffer::Buffer,
    kernels::{
        counters,
        gemm::{Kernel, ValueType, Values, View, Visit, on_kernel},
        simd::{Lanes, Work, dispatch, exp},
    },
    tier::Tier,
};
use upright_model::pack::Pack;

/// Queries per task: enough to make copying the path cheap, few enough to give many tasks.
const TASK: usize = 256;
/// Rows (queries times heads of a group) whose scores are in memory at once.
pub(super) const ROWS: usize = 64;

/// Runs the forward pass of attention. `out` is `[R, heads * head_size]`, row-major; `lse`,
/// `[R, heads]`, receives the log-sum-exp of the scaled scores, which
/// [`backward`](super::backward()) needs. R counts the tokens that are not `known`. The layouts
/// locate queries, keys and values in `qkv`, `[T, W]`. Products run on the tier, everything else in
/// f32; `qkv` may already be rounded as the tier's products round it.
///
/// # Panics
/// If the shapes do not match.
pub(crate) fn forward(
    tier: Tier,
    pack: &Pack,
    known: Known<'_>,
    shape: &Shape,
    qkv: Values<'_>,
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    out: &mut [f32],
    lse: &mut [f32],
) {
    shape.assert_fits(pack, known, qkv.len(), [q, k, v], out.len(), lse);
    // Scores and outputs.
    counters::attention(2 * shape.pairs(pack, known) * shape.heads * shape.head_size);
    let offsets = pack.offsets();
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let mut tasks = Vec::new();
    let mut out_row = 0;
    for (span, (run, &offset)) in pack.spans.iter().zip(&offsets).enumerate() {
        for from in (known.of(span)..run.len).step_by(TASK) {
            let queries = offset + from..offset + run.len.min(from + TASK);
            let first_row = run.start + from;
            for kv_head in 0..shape.kv_heads {
                tasks.push((span, queries.clone(), first_row, out_row, kv_head));
            }
            out_row += queries.len();
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(
        |(span, queries, first_row, out_row, kv_head)| {
            on_kernel(
                tier,
                Forward {
                    path: path(pack, span),
                    shape,
                    qkv,
                    q,
                    k,
                    v,
                    queries,
                    first_row,
                    out_row,
                    kv_head,
                    out,
                    lse,
                },
            );
        },
    );
}

/// The queries of one range of positions of a path, for the query heads of one key-value head.
struct Forward<'a> {
    path: Vec<Range<usize>>,
    shape: &'a Shape,
    qkv: Values<'a>,
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    /// Positions of the queries.
    queries: Range<usize>,
    /// Row of the first query in `qkv`.
    first_row: usize,
    /// Row of the first query in `out` and `lse`.
    out_row: usize,
    kv_head: usize,
    out: Shared,
    lse: Shared,
}

impl Visit for Forward<'_> {
    type Output = ();

    fn visit<K: Kernel>(self) {
        match self.qkv {
            Values::F32(qkv) => self.run::<K, _>(qkv),
            Values::Bf16(qkv) => self.run::<K, _>(qkv),
        }
    }
}

impl Forward<'_> {
    fn run<K: Kernel, E: ValueType>(self, qkv: &[E]) {
        let Self { shape, kv_head, .. } = self;
        let (size, group) = (shape.head_size, shape.group());
        let vector = |at: usize| &qkv[at..at + size];
        // Keys and values of every position that a query of the task attends to, from the start of
        // a block.
        let base = shape.seen(self.queries.start).start / KEYS * KEYS;
        let seen = || rows_of(&self.path, base..self.queries.end);
        let count = self.queries.end - base;
        let padded = count.next_multiple_of(KEYS);
        let mut vectors = Buffer::<E>::new(padded * size);
        gather(
            seen().map(|row| vector(self.k.at(row, kv_head))),
            &mut vectors,
            size,
        );
        let keys = right::<K>(&View::of(&vectors[..], padded, size));
        gather(
            seen().map(|row| vector(self.v.at(row, kv_head))),
            &mut vectors,
            size,
        );
        let values = right::<K>(&View::of(&vectors[..], padded, size).t());

        let step = (ROWS / group).max(1);
        let mut queries = Buffer::<E>::new(step * group * size);
        let mut scores = Buffer::<f32>::new(step * group * padded);
        let mut result = Buffer::<f32>::new(step * group * size);
        let mut sums = vec![0.0; step * group];
        for first in self.queries.clone().step_by(step) {
            let last = self.queries.end.min(first + step);
            let rows = (last - first) * group;
            // Token, counted from the first query of the task, and head of a row.
            let at = |row: usize| {
                (
                    first - self.queries.start + row / group,
                    kv_head * group + row % group,
                )
            };
            let heads = (0..rows)
                .map(at)
                .map(|(token, head)| vector(self.q.at(self.first_row + token, head)));
            gather(heads, &mut queries[..rows * size], size);
            // Keys from the first to the last block that a query attends to.
            let from = (shape.seen(first).start - base) / KEYS * KEYS;
            let width = (last - base).next_multiple_of(KEYS) - from;
            let queries = left::<K>(&View::of(&queries[..rows * size], rows, size));
            let scores = &mut scores[..rows * width];
            multiply::<K>(
                queries.whole(),
                keys.lines(from, width),
                scores,
                width,
                false,
            );
            for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
                let seen = shape.seen(first + row / group);
                let seen = seen.start.saturating_sub(base + from)..seen.end - base - from;
                let (sum, lse) = dispatch(Softmax {
                    scores,
                    seen,
                    scale: shape.scale,
                });
                let (token, head) = at(row);
                let token = self.out_row + token;
                sums[row] = sum;
                // SAFETY: only this task writes the heads of its queries.
                unsafe { self.lse.part(token * shape.heads + head, 1)[0] = lse };
            }
            let shares = left::<K>(&View::rows(scores, rows, width));
            multiply::<K>(
                shares.whole(),
                values.depth::<K>(from, width),
                &mut result[..rows * size],
                size,
                false,
            );
            for (row, result) in result[..rows * size].chunks_exact(size).enumerate() {
                let (token, head) = at(row);
                let token = self.out_row + token;
                // SAFETY: only this task writes the heads of its queries.
                let out = unsafe { self.out.part((token * shape.heads + head) * size, size) };
                dispatch(Scaled {
                    x: result,
                    by: 1.0 / sums[row],
                    out,
                });
            }
        }
    }
}

/// Turns the raw scores of a query into `exp(scale (score - largest))`, zero outside `seen`.
/// Returns their sum and the log-sum-exp of the scaled scores.
pub(super) struct Softmax<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) seen: Range<usize>,
    pub(super) scale: f32,
}

impl Work for Softmax<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<L: Lanes>(self) -> (f32, f32) {
        let Self {
            scores,
            seen,
            scale,
        } = self;
        let around = around::<L>(&seen);
        scores[..around.start].fill(0.0);
        scores[around.end..].fill(0.0);
        let scores = &mut scores[around.clone()];
        scores[..seen.start - around.start].fill(f32::NEG_INFINITY);
        scores[seen.end - around.start..].fill(f32::NEG_INFINITY);
        let mut largest = L::splat(f32::NEG_INFINITY);
        let start = scores.as_mut_ptr();
        // SAFETY: whole vectors of the scores: their number is a multiple of KEYS, which the number
        // of lanes divides.
        unsafe {
            for at in (0..scores.len()).step_by(L::LEN) {
                largest = L::load(start.add(at)).max(largest);
            }
            let largest = largest.largest();
            let mut sum = L::splat(0.0);
            for at in (0..scores.len()).step_by(L::LEN) {
                let e = exp(L::load(start.add(at))
                    .sub(L::splat(largest))
                    .mul(L::splat(scale)));
                e.store(start.add(at));
                sum = sum.add(e);
            }
            let sum = sum.sum();
            (sum, largest * scale + sum.ln())
        }
    }
}

/// `out = by * x`; both slices have the same length.
struct Scaled<'a> {
    x: &'a [f32],
    by: f32,
    out: &'a mut [f32],
}

impl Work for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { x, by, out } = self;
        out.iter_mut().zip(x).for_each(|(out, x)| *out = by * x);
    }
}

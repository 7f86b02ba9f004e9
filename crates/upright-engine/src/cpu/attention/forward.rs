//! Attention forward: query blocks against the keys of their path, with a running maximum.

use std::ops::Range;

use rayon::prelude::*;

use super::small::{KEYS, Matrix, add_product, gather, padded, transpose_blocks};
use super::{HeadLayout, Shape, Shared, path, rows_of};
use crate::cpu::counters;
use crate::cpu::lanes::{Lanes, Work, dispatch, exp};
use crate::pack::Pack;

/// Queries of a task: many enough that copying the path costs little, few enough that tasks are many.
const TASK: usize = 192;
/// Rows (queries times heads of a group) whose scores are in memory at once.
const ROWS: usize = 48;

/// Attention forward. `out` is `[T, heads * head_size]`, row-major; `lse`, `[T, heads]`, takes the log-sum-exp of the
/// scaled scores, which [`backward`](super::backward()) needs. Queries, keys and values lie in `qkv` where the layouts say.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn forward(
    pack: &Pack,
    shape: &Shape,
    qkv: &[f32],
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    out: &mut [f32],
    lse: &mut [f32],
) {
    shape.assert_fits(pack, qkv, [q, k, v], out, lse);
    // Scores and outputs.
    counters::attention(2 * shape.pairs(pack) * shape.heads * shape.head_size);
    let offsets = pack.offsets();
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let mut tasks = Vec::new();
    for (span, (run, &offset)) in pack.spans.iter().zip(&offsets).enumerate() {
        for from in (0..run.len).step_by(TASK) {
            let queries = offset + from..offset + run.len.min(from + TASK);
            let first_row = run.start + from;
            tasks.extend((0..shape.kv_heads).map(|kv_head| (span, queries.clone(), first_row, kv_head)));
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(span, queries, first_row, kv_head)| {
        dispatch(Forward { path: path(pack, span), shape, qkv, q, k, v, queries, first_row, kv_head, out, lse });
    });
}

/// The queries of one run of positions of a path, for the heads of one key and value head.
struct Forward<'a> {
    path: Vec<Range<usize>>,
    shape: &'a Shape,
    qkv: &'a [f32],
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    queries: Range<usize>,
    first_row: usize,
    kv_head: usize,
    out: Shared,
    lse: Shared,
}

impl Work for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { shape, qkv, kv_head, .. } = self;
        let (size, width, group) = (shape.head_size, padded(shape.head_size), shape.group());
        let vector = |at: usize| &qkv[at..at + size];

        // Keys and values of every position that some query of the task sees, from the first block of them. Blocks are
        // cut at multiples of KEYS along the path, so that a softmax sums the same lanes in any task.
        let base = shape.seen(self.queries.start).start / KEYS * KEYS;
        let blocks = (self.queries.end - base).div_ceil(KEYS);
        let seen = || rows_of(&self.path, base..self.queries.end);
        let mut values = vec![0.0; blocks * KEYS * width];
        gather(seen().map(|row| vector(self.k.at(row, kv_head))), &mut values, width);
        let mut keys = vec![0.0; blocks * KEYS * size];
        transpose_blocks(&values, width, size, &mut keys);
        gather(seen().map(|row| vector(self.v.at(row, kv_head))), &mut values, width);

        let step = (ROWS / group).max(1);
        let stride = blocks * KEYS;
        let mut queries = vec![0.0; step * group * size];
        let mut scores = vec![0.0; step * group * stride];
        let mut sums = vec![0.0; step * group * width];
        let mut totals = vec![0.0; step * group];
        for first in self.queries.clone().step_by(step) {
            let last = self.queries.end.min(first + step);
            let rows = (last - first) * group;
            let token = self.first_row + first - self.queries.start;
            let at = |row: usize| (token + row / group, kv_head * group + row % group);
            for (row, query) in queries.chunks_exact_mut(size).enumerate().take(rows) {
                let (token, head) = at(row);
                let vector = vector(self.q.at(token, head));
                query.iter_mut().zip(vector).for_each(|(to, x)| *to = x * shape.scale);
            }

            let from = (shape.seen(first).start - base) / KEYS * KEYS;
            let until = (last - base).next_multiple_of(KEYS);
            for row in scores.chunks_exact_mut(stride).take(rows) {
                row[from..until].fill(0.0);
            }
            for key in (from..until).step_by(KEYS) {
                // Rows before the first that sees the block stay as they are: their part of it is masked below.
                let skip = (base + key).saturating_sub(first).min(last - first) * group;
                let a = Matrix { values: &queries[skip * size..], row_stride: size, depth_stride: 1 };
                let b = &keys[key * size..][..KEYS * size];
                add_product::<L>([rows - skip, KEYS, size], a, b, KEYS, &mut scores[skip * stride + key..], stride);
            }
            sums[..rows * width].fill(0.0);
            for (row, scores) in scores.chunks_exact_mut(stride).enumerate().take(rows) {
                let seen = shape.seen(first + row / group);
                let (largest, total) =
                    softmax::<L>(&mut scores[from..until], seen.start - base - from..seen.end - base - from);
                totals[row] = total;
                let (token, head) = at(row);
                // SAFETY: this task alone writes its queries' heads.
                unsafe { self.lse.part(token * shape.heads + head, 1)[0] = largest + total.ln() };
            }
            let a = Matrix { values: &scores[from..], row_stride: stride, depth_stride: 1 };
            add_product::<L>([rows, width, last - base - from], a, &values[from * width..], width, &mut sums, width);
            for (row, (sums, total)) in sums.chunks_exact(width).zip(&totals).enumerate().take(rows) {
                let (token, head) = at(row);
                // SAFETY: this task alone writes its queries' heads.
                let out = unsafe { self.out.part((token * shape.heads + head) * size, size) };
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum / total);
            }
        }
    }
}

/// Turns scores into exponentials relative to the largest, zero outside `seen`; returns the largest and the sum.
/// The length is a multiple of [`KEYS`].
#[inline(always)]
fn softmax<L: Lanes>(scores: &mut [f32], seen: Range<usize>) -> (f32, f32) {
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    // SAFETY: whole vectors of the scores: the number of lanes divides their number.
    unsafe {
        let vector = |at: usize, scores: &[f32]| L::load(scores.as_ptr().add(at));
        let mut largest = L::splat(f32::NEG_INFINITY);
        for at in (0..scores.len()).step_by(L::LEN) {
            largest = vector(at, scores).max(largest);
        }
        let largest = largest.largest();
        let mut total = L::splat(0.0);
        for at in (0..scores.len()).step_by(L::LEN) {
            let e = exp(vector(at, scores).sub(L::splat(largest)));
            e.store(scores.as_mut_ptr().add(at));
            total = total.add(e);
        }
        (largest, total.sum())
    }
}

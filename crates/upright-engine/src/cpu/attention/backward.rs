//! Attention backward: probabilities made again from the log-sum-exp, queries in ascending order.

use std::ops::Range;

use rayon::prelude::*;

use super::small::{KEYS, Matrix, add_product, gather, padded, transpose_blocks};
use super::{HeadLayout, Shape, Shared, path, rows_of};
use crate::cpu::counters;
use crate::cpu::lanes::{Lanes, Work, dispatch, exp};
use crate::pack::Pack;

/// Rows (queries times heads of a group) whose probabilities are in memory at once.
const ROWS: usize = 48;

/// Attention backward. `out` and `lse` are those of [`forward`](super::forward()), `d_out` is `[T, heads * head_size]`;
/// `d_qkv` has the layout of `qkv` and is written, not added to, for every query, key and value.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn backward(
    pack: &Pack,
    shape: &Shape,
    qkv: &[f32],
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    out: &[f32],
    lse: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
) {
    shape.assert_fits(pack, qkv, [q, k, v], out, lse);
    // Scores once more, and the gradients of probabilities, queries, keys and values.
    counters::attention(5 * shape.pairs(pack) * shape.heads * shape.head_size);
    assert_eq!(out.len(), d_out.len(), "length of the output's gradient");
    assert_eq!(qkv.len(), d_qkv.len(), "length of the gradient");
    let offsets = pack.offsets();
    let d_qkv = Shared::new(d_qkv);
    let operands = Operands { pack, offsets: &offsets, shape, qkv, q, k, v, out, lse, d_out, d_qkv };
    let trees = trees(pack);
    let tasks: Vec<_> = trees.iter().flat_map(|tree| (0..shape.kv_heads).map(move |kv_head| (tree, kv_head))).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|(spans, kv_head)| {
        dispatch(Backward { operands, spans, kv_head });
    });
}

/// Spans of every tree, in the order of the pack.
fn trees(pack: &Pack) -> Vec<Vec<usize>> {
    let mut trees: Vec<Vec<usize>> = Vec::new();
    let mut tree_of = Vec::with_capacity(pack.spans.len());
    for (index, span) in pack.spans.iter().enumerate() {
        let tree = span.parent.map_or(trees.len(), |parent| tree_of[parent]);
        if tree == trees.len() {
            trees.push(Vec::new());
        }
        trees[tree].push(index);
        tree_of.push(tree);
    }
    trees
}

#[derive(Clone, Copy)]
struct Operands<'a> {
    pack: &'a Pack,
    offsets: &'a [usize],
    shape: &'a Shape,
    qkv: &'a [f32],
    q: HeadLayout,
    k: HeadLayout,
    v: HeadLayout,
    out: &'a [f32],
    lse: &'a [f32],
    d_out: &'a [f32],
    d_qkv: Shared,
}

/// One tree, for the heads of one key and value head: nothing else adds to these gradients.
struct Backward<'a> {
    operands: Operands<'a>,
    spans: &'a [usize],
    kv_head: usize,
}

impl Work for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Operands { pack, shape, k, v, d_qkv, .. } = self.operands;
        let size = shape.head_size;
        // The gradients of keys and values gather here while the tree's spans are gone through.
        for &span in self.spans {
            for row in pack.spans[span].start..pack.spans[span].start + pack.spans[span].len {
                for layout in [k, v] {
                    // SAFETY: this task alone touches this head of its tree's rows.
                    unsafe { d_qkv.part(layout.at(row, self.kv_head), size) }.fill(0.0);
                }
            }
        }
        for &span in self.spans {
            self.span::<L>(span);
        }
    }
}

impl Backward<'_> {
    /// Queries of one span: their own gradients, and what they add to those of the keys and values of the path.
    #[inline(always)]
    fn span<L: Lanes>(&self, span: usize) {
        let Operands { pack, offsets, shape, qkv, q, k, v, out, lse, d_out, d_qkv } = self.operands;
        let kv_head = self.kv_head;
        let (size, width, group) = (shape.head_size, padded(shape.head_size), shape.group());
        let vector = |at: usize| &qkv[at..at + size];
        let path = path(pack, span);
        let (offset, start, len) = (offsets[span], pack.spans[span].start, pack.spans[span].len);
        let base = shape.seen(offset).start / KEYS * KEYS;
        let seen = || rows_of(&path, base..offset + len);
        let blocks = (offset + len - base).div_ceil(KEYS);

        let mut keys = vec![0.0; blocks * KEYS * width];
        gather(seen().map(|row| vector(v.at(row, kv_head))), &mut keys, width);
        let mut values_t = vec![0.0; blocks * KEYS * size];
        transpose_blocks(&keys, width, size, &mut values_t);
        gather(seen().map(|row| vector(k.at(row, kv_head))), &mut keys, width);
        let mut keys_t = vec![0.0; blocks * KEYS * size];
        transpose_blocks(&keys, width, size, &mut keys_t);
        let mut d_keys = vec![0.0; blocks * KEYS * width];
        let mut d_values = vec![0.0; blocks * KEYS * width];
        for (layout, gradients) in [(k, &mut d_keys), (v, &mut d_values)] {
            for (row, gradient) in seen().zip(gradients.chunks_exact_mut(width)) {
                // SAFETY: this task alone touches this head of its tree's rows.
                gradient[..size].copy_from_slice(unsafe { d_qkv.part(layout.at(row, kv_head), size) });
            }
        }

        let step = (ROWS / group).max(1);
        let most = step * group;
        let mut queries = vec![0.0; most * width];
        let mut d_outs = vec![0.0; most * width];
        let mut d_queries = vec![0.0; most * width];
        let mut drops = vec![0.0; most];
        let mut lses = vec![0.0; most];
        let mut p = vec![0.0; most * KEYS];
        let mut d_p = vec![0.0; most * KEYS];
        for first in (offset..offset + len).step_by(step) {
            let last = (offset + len).min(first + step);
            let rows = (last - first) * group;
            let at = |row: usize| (start + first - offset + row / group, kv_head * group + row % group);
            for row in 0..rows {
                let (token, head) = at(row);
                let to = &mut queries[row * width..][..size];
                to.iter_mut().zip(vector(q.at(token, head))).for_each(|(to, x)| *to = x * shape.scale);
                let place = token * shape.heads + head;
                let d_out = &d_out[place * size..][..size];
                d_outs[row * width..][..size].copy_from_slice(d_out);
                drops[row] = dot(d_out, &out[place * size..][..size]);
                lses[row] = lse[place];
            }
            d_queries[..rows * width].fill(0.0);
            let from = (shape.seen(first).start - base) / KEYS * KEYS;
            for key in (from..last - base).step_by(KEYS) {
                // Rows that see anything of the block: not those before its first key, nor those a window past its last.
                let block = base + key..base + key + KEYS;
                let skip = block.start.saturating_sub(first).min(last - first) * group;
                let end = shape.window.map_or(last, |window| last.min(block.end - 1 + window));
                let count = ((end - first) * group).saturating_sub(skip);
                let (p, d_p) = (&mut p[..count * KEYS], &mut d_p[..count * KEYS]);
                p.fill(0.0);
                d_p.fill(0.0);
                let query = Matrix { values: &queries[skip * width..], row_stride: width, depth_stride: 1 };
                add_product::<L>([count, KEYS, size], query, &keys_t[key * size..], KEYS, p, KEYS);
                let d_out = Matrix { values: &d_outs[skip * width..], row_stride: width, depth_stride: 1 };
                add_product::<L>([count, KEYS, size], d_out, &values_t[key * size..], KEYS, d_p, KEYS);
                for (row, (p, d_p)) in p.chunks_exact_mut(KEYS).zip(d_p.chunks_exact_mut(KEYS)).enumerate() {
                    let seen = shape.seen(first + (skip + row) / group);
                    let inside = |at: usize| at.clamp(block.start, block.end) - block.start;
                    probabilities::<L>(
                        p,
                        d_p,
                        inside(seen.start)..inside(seen.end),
                        lses[skip + row],
                        drops[skip + row],
                    );
                }
                let transposed = |values| Matrix { values, row_stride: 1, depth_stride: KEYS };
                let sizes = [KEYS, width, count];
                add_product::<L>(
                    sizes,
                    transposed(p),
                    &d_outs[skip * width..],
                    width,
                    &mut d_values[key * width..],
                    width,
                );
                add_product::<L>(
                    sizes,
                    transposed(d_p),
                    &queries[skip * width..],
                    width,
                    &mut d_keys[key * width..],
                    width,
                );
                let slopes = Matrix { values: d_p, row_stride: KEYS, depth_stride: 1 };
                let sizes = [count, width, KEYS];
                add_product::<L>(sizes, slopes, &keys[key * width..], width, &mut d_queries[skip * width..], width);
            }
            for row in 0..rows {
                let (token, head) = at(row);
                // SAFETY: this task alone writes its queries' heads.
                let to = unsafe { d_qkv.part(q.at(token, head), size) };
                to.iter_mut().zip(&d_queries[row * width..]).for_each(|(to, x)| *to = x * shape.scale);
            }
        }
        for (layout, gradients) in [(k, &d_keys), (v, &d_values)] {
            for (row, gradient) in seen().zip(gradients.chunks_exact(width)) {
                // SAFETY: this task alone touches this head of its tree's rows.
                unsafe { d_qkv.part(layout.at(row, kv_head), size) }.copy_from_slice(&gradient[..size]);
            }
        }
    }
}

/// Turns a row of scores into probabilities, zero outside `seen`, and the gradient of the probabilities into that of the
/// scores; `drop` is the sum of output times gradient.
#[inline(always)]
fn probabilities<L: Lanes>(p: &mut [f32], d_p: &mut [f32], seen: Range<usize>, lse: f32, drop: f32) {
    assert!(p.len() == KEYS && d_p.len() == KEYS);
    // SAFETY: whole vectors of the rows: the number of lanes divides KEYS.
    unsafe {
        for at in (0..KEYS).step_by(L::LEN) {
            let (p, d_p) = (p.as_mut_ptr().add(at), d_p.as_mut_ptr().add(at));
            let e = exp(L::load(p).sub(L::splat(lse)));
            e.store(p);
            e.mul(L::load(d_p).sub(L::splat(drop))).store(d_p);
        }
    }
    for row in [p, d_p] {
        row[..seen.start].fill(0.0);
        row[seen.end.max(seen.start)..].fill(0.0);
    }
}

/// Eight sums, then one of them.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

//! Attention of the newest token of one sequence to all earlier tokens, for generation.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{HeadLayout, KEYS, Shape, forward::Softmax};
use crate::cpu::kernels::{
    Tier, counters,
    elementwise::{Map, dot, map},
    gemm::Values,
    simd::{Element, Lanes, Work, dispatch},
};

/// Tokens by which a cache grows.
const GROWTH: usize = 64;

/// Multiply-adds per token from which the heads are distributed over threads.
const SHARED: usize = 1 << 18;

/// Key-value cache of one sequence in one block: keys and values, `[tokens, kv_heads * head_size]`
/// each, in the precision of a tier's products.
#[derive(Clone)]
pub(crate) enum Cache {
    /// For the portable tier.
    F32([Vec<f32>; 2]),
    /// For a tier that rounds.
    Bf16([Vec<bf16>; 2]),
}

impl Cache {
    /// An empty cache.
    pub(crate) fn new(tier: Tier) -> Self {
        if tier.rounds() {
            Self::Bf16([Vec::new(), Vec::new()])
        } else {
            Self::F32([Vec::new(), Vec::new()])
        }
    }

    /// Bytes of a cache for `tokens` tokens with keys and values of width `width`, rounded up to
    /// its growth step.
    pub(crate) fn bytes(tier: Tier, width: usize, tokens: usize) -> usize {
        let size = if tier.rounds() {
            size_of::<bf16>()
        } else {
            size_of::<f32>()
        };
        2 * width * size * tokens.next_multiple_of(GROWTH)
    }

    /// Appends the keys and values of tokens, given their rows of queries, keys and values.
    ///
    /// # Panics
    /// If the rows have another precision than the cache.
    pub(crate) fn extend(&mut self, shape: &Shape, qkv: Values<'_>, [k, v]: [HeadLayout; 2]) {
        fn append<E: Element>(
            to: &mut [Vec<E>; 2],
            shape: &Shape,
            qkv: &[E],
            layouts: [HeadLayout; 2],
        ) {
            for (to, layout) in to.iter_mut().zip(layouts) {
                let tokens = qkv.len() / layout.row;
                let width = shape.kv_heads * shape.head_size;
                let needed = to.len() + tokens * width;
                if needed > to.capacity() {
                    to.reserve_exact(needed.next_multiple_of(GROWTH * width) - to.len());
                }
                for token in 0..tokens {
                    for start in (0..shape.kv_heads).map(|head| layout.at(token, head)) {
                        to.extend_from_slice(&qkv[start..start + shape.head_size]);
                    }
                }
            }
        }
        match (self, qkv) {
            (Self::F32(to), Values::F32(qkv)) => append(to, shape, qkv, [k, v]),
            (Self::Bf16(to), Values::Bf16(qkv)) => append(to, shape, qkv, [k, v]),
            _ => panic!("rows of the cache's precision"),
        }
    }
}

impl Cache {
    /// Keys and values of a cache in f32.
    ///
    /// # Panics
    /// If the cache is in bf16.
    pub(super) fn exact(&self) -> &[Vec<f32>; 2] {
        match self {
            Self::F32(values) => values,
            Self::Bf16(_) => panic!("a cache in f32"),
        }
    }

    /// Keys and values of a cache in bf16.
    ///
    /// # Panics
    /// If the cache is in f32.
    pub(super) fn rounded(&self) -> &[Vec<bf16>; 2] {
        match self {
            Self::Bf16(values) => values,
            Self::F32(_) => panic!("a cache in bf16"),
        }
    }

    /// Appends the first `tokens` tokens of another cache with keys and values of width `width`.
    ///
    /// # Panics
    /// If the other cache is shorter or has another precision.
    pub(crate) fn extend_from(&mut self, other: &Self, width: usize, tokens: usize) {
        fn append<E: Element>(to: &mut [Vec<E>; 2], from: &[Vec<E>; 2], values: usize) {
            for (to, from) in to.iter_mut().zip(from) {
                to.extend_from_slice(&from[..values]);
            }
        }
        match (self, other) {
            (Self::F32(to), Self::F32(from)) => append(to, from, tokens * width),
            (Self::Bf16(to), Self::Bf16(from)) => append(to, from, tokens * width),
            _ => panic!("a cache of the same precision"),
        }
    }
}

/// Writes to `out` the attention output, `[heads * head_size]`, of the token that was last appended
/// to `cache`. `row` holds its query at the layout `q`. All arithmetic is f32. Runs on the current
/// rayon pool.
pub(crate) fn last_token(
    shape: &Shape,
    row: Values<'_>,
    q: HeadLayout,
    cache: &Cache,
    out: &mut [f32],
) {
    let mut room = vec![0.0; row.len()];
    let row = row.floats(&mut room);
    match cache {
        Cache::F32([keys, values]) => of_heads(shape, row, q, keys, values, out),
        Cache::Bf16([keys, values]) => of_heads(shape, row, q, keys, values, out),
    }
}

fn of_heads<E: Element>(
    shape: &Shape,
    row: &[f32],
    q: HeadLayout,
    keys: &[E],
    values: &[E],
    out: &mut [f32],
) {
    let (size, stride) = (shape.head_size, shape.kv_heads * shape.head_size);
    let seen = shape.seen(keys.len() / stride - 1);
    let work = 2 * seen.len() * out.len();
    counters::attention(work);
    let one = |(head, out): (usize, &mut [f32])| {
        let (start, from) = (q.at(0, head), head / shape.group() * size);
        let (keys, values) = (&keys[from..], &values[from..]);
        let query = &row[start..start + size];
        dispatch(Head {
            query,
            keys,
            values,
            stride,
            seen: seen.clone(),
            scale: shape.scale,
            out,
        });
    };
    if work < SHARED {
        out.chunks_mut(size).enumerate().for_each(one);
    } else {
        out.par_chunks_mut(size).enumerate().for_each(one);
    }
}

/// One query head. The keys and values of token `t` start at `t * stride`.
struct Head<'a, E> {
    query: &'a [f32],
    keys: &'a [E],
    values: &'a [E],
    stride: usize,
    seen: Range<usize>,
    scale: f32,
    out: &'a mut [f32],
}

impl<E: Element> Work for Head<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self {
            query,
            keys,
            values,
            stride,
            seen,
            scale,
            out,
        } = self;
        let size = query.len();
        let mut scores = vec![0.0; seen.len().next_multiple_of(KEYS)];
        for (score, token) in scores.iter_mut().zip(seen.clone()) {
            *score = dot::<L, E>(&keys[token * stride..][..size], query);
        }
        let (sum, _) = Softmax {
            scores: &mut scores,
            seen: 0..seen.len(),
            scale,
        }
        .run::<L>();
        out.fill(0.0);
        for (share, token) in scores.iter().zip(seen) {
            map::<L, E, 1, 1>(
                &Plus(share / sum),
                [&values[token * stride..][..size]],
                [&mut *out],
            );
        }
    }
}

/// `y + by x`.
struct Plus(f32);

impl Map<1, 1> for Plus {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x]: [L; 1], [y]: [L; 1]) -> [L; 1] {
        [x.mul_add(L::splat(self.0), y)]
    }
}

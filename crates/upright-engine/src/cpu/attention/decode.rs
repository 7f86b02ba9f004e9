//! Attention of the newest token of one sequence to everything before it, for generation.

use super::{HeadLayout, Shape};
use crate::cpu::counters;

/// `cache` `[T, row]` holds queries, keys and values of a sequence (layouts in that order); `out` takes the attention
/// output of its last token, `[heads * head_size]`.
pub fn last_token(shape: &Shape, cache: &[f32], [q, k, v]: [HeadLayout; 3], out: &mut [f32]) {
    let (size, tokens) = (shape.head_size, cache.len() / q.row);
    let first = shape.window.map_or(0, |window| tokens.saturating_sub(window));
    counters::attention(2 * (tokens - first) * shape.heads * size);
    let vector = |layout: HeadLayout, token: usize, head: usize| {
        let start = token * layout.row + head * layout.head + layout.offset;
        &cache[start..start + size]
    };
    let shared = shape.heads / shape.kv_heads;
    for (head, out) in out.chunks_exact_mut(size).enumerate() {
        let query = vector(q, tokens - 1, head);
        let score = |token: usize| {
            let products = query.iter().zip(vector(k, token, head / shared)).map(|(a, b)| a * b);
            products.sum::<f32>() * shape.scale
        };
        let scores: Vec<f32> = (first..tokens).map(score).collect();
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f32 = shares.iter().sum();
        out.fill(0.0);
        for (token, share) in (first..tokens).zip(shares) {
            let value = vector(v, token, head / shared);
            out.iter_mut().zip(value).for_each(|(out, value)| *out += share / total * value);
        }
    }
}

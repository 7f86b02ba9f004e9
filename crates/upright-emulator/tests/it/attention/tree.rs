//! The kernels against the definition, on random trees.

use proptest::prelude::*;
use upright_emulator::Buffer;
use upright_kernels::attention::Span;

use super::{
    Results, Shape, Source, attention,
    f64::{self, double},
    forest,
};
use crate::{
    needs_compiler,
    numbers::{distance, rounded},
};

/// The largest error of a result, relative to its bound: up to 1 is right. Operands of products are rounded to bf16, with an error
/// of 2^-9 per factor.
pub(super) fn error(
    found: &Results,
    spans: &[Span],
    shape: &Shape,
    qkv: &[half::bf16],
    d_out: &[half::bf16],
) -> f64 {
    let truth = f64::attention(spans, shape, &double(qkv), &double(d_out));
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let mut errors = Vec::new();
    // A log-sum-exp may be near 0, so its error is absolute.
    for (found, want) in found.lse.iter().zip(&truth.lse) {
        let found = f64::from(*found) * std::f64::consts::LN_2;
        errors.push((found - want).abs() / 1e-4);
    }
    errors.push(distance(&double(&found.out), &truth.out) / 6e-3);
    for (part, found) in [&found.dq, &found.dk, &found.dv].into_iter().enumerate() {
        errors.push(distance(&wide(found), &f64::part(&truth, shape, part)) / 2e-2);
    }
    let mut worst = 0.0;
    for error in errors {
        // Once it is NaN, it stays NaN.
        if error.is_nan() || error > worst {
            worst = error;
        }
    }
    worst
}

fn check(spans: &[Span], shape: &Shape, seed: u64) -> f64 {
    let tokens: usize = spans.iter().map(|span| span.len).sum();
    let qkv = Buffer::from(rounded(seed, tokens * shape.row()));
    let d_out = Buffer::from(rounded(!seed, tokens * shape.heads() * shape.size));
    let found = attention(&Source::RIGHT, spans, shape, &qkv, &d_out, seed).unwrap();
    error(&found, spans, shape, &qkv, &d_out)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn attention_is_that_of_f64(
        spans in prop::collection::vec((0usize..4, 1usize..100), 1..6),
        kv_heads in 1usize..3, group in 1usize..4,
        size in prop::sample::select(vec![8usize, 16, 24, 32, 40, 64, 72, 80, 96, 104, 128]),
        window in prop::option::of(1usize..150), fused: bool, gap in prop::sample::select(vec![0usize, 2, 6]),
        seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let fused = fused && group == 1;
        let error = check(&forest(&spans), &Shape { kv_heads, group, size, window, fused, gap }, seed);
        prop_assert!(error <= 1.0, "{}", error);
    }
}

#[test]
fn large_heads_long_spans_and_many_heads_of_a_group() {
    needs_compiler!();
    for (spans, group, size, window) in [
        (vec![(0, 90), (1, 70), (2, 1)], 2, 256, None),
        (vec![(0, 75)], 1, 200, Some(40)),
        (vec![(0, 400), (1, 200), (2, 3)], 1, 64, None),
        (vec![(0, 500), (1, 60)], 1, 32, Some(100)),
        (vec![(0, 20), (1, 3)], 40, 16, None),
    ] {
        let shape = Shape {
            kv_heads: 1,
            group,
            size,
            window,
            fused: false,
            gap: 2,
        };
        let error = check(&forest(&spans), &shape, 5);
        assert!(error <= 1.0, "{shape:?}: {error}");
    }
}

/// A NaN reaches the tokens that see it, and no others.
#[test]
fn a_key_that_is_not_a_number() {
    needs_compiler!();
    let spans = forest(&[(0, 4), (1, 4), (2, 5), (0, 2)]);
    let shape = Shape {
        kv_heads: 1,
        group: 1,
        size: 16,
        window: None,
        fused: false,
        gap: 0,
    };
    let mut qkv = Buffer::from(rounded(1, 15 * shape.row()));
    qkv[5 * shape.row() + shape.starts()[1]] = half::bf16::NAN;
    let d_out = Buffer::from(rounded(2, 15 * 16));
    let found = attention(&Source::RIGHT, &spans, &shape, &qkv, &d_out, 0).unwrap();
    for (token, out) in found.out.chunks(16).enumerate() {
        let sees = (5..8).contains(&token);
        assert!(out.iter().all(|x| x.is_nan() == sees), "token {token}");
    }
}

//! Attention by definition, in f64.

use half::bf16;
use upright_kernels::attention::Span;

use super::Shape;

/// Output, log-sum-exps (natural), and the gradient with the layout of queries, keys and values.
pub(super) struct Truth {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
    pub gradient: Vec<f64>,
}

pub(super) fn double(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// Rows of a span's path, in order of their positions.
pub(super) fn rows(spans: &[Span], span: usize) -> Vec<usize> {
    let own = spans[span].start..spans[span].start + spans[span].len;
    let mut before = spans[span]
        .parent
        .map_or(Vec::new(), |parent| rows(spans, parent));
    before.extend(own);
    before
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

pub(super) fn attention(spans: &[Span], shape: &Shape, qkv: &[f64], d_out: &[f64]) -> Truth {
    let tokens: usize = spans.iter().map(|span| span.len).sum();
    let (size, heads, scale) = (shape.size, shape.heads(), f64::from(shape.scale()));
    let starts = shape.starts();
    let mut truth = Truth {
        out: vec![0.0; tokens * heads * size],
        lse: vec![0.0; tokens * heads],
        gradient: vec![0.0; qkv.len()],
    };
    for (index, span) in spans.iter().enumerate() {
        let path = rows(spans, index);
        for position in path.len() - span.len..path.len() {
            let token = path[position];
            let lowest = (position + 1).saturating_sub(shape.window.unwrap_or(usize::MAX));
            let keys = &path[lowest..=position];
            for head in 0..heads {
                let at = |part: usize, token: usize, head: usize| {
                    token * shape.row() + head * shape.head() + starts[part]
                };
                let vector = |at: usize| &qkv[at..at + size];
                let kv = head / shape.group;
                let query = at(0, token, head);
                let scores: Vec<f64> = keys
                    .iter()
                    .map(|key| scale * dot(vector(query), vector(at(1, *key, kv))))
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                let lse = largest + sum.ln();
                let place = token * heads + head;
                truth.lse[place] = lse;
                let out = &mut truth.out[place * size..][..size];
                for (key, score) in keys.iter().zip(&scores) {
                    add(out, (score - lse).exp(), vector(at(2, *key, kv)));
                }
                let d_out = &d_out[place * size..][..size];
                let delta = dot(out, d_out);
                for (key, score) in keys.iter().zip(&scores) {
                    let (k, v) = (at(1, *key, kv), at(2, *key, kv));
                    let p = (score - lse).exp();
                    let slope = scale * p * (dot(d_out, vector(v)) - delta);
                    add(&mut truth.gradient[v..v + size], p, d_out);
                    add(&mut truth.gradient[k..k + size], slope, vector(query));
                    add(&mut truth.gradient[query..query + size], slope, vector(k));
                }
            }
        }
    }
    truth
}

/// The gradients of one part (0: queries, 1: keys, 2: values) as `[tokens, heads, size]`.
pub(super) fn part(truth: &Truth, shape: &Shape, part: usize) -> Vec<f64> {
    let heads = if part == 0 {
        shape.heads()
    } else {
        shape.kv_heads
    };
    let mut found = Vec::new();
    for row in truth.gradient.chunks(shape.row()) {
        for head in 0..heads {
            let start = head * shape.head() + shape.starts()[part];
            found.extend_from_slice(&row[start..start + shape.size]);
        }
    }
    found
}

/// The gradient is that of central differences of the output.
#[test]
fn the_definition_differentiates() {
    let spans = super::forest(&[(0, 5), (1, 4), (2, 3), (0, 2)]);
    let shape = Shape {
        kv_heads: 2,
        group: 2,
        size: 8,
        window: Some(7),
        fused: false,
        gap: 0,
    };
    let number = |seed, count| {
        crate::numbers::numbers(seed, count)
            .into_iter()
            .map(f64::from)
            .collect::<Vec<_>>()
    };
    let (mut qkv, d_out) = (number(3, 14 * shape.row()), number(4, 14 * 4 * 8));
    let gradient = attention(&spans, &shape, &qkv, &d_out).gradient;
    for at in (0..qkv.len()).step_by(5) {
        let before = qkv[at];
        let [mut low, mut high] = [0.0; 2];
        for (change, loss) in [(-1e-5, &mut low), (1e-5, &mut high)] {
            qkv[at] = before + change;
            *loss = dot(&attention(&spans, &shape, &qkv, &d_out).out, &d_out);
        }
        qkv[at] = before;
        let slope = (high - low) / 2e-5;
        assert!(
            (slope - gradient[at]).abs() < 1e-8,
            "{at}: {slope} {}",
            gradient[at]
        );
    }
}

use proptest::prelude::*;

use super::*;
use crate::cpu::kernels::{Saved, Tier, gemm::Values};

/// Numbers in (-1, 1) that depend on the seed alone.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A forest from (parent selector, length) pairs: 0 starts a tree, others continue one of the last
/// spans, at most 3 deep.
fn forest(spans: &[(usize, usize)]) -> Pack {
    let mut pack = Pack::default();
    let mut depths: Vec<usize> = Vec::new();
    for &(parent, len) in spans {
        let tokens = vec![0; len];
        let parent = depths
            .len()
            .checked_sub(parent)
            .filter(|&parent| parent < depths.len() && depths[parent] < 3);
        match parent {
            None => pack.root(&tokens),
            Some(parent) => pack.child(parent, &tokens),
        };
        depths.push(parent.map_or(1, |parent| depths[parent] + 1));
    }
    pack
}

/// Fused as in GPT-NeoX (q, k, v of a head together) if `fused` and the heads allow it, else all q,
/// all k, all v.
fn layouts(shape: &Shape, fused: bool) -> [HeadLayout; 3] {
    let size = shape.head_size;
    if fused && shape.heads == shape.kv_heads {
        let layout = |part: usize| HeadLayout {
            row: 3 * size * shape.heads,
            head: 3 * size,
            offset: part * size,
        };
        [layout(0), layout(1), layout(2)]
    } else {
        let row = (shape.heads + 2 * shape.kv_heads) * size;
        let layout = |before: usize| HeadLayout {
            row,
            head: size,
            offset: before * size,
        };
        [
            layout(0),
            layout(shape.heads),
            layout(shape.heads + shape.kv_heads),
        ]
    }
}

/// The kernels' results by definition, in f64: output, log-sum-exps, and with `d_out` the gradient.
fn oracle(
    pack: &Pack,
    shape: &Shape,
    qkv: &[f64],
    [q, k, v]: [HeadLayout; 3],
    d_out: &[f64],
) -> [Vec<f64>; 3] {
    let (tokens, size) = (pack.tokens.len(), shape.head_size);
    let positions = pack.positions();
    let mut out = vec![0.0; tokens * shape.heads * size];
    let mut lses = vec![0.0; tokens * shape.heads];
    let mut gradient = vec![0.0; qkv.len()];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (index, span) in pack.spans.iter().enumerate() {
        let path: Vec<usize> = path(pack, index).into_iter().flatten().collect();
        for token in span.start..span.start + span.len {
            let p = positions[token];
            let keys = &path[shape
                .window
                .map_or(0, |window| (p + 1).saturating_sub(window))
                ..p + 1];
            for head in 0..shape.heads {
                let kv_head = head / (shape.heads / shape.kv_heads);
                let vector =
                    |layout: HeadLayout, token, head| &qkv[layout.at(token, head)..][..size];
                let scores: Vec<f64> = keys
                    .iter()
                    .map(|&key| {
                        dot(vector(q, token, head), vector(k, key, kv_head))
                            * f64::from(shape.scale)
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let lse = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
                let place = token * shape.heads + head;
                lses[place] = lse;
                let out = &mut out[place * size..][..size];
                for (&key, score) in keys.iter().zip(&scores) {
                    let p = (score - lse).exp();
                    out.iter_mut()
                        .zip(vector(v, key, kv_head))
                        .for_each(|(out, v)| *out += p * v);
                }
                let d_out = &d_out[place * size..][..size];
                let drop = dot(out, d_out);
                for (&key, score) in keys.iter().zip(&scores) {
                    let p = (score - lse).exp();
                    let slope =
                        p * (dot(d_out, vector(v, key, kv_head)) - drop) * f64::from(shape.scale);
                    for i in 0..size {
                        gradient[v.at(key, kv_head) + i] += p * d_out[i];
                        gradient[k.at(key, kv_head) + i] += slope * vector(q, token, head)[i];
                        gradient[q.at(token, head) + i] += slope * vector(k, key, kv_head)[i];
                    }
                }
            }
        }
    }
    [out, lses, gradient]
}

fn error(found: &[f32], want: &[f64]) -> f64 {
    let wrong: f64 = found
        .iter()
        .zip(want)
        .map(|(&a, b)| (f64::from(a) - b).powi(2))
        .sum();
    (wrong / want.iter().map(|x| x * x).sum::<f64>().max(1e-30)).sqrt()
}

fn double(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// Output, log-sum-exps and gradient. Buffers start as NaN: everything must be written.
fn run(
    tier: Tier,
    pack: &Pack,
    shape: &Shape,
    qkv: &[f32],
    [q, k, v]: [HeadLayout; 3],
    d_out: &[f32],
) -> [Vec<f32>; 3] {
    let mut out = vec![f32::NAN; d_out.len()];
    let mut lse = vec![f32::NAN; pack.tokens.len() * shape.heads];
    let mut gradient = vec![f32::NAN; qkv.len()];
    let stored = |values: &[f32]| Saved::copy(tier, values);
    let qkv = stored(qkv);
    forward(
        tier,
        pack,
        Known::NOTHING,
        shape,
        qkv.values(),
        q,
        k,
        v,
        &mut out,
        &mut lse,
    );
    let kept = stored(&out);
    backward(
        tier,
        pack,
        shape,
        qkv.values(),
        q,
        k,
        v,
        kept.values(),
        &lse,
        d_out,
        &mut gradient,
    );
    [out, lse, gradient]
}

/// Products round their operands to bf16, so operands that were rounded before give the same bits.
#[test]
fn rounding_queries_keys_and_values_before_changes_no_bit() {
    let pack = forest(&[(0, 70), (1, 30), (2, 9), (0, 1)]);
    let shape = shape_of(2, 2, 24, Some(60));
    let layouts @ [q, k, v] = layouts(&shape, false);
    let tokens = pack.tokens.len();
    let (mut qkv, d_out) = (
        numbers(1, tokens * layouts[0].row),
        numbers(2, tokens * shape.heads * 24),
    );
    // The largest subnormal, which would round up to a normal number, and products flush only
    // subnormals.
    qkv[..5].fill(f32::from_bits(0x007f_ffff));
    for (tier, _) in tiers().filter(|(tier, _)| tier.rounds()) {
        let found = run(tier, &pack, &shape, &qkv, layouts, &d_out);
        let (mut out, mut lse) = (vec![0.0; d_out.len()], vec![0.0; tokens * shape.heads]);
        let mut gradient = vec![0.0; qkv.len()];
        let values = Values::F32(&qkv);
        forward(
            tier,
            &pack,
            Known::NOTHING,
            &shape,
            values,
            q,
            k,
            v,
            &mut out,
            &mut lse,
        );
        assert!(same(&found[0], &out) && same(&found[1], &lse), "{tier}");
        // The gradient's only other use of a rounded value, the output's product with its own gradient, is f32.
        let out: Vec<f32> = out
            .iter()
            .map(|x| half::bf16::from_f32(*x).to_f32())
            .collect();
        backward(
            tier,
            &pack,
            &shape,
            values,
            q,
            k,
            v,
            Values::F32(&out),
            &lse,
            &d_out,
            &mut gradient,
        );
        assert!(same(&found[2], &gradient), "{tier}");
    }
}

/// Tiers of this machine, with the error that rounding their operands to bf16 may add (2^-9 per
/// factor).
fn tiers() -> impl Iterator<Item = (Tier, f64)> {
    let tiers = Tier::ALL.into_iter().filter(|tier| tier.available());
    tiers.map(|tier| (tier, if tier == Tier::Portable { 0.0 } else { 1e-2 }))
}

fn shape_of(kv_heads: usize, group: usize, size: usize, window: Option<usize>) -> Shape {
    Shape {
        heads: kv_heads * group,
        kv_heads,
        head_size: size,
        window,
        scale: 3.0 / (size as f32).sqrt(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn equals_f64(
        spans in prop::collection::vec((0usize..4, 1usize..90), 1..7),
        kv_heads in 1usize..4, group in 1usize..4,
        size in prop::sample::select(vec![16usize, 18, 24, 32, 64, 80, 128]),
        window in prop::option::of(1usize..120), fused: bool, seed: u64,
    ) {
        let pack = forest(&spans);
        let shape = shape_of(kv_heads, group, size, window);
        let layouts = layouts(&shape, fused);
        let qkv = numbers(seed, pack.tokens.len() * layouts[0].row);
        let d_out = numbers(!seed, pack.tokens.len() * shape.heads * size);
        let want = oracle(&pack, &shape, &double(&qkv), layouts, &double(&d_out));
        for (tier, more) in tiers() {
            let found = run(tier, &pack, &shape, &qkv, layouts, &d_out);
            for (name, bound, found, want) in [("out", 2e-6, &found[0], &want[0]), ("lse", 2e-6, &found[1], &want[1]), ("gradient", 1e-5, &found[2], &want[2])] {
                let error = error(found, want);
                prop_assert!(error < bound + more, "{}: {}: {}", tier, name, error);
            }
        }
    }
}

#[test]
fn a_long_span_and_many_heads_of_a_group() {
    let (long, longer) = (
        forest(&[(0, 500), (1, 300), (2, 1)]),
        forest(&[(0, 1100), (1, 600), (2, 1)]),
    );
    for (pack, group, window) in [
        (&long, 70, None),
        (&long, 2, Some(100)),
        // Spans whose backward pass takes several tasks.
        (&longer, 1, None),
        (&longer, 1, Some(100)),
        (&longer, 1, Some(700)),
    ] {
        let shape = shape_of(1, group, 16, window);
        let layouts = layouts(&shape, false);
        let qkv = numbers(1, pack.tokens.len() * layouts[0].row);
        let d_out = numbers(2, pack.tokens.len() * shape.heads * 16);
        let want = oracle(pack, &shape, &double(&qkv), layouts, &double(&d_out));
        for (tier, more) in tiers() {
            let found = run(tier, pack, &shape, &qkv, layouts, &d_out);
            for (found, want) in found.iter().zip(&want) {
                let error = error(found, want);
                assert!(error < 5e-6 + more, "{tier}: {error}");
            }
        }
    }
}

/// The oracle's own gradient equals the central differences of its output.
#[test]
fn the_oracle_differentiates() {
    let pack = forest(&[(0, 5), (1, 4), (2, 3), (0, 2)]);
    let shape = shape_of(2, 2, 4, Some(7));
    let layouts = layouts(&shape, false);
    let mut qkv = double(&numbers(3, pack.tokens.len() * layouts[0].row));
    let d_out = double(&numbers(
        4,
        pack.tokens.len() * shape.heads * shape.head_size,
    ));
    let gradient = oracle(&pack, &shape, &qkv, layouts, &d_out)[2].clone();
    let mut loss = |at: usize, change: f64| {
        let before = qkv[at];
        qkv[at] = before + change;
        let out = &oracle(&pack, &shape, &qkv, layouts, &d_out)[0];
        qkv[at] = before;
        out.iter().zip(&d_out).map(|(a, b)| a * b).sum::<f64>()
    };
    for at in (0..gradient.len()).step_by(5) {
        let slope = (loss(at, 1e-5) - loss(at, -1e-5)) / 2e-5;
        assert!(
            (slope - gradient[at]).abs() < 1e-8,
            "{at}: {slope} {}",
            gradient[at]
        );
    }
}

/// A tree's outputs and gradients have the same bits alone, among others in any order, and on any
/// number of threads. An output also has the same bits if its path is one span.
#[test]
fn bits_depend_on_the_path_alone() {
    let trees: [&[(usize, usize)]; 3] = [
        &[(0, 230), (1, 70), (2, 41)],
        &[(0, 33)],
        &[(0, 1), (1, 64), (1, 9), (3, 200)],
    ];
    for (window, tier) in [None, Some(50)]
        .into_iter()
        .flat_map(|window| tiers().map(move |(tier, _)| (window, tier)))
    {
        let shape = shape_of(2, 3, 24, window);
        let layouts = layouts(&shape, false);
        let (row, wide) = (layouts[0].row, shape.heads * 24);
        let sizes = trees.map(|tree| tree.iter().map(|span| span.1).sum::<usize>());
        let inputs: Vec<_> = (0..3)
            .map(|i| {
                (
                    numbers(i, sizes[i as usize] * row),
                    numbers(9 + i, sizes[i as usize] * wide),
                )
            })
            .collect();
        let alone: Vec<_> = (0..3)
            .map(|i| {
                run(
                    tier,
                    &forest(trees[i]),
                    &shape,
                    &inputs[i].0,
                    layouts,
                    &inputs[i].1,
                )
            })
            .collect();
        for order in [[0, 1, 2], [2, 1, 0]] {
            let pack = forest(&order.map(|i| trees[i]).concat());
            let qkv = order.map(|i| inputs[i].0.as_slice()).concat();
            let d_out = order.map(|i| inputs[i].1.as_slice()).concat();
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let found = pool.install(|| run(tier, &pack, &shape, &qkv, layouts, &d_out));
                for (part, found) in found.iter().enumerate() {
                    let want = order.map(|i| alone[i][part].as_slice()).concat();
                    assert!(
                        same(found, &want),
                        "part {part}, order {order:?}, {threads} threads"
                    );
                }
            }
        }
        let straight = forest(&[(0, 300)]);
        let found = run(
            tier,
            &straight,
            &shape,
            &inputs[0].0[..300 * row],
            layouts,
            &inputs[0].1[..300 * wide],
        );
        assert!(
            same(&found[0], &alone[0][0][..300 * wide]),
            "a path split into spans"
        );
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn an_empty_pack_and_values_that_are_not_finite() {
    let shape = shape_of(1, 1, 16, None);
    let split = layouts(&shape, false);
    run(Tier::Portable, &Pack::default(), &shape, &[], split, &[]);
    let mut qkv = numbers(1, 8 * split[0].row);
    qkv[split[1].at(5, 0)] = f32::NAN;
    let found = run(
        Tier::detect(),
        &forest(&[(0, 4), (1, 4)]),
        &shape,
        &qkv,
        split,
        &[1.0; 8 * 16],
    );
    for (token, out) in found[0].chunks(16).enumerate() {
        assert!(
            out.iter().all(|x| x.is_nan() == (token >= 5)),
            "token {token}"
        );
    }
}

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_kernels::attention::{KeyTables, QueryTables, Span, instance};
use upright_model::pack::Pack;

use super::{distance, numbers};
use crate::cpu::kernels::{
    Saved, Tier,
    attention::{self, HeadLayout, Known, Shape},
};

/// A forest from (parent selector, length) pairs: 0 starts a tree, others continue one of the last spans.
fn forest(spans: &[(usize, usize)]) -> Pack {
    let mut pack = Pack::default();
    for &(parent, len) in spans {
        let count = pack.spans.len();
        match count.checked_sub(parent).filter(|parent| *parent < count) {
            None => pack.root(&vec![0; len]),
            Some(parent) => pack.child(parent, &vec![0; len]),
        };
    }
    pack
}

/// One part of wider rows.
fn part(rows: &[f32], row: usize, from: usize, to: usize) -> Vec<f32> {
    rows.chunks(row)
        .flat_map(|row| row[from..to].to_vec())
        .collect()
}

/// Output and natural log-sum-exps, then the gradients of queries, keys and values, of the CUDA kernels. All queries come
/// first in a row of `qkv`, then all keys, then all values. The gradients are written into rows of the same layout, and the
/// outputs into rows that are wider than the heads.
fn cuda(pack: &Pack, shape: &Shape, qkv: &[f32], d_out: &[f32], seed: u64) -> [Vec<f32>; 5] {
    let spans: Vec<Span> = pack
        .spans
        .iter()
        .map(|span| Span {
            start: span.start,
            len: span.len,
            parent: span.parent,
        })
        .collect();
    let queries = QueryTables::new(&spans, &[]);
    let keys = KeyTables::new(&spans, &queries, shape.window);
    let instance = instance(shape.head_size).unwrap();
    let rounded = |values: &[f32]| {
        Buffer::from(
            values
                .iter()
                .map(|x| bf16::from_f32(*x))
                .collect::<Vec<_>>(),
        )
    };
    let (qkv, d_out) = (rounded(qkv), rounded(d_out));
    let ints = |values: &[i32]| Buffer::from(values.to_vec());
    let tiles = ints(bytemuck::cast_slice(&queries.tiles));
    let runs = ints(bytemuck::cast_slice(&queries.runs));
    let key_tiles = ints(bytemuck::cast_slice(&keys.tiles));
    let readers = ints(&keys.readers);
    let (tokens, size) = (pack.tokens.len(), shape.head_size);
    let rows = tokens * shape.heads;
    let [mut lse, mut delta] = [(); 2].map(|()| Buffer::<f32>::unwritten(rows));
    let wide = shape.heads * size;
    let out_row = wide + 8;
    let row = wide + 2 * shape.kv_heads * size;
    let starts = [0, wide, wide + shape.kv_heads * size];
    let mut out = Buffer::<bf16>::unwritten(tokens * out_row);
    let mut gradient = Buffer::<f32>::unwritten(tokens * row);
    // Numbers, with those of the output between others.
    let numbers = |of_output: &[usize]| {
        let group = shape.heads / shape.kv_heads;
        let last = [shape.heads, group, size, shape.window.unwrap_or(0)];
        let sizes = [&[row, size, row, size], of_output, &last].concat();
        let mut args: Vec<_> = sizes.iter().map(|size| Arg::I32(*size as i32)).collect();
        args.push(Arg::F32(shape.scale));
        args
    };
    let grid = [queries.tiles.len() as u32, shape.heads as u32, 1];

    let mut args = vec![tiles.input(), runs.input()];
    args.extend(starts.map(|start| qkv.input_from(start)));
    args.extend([out.output(), lse.output()]);
    args.extend(numbers(&[out_row]));
    launch(instance.forward, grid, seed, &mut args).unwrap();

    let mut args = vec![d_out.input(), out.input(), delta.output()];
    args.extend([out_row, shape.heads, size, rows].map(|size| Arg::I32(size as i32)));
    launch(
        "attention_delta",
        [rows.div_ceil(4) as u32, 1, 1],
        seed,
        &mut args,
    )
    .unwrap();

    let mut args = vec![tiles.input(), runs.input()];
    args.extend(starts.map(|start| qkv.input_from(start)));
    args.extend([d_out.input(), lse.input(), delta.input()]);
    args.push(gradient.output());
    args.extend(numbers(&[row, size]));
    launch(instance.backward_queries, grid, seed, &mut args).unwrap();

    let mut args = vec![tiles.input(), key_tiles.input(), readers.input()];
    args.extend(starts.map(|start| qkv.input_from(start)));
    args.extend([d_out.input(), lse.input(), delta.input()]);
    args.push(gradient.output());
    args.extend(numbers(&[row, size, starts[1], starts[2]]));
    let grid = [
        keys.tiles.len() as u32,
        shape.kv_heads as u32,
        instance.column_parts,
    ];
    launch(instance.backward_keys, grid, seed, &mut args).unwrap();

    assert_eq!(gradient.first_unwritten(), None);
    let out: Vec<f32> = out.iter().map(|x| x.to_f32()).collect();
    let lse = lse.iter().map(|x| x * std::f32::consts::LN_2).collect();
    let gradient = |from, to| part(&gradient, row, from, to);
    [
        part(&out, out_row, 0, wide),
        lse,
        gradient(0, starts[1]),
        gradient(starts[1], starts[2]),
        gradient(starts[2], row),
    ]
}

/// The same of the CPU's kernels.
fn cpu(tier: Tier, pack: &Pack, shape: &Shape, qkv: &[f32], d_out: &[f32]) -> [Vec<f32>; 5] {
    let size = shape.head_size;
    let row = (shape.heads + 2 * shape.kv_heads) * size;
    let layout = |before: usize| HeadLayout {
        row,
        head: size,
        offset: before * size,
    };
    let layouts = [
        layout(0),
        layout(shape.heads),
        layout(shape.heads + shape.kv_heads),
    ];
    let [q, k, v] = layouts;
    let mut out = vec![0.0; d_out.len()];
    let mut lse = vec![0.0; pack.tokens.len() * shape.heads];
    let mut gradient = vec![0.0; qkv.len()];
    let saved = Saved::copy(tier, qkv);
    attention::forward(
        tier,
        pack,
        Known::NOTHING,
        shape,
        saved.values(),
        q,
        k,
        v,
        &mut out,
        &mut lse,
    );
    let kept = Saved::copy(tier, &out);
    attention::backward(
        tier,
        pack,
        shape,
        saved.values(),
        q,
        k,
        v,
        kept.values(),
        &lse,
        d_out,
        &mut gradient,
    );
    let part = |from, to| part(&gradient, row, from, to);
    let (keys, values) = (layouts[1].offset, layouts[2].offset);
    let (dq, dk, dv) = (part(0, keys), part(keys, values), part(values, row));
    [out, lse, dq, dk, dv]
}

/// One token after a cache, in f32 on both sides.
#[test]
fn a_token_after_a_cache_is_that_of_the_cpu() {
    if upright_emulator::missing().is_some() {
        return;
    }
    let tier = Tier::ALL
        .into_iter()
        .find(|tier| tier.rounds() && tier.available());
    let tier = tier.unwrap_or(Tier::Portable);
    for (length, size, window) in [
        (1, 64, None),
        (130, 80, None),
        (200, 128, Some(70)),
        (77, 24, Some(200)),
    ] {
        let (heads, kv_heads) = (4, 2);
        let shape = Shape {
            heads,
            kv_heads,
            head_size: size,
            window,
            scale: 3.0 / (size as f32).sqrt(),
        };
        let (wide, row) = (heads * size, kv_heads * size);
        let values = numbers(length as u64, length * (wide + 2 * row));
        let values: Vec<f32> = values
            .into_iter()
            .map(|x| bf16::from_f32(x).to_f32())
            .collect();
        let layout = |offset: usize| HeadLayout {
            row: wide + 2 * row,
            head: size,
            offset,
        };
        let saved = Saved::copy(tier, &values);
        let mut cache = attention::Cache::new(tier);
        cache.extend(&shape, saved.values(), [layout(wide), layout(wide + row)]);
        let last = Saved::copy(tier, &values[(length - 1) * (wide + 2 * row)..]);
        let mut want = vec![0.0; wide];
        attention::last_token(&shape, last.values(), layout(0), &cache, &mut want);

        let part = |from: usize, to: usize| -> Buffer<bf16> {
            let rows = part(&values, wide + 2 * row, from, to);
            Buffer::from(rows.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>())
        };
        let (q, k, v) = (
            part(0, wide),
            part(wide, wide + row),
            part(wide + row, wide + 2 * row),
        );
        let last = length as i32 - 1;
        let (tiles, runs) = (
            Buffer::from(vec![last, 1, last, 0, 1]),
            Buffer::from(vec![0i32, 0]),
        );
        let out_row = wide + 8;
        let mut out = Buffer::<bf16>::unwritten(length * out_row);
        let mut args = vec![
            tiles.input(),
            runs.input(),
            q.input(),
            k.input(),
            v.input(),
            out.output(),
        ];
        let window = window.unwrap_or(0);
        let sizes = [wide, size, row, size, out_row, heads, 2, size, window];
        args.extend(sizes.map(|size| Arg::I32(size as i32)));
        args.push(Arg::F32(shape.scale));
        launch(
            instance(size).unwrap().decode,
            [1, heads as u32, 1],
            0,
            &mut args,
        )
        .unwrap();
        let found: Vec<f32> = out[(length - 1) * out_row..][..wide]
            .iter()
            .map(|x| x.to_f32())
            .collect();
        let distance = distance(&found, &want);
        assert!(distance < 3e-3, "{length} {size}: {distance}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn attention_is_that_of_the_cpu(
        spans in prop::collection::vec((0usize..4, 1usize..90), 1..5),
        kv_heads in 1usize..3, group in 1usize..4,
        size in prop::sample::select(vec![8usize, 16, 40, 64, 80, 96, 128]),
        window in prop::option::of(1usize..120), seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let pack = forest(&spans);
        let scale = 3.0 / (size as f32).sqrt();
        let shape = Shape { heads: kv_heads * group, kv_heads, head_size: size, window, scale };
        let rounded = |seed: u64, count: usize| -> Vec<f32> {
            numbers(seed, count).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect()
        };
        let tokens = pack.tokens.len();
        let qkv = rounded(seed, tokens * (shape.heads + 2 * kv_heads) * size);
        let d_out = rounded(!seed, tokens * shape.heads * size);
        let found = cuda(&pack, &shape, &qkv, &d_out, seed);
        for tier in Tier::ALL.into_iter().filter(|tier| tier.available()) {
            let want = cpu(tier, &pack, &shape, &qkv, &d_out);
            for (name, (found, want)) in ["out", "lse", "dq", "dk", "dv"].iter().zip(found.iter().zip(&want)) {
                let distance = distance(found, want);
                // Both round the operands of products to bf16, except for the portable tier.
                let bound = if matches!(*name, "out" | "lse") { 1e-2 } else { 3e-2 };
                prop_assert!(distance < bound, "{} {}: {}", tier, name, distance);
            }
        }
    }
}

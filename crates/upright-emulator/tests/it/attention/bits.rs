//! A row's bits depend on its path alone, and a tree's gradients on the tree alone.

use half::bf16;
use upright_emulator::{Arg, Buffer, launch};
use upright_kernels::attention::{QueryTables, instance};

use super::{Results, Shape, Source, attention, forest, take, untouched};
use crate::{needs_compiler, numbers::rounded};

fn run(
    spans: &[(usize, usize)],
    shape: &Shape,
    qkv: &[bf16],
    d_out: &[bf16],
    seed: u64,
) -> Results {
    let (qkv, d_out) = (Buffer::from(qkv.to_vec()), Buffer::from(d_out.to_vec()));
    attention(&Source::RIGHT, &forest(spans), shape, &qkv, &d_out, seed).unwrap()
}

/// Bits of all results, by rows: those of queries, and those of keys and values.
fn bits(found: &Results, shape: &Shape) -> [Vec<Vec<u32>>; 2] {
    let wide = shape.heads() * shape.size;
    let mut queries = Vec::new();
    for (row, (out, dq)) in found
        .out
        .chunks(wide)
        .zip(found.dq.chunks(wide))
        .enumerate()
    {
        let mut bits: Vec<u32> = out.iter().map(|x| u32::from(x.to_bits())).collect();
        bits.extend(dq.iter().map(|x| x.to_bits()));
        bits.extend(
            found.lse[row * shape.heads()..][..shape.heads()]
                .iter()
                .map(|x| x.to_bits()),
        );
        queries.push(bits);
    }
    let wide = shape.kv_heads * shape.size;
    let mut keys = Vec::new();
    for (dk, dv) in found.dk.chunks(wide).zip(found.dv.chunks(wide)) {
        keys.push(dk.iter().chain(dv).map(|x| x.to_bits()).collect());
    }
    [queries, keys]
}

#[test]
fn bits_depend_on_the_path_alone() {
    needs_compiler!();
    let trees: [&[(usize, usize)]; 3] = [
        &[(0, 130), (1, 70), (2, 41)],
        &[(0, 33)],
        &[(0, 1), (1, 64), (1, 9), (3, 100)],
    ];
    for (size, window) in [(24, None), (24, Some(50)), (64, Some(64)), (80, None)] {
        let shape = Shape {
            kv_heads: 1,
            group: 2,
            size,
            window,
            fused: false,
            gap: 0,
        };
        let wide = shape.heads() * size;
        let mut inputs = Vec::new();
        for (seed, tree) in trees.iter().enumerate() {
            let tokens: usize = tree.iter().map(|span| span.1).sum();
            inputs.push((
                rounded(seed as u64, tokens * shape.row()),
                rounded(9 + seed as u64, tokens * wide),
            ));
        }
        let mut alone = Vec::new();
        for (tree, (qkv, d_out)) in trees.iter().zip(&inputs) {
            alone.push(bits(&run(tree, &shape, qkv, d_out, 0), &shape));
        }
        // Beside other trees, in another order, with another order of warps.
        for (seed, order) in [[0, 1, 2], [2, 1, 0]].into_iter().enumerate() {
            let spans = order.map(|i| trees[i]).concat();
            let qkv = order.map(|i| inputs[i].0.as_slice()).concat();
            let d_out = order.map(|i| inputs[i].1.as_slice()).concat();
            let found = bits(&run(&spans, &shape, &qkv, &d_out, seed as u64 + 1), &shape);
            for part in 0..2 {
                let want = order.map(|i| alone[i][part].as_slice()).concat();
                assert!(
                    found[part] == want,
                    "part {part}, order {order:?}, size {size}, window {window:?}"
                );
            }
        }
        // The path of the first answer as one span.
        let (qkv, d_out) = (
            &inputs[0].0[..200 * shape.row()],
            &inputs[0].1[..200 * wide],
        );
        let [queries, _] = bits(&run(&[(0, 200)], &shape, qkv, d_out, 3), &shape);
        assert!(
            queries == alone[0][0][..200],
            "one span, size {size}, window {window:?}"
        );
        // The second answer after its prompt, without the first one between them.
        let without = |values: &[bf16], row: usize| {
            let mut kept = values[..130 * row].to_vec();
            kept.extend_from_slice(&values[200 * row..]);
            kept
        };
        let (qkv, d_out) = (
            without(&inputs[0].0, shape.row()),
            without(&inputs[0].1, wide),
        );
        let [queries, _] = bits(&run(&[(0, 130), (1, 41)], &shape, &qkv, &d_out, 4), &shape);
        assert!(
            queries[130..] == alone[0][0][200..],
            "an answer alone, size {size}, window {window:?}"
        );
    }
}

/// Queries of which the beginning is known have the bits that a pass over all tokens gives them.
#[test]
fn a_known_beginning_changes_no_bit() {
    needs_compiler!();
    let spans = forest(&[(0, 70), (1, 90), (2, 5), (0, 20)]);
    let known = [70, 13, 0, 19];
    let shape = Shape {
        kv_heads: 1,
        group: 2,
        size: 40,
        window: Some(80),
        fused: false,
        gap: 2,
    };
    let wide = shape.heads() * shape.size;
    let (qkv, d_out) = (rounded(1, 185 * shape.row()), rounded(2, 185 * wide));
    let whole = run(
        &[(0, 70), (1, 90), (2, 5), (0, 20)],
        &shape,
        &qkv,
        &d_out,
        0,
    );
    let qkv = Buffer::from(qkv);
    let (mut queries, mut want) = (Vec::new(), Vec::new());
    for (span, known) in spans.iter().zip(known) {
        for row in span.start + known..span.start + span.len {
            queries.extend_from_slice(&qkv[row * shape.row()..][..wide]);
            want.extend_from_slice(&whole.out[row * wide..][..wide]);
        }
    }
    let tables = QueryTables::new(&spans, &known);
    let ints = |values: &[i32]| Buffer::from(values.to_vec());
    let tiles = ints(bytemuck::cast_slice(&tables.tiles));
    let runs = ints(bytemuck::cast_slice(&tables.runs));
    let queries = Buffer::from(queries);
    let rows = want.len() / wide;
    let mut out = Buffer::<bf16>::unwritten(rows * shape.out_row());
    let mut lse = Buffer::<f32>::unwritten(rows * shape.heads());
    let [_, k, v] = shape.starts();
    let mut args = vec![tiles.input(), runs.input(), queries.input()];
    args.extend([
        qkv.input_from(k),
        qkv.input_from(v),
        out.output(),
        lse.output(),
    ]);
    for number in [
        wide,
        shape.size,
        shape.row(),
        shape.size,
        shape.out_row(),
        shape.heads(),
        2,
        shape.size,
        80,
    ] {
        args.push(Arg::I32(number as i32));
    }
    args.push(Arg::F32(shape.scale()));
    let grid = [tables.tiles.len() as u32, shape.heads() as u32, 1];
    launch(instance(shape.size).unwrap().forward, grid, 1, &mut args).unwrap();
    let found = take(
        &mut out,
        [shape.out_row(), shape.size, 0],
        shape.heads(),
        shape.size,
    );
    assert_eq!(found[..], want[..]);
    untouched("out", &out).unwrap();
}

/// Columns of zeros change no sum: a head of 16 values has the bits of one that is padded to 64, and the padding's own results
/// are zero.
#[test]
fn padding_a_head_changes_no_bit() {
    needs_compiler!();
    let spans = [(0, 70), (1, 30), (2, 9)];
    // The factor of the scores is 3 / sqrt(size): half as large for the padded heads.
    let narrow = Shape {
        kv_heads: 2,
        group: 1,
        size: 16,
        window: None,
        fused: false,
        gap: 0,
    };
    // The gaps change nothing either.
    let wide = Shape {
        size: 64,
        gap: 6,
        ..narrow
    };
    let scale = |values: Vec<bf16>, factor: f32| -> Vec<bf16> {
        values
            .into_iter()
            .map(|x| bf16::from_f32(x.to_f32() * factor))
            .collect()
    };
    let pad = |values: &[bf16]| -> Vec<bf16> {
        let mut padded = Vec::new();
        for head in values.chunks(16) {
            padded.extend_from_slice(head);
            padded.extend([bf16::ZERO; 48]);
        }
        padded
    };
    let (qkv, d_out) = (rounded(1, 109 * narrow.row()), rounded(2, 109 * 2 * 16));
    let found = run(&spans, &narrow, &qkv, &d_out, 0);
    // Twice the queries make up for half the factor.
    let mut doubled = pad(&qkv);
    for row in doubled.chunks_mut(wide.row()) {
        let queries = scale(row[..2 * 64].to_vec(), 2.0);
        row[..2 * 64].copy_from_slice(&queries);
    }
    let padded = run(&spans, &wide, &doubled, &pad(&d_out), 1);
    assert_eq!(found.lse[..], padded.lse[..]);
    for (found, padded) in found.out.chunks(16).zip(padded.out.chunks(64)) {
        assert_eq!(found, &padded[..16]);
        assert!(padded[16..].iter().all(|x| *x == bf16::ZERO));
    }
    for (found, padded) in [(&found.dk, &padded.dk), (&found.dv, &padded.dv)] {
        for (found, padded) in found.chunks(16).zip(padded.chunks(64)) {
            assert_eq!(found, &padded[..16]);
            assert!(padded[16..].iter().all(|x| *x == 0.0));
        }
    }
}

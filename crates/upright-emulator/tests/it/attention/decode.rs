//! Attention of one new token over a cache of keys and values.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_kernels::attention::{Run, Tile, instance};

use super::{
    Shape,
    f64::{self, double},
    forest, take, untouched,
};
use crate::{
    needs_compiler,
    numbers::{distance, rounded},
};

/// Runs one token per sequence. A sequence is a list of (first row, rows) in the cache. `q` has a row of all heads per sequence,
/// `k` and `v` a row of all heads of keys and values per token.
fn decode(
    sequences: &[Vec<(usize, usize)>],
    shape: &Shape,
    [q, k, v]: [&Buffer<bf16>; 3],
    seed: u64,
) -> Buffer<bf16> {
    let (mut tiles, mut runs) = (Vec::new(), Vec::new());
    for (row, sequence) in sequences.iter().enumerate() {
        let (first, mut position) = (runs.len(), 0);
        for (row, rows) in sequence {
            runs.push(Run {
                position,
                row: *row as i32,
            });
            position += *rows as i32;
        }
        tiles.push(Tile {
            row: row as i32,
            count: 1,
            position: position - 1,
            runs: first as i32,
            runs_end: runs.len() as i32,
        });
    }
    let ints = |values: &[i32]| Buffer::from(values.to_vec());
    let (tiles, runs) = (
        ints(bytemuck::cast_slice(&tiles)),
        ints(bytemuck::cast_slice(&runs)),
    );
    let wide = shape.heads() * shape.size;
    let mut out = Buffer::unwritten(sequences.len() * shape.out_row());
    let mut args = vec![
        tiles.input(),
        runs.input(),
        q.input(),
        k.input(),
        v.input(),
        out.output(),
    ];
    let (row, window) = (shape.kv_heads * shape.size, shape.window.unwrap_or(0));
    for number in [
        wide,
        shape.size,
        row,
        shape.size,
        shape.out_row(),
        shape.heads(),
        shape.group,
        shape.size,
        window,
    ] {
        args.push(Arg::I32(number as i32));
    }
    args.push(Arg::F32(shape.scale()));
    let grid = [sequences.len() as u32, shape.heads() as u32, 1];
    launch(instance(shape.size).unwrap().decode, grid, seed, &mut args).unwrap();
    let places = [shape.out_row(), shape.size, 0];
    let found = take(&mut out, places, shape.heads(), shape.size);
    assert_eq!(found.first_unwritten(), None);
    untouched("out", &out).unwrap();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn one_token_is_that_of_f64(
        length in 1usize..300, kv_heads in 1usize..3, group in 1usize..4,
        size in prop::sample::select(vec![8usize, 24, 64, 80, 128, 200, 256]),
        window in prop::option::of(1usize..200), gap in prop::sample::select(vec![0usize, 2, 6]), seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let shape = Shape { kv_heads, group, size, window, fused: false, gap };
        let (wide, row) = (shape.heads() * size, kv_heads * size);
        let qkv = rounded(seed, length * shape.row());
        let part = |from: usize, to: usize| -> Vec<bf16> {
            qkv.chunks(shape.row()).flat_map(|row| row[from..to].to_vec()).collect()
        };
        let q = part(0, wide)[(length - 1) * wide..].to_vec();
        let (k, v) = (part(wide, wide + row), part(wide + row, wide + 2 * row));
        let [q, k, v] = [q, k, v].map(Buffer::from);
        let out = decode(&[vec![(0, length)]], &shape, [&q, &k, &v], seed);
        let zeros = vec![0.0; length * wide];
        let truth = f64::attention(&forest(&[(0, length)]), &shape, &double(&qkv), &zeros);
        let distance = distance(&double(&out), &truth.out[(length - 1) * wide..]);
        prop_assert!(distance < 3e-3, "{}", distance);
    }
}

/// A sequence has the same bits in any part of the cache, in any number of runs, and beside any other sequences.
#[test]
fn bits_of_a_token_depend_on_its_path_alone() {
    needs_compiler!();
    for window in [None, Some(30)] {
        let shape = Shape {
            kv_heads: 2,
            group: 2,
            size: 64,
            window,
            fused: false,
            gap: 2,
        };
        let (wide, row) = (shape.heads() * 64, 2 * 64);
        let (k, v) = (rounded(1, 100 * row), rounded(2, 100 * row));
        let q = rounded(3, wide);
        // The rows of the sequence again, in other places: 60 to 99 first, then 0 to 59.
        let moved = |values: &[bf16]| {
            [
                &values[60 * row..],
                &values[..60 * row],
                &rounded(4, 50 * row)[..],
            ]
            .concat()
        };
        let alone = decode(
            &[vec![(0, 100)]],
            &shape,
            [
                &Buffer::from(q.clone()),
                &Buffer::from(k.clone()),
                &Buffer::from(v.clone()),
            ],
            0,
        );
        let several = [
            vec![(100, 50)],
            vec![(40, 17), (57, 43), (0, 40)],
            vec![(3, 1)],
        ];
        let queries = [rounded(5, wide), q, rounded(6, wide)].concat();
        let [queries, k, v] = [queries, moved(&k), moved(&v)].map(Buffer::from);
        let found = decode(&several, &shape, [&queries, &k, &v], 7);
        assert_eq!(found[wide..2 * wide], alone[..]);
    }
}

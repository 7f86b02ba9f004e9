//! Rows that move: every result has the bits of its definition.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Buffer, Number, launch};

use crate::{
    needs_compiler,
    numbers::{by_columns, ints, numbers, rounded},
};

/// Some rows of `count`, in another order, without repetition.
fn distinct(seed: u64, count: usize) -> Vec<i32> {
    let keys = numbers(seed, count);
    let mut rows: Vec<i32> = (0..count as i32).collect();
    rows.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
    rows.truncate(count.div_ceil(2));
    rows
}

/// Runs `gather_*` or `scatter_*`, from rows of `strides[0]` to `y` with rows of `strides[1]`.
fn moved<T: Number>(
    kernel: &str,
    x: &[T],
    rows: &[i32],
    y: &mut Buffer<T>,
    width: usize,
    strides: [usize; 2],
    seed: u64,
) {
    let (x, list) = (Buffer::from(x.to_vec()), Buffer::from(rows.to_vec()));
    let mut args = vec![x.input(), list.input(), y.output()];
    args.extend(ints([width, strides[0], strides[1]]));
    launch(kernel, by_columns(rows.len(), width), seed, &mut args).unwrap();
}

/// Gathers random rows, and compares with the same in Rust.
fn check_gather<T: Number + PartialEq + std::fmt::Debug>(
    suffix: &str,
    x: &[T],
    width: usize,
    strides: [usize; 2],
    seed: u64,
) {
    let [x_stride, y_stride] = strides;
    let mut rows = distinct(seed, x.len() / x_stride);
    // A row may be gathered twice, and a negative one is zero.
    rows.extend([-1, rows[0]]);
    let mut y = Buffer::unwritten(rows.len() * y_stride);
    let kernel = format!("gather_{suffix}");
    moved(&kernel, x, &rows, &mut y, width, strides, seed);
    for (row, y) in rows.iter().zip(y.chunks_exact(y_stride)) {
        let mut want = vec![T::UNWRITTEN; y_stride];
        match usize::try_from(*row) {
            Ok(row) => want[..width].copy_from_slice(&x[row * x_stride..][..width]),
            Err(_) => want[..width].fill(T::zeroed()),
        }
        assert_bytes(y, &want);
    }
}

/// Scatters rows among twice as many, and compares with the same in Rust.
fn check_scatter(x: &[bf16], width: usize, strides: [usize; 2], seed: u64) {
    let [x_stride, y_stride] = strides;
    let count = 2 * (x.len() / x_stride);
    let rows = distinct(seed, count);
    let mut y = Buffer::unwritten(count * y_stride);
    moved("scatter_bf16", x, &rows, &mut y, width, strides, seed);
    for (row, y) in y.chunks_exact(y_stride).enumerate() {
        let mut want = vec![bf16::UNWRITTEN; y_stride];
        if let Some(from) = rows.iter().position(|other| *other == row as i32) {
            want[..width].copy_from_slice(&x[from * x_stride..][..width]);
        }
        assert_bytes(y, &want);
    }
}

/// Equality in bits: the mark of unwritten memory is NaN.
fn assert_bytes<T: Number + std::fmt::Debug>(found: &[T], want: &[T]) {
    let (found_bytes, want_bytes): (&[u8], &[u8]) =
        (bytemuck::cast_slice(found), bytemuck::cast_slice(want));
    assert!(found_bytes == want_bytes, "{found:?} {want:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gathered_and_scattered_rows_keep_their_bits(
        width in 1usize..2100, rows in 1usize..7, more in 0usize..9, other in 0usize..9, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let strides = [width + more, width + other];
        let (x, narrow) = (numbers(seed, rows * strides[0]), rounded(seed, rows * strides[0]));
        check_gather("f32", &x, width, strides, seed);
        check_gather("bf16", &narrow, width, strides, seed);
        check_scatter(&narrow, width, strides, seed);
    }

    #[test]
    fn embeddings_are_rows_of_the_table(
        width in 1usize..2100, vocabulary in 1usize..9, more in 0usize..20, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let (values, stride) = (rounded(seed, vocabulary * width), width + more);
        let mut ids = distinct(seed, vocabulary);
        ids.push(ids[0]);
        let (table, list) = (Buffer::from(values.clone()), Buffer::from(ids.clone()));
        let mut y = Buffer::<f32>::unwritten(ids.len() * stride);
        let mut args = vec![table.input(), list.input(), y.output()];
        args.extend(ints([width, stride]));
        launch("gather_embeddings", by_columns(ids.len(), stride), seed, &mut args).unwrap();
        for (id, y) in ids.iter().zip(y.chunks_exact(stride)) {
            let mut want = vec![0.0; stride];
            for (want, value) in want.iter_mut().zip(&values[*id as usize * width..][..width]) {
                *want = value.to_f32();
            }
            assert_bytes(y, &want);
        }
    }
}

#[test]
fn two_rows_for_one_place_are_reported() {
    needs_compiler!();
    let (x, rows) = (Buffer::from(vec![bf16::ONE; 16]), Buffer::from(vec![3, 3]));
    let mut y = Buffer::<bf16>::unwritten(32);
    let mut args = vec![x.input(), rows.input(), y.output()];
    args.extend(ints([8, 8, 8]));
    let error = launch("scatter_bf16", [2, 1, 1], 0, &mut args).unwrap_err();
    assert!(error.contains("writes"), "{error}");
}

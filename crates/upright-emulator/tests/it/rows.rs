//! Rows that move: every result has the bits of its definition.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Buffer, Number, launch};

use crate::{
    needs_compiler,
    numbers::{bits, by_columns, ints, numbers, rounded},
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

/// Gathers and scatters random rows, and compares with the same in Rust.
fn check_moves<T: Number + PartialEq + std::fmt::Debug>(
    suffix: &str,
    x: &[T],
    width: usize,
    x_stride: usize,
    y_stride: usize,
    seed: u64,
) {
    let count = x.len() / x_stride;
    let some = distinct(seed, count);
    // A row may be gathered twice, and a negative one is zero.
    let mut asked = some.clone();
    asked.extend([-1, some[0]]);
    let mut y = Buffer::unwritten(asked.len() * y_stride);
    moved(
        &format!("gather_{suffix}"),
        x,
        &asked,
        &mut y,
        width,
        [x_stride, y_stride],
        seed,
    );
    let untouched = vec![T::UNWRITTEN; y_stride - width];
    for (row, y) in asked.iter().zip(y.chunks_exact(y_stride)) {
        let want = match usize::try_from(*row) {
            Ok(row) => x[row * x_stride..][..width].to_vec(),
            Err(_) => vec![T::zeroed(); width],
        };
        assert_bytes(&y[..width], &want);
        assert_bytes(&y[width..], &untouched);
    }
    let scattered = Buffer::from(y[..some.len() * y_stride].to_vec());
    let mut back = Buffer::unwritten(count * x_stride);
    moved(
        &format!("scatter_{suffix}"),
        &scattered,
        &some,
        &mut back,
        width,
        [y_stride, x_stride],
        seed,
    );
    for (row, back) in back.chunks_exact(x_stride).enumerate() {
        let mut want = vec![T::UNWRITTEN; x_stride];
        if some.contains(&(row as i32)) {
            want[..width].copy_from_slice(&x[row * x_stride..][..width]);
        }
        assert_bytes(back, &want);
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
        let (x_stride, y_stride) = (width + more, width + other);
        check_moves("f32", &numbers(seed, rows * x_stride), width, x_stride, y_stride, seed);
        check_moves("bf16", &rounded(seed, rows * x_stride), width, x_stride, y_stride, seed);
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

    #[test]
    fn conversions_and_sums_have_the_bits_of_their_definitions(
        width in 1usize..2100, rows in 1usize..4, padding in 0usize..9, more in 0usize..9, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let (padded, x_stride) = (width + padding, width + more);
        let (y_stride, grid) = (padded + more, by_columns(rows, padded));
        let values = numbers(seed, rows * x_stride);
        let x = Buffer::from(values.clone());
        let mut y = Buffer::<bf16>::unwritten(rows * y_stride);
        let mut args = vec![x.input(), y.output()];
        args.extend(ints([width, x_stride, padded, y_stride]));
        launch("round_rows", grid, seed, &mut args).unwrap();
        let mut wide = Buffer::<f32>::unwritten(rows * x_stride);
        let mut args = vec![y.input(), wide.output()];
        args.extend(ints([width, y_stride, x_stride]));
        launch("widen_rows", by_columns(rows, width), seed, &mut args).unwrap();
        let mut sum = Buffer::from(numbers(!seed, rows * x_stride));
        let before = sum.clone();
        let mut args = vec![x.input(), sum.output()];
        args.extend(ints([width, x_stride, x_stride]));
        launch("add_rows", by_columns(rows, width), seed, &mut args).unwrap();
        for row in 0..rows {
            let mut want = vec![bf16::UNWRITTEN; y_stride];
            want[..padded].fill(bf16::ZERO);
            let (mut want_wide, mut want_sum) = (vec![f32::UNWRITTEN; x_stride], vec![0.0; x_stride]);
            let at = row * x_stride..(row + 1) * x_stride;
            want_sum.copy_from_slice(&before[at.clone()]);
            for column in 0..width {
                let value = values[at.start + column];
                want[column] = bf16::from_f32(value);
                want_wide[column] = want[column].to_f32();
                want_sum[column] += value;
            }
            assert_bytes(&y[row * y_stride..][..y_stride], &want);
            assert_bytes(&wide[at.clone()], &want_wide);
            assert_bytes(&sum[at], &want_sum);
        }
    }
}

#[test]
fn rounding_is_to_nearest_even_also_for_unusual_numbers() {
    needs_compiler!();
    let mut values = vec![0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, -1e-45, 1e-40];
    for bits in [
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_7fff,
        0x3f80_8001,
        0x007f_ffff,
    ] {
        values.push(f32::from_bits(bits));
    }
    for i in 0..4000u32 {
        let value = f32::from_bits(i.wrapping_mul(1_073_807_359));
        if !value.is_nan() {
            values.push(value);
        }
    }
    let (x, width) = (Buffer::from(values.clone()), values.len());
    let mut y = Buffer::<bf16>::unwritten(width);
    let mut args = vec![x.input(), y.output()];
    args.extend(ints([width; 4]));
    launch("round_rows", by_columns(1, width), 0, &mut args).unwrap();
    let want: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
    assert_eq!(bits(&y), bits(&want));
}

#[test]
fn two_rows_for_one_place_are_reported() {
    needs_compiler!();
    let (x, rows) = (Buffer::from(vec![1.0f32; 16]), Buffer::from(vec![3, 3]));
    let mut y = Buffer::<f32>::unwritten(32);
    let mut args = vec![x.input(), rows.input(), y.output()];
    args.extend(ints([8, 8, 8]));
    let error = launch("scatter_f32", [2, 1, 1], 0, &mut args).unwrap_err();
    assert!(error.contains("writes"), "{error}");
}

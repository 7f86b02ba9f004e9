//! Thin products of LoRA against f64.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};

use crate::{
    needs_compiler,
    numbers::{distance, numbers, rounded},
};

fn up(n: usize, unit: usize) -> usize {
    n.next_multiple_of(unit)
}

fn sizes(sizes: &[usize]) -> Vec<Arg<'static>> {
    sizes.iter().map(|size| Arg::I32(*size as i32)).collect()
}

/// Rows `[x, u]`: `width` random columns, then columns for u from the next multiple of 8 on. What lies between is NaN.
struct Wide {
    values: Buffer<bf16>,
    tokens: usize,
    width: usize,
    stride: usize,
}

impl Wide {
    fn new(tokens: usize, width: usize, more: usize, seed: u64) -> Self {
        let stride = up(up(width, 8) + more, 8);
        let mut values = vec![bf16::NAN; tokens * stride];
        for (row, x) in values
            .chunks_mut(stride)
            .zip(rounded(seed, tokens * width).chunks(width))
        {
            row[..width].copy_from_slice(x);
        }
        Self {
            values: Buffer::from(values),
            tokens,
            width,
            stride,
        }
    }

    /// First column of u.
    fn u(&self) -> usize {
        up(self.width, 8)
    }

    fn get(&self, token: usize, column: usize) -> f64 {
        f64::from(self.values[token * self.stride + column].to_f32())
    }
}

/// The kernel's suffix for a rank, and the ranks of a block.
fn tile(rank: usize) -> usize {
    match rank {
        ..=16 => 16,
        17..=32 => 32,
        _ => 64,
    }
}

/// Writes u = scale x aᵀ into the columns after x, for a `[rank, stride]`, and zeros up to `padded` columns.
fn multiply(x: &mut Wide, a: &[bf16], rank: usize, padded: usize, scale: f32, seed: u64) {
    let a_stride = a.len() / rank;
    let a = Buffer::from(a.to_vec());
    let tile = tile(rank);
    let grid = [
        x.tokens.div_ceil(32) as u32,
        padded.div_ceil(tile) as u32,
        1,
    ];
    let numbers = sizes(&[x.tokens, x.width, x.stride, 0, x.u(), rank, padded]);
    let mut args = vec![x.values.output(), a.input()];
    args.extend(numbers);
    args.extend([Arg::U64(0), Arg::I32(a_stride as i32), Arg::F32(scale)]);
    launch(&format!("thin_product_{tile}"), grid, seed, &mut args).unwrap();
}

/// A gradient `[rank, columns]` or `[columns, rank]`, whose values from `first` on lie at `start`: it grows by the sum of x d over
/// tokens.
fn add_gradient(
    [x, d]: [(&Wide, usize); 2],
    [columns, rank]: [usize; 2],
    by_rank: bool,
    (gradient, start): (&mut Buffer<f32>, usize),
    first: usize,
    seed: u64,
) {
    let tile = tile(rank);
    let parts = x.0.tokens.div_ceil(1024);
    let mut partials = Buffer::<f32>::unwritten(parts * columns * rank);
    let mut args = vec![x.0.values.input(), d.0.values.input(), partials.output()];
    args.extend(sizes(&[x.0.tokens, columns, x.1, x.0.stride]));
    args.extend(sizes(&[rank, d.1, d.0.stride, usize::from(by_rank)]));
    let grid = [columns.div_ceil(64), rank.div_ceil(tile), parts].map(|size| size as u32);
    launch(&format!("thin_gradient_{tile}"), grid, seed, &mut args).unwrap();
    assert_eq!(partials.first_unwritten(), None);
    let stride = columns * rank;
    let count = stride - first;
    let partials = Buffer::from(partials[first..].to_vec());
    let mut args = vec![partials.input(), gradient.output()];
    args.extend([start, count, stride].map(|size| Arg::U64(size as u64)));
    args.push(Arg::I32(parts as i32));
    let grid = [count.div_ceil(256) as u32, 1, 1];
    launch("thin_gradient_add", grid, seed, &mut args).unwrap();
}

/// Copies parameters `[rows, columns]` from `start` on to a place in a matrix of bf16.
fn copy(
    (parameters, start): (&[f32], usize),
    [rows, columns]: [usize; 2],
    (to, to_start, stride): (&mut Buffer<bf16>, usize, usize),
    transposed: bool,
    seed: u64,
) {
    let parameters = Buffer::from(parameters.to_vec());
    let mut args = vec![parameters.input(), to.output(), Arg::U64(start as u64)];
    args.extend(sizes(&[rows, columns]));
    args.extend([Arg::U64(to_start as u64), Arg::I32(stride as i32)]);
    let (name, grid) = if transposed {
        (
            "thin_copy_transposed",
            [rows.div_ceil(32), columns.div_ceil(32), 1],
        )
    } else {
        ("thin_copy", [(rows * columns).div_ceil(256), 1, 1])
    };
    launch(name, grid.map(|size| size as u32), seed, &mut args).unwrap();
}

fn ranks() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..17, 17usize..65, 65usize..150]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_product_is_that_of_f64(
        tokens in 1usize..80, width in 1usize..600, rank in ranks(), more in 0usize..9, scale in 0.1f32..4.0, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let padded = rank + more;
        let mut x = Wide::new(tokens, width, padded, seed);
        // The columns of a after the last one do not count.
        let a_stride = up(width, 8) + 8;
        let mut a = rounded(!seed, rank * a_stride);
        a.chunks_mut(a_stride).for_each(|row| row[width..].fill(bf16::NAN));
        multiply(&mut x, &a, rank, padded, scale, seed);
        for token in 0..tokens {
            for r in 0..padded {
                let found = x.get(token, x.u() + r);
                let (mut want, mut size) = (0.0, 0.0);
                for k in (0..width).filter(|_| r < rank) {
                    let part = x.get(token, k) * f64::from(a[r * a_stride + k].to_f32()) * f64::from(scale);
                    want += part;
                    size += part.abs();
                }
                // Half a unit in the last place of bf16, and additions in f32.
                let bound = want.abs() / 256.0 + size * 2e-6;
                prop_assert!((found - want).abs() <= bound, "{} {} at {} {}", found, want, token, r);
            }
        }
    }

    #[test]
    fn a_gradient_is_that_of_f64(
        tokens in prop_oneof![1usize..200, 1000usize..1100], columns in 1usize..150, rank in ranks(),
        by_rank: bool, skipped in 0.0f64..0.8, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        // Long sums of small gradients.
        let (columns, rank) = if tokens > 200 { (columns.min(70), rank.min(20)) } else { (columns, rank) };
        let (x, d) = (Wide::new(tokens, columns + 8, 0, seed), Wide::new(tokens, rank + 16, 0, !seed));
        let first = (skipped * (columns * rank) as f64) as usize;
        let (start, count) = (5, columns * rank - first);
        let before = numbers(seed ^ 3, start + count + 3);
        let mut gradient = Buffer::from(before.clone());
        add_gradient([(&x, 8), (&d, 16)], [columns, rank], by_rank, (&mut gradient, start), first, seed);
        for column in 0..columns {
            for r in 0..rank {
                let index = if by_rank { r * columns + column } else { column * rank + r };
                if index < first {
                    continue;
                }
                let place = start + index - first;
                let (mut want, mut size) = (f64::from(before[place]), 1.0);
                for token in 0..tokens {
                    let part = x.get(token, 8 + column) * d.get(token, 16 + r);
                    want += part;
                    size += part.abs();
                }
                // Additions in f32.
                prop_assert!((f64::from(gradient[place]) - want).abs() <= size * 2e-6);
            }
        }
        prop_assert_eq!(&gradient[..start], &before[..start]);
        prop_assert_eq!(&gradient[start + count..], &before[start + count..]);
    }

    #[test]
    fn copies_are_rounded_and_stay_in_their_place(
        rows in 1usize..100, columns in 1usize..100, gap in 0usize..40, start in 0usize..9, transposed: bool, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let parameters = numbers(seed, start + rows * columns);
        let (long, short) = if transposed { (columns, rows) } else { (rows, columns) };
        let stride = short + gap;
        let mut to = Buffer::<bf16>::unwritten(7 + long * stride);
        copy((&parameters, start), [rows, columns], (&mut to, 7, stride), transposed, seed);
        for (place, found) in to.iter().enumerate() {
            let at = (place.wrapping_sub(7) / stride, place.wrapping_sub(7) % stride);
            let (row, column) = if transposed { (at.1, at.0) } else { at };
            let want = if place < 7 || row >= rows || column >= columns {
                0x7fde
            } else {
                bf16::from_f32(parameters[start + row * columns + column]).to_bits()
            };
            prop_assert_eq!(found.to_bits(), want);
        }
    }
}

#[test]
fn bits_of_a_token_depend_on_the_token_alone() {
    needs_compiler!();
    let (tokens, width, rank) = (70, 333, 20);
    let a = rounded(4, rank * 336);
    let mut together = Wide::new(tokens, width, rank, 5);
    let start = together.values.clone();
    multiply(&mut together, &a, rank, rank, 0.5, 0);
    let stride = together.stride;
    for token in [0, 15, 31, 32, 47, 69] {
        let mut alone = Wide::new(1, width, rank, 5);
        let row = token * stride..(token + 1) * stride;
        alone.values.copy_from_slice(&start[row.clone()]);
        multiply(&mut alone, &a, rank, rank, 0.5, token as u64);
        for (found, want) in alone.values.iter().zip(&together.values[row]) {
            assert_eq!(found.to_bits(), want.to_bits());
        }
    }
}

/// loss = sum of dy * s (x Aᵀ) Bᵀ. Parameters are copied to bf16, u and du are written beside x and
/// dy, and the gradients of A and B are the loss's central differences in f64.
#[test]
fn gradients_of_a_pair_are_the_derivatives() {
    needs_compiler!();
    for (tokens, inputs, outputs, rank, seed) in
        [(9, 12, 20, 3, 1), (40, 24, 7, 16, 2), (33, 5, 9, 40, 3)]
    {
        let scale = 1.5;
        let mut parameters = numbers(seed, rank * (inputs + outputs));
        // bf16 holds the parameters exactly, so that the differences are those of the same function.
        parameters
            .iter_mut()
            .for_each(|value| *value = bf16::from_f32(*value).to_f32());
        let b_start = rank * inputs;
        let (a_stride, b_stride) = (up(inputs, 8), up(outputs, 8));
        let mut a = Buffer::from(vec![bf16::ZERO; rank * a_stride]);
        copy(
            (&parameters, 0),
            [rank, inputs],
            (&mut a, 0, a_stride),
            false,
            seed,
        );
        let mut b = Buffer::from(vec![bf16::ZERO; rank * b_stride]);
        copy(
            (&parameters, b_start),
            [outputs, rank],
            (&mut b, 0, b_stride),
            true,
            seed,
        );
        let (mut x, mut dy) = (
            Wide::new(tokens, inputs, rank, seed + 10),
            Wide::new(tokens, outputs, rank, seed + 20),
        );
        multiply(&mut x, &a, rank, rank, scale, seed);
        multiply(&mut dy, &b, rank, rank, scale, seed);
        let mut gradient = Buffer::from(vec![0.0f32; parameters.len()]);
        let (u, du) = (x.u(), dy.u());
        add_gradient(
            [(&x, 0), (&dy, du)],
            [inputs, rank],
            true,
            (&mut gradient, 0),
            0,
            seed,
        );
        add_gradient(
            [(&dy, 0), (&x, u)],
            [outputs, rank],
            false,
            (&mut gradient, b_start),
            0,
            seed,
        );

        let loss = |parameters: &[f64]| {
            let mut loss = 0.0;
            for token in 0..tokens {
                for r in 0..rank {
                    let mut u = 0.0;
                    for k in 0..inputs {
                        u += x.get(token, k) * parameters[r * inputs + k];
                    }
                    for n in 0..outputs {
                        let b = parameters[b_start + n * rank + r];
                        loss += dy.get(token, n) * f64::from(scale) * u * b;
                    }
                }
            }
            loss
        };
        let mut values: Vec<f64> = parameters.iter().map(|value| f64::from(*value)).collect();
        let mut want = Vec::new();
        for index in 0..values.len() {
            let value = values[index];
            values[index] = value + 0.5;
            let above = loss(&values);
            values[index] = value - 0.5;
            // The loss is linear in each parameter, so the difference is exact.
            want.push(above - loss(&values));
            values[index] = value;
        }
        let found: Vec<f64> = gradient.iter().map(|value| f64::from(*value)).collect();
        // u and du are rounded to bf16, by at most 1 / 256 each, and errors of tokens cancel.
        let wrong = distance(&found, &want);
        assert!(wrong < 1.0 / 400.0, "{wrong}");
    }
}

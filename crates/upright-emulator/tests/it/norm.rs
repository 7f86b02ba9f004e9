//! Norms against their definition in f64, and their gradients against finite differences.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, Number, launch};

use crate::{
    needs_compiler,
    numbers::{bits, ints, numbers},
};

/// A norm and its rows: `width` values, `stride` apart in f32 and `y_stride` apart in bf16.
#[derive(Clone, Debug)]
struct Norm {
    is_layer: bool,
    scale: Vec<f32>,
    bias: Vec<f32>,
    stride: usize,
    padded: usize,
    y_stride: usize,
    eps: f32,
    seed: u64,
}

impl Norm {
    fn width(&self) -> usize {
        self.scale.len()
    }

    fn name(&self, rest: &str) -> String {
        format!(
            "{}_{rest}",
            if self.is_layer {
                "layer_norm"
            } else {
                "rms_norm"
            }
        )
    }

    fn run(&self, rest: &str, rows: usize, mut args: Vec<Arg<'_>>) {
        args.extend(ints([
            self.width(),
            self.stride,
            self.padded,
            self.y_stride,
        ]));
        args.push(Arg::F32(self.eps));
        launch(&self.name(rest), [rows as u32, 1, 1], self.seed, &mut args).unwrap();
    }

    fn forward(&self, x: &[f32]) -> Buffer<bf16> {
        let rows = x.len() / self.stride;
        let (x, scale, bias) = (buffer(x), buffer(&self.scale), buffer(&self.bias));
        let mut y = Buffer::unwritten(rows * self.y_stride);
        let mut args = vec![x.input(), scale.input()];
        if self.is_layer {
            args.push(bias.input());
        }
        args.push(y.output());
        self.run("forward", rows, args);
        y
    }

    /// Adds the gradient to `dx`, and returns it in f32 and in bf16.
    fn backward(&self, x: &[f32], dy: &[f32], dx: &[f32]) -> (Buffer<f32>, Buffer<bf16>) {
        let rows = x.len() / self.stride;
        let (x, dy, scale) = (buffer(x), buffer(dy), buffer(&self.scale));
        let mut dx = buffer(dx);
        let mut rounded = Buffer::unwritten(rows * self.y_stride);
        let args = vec![
            x.input(),
            scale.input(),
            dy.input(),
            dx.output(),
            rounded.output(),
        ];
        self.run("backward", rows, args);
        (dx, rounded)
    }

    /// Mean and reciprocal deviation of a row in f64.
    fn statistics(&self, x: &[f64]) -> (f64, f64) {
        let width = x.len() as f64;
        let mean = if self.is_layer {
            x.iter().sum::<f64>() / width
        } else {
            0.0
        };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width;
        (mean, 1.0 / (variance + f64::from(self.eps)).sqrt())
    }

    /// The norm of a row in f64.
    fn oracle(&self, x: &[f64]) -> Vec<f64> {
        let (mean, factor) = self.statistics(x);
        let mut y = Vec::with_capacity(x.len());
        for (column, x) in x.iter().enumerate() {
            let bias = if self.is_layer {
                f64::from(self.bias[column])
            } else {
                0.0
            };
            y.push((x - mean) * factor * f64::from(self.scale[column]) + bias);
        }
        y
    }

    /// The gradient of `sum(dy y)` of a row in f64.
    fn gradient(&self, x: &[f64], dy: &[f64]) -> Vec<f64> {
        let (mean, factor) = self.statistics(x);
        let width = x.len() as f64;
        let mut slopes = Vec::with_capacity(x.len());
        for (dy, scale) in dy.iter().zip(&self.scale) {
            slopes.push(dy * f64::from(*scale));
        }
        let shift = if self.is_layer {
            slopes.iter().sum::<f64>() / width
        } else {
            0.0
        };
        let mut along = 0.0;
        for (slope, x) in slopes.iter().zip(x) {
            along += slope * (x - mean) * factor / width;
        }
        let pairs = slopes.iter().zip(x);
        pairs
            .map(|(slope, x)| factor * (slope - shift - (x - mean) * factor * along))
            .collect()
    }
}

fn buffer(values: &[f32]) -> Buffer<f32> {
    Buffer::from(values.to_vec())
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

fn largest(values: &[f64]) -> f64 {
    values
        .iter()
        .fold(0.0, |largest, x| f64::max(largest, x.abs()))
}

fn norms() -> impl Strategy<Value = Norm> {
    let sizes = (1usize..1300, 0usize..9, 0usize..20, 0usize..9);
    let eps = prop::sample::select(vec![1e-5f32, 1e-3, 0.5]);
    (any::<bool>(), sizes, eps, any::<u64>()).prop_map(|(is_layer, sizes, eps, seed)| {
        let (width, more, padding, y_more) = sizes;
        Norm {
            is_layer,
            scale: numbers(seed ^ 1, width),
            bias: numbers(seed ^ 2, width),
            stride: width + more,
            padded: width + padding,
            y_stride: width + padding + y_more,
            eps,
            seed,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn norms_are_those_of_f64(norm in norms(), rows in 1usize..4) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let (width, stride) = (norm.width(), norm.stride);
        let x = numbers(norm.seed, rows * stride);
        let y = norm.forward(&x);
        for row in 0..rows {
            let x = wide(&x[row * stride..][..width]);
            let (_, factor) = norm.statistics(&x);
            let y = &y[row * norm.y_stride..][..norm.y_stride];
            for (column, want) in norm.oracle(&x).into_iter().enumerate() {
                // A unit in the last place of bf16, and the error of sums in f32 relative to the largest number.
                let error = 4e-6 * (factor * f64::from(norm.scale[column].abs()) + 1.0);
                let found = f64::from(y[column].to_f32());
                prop_assert!((found - want).abs() <= want.abs() / 256.0 + error, "{} {}", found, want);
            }
            prop_assert!(y[width..norm.padded].iter().all(|y| y.to_bits() == 0));
            prop_assert!(y[norm.padded..].iter().all(|y| y.to_bits() == bf16::UNWRITTEN.to_bits()));
        }
    }

    #[test]
    fn gradients_are_those_of_f64_and_of_finite_differences(norm in norms(), rows in 1usize..4) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let (width, stride, seed) = (norm.width(), norm.stride, norm.seed);
        let [x, dy, before] = [seed, !seed, seed ^ 4].map(|seed| numbers(seed, rows * stride));
        let (dx, rounded) = norm.backward(&x, &dy, &before);
        for row in 0..rows {
            let at = row * stride..row * stride + width;
            let (x, dy) = (wide(&x[at.clone()]), wide(&dy[at.clone()]));
            let (mean, factor) = norm.statistics(&x);
            let gradient = norm.gradient(&x, &dy);
            // Errors of f32 relative to the largest summand.
            let off: Vec<f64> = x.iter().map(|x| (x - mean) * factor).collect();
            let bound = 4e-6 * factor * (1.0 + largest(&off)) * (1.0 + factor) + 1e-6;
            for column in 0..width {
                let found = f64::from(dx[at.start + column]) - f64::from(before[at.start + column]);
                prop_assert!((found - gradient[column]).abs() <= bound, "{} {} {}", found, gradient[column], bound);
            }
            // Every column of narrow rows, some of wide ones.
            for column in (0..width).step_by(width.div_ceil(12)) {
                let step = 1e-4 / factor;
                let loss = |step: f64| {
                    let mut moved = x.clone();
                    moved[column] += step;
                    norm.oracle(&moved).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
                };
                let slope = (loss(step) - loss(-step)) / (2.0 * step);
                prop_assert!((slope - gradient[column]).abs() <= 1e-6 * factor * width as f64);
            }
            let rounded = &rounded[row * norm.y_stride..][..norm.y_stride];
            let mut want = vec![bf16::UNWRITTEN; norm.y_stride];
            want[..norm.padded].fill(bf16::ZERO);
            for (want, dx) in want.iter_mut().zip(&dx[at]) {
                *want = bf16::from_f32(*dx);
            }
            prop_assert_eq!(bits(rounded), bits(&want));
        }
        // Padding is nobody's.
        for (row, dx) in dx.chunks_exact(stride).enumerate() {
            prop_assert_eq!(&dx[width..], &before[row * stride + width..(row + 1) * stride]);
        }
    }
}

/// A norm of rows without padding.
fn plain(is_layer: bool, width: usize, seed: u64) -> Norm {
    Norm {
        is_layer,
        scale: numbers(2, width),
        bias: numbers(3, width),
        stride: width,
        padded: width,
        y_stride: width,
        eps: 1e-5,
        seed,
    }
}

#[test]
fn bits_of_a_row_depend_on_the_row_alone() {
    needs_compiler!();
    // Rows of the second width begin at places from which 16 bytes can be read and at others.
    for (is_layer, width) in [(false, 304), (true, 300), (false, 1301), (true, 1301)] {
        let rows = 5;
        let (x, dy) = (numbers(1, rows * width), numbers(4, rows * width));
        let together = plain(is_layer, width, 0);
        let y = together.forward(&x);
        let (dx, _) = together.backward(&x, &dy, &x);
        for row in 0..rows {
            let at = row * width..(row + 1) * width;
            let alone = plain(is_layer, width, row as u64);
            let x = &x[at.clone()];
            assert_eq!(bits(&alone.forward(x)), bits(&y[at.clone()]));
            assert_eq!(alone.backward(x, &dy[at.clone()], x).0[..], dx[at]);
        }
    }
}

#[test]
fn a_row_that_overflows_becomes_nan_but_not_its_padding() {
    needs_compiler!();
    let x = [1e30, -1e30, 1e30, -1e30, 1e30, -1e30, 1e30, -1e30];
    for is_layer in [false, true] {
        let mut norm = plain(is_layer, 8, 0);
        (norm.padded, norm.y_stride) = (19, 19);
        let y = norm.forward(&x);
        assert!(y[..8].iter().all(|y| y.is_nan()));
        assert!(y[8..].iter().all(|y| y.to_bits() == 0));
    }
}

#[test]
fn the_copy_in_bf16_can_be_left_out() {
    needs_compiler!();
    let mut norm = plain(true, 21, 0);
    let (x, dy) = (numbers(1, 42), numbers(4, 42));
    let (dx, _) = norm.backward(&x, &dy, &x);
    norm.padded = 0;
    let (same, rounded) = norm.backward(&x, &dy, &x);
    assert_eq!(same[..], dx[..]);
    assert!(
        rounded
            .iter()
            .all(|y| y.to_bits() == bf16::UNWRITTEN.to_bits())
    );
}

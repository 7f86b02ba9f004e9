//! Norms against their definition in f64.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};

use crate::{needs_compiler, numbers::numbers};

/// Runs the norm over rows of `width` values, into rows of `padded` values.
fn rms_norm(x: &[f32], scale: &[f32], padded: usize, eps: f32, seed: u64) -> Buffer<bf16> {
    let width = scale.len();
    let rows = x.len() / width;
    let (x, scale) = (Buffer::from(x.to_vec()), Buffer::from(scale.to_vec()));
    let mut y = Buffer::unwritten(rows * padded);
    let sizes = [width, padded, padded].map(|size| Arg::I32(size as i32));
    let mut args = vec![x.input(), scale.input(), y.output()];
    args.extend(sizes);
    args.push(Arg::F32(eps));
    launch("rms_norm_forward", [rows as u32, 1, 1], seed, &mut args).unwrap();
    assert_eq!(y.first_unwritten(), None);
    y
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rms_norm_is_that_of_f64(
        width in 1usize..1100, rows in 1usize..5, more in 0usize..20, seed: u64,
        eps in prop::sample::select(vec![1e-6f32, 1e-5, 0.5]),
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let (x, scale) = (numbers(seed, rows * width), numbers(!seed, width));
        let padded = width + more;
        let y = rms_norm(&x, &scale, padded, eps, seed);
        for row in 0..rows {
            let x = &x[row * width..][..width];
            let mean_square = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            let factor = 1.0 / (mean_square + f64::from(eps)).sqrt();
            let y = &y[row * padded..][..padded];
            for column in 0..width {
                let want = f64::from(x[column]) * factor * f64::from(scale[column]);
                // Half a unit in the last place of bf16, and f32's own error.
                let bound = want.abs() * (1.0 / 256.0 + 1e-5) + 1e-30;
                prop_assert!((f64::from(y[column].to_f32()) - want).abs() <= bound);
            }
            prop_assert!(y[width..].iter().all(|y| y.to_bits() == 0));
        }
    }
}

#[test]
fn bits_of_a_row_depend_on_the_row_alone() {
    needs_compiler!();
    let (width, rows) = (300, 7);
    let (x, scale) = (numbers(1, rows * width), numbers(2, width));
    let together = rms_norm(&x, &scale, width, 1e-5, 0);
    for row in 0..rows {
        let at = row * width..(row + 1) * width;
        let alone = rms_norm(&x[at.clone()], &scale, width, 1e-5, row as u64);
        assert_eq!(alone[..], together[at]);
    }
}

#[test]
fn a_row_that_overflows_becomes_nan() {
    needs_compiler!();
    let y = rms_norm(&[1e30; 8], &[1.0; 8], 8, 1e-5, 0);
    assert!(y.iter().all(|y| y.is_nan()));
}

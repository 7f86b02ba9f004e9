use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Buffer, launch};
use upright_model::config::Activation;

use super::{by_columns, ints, numbers, round};
use crate::cpu::kernels::{activation, gemm::Values, vector_width};

fn kernel(kind: Activation, rest: &str) -> String {
    match kind {
        Activation::SwiGlu => format!("swiglu_{rest}"),
        Activation::Gelu => format!("gelu_{rest}"),
        Activation::GeluTanh => format!("gelu_tanh_{rest}"),
    }
}

/// Asserts that two results are equal: in bits where the CPU fuses products and sums as the kernels do, else to a unit in the last
/// place of bf16. The CPU rounds subnormal numbers to zero.
fn assert_same(found: &[bf16], want: &[f32]) {
    for (found, (exact, want)) in found.iter().zip(want.iter().zip(round(want))) {
        let is_close = if vector_width() > 4 {
            let is_subnormal = found.to_f32().abs() < f32::MIN_POSITIVE;
            found.to_bits() == want.to_bits() || (is_subnormal && want.to_f32() == 0.0)
        } else {
            (found.to_f32() - exact).abs() <= exact.abs() / 128.0 + 1e-6
        };
        assert!(is_close, "{found} {want} {exact}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn activations_are_those_of_the_cpu(
        kind in prop::sample::select(vec![Activation::SwiGlu, Activation::Gelu, Activation::GeluTanh]),
        width in 1usize..2100, rows in 1usize..3, largest in prop::sample::select(vec![1.0f32, 8.0, 30.0]), seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let wide = if kind == Activation::SwiGlu { 2 * width } else { width };
        let mut inner = numbers(seed, rows * wide);
        inner.iter_mut().for_each(|x| *x *= largest);
        let (inner, d_h) = (round(&inner), round(&numbers(!seed, rows * width)));
        let (mut want, mut want_d) = (vec![0.0; d_h.len()], vec![0.0; inner.len()]);
        for row in 0..rows {
            let (narrow, at) = (row * width..(row + 1) * width, row * wide..(row + 1) * wide);
            activation::forward(kind, Values::Bf16(&inner[at.clone()]), &mut want[narrow.clone()]);
            let d = &mut want_d[at.clone()];
            for (d, d_h) in d[wide - width..].iter_mut().zip(&d_h[narrow]) {
                *d = d_h.to_f32();
            }
            activation::backward(kind, Values::Bf16(&inner[at]), d);
        }

        let (inner, d_h) = (Buffer::from(inner), Buffer::from(d_h));
        let grid = by_columns(rows, width);
        let mut h = Buffer::<bf16>::unwritten(want.len());
        let mut args = vec![inner.input(), h.output()];
        args.extend(ints([width; 3]));
        launch(&kernel(kind, "forward"), grid, seed, &mut args).unwrap();
        assert_same(&h, &want);
        let mut d = Buffer::<bf16>::unwritten(inner.len());
        let mut args = vec![inner.input(), d_h.input(), d.output()];
        args.extend(ints([width, wide]));
        launch(&kernel(kind, "backward"), grid, seed, &mut args).unwrap();
        assert_same(&d, &want_d);
    }
}

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_model::{config::NormKind, weights::NormWeights};

use super::{bits, ints, numbers, round};
use crate::cpu::kernels::norm::Norm;

fn kernel(kind: NormKind, rest: &str) -> String {
    match kind {
        NormKind::Layer => format!("layer_norm_{rest}"),
        NormKind::Rms => format!("rms_norm_{rest}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn norms_are_those_of_the_cpu(
        kind in prop::sample::select(vec![NormKind::Layer, NormKind::Rms]),
        width in 1usize..1300, rows in 1usize..4, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let [x, dy, before] = [seed, !seed, seed ^ 1].map(|seed| numbers(seed, rows * width));
        let [scale, bias] = [seed ^ 2, seed ^ 3].map(|seed| numbers(seed, width));
        let is_layer = kind == NormKind::Layer;
        let weights = NormWeights { scale: scale.clone(), bias: is_layer.then(|| bias.clone()) };
        let norm = Norm { kind, eps: 1e-3, weights: &weights };
        let (mut want, mut want_dx) = (vec![0.0; x.len()], before.clone());
        norm.forward(&x, &mut want);
        norm.backward(&x, &dy, &mut want_dx);

        let [x, dy, scale, bias] = [x, dy, scale, bias].map(Buffer::from);
        let mut y = Buffer::<bf16>::unwritten(x.len());
        let mut args = vec![x.input(), scale.input()];
        if is_layer {
            args.push(bias.input());
        }
        args.push(y.output());
        args.extend(ints([width; 4]));
        args.push(Arg::F32(1e-3));
        launch(&kernel(kind, "forward"), [rows as u32, 1, 1], seed, &mut args).unwrap();
        for (found, want) in y.iter().zip(&want) {
            // A unit in the last place of bf16, and the order of sums relative to the largest number: at most 1 / sqrt(eps).
            let bound = want.abs() / 256.0 + 4e-5;
            prop_assert!((found.to_f32() - want).abs() <= bound, "{} {}", found, want);
        }

        let (mut dx, mut rounded) = (Buffer::from(before), Buffer::<bf16>::unwritten(x.len()));
        let mut args = vec![x.input(), scale.input(), dy.input(), dx.output(), rounded.output()];
        args.extend(ints([width; 4]));
        args.push(Arg::F32(1e-3));
        launch(&kernel(kind, "backward"), [rows as u32, 1, 1], seed, &mut args).unwrap();
        // Factors are at most 1 / sqrt(eps), and narrow rows come near.
        let bound = if width < 32 { 1e-3 } else { 2e-5 };
        for (found, want) in dx.iter().zip(&want_dx) {
            prop_assert!((found - want).abs() <= bound, "{} {}", found, want);
        }
        prop_assert_eq!(bits(&rounded), bits(&round(&dx)));
    }
}

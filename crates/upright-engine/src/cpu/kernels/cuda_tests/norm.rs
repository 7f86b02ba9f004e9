use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_model::{config::NormKind, weights::NormWeights};

use super::numbers;
use crate::cpu::kernels::norm::Norm;

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rms_norm_is_that_of_the_cpu(width in 1usize..700, rows in 1usize..4, seed: u64) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let (x, scale) = (numbers(seed, rows * width), numbers(!seed, width));
        let weights = NormWeights { scale: scale.clone(), bias: None };
        let norm = Norm { kind: NormKind::Rms, eps: 1e-5, weights: &weights };
        let mut want = vec![0.0; x.len()];
        norm.forward(&x, &mut want);

        let (x, scale) = (Buffer::from(x), Buffer::from(scale));
        let mut y = Buffer::<bf16>::unwritten(x.len());
        let mut args = vec![x.input(), scale.input(), y.output()];
        args.extend([width; 3].map(|size| Arg::I32(size as i32)));
        args.push(Arg::F32(1e-5));
        launch("rms_norm_forward", [rows as u32, 1, 1], seed, &mut args).unwrap();
        for (found, want) in y.iter().zip(&want) {
            let bound = want.abs() * (1.0 / 256.0 + 1e-5);
            prop_assert!((found.to_f32() - want).abs() <= bound, "{} {}", found, want);
        }
    }
}

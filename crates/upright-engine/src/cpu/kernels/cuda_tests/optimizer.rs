//! The same bits as [`Vector`] and [`Sum`], so the tolerance is zero.

use std::sync::Arc;

use proptest::prelude::*;
use rayon::ThreadPoolBuilder;
use upright_emulator::{Arg, Buffer, launch};
use upright_math::adamw::AdamWStep;

use super::numbers;
use crate::{sum::Sum, vector::Vector};

/// Values of a block.
const CHUNK: usize = 4096;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Checks one step of the optimizer for `n` parameters.
fn check_step(n: usize, share: f32, seed: u64) {
    let blocks = n.div_ceil(CHUNK).max(1);
    let (grid, count) = ([blocks as u32, 1, 1], Arg::U64);
    let pool = Arc::new(ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let vector = |values: &[f32]| Vector::on_host(values.to_vec(), pool.clone());
    let packs = [numbers(seed, n), numbers(seed ^ 1, n)];
    let unit = 2f64.powi(-44);

    // The sum of two packs.
    let mut cpu_sum = Sum::on_host(n, -44, pool.clone());
    let mut sum = Buffer::from(vec![0i64; n]);
    let mut largest = Buffer::<u32>::unwritten(blocks);
    for pack in &packs {
        assert_eq!(cpu_sum.add(&vector(pack)).unwrap(), None);
        let pack = Buffer::from(pack.clone());
        let (n, scale) = (count(n as u64), Arg::F64(1.0 / unit));
        launch(
            "gradient_sum_add",
            grid,
            seed,
            &mut [pack.input(), sum.output(), largest.output(), n, scale],
        )
        .unwrap();
    }
    let mut cpu_gradient = vector(&packs[0]);
    cpu_sum.write_to(&mut cpu_gradient).unwrap();
    let mut gradient = Buffer::<f32>::unwritten(n);
    launch(
        "gradient_sum_read",
        grid,
        seed,
        &mut [
            sum.input(),
            gradient.output(),
            count(n as u64),
            Arg::F64(unit),
        ],
    )
    .unwrap();
    assert_eq!(bits(&gradient), bits(&cpu_gradient.read().unwrap()));

    // Its norm, and the factor that clips it.
    let chunks_of = n.div_ceil(CHUNK);
    let mut chunks = Buffer::<f64>::unwritten(chunks_of);
    let norm_grid = [(chunks_of.div_ceil(32) as u32).max(1), 1, 1];
    launch(
        "norm_chunks",
        norm_grid,
        seed,
        &mut [gradient.input(), chunks.output(), count(n as u64)],
    )
    .unwrap();
    let (mut norm, mut coefficient) = (Buffer::<f64>::unwritten(1), Buffer::<f32>::unwritten(1));
    let (chunks_of, max_norm) = (count(chunks_of as u64), Arg::F64(0.5));
    launch(
        "norm_finish",
        [1, 1, 1],
        seed,
        &mut [
            chunks.input(),
            norm.output(),
            coefficient.output(),
            chunks_of,
            max_norm,
        ],
    )
    .unwrap();
    let cpu_norm = cpu_gradient.norm().unwrap();
    assert_eq!(norm[0].to_bits(), cpu_norm.to_bits());
    let factor = 0.5 / (cpu_norm + 1e-6);
    if factor < 1.0 {
        cpu_gradient.scale(factor as f32).unwrap();
    }

    // The update.
    let step = AdamWStep::new([0.9, 0.95], 1e-8, 0.01, 1e-3, 2);
    let start = [numbers(seed ^ 2, n), numbers(seed ^ 3, n), vec![0.25; n]];
    let [mut cpu_p, mut cpu_m, mut cpu_v] = start.each_ref().map(|values| vector(values));
    let [mut p, mut m, mut v] = start.clone().map(Buffer::from);
    cpu_p
        .adamw(&cpu_gradient, &mut cpu_m, &mut cpu_v, &step)
        .unwrap();
    let mut args = vec![
        p.output(),
        m.output(),
        v.output(),
        gradient.input(),
        coefficient.input(),
    ];
    args.extend([largest.output(), count(n as u64)]);
    args.extend(step.scalars().map(Arg::F32));
    launch("adamw_update", grid, seed, &mut args).unwrap();
    for (found, want) in [(&p, &cpu_p), (&m, &cpu_m), (&v, &cpu_v)] {
        assert_eq!(bits(found), bits(&want.read().unwrap()));
    }

    // The average.
    let mut cpu_average = vector(&start[0]);
    let mut average = Buffer::from(start[0].clone());
    cpu_average.move_towards(&cpu_p, share).unwrap();
    launch(
        "move_towards",
        grid,
        seed,
        &mut [
            average.output(),
            p.input(),
            count(n as u64),
            Arg::F32(share),
        ],
    )
    .unwrap();
    assert_eq!(bits(&average), bits(&cpu_average.read().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_step_of_the_optimizer_is_that_of_the_cpu(
        n in prop_oneof![Just(0), Just(1), 2usize..9000, 65_530usize..70_000],
        seed: u64, share in 0.01f32..1.0,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        check_step(n, share, seed);
    }
}

//! The optimizer of the adapter against upright-math, in bits.

use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_math::{adamw::AdamWStep, norm::norm};

use crate::{needs_compiler, numbers::numbers};

/// Values of a block.
const CHUNK: usize = 4096;
const SCALE: f64 = (1u64 << 44) as f64;

/// Blocks for `n` values, at least one.
fn blocks(n: usize) -> usize {
    n.div_ceil(CHUNK).max(1)
}

/// A grid for `n` values.
fn grid(n: usize) -> [u32; 3] {
    [blocks(n) as u32, 1, 1]
}

/// Short, odd and long vectors.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        Just(1),
        2usize..700,
        4090usize..4104,
        8190usize..8195,
        20_000usize..60_000
    ]
}

/// Numbers of very different magnitudes, among them zeros and subnormals.
fn wild(seed: u64, n: usize) -> Vec<f32> {
    let mut values = numbers(seed, n);
    for (value, power) in values.iter_mut().zip(numbers(seed ^ 0x55aa, n)) {
        *value *= match (power * 8.0) as i32 {
            -7 => 0.0,
            -6 => 1e-40,
            -5 => 1e-13,
            6 => 3000.0,
            _ => 0.01,
        };
    }
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Bits with one representative for all NaN.
fn bits_but_nan(values: &[f32]) -> Vec<u32> {
    let mut found = Vec::with_capacity(values.len());
    for value in values {
        found.push(if value.is_nan() { f32::NAN } else { *value }.to_bits());
    }
    found
}

/// A sum of gradients on the device.
struct Sum {
    sum: Buffer<i64>,
    state: Buffer<u64>,
}

impl Sum {
    fn new(n: usize) -> Self {
        Self {
            sum: Buffer::from(vec![0; n]),
            state: Buffer::from(vec![0; 4]),
        }
    }

    fn add(&mut self, gradient: &[f32], seed: u64) {
        let n = gradient.len();
        let gradient = Buffer::from(gradient.to_vec());
        let mut largest = Buffer::<u32>::unwritten(blocks(n));
        let mut args = [
            gradient.input(),
            self.sum.output(),
            largest.output(),
            Arg::U64(n as u64),
            Arg::F64(SCALE),
        ];
        launch("gradient_sum_add", grid(n), seed, &mut args).unwrap();
        assert_eq!(largest.first_unwritten(), None);
        let mut args = [
            gradient.input(),
            largest.input(),
            self.state.output(),
            Arg::U64(n as u64),
            Arg::F64(SCALE),
        ];
        launch("gradient_sum_check", [1, 1, 1], seed, &mut args).unwrap();
    }

    fn read(&self, seed: u64) -> Vec<f32> {
        let n = self.sum.len();
        let mut gradient = Buffer::unwritten(n);
        let unit = Arg::F64(1.0 / SCALE);
        let mut args = [
            self.sum.input(),
            gradient.output(),
            Arg::U64(n as u64),
            unit,
        ];
        launch("gradient_sum_read", grid(n), seed, &mut args).unwrap();
        assert_eq!(gradient.first_unwritten(), None);
        gradient.to_vec()
    }
}

/// Norm and factor of clipping of a vector on the device.
fn device_norm(x: &[f32], max_norm: f64, seed: u64) -> (f64, f32) {
    let n = x.len();
    let x = Buffer::from(x.to_vec());
    let count = n.div_ceil(CHUNK);
    let mut chunks = Buffer::<f64>::unwritten(count);
    let across = (count.div_ceil(32) as u32).max(1);
    let mut args = [x.input(), chunks.output(), Arg::U64(n as u64)];
    launch("norm_chunks", [across, 1, 1], seed, &mut args).unwrap();
    finish_norm(&chunks, max_norm, seed)
}

/// Norm and factor of clipping, from the sums of squares of chunks.
fn finish_norm(chunks: &Buffer<f64>, max_norm: f64, seed: u64) -> (f64, f32) {
    let (mut length, mut coefficient) = (Buffer::unwritten(1), Buffer::unwritten(1));
    let mut args = [
        chunks.input(),
        length.output(),
        coefficient.output(),
        Arg::U64(chunks.len() as u64),
        Arg::F64(max_norm),
    ];
    launch("norm_finish", [1, 1, 1], seed, &mut args).unwrap();
    (length[0], coefficient[0])
}

/// Parameters and moments on the device.
struct Adapter([Buffer<f32>; 3]);

impl Adapter {
    /// One update. Returns whether a parameter is not finite.
    fn update(&mut self, gradient: &[f32], coefficient: f32, step: &AdamWStep, seed: u64) -> bool {
        let n = gradient.len();
        let gradient = Buffer::from(gradient.to_vec());
        let coefficient = Buffer::from(vec![coefficient]);
        let mut largest = Buffer::<u32>::unwritten(blocks(n));
        let mut args: Vec<_> = self.0.iter_mut().map(Buffer::output).collect();
        args.extend([gradient.input(), coefficient.input(), largest.output()]);
        args.push(Arg::U64(n as u64));
        args.extend(step.scalars().map(Arg::F32));
        launch("adamw_update", grid(n), seed, &mut args).unwrap();
        is_broken(&largest, seed)
    }
}

fn is_broken(largest: &Buffer<u32>, seed: u64) -> bool {
    assert_eq!(largest.first_unwritten(), None);
    let mut broken = Buffer::<u32>::unwritten(1);
    let blocks = Arg::I32(largest.len() as i32);
    let mut args = [largest.input(), broken.output(), blocks];
    launch("finite_check", [1, 1, 1], seed, &mut args).unwrap();
    assert!(broken[0] <= 1);
    broken[0] == 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sum_is_exact_in_any_order(n in lengths(), seed: u64) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let gradients = [wild(seed, n), wild(seed ^ 1, n), wild(seed ^ 2, n)];
        let (mut sum, mut other) = (Sum::new(n), Sum::new(n));
        for (index, gradient) in gradients.iter().enumerate() {
            sum.add(gradient, seed);
            other.add(&gradients[2 - index], !seed);
        }
        let mut want = vec![0i64; n];
        for gradient in &gradients {
            for (want, value) in want.iter_mut().zip(gradient) {
                *want += (f64::from(*value) * SCALE).round_ties_even() as i64;
            }
        }
        prop_assert_eq!(&sum.sum[..], &want[..]);
        prop_assert_eq!(&other.sum[..], &want[..]);
        let largest = |gradient: &Vec<f32>| {
            let units = gradient.iter().map(|x| (f64::from(x.abs()) * SCALE).round_ties_even());
            units.fold(0.0, f64::max) as u64
        };
        prop_assert_eq!(&sum.state[..2], &[gradients.iter().map(largest).sum(), 0][..]);
        let want: Vec<f32> = want.iter().map(|units| (*units as f64 / SCALE) as f32).collect();
        prop_assert_eq!(bits(&sum.read(seed)), bits(&want));
    }

    #[test]
    fn a_norm_has_the_bits_of_the_cpu(n in lengths(), seed: u64, wide: bool) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let x = if wide { wild(seed, n) } else { numbers(seed, n) };
        let want = norm(&x);
        let (found, coefficient) = device_norm(&x, 0.5, seed);
        prop_assert_eq!(found.to_bits(), want.to_bits());
        let factor = 0.5 / (want + 1e-6);
        prop_assert_eq!(coefficient, if factor < 1.0 { factor as f32 } else { 1.0 });
    }

    #[test]
    fn updates_have_the_bits_of_the_cpu(
        n in lengths(), seed: u64, coefficient in prop::sample::select(vec![1.0f32, 0.37]),
        decay in prop::sample::select(vec![0.0, 0.1]), rate in 1e-5f64..0.1,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let mut p = numbers(seed, n);
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        let mut adapter = Adapter([p.clone(), m.clone(), v.clone()].map(Buffer::from));
        for update in 1..=2 {
            let gradient = wild(seed ^ update, n);
            let step = AdamWStep::new([0.9, 0.95], 1e-8, decay, rate, update);
            let scaled: Vec<f32> = gradient.iter().map(|g| g * coefficient).collect();
            step.apply(&mut p, &scaled, &mut m, &mut v);
            let broken = adapter.update(&gradient, coefficient, &step, seed);
            prop_assert!(!broken);
        }
        for (found, want) in adapter.0.iter().zip([&p, &m, &v]) {
            prop_assert_eq!(bits(found), bits(want));
        }
    }

    #[test]
    fn averages_and_scales_have_the_bits_of_the_cpu(n in lengths(), seed: u64, share in 0.0f32..1.1) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let share = share.min(1.0);
        let (x, target) = (numbers(seed, n), wild(!seed, n));
        let mut found = Buffer::from(x.clone());
        let to = Buffer::from(target.clone());
        let count = Arg::U64(n as u64);
        let mut args = [found.output(), to.input(), count, Arg::F32(share)];
        launch("move_towards", grid(n), seed, &mut args).unwrap();
        let mut want = target;
        if share != 1.0 {
            for (want, x) in want.iter_mut().zip(&x) {
                *want = x + share * (*want - x);
            }
        }
        prop_assert_eq!(bits(&found), bits(&want));

        let mut args = [found.output(), Arg::U64(n as u64), Arg::F32(0.3)];
        launch("scale_values", grid(n), seed, &mut args).unwrap();
        want.iter_mut().for_each(|x| *x *= 0.3);
        prop_assert_eq!(bits(&found), bits(&want));
    }
}

#[test]
fn a_value_that_does_not_fit_is_named() {
    needs_compiler!();
    let n = 2 * CHUNK + 77;
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 6e5, -6e5, 3e38] {
        for place in [0, 5000, n - 1] {
            let mut sum = Sum::new(n);
            sum.add(&vec![0.5; n], 3);
            let mut gradient = vec![1.0; n];
            gradient[place] = broken;
            gradient[n - 1] = broken;
            sum.add(&gradient, 4);
            let want = [
                (SCALE / 2.0) as u64,
                1,
                place as u64,
                u64::from(broken.to_bits()),
            ];
            assert_eq!(sum.state[..], want);
            // The first failure is the one that is reported.
            sum.add(&vec![f32::NAN; n], 5);
            assert_eq!(sum.state[..], want);
        }
    }
}

/// Two times 2^62 units are one too many. The first of the largest values is in the second block.
#[test]
fn a_sum_that_could_overflow_names_its_largest_value() {
    needs_compiler!();
    let n = 2 * CHUNK + 5;
    let mut gradient = vec![1.0; n];
    gradient[CHUNK + 1234] = -262_144.0;
    gradient[2 * CHUNK + 1] = 262_144.0;
    let mut sum = Sum::new(n);
    sum.add(&gradient, 0);
    assert_eq!(sum.state[..2], [1 << 62, 0]);
    sum.add(&gradient, 1);
    let value = u64::from((-262_144f32).to_bits());
    assert_eq!(sum.state[..], [1 << 62, 1, CHUNK as u64 + 1234, value]);
}

/// More chunks than the block has threads, as a vector of millions of values has.
#[test]
fn many_chunks_are_added_in_order() {
    needs_compiler!();
    for count in [255, 256, 257, 1000] {
        let mut chunks = Vec::new();
        for value in numbers(count, count as usize) {
            chunks.push(f64::from(value).abs() / 3.0);
        }
        let want = chunks.iter().sum::<f64>().sqrt();
        let (found, coefficient) = finish_norm(&Buffer::from(chunks), 0.0, count);
        assert_eq!(found.to_bits(), want.to_bits());
        assert_eq!(coefficient, 1.0);
    }
}

#[test]
fn broken_values_show_as_on_the_cpu() {
    needs_compiler!();
    let n = CHUNK + 300;
    let step = AdamWStep::new([0.9, 0.95], 1e-8, 0.01, 1e-3, 3);
    for broken in [f32::NAN, f32::INFINITY, f32::MAX] {
        for place in [0, n - 1] {
            let mut gradient = numbers(7, n);
            gradient[place] = broken;
            let (norm_of, factor) = device_norm(&gradient, 1.0, 1);
            let want = norm(&gradient);
            assert!(norm_of == want || norm_of.is_nan() && want.is_nan());
            assert_eq!(factor == 1.0, broken.is_nan());
            let mut want = [numbers(8, n), numbers(9, n), vec![0.25; n]];
            let mut adapter = Adapter(want.clone().map(Buffer::from));
            let [p, m, v] = &mut want;
            step.apply(p, &gradient, m, v);
            let found = adapter.update(&gradient, 1.0, &step, 2);
            assert_eq!(found, p.iter().any(|p| !p.is_finite()));
            for (found, want) in adapter.0.iter().zip(&want) {
                assert_eq!(bits_but_nan(found), bits_but_nan(want));
            }
            let x = Buffer::from(gradient);
            let mut largest = Buffer::unwritten(blocks(n));
            let mut args = [x.input(), largest.output(), Arg::U64(n as u64)];
            launch("largest_magnitudes", grid(n), 1, &mut args).unwrap();
            assert_eq!(is_broken(&largest, 1), !broken.is_finite());
        }
    }
}

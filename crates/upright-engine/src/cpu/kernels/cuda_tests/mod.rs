//! The CUDA kernels beside the CPU's, on the same numbers. They run in the emulator of `upright-emulator`.

mod activation;
mod attention;
mod head;
mod heads;
mod norm;
mod optimizer;
mod rows;
mod thin;

use half::bf16;
use upright_emulator::Arg;

/// Numbers in [-1, 1) that depend on the seed alone.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values.push((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0);
    }
    values
}

/// Root of the mean squared error, relative to the root mean square of `want`, which counts as at least 0.05. Where a softmax has
/// one key, the gradients are zero, and what is found is the rounding of their terms.
fn distance(found: &[f32], want: &[f32]) -> f64 {
    assert_eq!(found.len(), want.len());
    let (mut wrong, mut length) = (0.0, 0.0);
    for (found, want) in found.iter().zip(want) {
        wrong += (f64::from(*found) - f64::from(*want)).powi(2);
        length += f64::from(*want).powi(2);
    }
    (wrong / f64::max(length, 0.05 * 0.05 * want.len() as f64)).sqrt()
}

/// Sizes as arguments of a kernel.
fn ints<const N: usize>(sizes: [usize; N]) -> [Arg<'static>; N] {
    sizes.map(|size| Arg::I32(size as i32))
}

/// Blocks for kernels whose blocks take 1024 columns of a row each.
fn by_columns(rows: usize, width: usize) -> [u32; 3] {
    [rows as u32, width.div_ceil(1024) as u32, 1]
}

/// Numbers as the CPU engine rounds them.
fn round(values: &[f32]) -> Vec<bf16> {
    let mut rounded = vec![bf16::ZERO; values.len()];
    super::convert::round(values, &mut rounded);
    rounded
}

/// Bits of numbers in bf16.
fn bits(numbers: &[bf16]) -> Vec<u16> {
    let mut all = Vec::with_capacity(numbers.len());
    for number in numbers {
        all.push(number.to_bits());
    }
    all
}

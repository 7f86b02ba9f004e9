//! The CUDA kernels beside the CPU's, on the same numbers. They run in the emulator of `upright-emulator`.

mod activation;
mod heads;
mod norm;
mod rows;

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

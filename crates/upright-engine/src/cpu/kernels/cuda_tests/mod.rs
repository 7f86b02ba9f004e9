//! The CUDA kernels beside the CPU's, on the same numbers. They run in the emulator of `upright-emulator`.

mod head;
mod norm;
mod optimizer;
mod thin;

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

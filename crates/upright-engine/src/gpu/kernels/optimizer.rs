//! `optimizer.cu`: the adapter's gradient, its optimizer and its average.

use upright_base::Result;
use upright_math::{adamw::AdamWStep, norm::CHUNK};

use crate::gpu::{
    array::Array,
    device::{Arg, launch},
};

/// Blocks of kernels that process a chunk each.
pub(in crate::gpu) fn blocks(len: usize) -> usize {
    len.div_ceil(CHUNK).max(1)
}

fn count(len: usize) -> Arg {
    Arg::U64(len as u64)
}

/// Adds a vector to a sum in units of 1 / `scale`. Returns whether every value fits; if not, the index and the bits of the first that
/// does not. `state` is the sum's.
pub(crate) fn add(
    vector: &Array<f32>,
    sum: &Array<i64>,
    state: &Array<u64>,
    scale: f64,
) -> Result<Option<(usize, f32)>> {
    let (device, len) = (vector.device(), vector.len());
    let largest = Array::<u32>::new(device, blocks(len))?;
    let grid = [blocks(len), 1, 1];
    let add = [
        vector.input(),
        sum.output(),
        largest.output(),
        count(len),
        Arg::F64(scale),
    ];
    launch(device, "gradient_sum_add", grid, &add)?;
    let check = [
        vector.input(),
        largest.input(),
        state.output(),
        count(len),
        Arg::F64(scale),
    ];
    launch(device, "gradient_sum_check", [1, 1, 1], &check)?;
    let state = state.read()?;
    Ok((state[1] != 0).then(|| (state[2] as usize, f32::from_bits(state[3] as u32))))
}

/// Writes a sum in f32.
pub(crate) fn read_sum(sum: &Array<i64>, vector: &Array<f32>, unit: f64) -> Result<()> {
    let args = [
        sum.input(),
        vector.output(),
        count(vector.len()),
        Arg::F64(unit),
    ];
    let grid = [blocks(vector.len()), 1, 1];
    launch(vector.device(), "gradient_sum_read", grid, &args)
}

/// Euclidean norm.
pub(crate) fn norm(vector: &Array<f32>) -> Result<f64> {
    let (device, len) = (vector.device(), vector.len());
    let chunks = Array::<f64>::new(device, blocks(len))?;
    let args = [vector.input(), chunks.output(), count(len)];
    let grid = [blocks(len).div_ceil(32), 1, 1];
    launch(device, "norm_chunks", grid, &args)?;
    let norm = Array::<f64>::new(device, 1)?;
    let coefficient = Array::<f32>::new(device, 1)?;
    let args = [
        chunks.input(),
        norm.output(),
        coefficient.output(),
        count(blocks(len)),
        Arg::F64(0.0),
    ];
    launch(device, "norm_finish", [1, 1, 1], &args)?;
    Ok(norm.read()?[0])
}

/// Multiplies all values by a factor.
pub(crate) fn scale(vector: &Array<f32>, factor: f32) -> Result<()> {
    let args = [vector.output(), count(vector.len()), Arg::F32(factor)];
    let grid = [blocks(vector.len()), 1, 1];
    launch(vector.device(), "scale_values", grid, &args)
}

/// Whether every value is finite.
pub(crate) fn is_finite(vector: &Array<f32>) -> Result<bool> {
    let (device, len) = (vector.device(), vector.len());
    let largest = Array::<u32>::new(device, blocks(len))?;
    let args = [vector.input(), largest.output(), count(len)];
    launch(device, "largest_magnitudes", [blocks(len), 1, 1], &args)?;
    let broken = Array::<u32>::new(device, 1)?;
    let blocks = i32::try_from(blocks(len)).expect("blocks fit 31 bits");
    let args = [largest.input(), broken.output(), Arg::I32(blocks)];
    launch(device, "finite_check", [1, 1, 1], &args)?;
    Ok(broken.read()?[0] == 0)
}

/// Moves every value towards its target by a share of the distance.
pub(crate) fn move_towards(vector: &Array<f32>, target: &Array<f32>, share: f32) -> Result<()> {
    let args = [
        vector.output(),
        target.input(),
        count(vector.len()),
        Arg::F32(share),
    ];
    let grid = [blocks(vector.len()), 1, 1];
    launch(vector.device(), "move_towards", grid, &args)
}

/// One AdamW update of parameters `p` and their moments `m` and `v`.
pub(crate) fn adamw(
    p: &Array<f32>,
    gradient: &Array<f32>,
    [m, v]: [&Array<f32>; 2],
    step: &AdamWStep,
) -> Result<()> {
    let (device, len) = (p.device(), p.len());
    let coefficient = Array::from(device, &[1.0f32])?;
    let largest = Array::<u32>::new(device, blocks(len))?;
    let mut args = vec![
        p.output(),
        m.output(),
        v.output(),
        gradient.input(),
        coefficient.input(),
        largest.output(),
        count(len),
    ];
    args.extend(step.scalars().map(Arg::F32));
    launch(device, "adamw_update", [blocks(len), 1, 1], &args)
}

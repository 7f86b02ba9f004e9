//! `head.cu`: the output head between its two products.

use half::bf16;
use upright_base::Result;

use crate::gpu::{
    array::Array,
    device::{int, launch},
};

/// Targets of rows: those of row r are `first[r]` to `first[r + 1] - 1`.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct Targets {
    /// `[rows + 1]`, or the part of some rows.
    pub(in crate::gpu) first: Array<i32>,
    /// Token of every target.
    pub(in crate::gpu) tokens: Array<i32>,
}

/// A softmax under way: the largest logit and the sum of every row, and the logits of targets.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct Softmax {
    /// `[rows]`.
    pub(in crate::gpu) maximum: Array<f32>,
    /// `[rows]`.
    pub(in crate::gpu) sum: Array<f64>,
    /// `[targets]`, of all rows.
    pub(in crate::gpu) logits: Array<f32>,
}

/// One chunk of the vocabulary's logits.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Chunk<'a> {
    /// `[rows, width]`.
    pub(in crate::gpu) z: &'a Array<f32>,
    /// First token.
    pub(in crate::gpu) first: usize,
    pub(in crate::gpu) width: usize,
}

/// Shares `[rows, padded]` of a chunk, and the factors by which it shrinks earlier chunks.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct Shares {
    pub(in crate::gpu) shares: Array<bf16>,
    pub(in crate::gpu) corrections: Array<f32>,
    pub(in crate::gpu) first: usize,
    pub(in crate::gpu) width: usize,
}

impl Shares {
    /// Values from one row of the shares to the next.
    pub(in crate::gpu) fn padded(width: usize) -> usize {
        width.next_multiple_of(8)
    }
}

/// Adds a chunk to the softmax of `rows` rows.
pub(in crate::gpu) fn absorb(
    rows: usize,
    chunk: Chunk<'_>,
    targets: &Targets,
    softmax: &Softmax,
) -> Result<()> {
    let args = [
        chunk.z.input(),
        targets.first.input(),
        targets.tokens.input(),
        softmax.maximum.output(),
        softmax.sum.output(),
        softmax.logits.output(),
        int(chunk.first),
        int(chunk.width),
        int(chunk.width),
    ];
    launch(chunk.z.device(), "head_absorb", [rows, 1, 1], &args)
}

/// The same, and returns the shares.
pub(in crate::gpu) fn absorb_shares(
    rows: usize,
    chunk: Chunk<'_>,
    targets: &Targets,
    softmax: &Softmax,
) -> Result<Shares> {
    let device = chunk.z.device();
    let padded = Shares::padded(chunk.width);
    let made = Shares {
        shares: Array::new(device, rows * padded)?,
        corrections: Array::new(device, rows)?,
        first: chunk.first,
        width: chunk.width,
    };
    let args = [
        chunk.z.input(),
        targets.first.input(),
        targets.tokens.input(),
        softmax.maximum.output(),
        softmax.sum.output(),
        softmax.logits.output(),
        made.shares.output(),
        made.corrections.output(),
        int(chunk.first),
        int(chunk.width),
        int(chunk.width),
        int(padded),
    ];
    launch(device, "head_absorb_shares", [rows, 1, 1], &args)?;
    Ok(made)
}

/// Multiplies every row of `expected` `[rows, H]` by its factor.
pub(in crate::gpu) fn rescale(
    rows: usize,
    hidden: usize,
    expected: &Array<f32>,
    corrections: &Array<f32>,
) -> Result<()> {
    let args = [expected.output(), corrections.input(), int(hidden)];
    launch(expected.device(), "head_rescale", [rows, 1, 1], &args)
}

/// The gradient of the normalized hidden states, `[rows, H]`, given one slope per target.
#[allow(clippy::too_many_arguments, reason = "operands of one operation")]
pub(in crate::gpu) fn gradient(
    rows: usize,
    hidden: usize,
    expected: &Array<f32>,
    sum: &Array<f64>,
    targets: &Targets,
    slopes: &Array<f64>,
    weights: &Array<bf16>,
    d: &Array<f32>,
) -> Result<()> {
    let args = [
        expected.input(),
        sum.input(),
        targets.first.input(),
        targets.tokens.input(),
        slopes.input(),
        weights.input(),
        d.output(),
        int(hidden),
        int(hidden),
        int(hidden),
    ];
    launch(expected.device(), "head_gradient", [rows, 1, 1], &args)
}

/// The most likely tokens of every row: `[rows, count]`, best first.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct Best {
    pub(in crate::gpu) count: usize,
    pub(in crate::gpu) logits: Array<f32>,
    pub(in crate::gpu) tokens: Array<i32>,
    pub(in crate::gpu) logp: Array<f64>,
}

/// Largest number of most likely tokens.
pub(in crate::gpu) const MOST: usize = 128;

/// Adds a chunk to the most likely tokens of `rows` rows.
pub(in crate::gpu) fn best(rows: usize, chunk: Chunk<'_>, best: &Best) -> Result<()> {
    if best.count == 0 {
        return Ok(());
    }
    let args = [
        chunk.z.input(),
        best.logits.output(),
        best.tokens.output(),
        int(chunk.first),
        int(chunk.width),
        int(chunk.width),
        int(best.count),
    ];
    launch(chunk.z.device(), "head_best", [rows, 1, 1], &args)
}

/// Turns logits into log-probabilities after the last chunk: those of targets, and of the most likely tokens.
pub(in crate::gpu) fn finish(
    rows: usize,
    targets: &Targets,
    softmax: &Softmax,
    logp: &Array<f64>,
    best: &Best,
) -> Result<()> {
    let args = [
        softmax.maximum.input(),
        softmax.sum.input(),
        targets.first.input(),
        softmax.logits.input(),
        logp.output(),
        best.logits.input(),
        best.logp.output(),
        int(best.count),
    ];
    launch(logp.device(), "head_finish", [rows, 1, 1], &args)
}

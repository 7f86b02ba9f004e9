//! `heads.cu`: rotary embedding and norms of heads.

use half::bf16;
use upright_base::Result;

use super::{by_columns, rows::Rows};
use crate::gpu::{
    array::Array,
    device::{Arg, int, launch},
    weights::{HeadNorms, Heads},
};

/// Where kernels find the angles of rows.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Turns<'a> {
    /// Position of every row.
    pub(in crate::gpu) positions: &'a Array<i32>,
    /// Cosines and sines, `[positions, half]`.
    pub(in crate::gpu) tables: [&'a Array<f32>; 2],
    /// Pairs of columns that turn.
    pub(in crate::gpu) half: usize,
}

impl Turns<'_> {
    fn inputs(&self) -> [Arg; 3] {
        let [cosines, sines] = self.tables;
        [self.positions.input(), cosines.input(), sines.input()]
    }
}

/// Turns queries and keys of `x` `[T, W]` and rounds all values. Backward, it turns them back.
pub(in crate::gpu) fn rotary(
    heads: &Heads,
    turns: Turns<'_>,
    x: &Array<f32>,
    y: Rows<'_, bf16>,
    backward: bool,
) -> Result<()> {
    let tokens = turns.positions.len();
    if tokens == 0 {
        return Ok(());
    }
    let mut args = vec![x.input()];
    args.extend(turns.inputs());
    args.extend([
        y.values.output(),
        int(heads.queries),
        int(heads.keys),
        int(heads.size),
        int(turns.half),
        int(usize::from(heads.grouped)),
        int(y.stride),
        Arg::F32(if backward { -1.0 } else { 1.0 }),
    ]);
    launch(
        x.device(),
        "rotary_rounded",
        by_columns(tokens, heads.width()),
        &args,
    )
}

/// Normalizes queries and keys of `x` `[T, W]`, turns them and rounds all values. `before` `[T, (heads + kv_heads) d]` keeps queries
/// and keys as they came.
pub(in crate::gpu) fn norm_forward(
    heads: &Heads,
    norms: &HeadNorms,
    turns: Turns<'_>,
    x: &Array<f32>,
    before: &Array<bf16>,
    y: Rows<'_, bf16>,
) -> Result<()> {
    let mut args = vec![x.input(), norms.queries.input(), norms.keys.input()];
    args.extend(turns.inputs());
    args.extend([before.output(), y.values.output()]);
    normed("head_norm_forward", heads, norms, turns, y.stride, args)
}

/// Turns the gradient `d` `[T, W]` of [`norm_forward`]'s result into that of its input.
pub(in crate::gpu) fn norm_backward(
    heads: &Heads,
    norms: &HeadNorms,
    turns: Turns<'_>,
    d: &Array<f32>,
    before: &Array<bf16>,
    y: Rows<'_, bf16>,
) -> Result<()> {
    let mut args = vec![
        d.input(),
        before.input(),
        norms.queries.input(),
        norms.keys.input(),
    ];
    args.extend(turns.inputs());
    args.push(y.values.output());
    normed("head_norm_backward", heads, norms, turns, y.stride, args)
}

fn normed(
    name: &str,
    heads: &Heads,
    norms: &HeadNorms,
    turns: Turns<'_>,
    stride: usize,
    mut args: Vec<Arg>,
) -> Result<()> {
    let tokens = turns.positions.len();
    if tokens == 0 {
        return Ok(());
    }
    args.extend([
        int(heads.queries),
        int(heads.keys),
        int(heads.size),
        int(heads.size),
        int(turns.half),
        int(stride),
        Arg::F32(norms.eps),
    ]);
    let blocks = (heads.queries + 2 * heads.keys).div_ceil(4);
    launch(turns.positions.device(), name, [tokens, blocks, 1], &args)
}

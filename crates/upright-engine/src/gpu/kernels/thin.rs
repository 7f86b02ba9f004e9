//! `thin.cu`: thin products of LoRA.

use std::ops::Range;

use half::bf16;
use upright_base::Result;

use super::rows::Rows;
use crate::gpu::{
    array::Array,
    device::{Arg, int, launch},
};

/// Tokens whose products a block of the gradient kernels adds up.
const SLAB: usize = 1024;

/// Ranks that a block takes, and the suffix of the kernels that do.
fn instance(rank: usize) -> (usize, &'static str) {
    match rank {
        0..=16 => (16, "16"),
        17..=32 => (32, "32"),
        _ => (64, "64"),
    }
}

/// A matrix `[rank, inner]` of A, or of B transposed.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct Factor<'a> {
    pub(in crate::gpu) values: &'a Array<bf16>,
    /// Index of the first value.
    pub(in crate::gpu) start: usize,
    /// Values from one row to the next.
    pub(in crate::gpu) stride: usize,
    pub(in crate::gpu) rank: usize,
    /// Columns that are written: `rank` rounded up, with zeros.
    pub(in crate::gpu) padded: usize,
    pub(in crate::gpu) scale: f32,
}

/// `x[t, to..] = scale x[t, from..from + inner] factorᵀ`, for `tokens` rows.
pub(in crate::gpu) fn product(
    tokens: usize,
    x: Rows<'_, bf16>,
    [from, inner, to]: [usize; 3],
    factor: &Factor<'_>,
) -> Result<()> {
    if tokens == 0 {
        return Ok(());
    }
    let (ranks, suffix) = instance(factor.rank);
    launch(
        x.values.device(),
        &format!("thin_product_{suffix}"),
        [tokens.div_ceil(32), factor.padded.div_ceil(ranks), 1],
        &[
            x.values.output(),
            factor.values.input(),
            int(tokens),
            int(inner),
            int(x.stride),
            int(from),
            int(to),
            int(factor.rank),
            int(factor.padded),
            Arg::U64(factor.start as u64),
            int(factor.stride),
            Arg::F32(factor.scale),
        ],
    )
}

/// Columns of rows.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Columns<'a> {
    pub(in crate::gpu) rows: Rows<'a, bf16>,
    /// First column.
    pub(in crate::gpu) from: usize,
    pub(in crate::gpu) count: usize,
}

/// Sums of outer products over parts of the tokens, `[parts, count]`.
#[derive(Debug)]
pub(in crate::gpu) struct Partials {
    values: Array<f32>,
    parts: usize,
    count: usize,
}

/// Sums over tokens of the outer products of `x` and `d`: `[columns, rank]`, or transposed if `by_rank`.
pub(in crate::gpu) fn gradient(
    tokens: usize,
    x: Columns<'_>,
    d: Columns<'_>,
    by_rank: bool,
) -> Result<Partials> {
    let device = x.rows.values.device();
    let (ranks, suffix) = instance(d.count);
    let parts = tokens.div_ceil(SLAB);
    let count = x.count * d.count;
    let values = Array::new(device, parts * count)?;
    if parts > 0 {
        launch(
            device,
            &format!("thin_gradient_{suffix}"),
            [x.count.div_ceil(64), d.count.div_ceil(ranks), parts],
            &[
                x.rows.values.input(),
                d.rows.values.input(),
                values.output(),
                int(tokens),
                int(x.count),
                int(x.from),
                int(x.rows.stride),
                int(d.count),
                int(d.from),
                int(d.rows.stride),
                int(usize::from(by_rank)),
            ],
        )?;
    }
    Ok(Partials {
        values,
        parts,
        count,
    })
}

impl Partials {
    /// Adds the values of `range`, summed over the parts, to `gradient` from `start` on.
    pub(in crate::gpu) fn add_to(
        &self,
        range: Range<usize>,
        gradient: &Array<f32>,
        start: usize,
    ) -> Result<()> {
        if self.parts == 0 {
            return Ok(());
        }
        launch(
            gradient.device(),
            "thin_gradient_add",
            [range.len().div_ceil(256), 1, 1],
            &[
                self.values.at(range.start).input(),
                gradient.output(),
                Arg::U64(start as u64),
                Arg::U64(range.len() as u64),
                Arg::U64(self.count as u64),
                int(self.parts),
            ],
        )
    }

    /// Adds all values, summed over the parts, to `gradient` from `start` on.
    pub(in crate::gpu) fn add_all_to(&self, gradient: &Array<f32>, start: usize) -> Result<()> {
        self.add_to(0..self.count, gradient, start)
    }
}

/// Where parameters `[rows, columns]` lie and go.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Copy {
    /// First parameter.
    pub(in crate::gpu) start: usize,
    pub(in crate::gpu) rows: usize,
    pub(in crate::gpu) columns: usize,
    /// First value of the destination, and values from one of its rows to the next.
    pub(in crate::gpu) to: usize,
    pub(in crate::gpu) stride: usize,
}

/// Rounds parameters into a matrix; transposed, column j becomes row j.
pub(in crate::gpu) fn copy(
    parameters: &Array<f32>,
    to: &Array<bf16>,
    copy: Copy,
    transposed: bool,
) -> Result<()> {
    let (name, grid) = if transposed {
        let blocks = [copy.rows.div_ceil(32), copy.columns.div_ceil(32), 1];
        ("thin_copy_transposed", blocks)
    } else {
        let blocks = [(copy.rows * copy.columns).div_ceil(256), 1, 1];
        ("thin_copy", blocks)
    };
    launch(
        to.device(),
        name,
        grid,
        &[
            parameters.input(),
            to.output(),
            Arg::U64(copy.start as u64),
            int(copy.rows),
            int(copy.columns),
            Arg::U64(copy.to as u64),
            int(copy.stride),
        ],
    )
}

//! `rows.cu`: rows that move.

use half::bf16;
use upright_base::Result;

use super::by_columns;
use crate::gpu::{
    array::{Array, Number},
    device::{int, launch},
};

/// Values of rows that are gathered.
pub(in crate::gpu) trait Moves: Number {
    const GATHER: &'static str;
}

impl Moves for f32 {
    const GATHER: &'static str = "gather_f32";
}

impl Moves for bf16 {
    const GATHER: &'static str = "gather_bf16";
}

/// Rows of `width` values in an array.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Rows<'a, T> {
    /// The values, from the first row on.
    pub(in crate::gpu) values: &'a Array<T>,
    /// Values from one row to the next.
    pub(in crate::gpu) stride: usize,
}

/// Row r of `y` becomes row `rows[r]` of `x`, or zero where `rows[r]` is negative. Each has `width` values.
pub(in crate::gpu) fn gather<T: Moves>(
    count: usize,
    width: usize,
    x: Rows<'_, T>,
    rows: &Array<i32>,
    y: Rows<'_, T>,
) -> Result<()> {
    move_rows(T::GATHER, count, width, x, rows, y)
}

/// Row `rows[r]` of `y` becomes row r of `x`. No row of `y` occurs twice.
pub(in crate::gpu) fn scatter(
    count: usize,
    width: usize,
    x: Rows<'_, bf16>,
    rows: &Array<i32>,
    y: Rows<'_, bf16>,
) -> Result<()> {
    move_rows("scatter_bf16", count, width, x, rows, y)
}

fn move_rows<T: Number>(
    name: &str,
    count: usize,
    width: usize,
    x: Rows<'_, T>,
    rows: &Array<i32>,
    y: Rows<'_, T>,
) -> Result<()> {
    if count == 0 || width == 0 {
        return Ok(());
    }
    launch(
        rows.device(),
        name,
        by_columns(count, width),
        &[
            x.values.input(),
            rows.input(),
            y.values.output(),
            int(width),
            int(x.stride),
            int(y.stride),
        ],
    )
}

/// Rows of the embedding, `[tokens, H]` in f32.
pub(in crate::gpu) fn embed(
    table: &Array<bf16>,
    tokens: &Array<i32>,
    hidden: usize,
) -> Result<Array<f32>> {
    let x = Array::new(table.device(), tokens.len() * hidden)?;
    if tokens.len() > 0 {
        launch(
            table.device(),
            "gather_embeddings",
            by_columns(tokens.len(), hidden),
            &[
                table.input(),
                tokens.input(),
                x.output(),
                int(hidden),
                int(hidden),
            ],
        )?;
    }
    Ok(x)
}

//! `cuda/rows.cu`: gather and scatter of rows.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32, I32},
    input, int, output,
};

/// Rows that move.
pub(super) const FAMILY: Family = family!(
    "rows",
    &[
        entry(
            "gather_embeddings",
            128,
            0,
            &[
                input("table", Bf16),
                input("ids", I32),
                output("y", F32),
                int("width"),
                int("stride"),
            ]
        ),
        entry(
            "gather_f32",
            128,
            0,
            &[
                input("x", F32),
                input("rows", I32),
                output("y", F32),
                int("width"),
                int("x_stride"),
                int("y_stride"),
            ]
        ),
        entry(
            "gather_bf16",
            128,
            0,
            &[
                input("x", Bf16),
                input("rows", I32),
                output("y", Bf16),
                int("width"),
                int("x_stride"),
                int("y_stride"),
            ]
        ),
        entry(
            "scatter_bf16",
            128,
            0,
            &[
                input("x", Bf16),
                input("rows", I32),
                output("y", Bf16),
                int("width"),
                int("x_stride"),
                int("y_stride"),
            ]
        ),
    ]
);

//! `cuda/optimizer.cu`: the adapter's gradient, its optimizer and its average.

use super::{Family, entry, family};
use crate::signature::{
    Element::{F32, F64, I64, U32, U64},
    float, input, int, number, output,
};

/// The adapter's gradient, its optimizer and its average.
pub(super) const FAMILY: Family = family!(
    "optimizer",
    &[
        entry(
            "gradient_sum_add",
            256,
            32,
            &[
                input("gradient", F32),
                output("sum", I64),
                output("largest", U32),
                number("n", U64),
                number("scale", F64),
            ],
        ),
        entry(
            "gradient_sum_check",
            1024,
            128,
            &[
                input("gradient", F32),
                input("largest", U32),
                output("state", U64),
                number("n", U64),
                number("scale", F64),
            ],
        ),
        entry(
            "gradient_sum_read",
            256,
            0,
            &[
                input("sum", I64),
                output("gradient", F32),
                number("n", U64),
                number("unit", F64),
            ],
        ),
        entry(
            "norm_chunks",
            256,
            0,
            &[input("x", F32), output("chunks", F64), number("n", U64)],
        ),
        entry(
            "norm_finish",
            256,
            2048,
            &[
                input("chunks", F64),
                output("norm", F64),
                output("coefficient", F32),
                number("count", U64),
                number("max_norm", F64),
            ],
        ),
        entry(
            "adamw_update",
            256,
            32,
            &[
                output("p", F32),
                output("m", F32),
                output("v", F32),
                input("gradient", F32),
                input("coefficient", F32),
                output("largest", U32),
                number("n", U64),
                float("step_size"),
                float("correction"),
                float("shrink"),
                float("fresh1"),
                float("keep2"),
                float("fresh2"),
                float("eps"),
            ],
        ),
        entry(
            "largest_magnitudes",
            256,
            32,
            &[input("x", F32), output("largest", U32), number("n", U64)],
        ),
        entry(
            "finite_check",
            1024,
            128,
            &[input("largest", U32), output("broken", U32), int("blocks"),],
        ),
        entry(
            "move_towards",
            256,
            0,
            &[
                output("x", F32),
                input("target", F32),
                number("n", U64),
                float("share"),
            ],
        ),
        entry(
            "scale_values",
            256,
            0,
            &[output("x", F32), number("n", U64), float("factor")],
        ),
    ]
);

//! `cuda/thin.cu`: thin products of LoRA.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32, U64},
    Parameter, float, input, int, number, output,
};

const PRODUCT: &[Parameter] = &[
    output("x", Bf16),
    input("a", Bf16),
    int("tokens"),
    int("inner"),
    int("stride"),
    int("from"),
    int("to"),
    int("rank"),
    int("padded"),
    number("a_start", U64),
    int("a_stride"),
    float("scale"),
];

const GRADIENT: &[Parameter] = &[
    input("x", Bf16),
    input("d", Bf16),
    output("partials", F32),
    int("tokens"),
    int("columns"),
    int("x_from"),
    int("x_stride"),
    int("rank"),
    int("d_from"),
    int("d_stride"),
    int("by_rank"),
];

const COPY: &[Parameter] = &[
    input("parameters", F32),
    output("to", Bf16),
    number("start", U64),
    int("rows"),
    int("columns"),
    number("to_start", U64),
    int("stride"),
];

/// Thin products of LoRA.
pub(super) const FAMILY: Family = family!(
    "thin",
    &[
        entry("thin_product_16", 256, 8192, PRODUCT,),
        entry("thin_product_32", 256, 16384, PRODUCT,),
        entry("thin_product_64", 256, 32768, PRODUCT,),
        entry("thin_gradient_16", 128, 24576, GRADIENT,),
        entry("thin_gradient_32", 128, 28672, GRADIENT,),
        entry("thin_gradient_64", 128, 36864, GRADIENT,),
        entry(
            "thin_gradient_add",
            256,
            0,
            &[
                input("partials", F32),
                output("gradient", F32),
                number("start", U64),
                number("count", U64),
                number("stride", U64),
                int("parts"),
            ],
        ),
        entry("thin_copy", 256, 0, COPY),
        entry("thin_copy_transposed", 256, 4224, COPY),
    ]
);

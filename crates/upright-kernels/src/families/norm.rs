//! `cuda/norm.cu`: norms of rows.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32},
    float, input, int, output,
};

/// Norms of rows.
pub(super) const FAMILY: Family = family!(
    "norm",
    &[
        entry(
            "rms_norm_forward",
            256,
            32,
            &[
                input("x", F32),
                input("scale", F32),
                output("y", Bf16),
                int("width"),
                int("stride"),
                int("padded"),
                int("y_stride"),
                float("eps"),
            ]
        ),
        entry(
            "layer_norm_forward",
            256,
            32,
            &[
                input("x", F32),
                input("scale", F32),
                input("bias", F32),
                output("y", Bf16),
                int("width"),
                int("stride"),
                int("padded"),
                int("y_stride"),
                float("eps"),
            ]
        ),
        entry(
            "rms_norm_backward",
            256,
            32,
            &[
                input("x", F32),
                input("scale", F32),
                input("dy", F32),
                output("dx", F32),
                output("rounded", Bf16),
                int("width"),
                int("stride"),
                int("padded"),
                int("y_stride"),
                float("eps"),
            ]
        ),
        entry(
            "layer_norm_backward",
            256,
            32,
            &[
                input("x", F32),
                input("scale", F32),
                input("dy", F32),
                output("dx", F32),
                output("rounded", Bf16),
                int("width"),
                int("stride"),
                int("padded"),
                int("y_stride"),
                float("eps"),
            ]
        ),
    ]
);

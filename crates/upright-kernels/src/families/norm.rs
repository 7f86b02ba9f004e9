//! `cuda/norm.cu`: norms of rows.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32},
    float, input, int, output,
};

/// Norms of rows.
pub(super) const FAMILY: Family = family!(
    "norm",
    &[entry(
        "rms_norm_forward",
        256,
        32,
        &[
            input("x", F32),
            input("scale", F32),
            output("y", Bf16),
            int("width"),
            int("padded"),
            int("stride"),
            float("eps"),
        ],
    )]
);

//! `cuda/head.cu`: the output head between its two products.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32, F64, I32},
    input, int, output,
};

/// The output head between its two products.
pub(super) const FAMILY: Family = family!(
    "head",
    &[
        entry(
            "head_absorb",
            256,
            96,
            &[
                input("z", F32),
                input("first_target", I32),
                input("tokens", I32),
                output("maximum", F32),
                output("sum", F64),
                output("logits", F32),
                int("first"),
                int("width"),
                int("stride"),
            ],
        ),
        entry(
            "head_absorb_shares",
            256,
            96,
            &[
                input("z", F32),
                input("first_target", I32),
                input("tokens", I32),
                output("maximum", F32),
                output("sum", F64),
                output("logits", F32),
                output("shares", Bf16),
                output("corrections", F32),
                int("first"),
                int("width"),
                int("stride"),
                int("padded"),
            ],
        ),
        entry(
            "head_rescale",
            256,
            0,
            &[
                output("expected", F32),
                input("corrections", F32),
                int("width"),
            ],
        ),
        entry(
            "head_gradient",
            256,
            0,
            &[
                input("expected", F32),
                input("sum", F64),
                input("first_target", I32),
                input("tokens", I32),
                input("slopes", F64),
                input("weights", Bf16),
                output("d", F32),
                int("width"),
                int("padded"),
                int("weight_stride"),
            ],
        ),
        entry(
            "head_best",
            256,
            2144,
            &[
                input("z", F32),
                output("best_logits", F32),
                output("best_tokens", I32),
                int("first"),
                int("width"),
                int("stride"),
                int("count"),
            ],
        ),
        entry(
            "head_finish",
            64,
            0,
            &[
                input("maximum", F32),
                input("sum", F64),
                input("first_target", I32),
                input("logits", F32),
                output("logp", F64),
                input("best_logits", F32),
                output("best_logp", F64),
                int("count"),
            ],
        ),
    ]
);

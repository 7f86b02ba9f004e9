//! `cuda/heads.cu`: rotary embedding and norms of heads.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32, I32},
    float, input, int, output,
};

/// Rotary embedding and norms of heads.
pub(super) const FAMILY: Family = family!(
    "heads",
    &[
        entry(
            "rotary_rounded",
            128,
            0,
            &[
                input("x", F32),
                input("positions", I32),
                input("cosines", F32),
                input("sines", F32),
                output("y", Bf16),
                int("heads"),
                int("kv_heads"),
                int("head"),
                int("half"),
                int("grouped"),
                int("stride"),
                float("sign"),
            ]
        ),
        entry(
            "head_norm_forward",
            128,
            0,
            &[
                input("x", F32),
                input("q_scale", F32),
                input("k_scale", F32),
                input("positions", I32),
                input("cosines", F32),
                input("sines", F32),
                output("before", Bf16),
                output("y", Bf16),
                int("heads"),
                int("kv_heads"),
                int("head"),
                int("size"),
                int("half"),
                int("stride"),
                float("eps"),
            ]
        ),
        entry(
            "head_norm_backward",
            128,
            0,
            &[
                input("d", F32),
                input("before", Bf16),
                input("q_scale", F32),
                input("k_scale", F32),
                input("positions", I32),
                input("cosines", F32),
                input("sines", F32),
                output("y", Bf16),
                int("heads"),
                int("kv_heads"),
                int("head"),
                int("size"),
                int("half"),
                int("stride"),
                float("eps"),
            ]
        ),
    ]
);

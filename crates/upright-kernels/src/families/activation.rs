//! `cuda/activation.cu`: nonlinearities of the MLP.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32},
    input, int, output,
};

/// Nonlinearities of the MLP.
pub(super) const FAMILY: Family = family!(
    "activation",
    &[
        entry(
            "swiglu_forward",
            128,
            0,
            &[
                input("inner", F32),
                output("kept", Bf16),
                output("h", Bf16),
                int("width"),
                int("padded"),
                int("stride"),
            ]
        ),
        entry(
            "swiglu_recompute",
            128,
            0,
            &[
                input("kept", Bf16),
                output("h", Bf16),
                int("width"),
                int("padded"),
                int("stride"),
            ]
        ),
        entry(
            "swiglu_backward",
            128,
            0,
            &[
                input("kept", Bf16),
                input("d_h", F32),
                output("d_inner", Bf16),
                int("width"),
                int("stride"),
            ]
        ),
        entry(
            "gelu_forward",
            128,
            0,
            &[
                input("inner", F32),
                output("kept", Bf16),
                output("h", Bf16),
                int("width"),
                int("padded"),
                int("stride"),
            ]
        ),
        entry(
            "gelu_recompute",
            128,
            0,
            &[
                input("kept", Bf16),
                output("h", Bf16),
                int("width"),
                int("padded"),
                int("stride"),
            ]
        ),
        entry(
            "gelu_backward",
            128,
            0,
            &[
                input("kept", Bf16),
                input("d_h", F32),
                output("d_inner", Bf16),
                int("width"),
                int("stride"),
            ]
        ),
        entry(
            "gelu_tanh_forward",
            128,
            0,
            &[
                input("inner", F32),
                output("kept", Bf16),
                output("h", Bf16),
                int("width"),
                int("padded"),
                int("stride"),
            ]
        ),
        entry(
            "gelu_tanh_recompute",
            128,
            0,
            &[
                input("kept", Bf16),
                output("h", Bf16),
                int("width"),
                int("padded"),
                int("stride"),
            ]
        ),
        entry(
            "gelu_tanh_backward",
            128,
            0,
            &[
                input("kept", Bf16),
                input("d_h", F32),
                output("d_inner", Bf16),
                int("width"),
                int("stride"),
            ]
        ),
    ]
);

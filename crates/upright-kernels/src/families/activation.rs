//! `cuda/activation.cu`: nonlinearities of the MLP.

use super::{Family, entry, family};
use crate::signature::{Element::Bf16, Parameter, input, int, output};

const FORWARD: &[Parameter] = &[
    input("inner", Bf16),
    output("h", Bf16),
    int("width"),
    int("padded"),
    int("stride"),
];

const BACKWARD: &[Parameter] = &[
    input("inner", Bf16),
    input("d_h", Bf16),
    output("d_inner", Bf16),
    int("width"),
    int("stride"),
];

/// Nonlinearities of the MLP.
pub(super) const FAMILY: Family = family!(
    "activation",
    &[
        entry("swiglu_forward", 128, 0, FORWARD),
        entry("swiglu_backward", 128, 0, BACKWARD),
        entry("gelu_forward", 128, 0, FORWARD),
        entry("gelu_backward", 128, 0, BACKWARD),
        entry("gelu_tanh_forward", 128, 0, FORWARD),
        entry("gelu_tanh_backward", 128, 0, BACKWARD),
    ]
);

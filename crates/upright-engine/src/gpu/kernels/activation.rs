//! `activation.cu`: nonlinearities of the MLP.

use half::bf16;
use upright_base::Result;
use upright_model::config::Activation;

use super::{by_columns, rows::Rows};
use crate::gpu::{
    array::Array,
    device::{int, launch},
};

/// Names of an activation's kernels: forward and backward.
fn names(activation: Activation) -> [&'static str; 2] {
    match activation {
        Activation::SwiGlu => ["swiglu_forward", "swiglu_backward"],
        Activation::Gelu => ["gelu_forward", "gelu_backward"],
        Activation::GeluTanh => ["gelu_tanh_forward", "gelu_tanh_backward"],
    }
}

/// Computes h `[rows, width]` from the MLP's inner values `[rows, M]`.
pub(in crate::gpu) fn forward(
    activation: Activation,
    rows: usize,
    width: usize,
    inner: &Array<bf16>,
    h: Rows<'_, bf16>,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let [name, _] = names(activation);
    launch(
        inner.device(),
        name,
        by_columns(rows, width),
        &[
            inner.input(),
            h.values.output(),
            int(width),
            int(width),
            int(h.stride),
        ],
    )
}

/// Turns the gradient of h `[rows, width]` into that of the inner values, `[rows, M]`.
pub(in crate::gpu) fn backward(
    activation: Activation,
    rows: usize,
    width: usize,
    inner: &Array<bf16>,
    d_h: &Array<bf16>,
    d_inner: Rows<'_, bf16>,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let [_, name] = names(activation);
    launch(
        inner.device(),
        name,
        by_columns(rows, width),
        &[
            inner.input(),
            d_h.input(),
            d_inner.values.output(),
            int(width),
            int(d_inner.stride),
        ],
    )
}

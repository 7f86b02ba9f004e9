//! `activation.cu`: nonlinearities of the MLP.

use half::bf16;
use upright_base::Result;
use upright_model::config::Activation;

use super::{by_columns, rows::Rows};
use crate::gpu::{
    array::Array,
    device::{int, launch},
};

/// Names of an activation's kernels: forward, recompute, backward.
fn names(activation: Activation) -> [&'static str; 3] {
    match activation {
        Activation::SwiGlu => ["swiglu_forward", "swiglu_recompute", "swiglu_backward"],
        Activation::Gelu => ["gelu_forward", "gelu_recompute", "gelu_backward"],
        Activation::GeluTanh => [
            "gelu_tanh_forward",
            "gelu_tanh_recompute",
            "gelu_tanh_backward",
        ],
    }
}

/// Computes h `[rows, width]` from the MLP's inner values `[rows, M]`, and keeps these as bf16.
pub(in crate::gpu) fn forward(
    activation: Activation,
    rows: usize,
    width: usize,
    inner: &Array<f32>,
    kept: &Array<bf16>,
    h: Rows<'_, bf16>,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    launch(
        inner.device(),
        names(activation)[0],
        by_columns(rows, width),
        &[
            inner.input(),
            kept.output(),
            h.values.output(),
            int(width),
            int(width),
            int(h.stride),
        ],
    )
}

/// Computes h again from the kept values.
pub(in crate::gpu) fn recompute(
    activation: Activation,
    rows: usize,
    width: usize,
    kept: &Array<bf16>,
    h: Rows<'_, bf16>,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    launch(
        kept.device(),
        names(activation)[1],
        by_columns(rows, width),
        &[
            kept.input(),
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
    kept: &Array<bf16>,
    d_h: &Array<f32>,
    d_inner: Rows<'_, bf16>,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    launch(
        kept.device(),
        names(activation)[2],
        by_columns(rows, width),
        &[
            kept.input(),
            d_h.input(),
            d_inner.values.output(),
            int(width),
            int(d_inner.stride),
        ],
    )
}

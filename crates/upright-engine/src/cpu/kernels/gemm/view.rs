//! Strided matrices, the operands of products.

use std::ops::Range;

use half::bf16;

use crate::cpu::kernels::{convert, simd::Element};

/// Values of an operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'a> {
    /// Activations, adapters, gradients. The bf16 tiers round them to nearest even while packing.
    F32(&'a [f32]),
    /// Frozen weights, and activations that are already rounded.
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    /// Number of values.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// A range of the values.
    #[must_use]
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }

    /// The values as f32; bf16 values are widened into the front of `room`.
    pub(crate) fn floats<'s>(self, room: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match self {
            Self::F32(values) => values,
            Self::Bf16(values) => {
                let room = &mut room[..values.len()];
                convert::widen(values, room);
                room
            }
        }
    }
}

/// Element type of [`Values`].
pub(crate) trait ValueType: Element {
    fn values(slice: &[Self]) -> Values<'_>;
}

impl ValueType for f32 {
    fn values(slice: &[Self]) -> Values<'_> {
        Values::F32(slice)
    }
}

impl ValueType for bf16 {
    fn values(slice: &[Self]) -> Values<'_> {
        Values::Bf16(slice)
    }
}

/// A strided matrix: element `(i, j)` is `values[i * row_stride + j * column_stride]`. A transpose swaps the strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
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

impl<'a> View<'a> {
    /// Values `[rows, cols]` of either kind, row-major.
    pub(crate) fn of<E: ValueType>(values: &'a [E], rows: usize, cols: usize) -> Self {
        Self::strided(E::values(values), rows, cols, cols)
    }

    /// f32 values `[rows, cols]`, row-major.
    pub(crate) fn rows(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(Values::F32(values), rows, cols, cols)
    }

    /// bf16 values `[rows, cols]`, row-major.
    pub(crate) fn bf16(values: &'a [bf16], rows: usize, cols: usize) -> Self {
        Self::strided(Values::Bf16(values), rows, cols, cols)
    }

    /// `[rows, cols]`, row-major; row `i` starts at `i * row_stride`.
    pub(crate) fn strided(values: Values<'a>, rows: usize, cols: usize, row_stride: usize) -> Self {
        Self {
            values,
            rows,
            cols,
            row_stride,
            column_stride: 1,
        }
    }

    /// The transpose, `[cols, rows]`, of the same values.
    #[must_use]
    pub(crate) fn t(self) -> Self {
        Self {
            values: self.values,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// The rows of `range`, `[range.len(), cols]`.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn row_range(self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.rows,
            "rows {range:?} of {}",
            self.rows
        );
        let skip = if range.is_empty() {
            0
        } else {
            range.start * self.row_stride
        };
        let values = self.values.part(skip..self.values.len());
        Self {
            values,
            rows: range.len(),
            ..self
        }
    }

    /// The columns of `range`, `[rows, range.len()]`.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn col_range(self, range: Range<usize>) -> Self {
        self.t().row_range(range).t()
    }

    /// Packing reads through pointers: every element must lie within the values.
    pub(super) fn assert_within(&self) {
        let len = self.values.len();
        assert!(
            self.rows == 0 || self.cols == 0 || self.last_index().is_some_and(|last| last < len),
            "a view of {}x{}, strides {} and {}, over {len} values",
            self.rows,
            self.cols,
            self.row_stride,
            self.column_stride
        );
    }

    fn last_index(&self) -> Option<usize> {
        let row = (self.rows - 1).checked_mul(self.row_stride)?;
        row.checked_add((self.cols - 1).checked_mul(self.column_stride)?)
    }
}

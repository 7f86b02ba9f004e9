//! Saved activations, in the precision of the tier's products. bf16 takes half of the memory, and a
//! product that reads it gives the same bits.

use half::bf16;
use rayon::prelude::*;

use super::{
    Tier, convert,
    gemm::{Packed, Values, View},
};
use crate::cpu::{buffer::Buffer, kernels::gather::gather};

/// Values that a thread rounds at a time.
const CHUNK: usize = 16 * 1024;

/// A matrix of activations, row-major.
pub(crate) enum Saved {
    /// As computed.
    F32(Buffer<f32>),
    /// Rounded to nearest even.
    Bf16(Buffer<bf16>),
}

impl Saved {
    /// Stores values for a tier.
    pub(crate) fn new(tier: Tier, values: Buffer<f32>) -> Self {
        if tier.rounds() {
            Self::copy(tier, &values)
        } else {
            Self::F32(values)
        }
    }

    /// Stores a copy of values for a tier.
    pub(crate) fn copy(tier: Tier, values: &[f32]) -> Self {
        if !tier.rounds() {
            return Self::F32(Buffer::from(values));
        }
        let mut rounded = Buffer::new(values.len());
        let chunks = rounded.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
        chunks.for_each(|(rounded, values)| convert::round(values, rounded));
        Self::Bf16(rounded)
    }

    /// Stores rows of `width` values after `finish` has changed each row, given its index.
    pub(crate) fn finished(
        tier: Tier,
        mut values: Buffer<f32>,
        width: usize,
        finish: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        if !tier.rounds() {
            values
                .par_chunks_mut(width)
                .enumerate()
                .for_each(|(row, values)| finish(row, values));
            return Self::F32(values);
        }
        let mut rounded = Buffer::new(values.len());
        let rows = values
            .par_chunks_mut(width)
            .zip(rounded.par_chunks_mut(width))
            .enumerate();
        rows.for_each(|(row, (values, rounded))| {
            finish(row, values);
            convert::round(values, rounded);
        });
        Self::Bf16(rounded)
    }

    /// Stores rows of `width` values, and packs the rows of `cols` values that `make` computes from
    /// them.
    pub(crate) fn packed(
        tier: Tier,
        values: Buffer<f32>,
        width: usize,
        cols: usize,
        make: impl Fn(&[f32], &mut [f32]) + Sync,
    ) -> (Packed, Self) {
        let row = |row: usize| &values[row * width..][..width];
        let rows = values.len() / width;
        if !tier.rounds() {
            let packed = Packed::from_rows(tier, rows, cols, |at, made| make(row(at), made));
            return (packed, Self::F32(values));
        }
        let mut rounded = Buffer::new(values.len());
        let packed =
            Packed::from_rows_beside(tier, rows, cols, &mut rounded, |at, made, rounded| {
                make(row(at), made);
                convert::round(row(at), rounded);
            });
        (packed, Self::Bf16(rounded))
    }

    /// Calls `each` with every row of `width` values and the corresponding row of `others`, which
    /// has the same number of rows.
    pub(crate) fn by_rows(
        &self,
        width: usize,
        others: &mut [f32],
        each: impl Fn(Values<'_>, &mut [f32]) + Sync,
    ) {
        let values = self.values();
        let other = others.len() / (values.len() / width).max(1);
        let rows = others.par_chunks_mut(other.max(1)).enumerate();
        rows.for_each(|(row, other)| each(values.part(row * width..(row + 1) * width), other));
    }

    /// Bytes per value.
    pub(crate) fn size(tier: Tier) -> usize {
        if tier.rounds() {
            size_of::<bf16>()
        } else {
            size_of::<f32>()
        }
    }

    /// The values.
    pub(crate) fn values(&self) -> Values<'_> {
        match self {
            Self::F32(values) => Values::F32(values),
            Self::Bf16(values) => Values::Bf16(values),
        }
    }

    /// The rows that `rows` lists, of `width` values each.
    pub(crate) fn gathered(&self, rows: &[usize], width: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(gather(values, rows, width)),
            Self::Bf16(values) => Self::Bf16(gather(values, rows, width)),
        }
    }

    /// As a matrix with rows of `width` values.
    pub(crate) fn view(&self, width: usize) -> View<'_> {
        let values = self.values();
        View::strided(values, values.len() / width, width, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_finished_and_kept_as_the_tier_reads_them() {
        let values = || Buffer::from(&[1.0, 2.0, 3.0, 4.0][..]);
        let finish = |row: usize, values: &mut [f32]| {
            values
                .iter_mut()
                .for_each(|v| *v += row as f32 + 1.0 / 1024.0);
        };
        let exact = Saved::finished(Tier::Portable, values(), 2, finish);
        let Values::F32(found) = exact.values() else {
            panic!("f32")
        };
        assert_eq!(found, [1.0, 2.0, 4.0, 5.0].map(|v| v + 1.0 / 1024.0));
        let rounded = Saved::finished(Tier::Amx, values(), 2, finish);
        let Values::Bf16(found) = rounded.values() else {
            panic!("bf16")
        };
        assert_eq!(found, [1.0, 2.0, 4.0, 5.0].map(bf16::from_f32));
        assert_eq!(
            [Saved::size(Tier::Portable), Saved::size(Tier::Amx)],
            [4, 2]
        );
        assert_eq!((rounded.view(2).rows, rounded.view(2).cols), (2, 2));
    }
}

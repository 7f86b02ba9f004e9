//! Rows packed once for several products.

use super::{
    Kernel, View, Visit,
    driver::{each, pack_whole, packed_len},
    on_kernel,
};
use crate::cpu::{buffer::Buffer, tier::Tier};

/// A matrix `[rows, cols]`, packed as the left operand of a tier's products.
#[derive(Debug)]
pub(crate) struct Packed {
    tier: Tier,
    rows: usize,
    cols: usize,
    /// The panels of every block of K, in order; the type of the values depends on the tier.
    bytes: Buffer<u8>,
}

impl Packed {
    /// Packs a view. Runs on the current rayon pool.
    ///
    /// # Panics
    /// If the view reaches beyond its values, or the machine lacks the tier.
    pub(crate) fn new(tier: Tier, view: View<'_>) -> Self {
        struct Whole<'a>(View<'a>);
        impl Visit for Whole<'_> {
            type Output = Buffer<u8>;
            fn visit<K: Kernel>(self) -> Buffer<u8> {
                let view = self.0;
                let mut bytes = room::<K>(view.rows, view.cols);
                let out = bytemuck::cast_slice_mut(&mut bytes);
                pack_whole::<K>(
                    K::pack_a,
                    &view,
                    K::A_PANEL,
                    out,
                    view.rows * view.cols > 1 << 14,
                );
                bytes
            }
        }
        view.assert_within();
        if view.rows == 0 {
            return Self::empty(tier, view.cols);
        }
        Self {
            tier,
            rows: view.rows,
            cols: view.cols,
            bytes: on_kernel(tier, Whole(view)),
        }
    }

    /// Packs rows as they are computed: `fill` writes row `i`, `[cols]`. Rows are computed in any
    /// order, on any thread.
    ///
    /// # Panics
    /// If the machine lacks the tier.
    pub(crate) fn from_rows(
        tier: Tier,
        rows: usize,
        cols: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        Self::from_rows_beside(tier, rows, cols, &mut vec![(); rows], |row, values, _| {
            fill(row, values);
        })
    }

    /// Like [`Packed::from_rows`], but `fill` also gets the corresponding row of `beside`,
    /// `[rows, any]`.
    ///
    /// # Panics
    /// If the machine lacks the tier, or `beside` has another number of rows.
    pub(crate) fn from_rows_beside<T: Send>(
        tier: Tier,
        rows: usize,
        cols: usize,
        beside: &mut [T],
        fill: impl Fn(usize, &mut [f32], &mut [T]) + Sync,
    ) -> Self {
        struct Rows<'a, T, F>(usize, usize, &'a mut [T], &'a F);
        impl<T: Send, F: Fn(usize, &mut [f32], &mut [T]) + Sync> Visit for Rows<'_, T, F> {
            type Output = Buffer<u8>;
            fn visit<K: Kernel>(self) -> Buffer<u8> {
                let Self(rows, cols, beside, fill) = self;
                let width_beside = beside.len() / rows;
                let mut bytes = room::<K>(rows, cols);
                let width = rows.next_multiple_of(K::A_PANEL);
                // A task is a panel of every block.
                let mut panels: Vec<Vec<&mut [K::Value]>> = Vec::new();
                panels.resize_with(rows.div_ceil(K::A_PANEL), Vec::new);
                let mut rest = bytemuck::cast_slice_mut(&mut bytes);
                for start in (0..cols).step_by(K::BLOCK) {
                    let line = K::padded(K::BLOCK.min(cols - start));
                    let (block, others) = std::mem::take(&mut rest).split_at_mut(width * line);
                    rest = others;
                    panels
                        .iter_mut()
                        .zip(block.chunks_mut(K::A_PANEL * line))
                        .for_each(|(list, out)| list.push(out));
                }
                let beside = beside.chunks_mut(K::A_PANEL * width_beside);
                let mut tasks: Vec<_> = panels.into_iter().zip(beside).enumerate().collect();
                let group = tasks
                    .len()
                    .div_ceil(4 * rayon::current_num_threads())
                    .max(1);
                let mut groups = Vec::new();
                while !tasks.is_empty() {
                    let rest = tasks.split_off(group.min(tasks.len()));
                    groups.push(std::mem::replace(&mut tasks, rest));
                }
                each(rows * cols > 1 << 14, groups, |group| {
                    let mut values = Buffer::<f32>::new(K::A_PANEL * cols);
                    for (panel, (outs, beside)) in group {
                        let first = panel * K::A_PANEL;
                        let count = K::A_PANEL.min(rows - first);
                        let both = values
                            .chunks_exact_mut(cols)
                            .zip(beside.chunks_exact_mut(width_beside));
                        for (row, (values, beside)) in both.enumerate() {
                            fill(first + row, values, beside);
                        }
                        let view = View::rows(&values[..count * cols], count, cols);
                        for (start, out) in (0..cols).step_by(K::BLOCK).zip(outs) {
                            K::pack_a(&view, 0..count, start..cols.min(start + K::BLOCK), out);
                        }
                    }
                });
                bytes
            }
        }
        if rows == 0 {
            return Self::empty(tier, cols);
        }
        assert!(
            beside.len() >= rows && beside.len().is_multiple_of(rows),
            "{} values beside {rows} rows",
            beside.len()
        );
        Self {
            tier,
            rows,
            cols,
            bytes: on_kernel(tier, Rows(rows, cols, beside, &fill)),
        }
    }

    /// A matrix without rows.
    fn empty(tier: Tier, cols: usize) -> Self {
        Self {
            tier,
            rows: 0,
            cols,
            bytes: Buffer::new(0),
        }
    }

    /// The tier that the matrix is packed for.
    pub(crate) fn tier(&self) -> Tier {
        self.tier
    }

    /// Rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn values<V: bytemuck::Pod>(&self) -> &[V] {
        bytemuck::cast_slice(&self.bytes)
    }
}

fn room<K: Kernel>(rows: usize, cols: usize) -> Buffer<u8> {
    Buffer::new(packed_len::<K>(rows, K::A_PANEL, cols) * size_of::<K::Value>())
}

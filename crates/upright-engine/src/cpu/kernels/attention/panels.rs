//! Operands of the small products of attention, as a tier's kernel takes them.

use bytemuck::Pod;

use crate::cpu::{
    buffer::Buffer,
    kernels::{
        gemm::{Destination, Kernel, Pack, Segment, View},
        simd::Element,
    },
};

/// The panels of one operand: `lines` of them by `depth` elements of k.
pub(super) struct Side<V> {
    panels: Buffer<V>,
    /// Lines of a panel.
    panel: usize,
    /// Values from one panel to the next.
    stride: usize,
    lines: usize,
    depth: usize,
}

/// Part of an operand.
#[derive(Clone, Copy)]
pub(super) struct Part<'a, V> {
    values: &'a [V],
    stride: usize,
    lines: usize,
    depth: usize,
}

impl<V: Pod> Side<V> {
    /// All of it.
    pub(super) fn whole(&self) -> Part<'_, V> {
        self.lines(0, self.lines)
    }

    /// Lines from `first` on, which starts a panel.
    pub(super) fn lines(&self, first: usize, lines: usize) -> Part<'_, V> {
        assert!(first.is_multiple_of(self.panel) && first + lines <= self.lines);
        let values = &self.panels[first / self.panel * self.stride..];
        Part {
            values,
            stride: self.stride,
            lines,
            depth: self.depth,
        }
    }

    /// Elements of k from `first` on, a multiple of [`KEYS`](super::KEYS).
    pub(super) fn depth<K: Kernel<Value = V>>(&self, first: usize, depth: usize) -> Part<'_, V> {
        assert!(first.is_multiple_of(super::KEYS) && first + depth <= self.depth);
        let values = &self.panels[K::padded(first) * self.panel..];
        Part {
            values,
            stride: self.stride,
            lines: self.lines,
            depth,
        }
    }
}

/// A left operand, from a view of lines by k.
pub(super) fn left<K: Kernel>(view: &View<'_>) -> Side<K::Value> {
    side::<K>(view, K::A_PANEL, K::pack_a)
}

/// A right operand, from a view of lines by k: the transpose of what is multiplied.
pub(super) fn right<K: Kernel>(view: &View<'_>) -> Side<K::Value> {
    side::<K>(view, K::B_PANEL, K::pack_b)
}

fn side<K: Kernel>(view: &View<'_>, panel: usize, pack: Pack<K>) -> Side<K::Value> {
    let stride = panel * K::padded(view.cols);
    let mut panels = Buffer::new(view.rows.div_ceil(panel) * stride);
    pack(view, 0..view.rows, 0..view.cols, &mut panels);
    Side {
        panels,
        panel,
        stride,
        lines: view.rows,
        depth: view.cols,
    }
}

/// `C = A B` or, to `add`, `C += A B`: row `i` of C starts at `c[i * c_stride]`.
pub(super) fn multiply<K: Kernel>(
    a: Part<'_, K::Value>,
    b: Part<'_, K::Value>,
    c: &mut [f32],
    c_stride: usize,
    add: bool,
) {
    let (m, n) = (a.lines, b.lines);
    assert_eq!(a.depth, b.depth, "the depths of two operands");
    assert!(
        n <= c_stride && m > 0 && (m - 1) * c_stride + n <= c.len(),
        "C of {m}x{n} in {}",
        c.len()
    );
    let to = c.as_mut_ptr();
    let onto = add.then_some((to.cast_const(), c_stride));
    let to = Destination {
        to,
        stride: c_stride,
        onto,
        bias: None,
    };
    let segment = Segment {
        a: a.values,
        a_panel: a.stride,
        b: b.values,
        b_panel: b.stride,
        k: a.depth,
    };
    // SAFETY: C is borrowed and holds `m` rows of `n` values; the panels were packed by the same kernel, which whoever
    // chose it knows to run here.
    unsafe { K::block(&[segment], m, n, to, true) };
}

/// Vectors that are fetched ahead: each lies a row of all heads further on, which the processor does not foresee.
const AHEAD: usize = 12;

/// Copies head vectors of `size` values into rows of `out`, and zeroes the rows that are left.
pub(super) fn gather<'a, E: Element>(
    vectors: impl Iterator<Item = &'a [E]> + Clone,
    out: &mut [E],
    size: usize,
) {
    let mut ahead = vectors.clone();
    ahead.by_ref().take(AHEAD).for_each(fetch);
    let mut rows = out.chunks_exact_mut(size);
    for vector in vectors {
        ahead.next().into_iter().for_each(fetch);
        rows.next()
            .expect("a row for every vector")
            .copy_from_slice(vector);
    }
    rows.for_each(|row| row.fill(E::zeroed()));
}

/// Begins to bring a vector near, where the processor can be told.
#[inline]
pub(super) fn fetch<E>(vector: &[E]) {
    #[cfg(target_arch = "x86_64")]
    for line in vector.chunks(64 / size_of::<E>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it only wishes.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = vector;
}

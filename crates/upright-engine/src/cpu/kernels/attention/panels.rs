//! Operands of the small products of attention, packed for a tier's microkernel.

use bytemuck::Pod;

use crate::cpu::{
    buffer::Buffer,
    kernels::{
        gemm::{Destination, Kernel, Pack, Segment, View},
        simd::Element,
    },
};

/// The panels of one operand: `lines` lines by `depth` elements of k.
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
    /// The whole operand.
    pub(super) fn whole(&self) -> Part<'_, V> {
        self.lines(0, self.lines)
    }

    /// Lines from `first` on, which is the first line of a panel.
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

/// A right operand, from a view of lines by k: the transpose of the matrix to multiply with.
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

/// `C = A B`, or `C += A B` if `add`. Row `i` of C starts at `c[i * c_stride]`.
pub(super) fn multiply<K: Kernel>(
    a: Part<'_, K::Value>,
    b: Part<'_, K::Value>,
    c: &mut [f32],
    c_stride: usize,
    add: bool,
) {
    let (m, n) = (a.lines, b.lines);
    assert_eq!(a.depth, b.depth, "operands of equal depth");
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
    // SAFETY: C is borrowed exclusively and holds `m` rows of `n` values; the panels were packed by
    // the same kernel, and `on_kernel` has checked that this machine can run it.
    unsafe { K::block(&[segment], m, n, to, true) };
}

/// Vectors to prefetch. Each lies a row of all heads after the last one, a stride that the
/// processor does not predict.
const AHEAD: usize = 12;

/// Copies head vectors of `size` values into rows of `out`, and zeroes the remaining rows.
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

/// Prefetches a vector, on processors that have an instruction for it.
#[inline]
pub(super) fn fetch<E>(vector: &[E]) {
    #[cfg(target_arch = "x86_64")]
    for line in vector.chunks(64 / size_of::<E>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and a prefetch is only a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = vector;
}

//! f32 products, compiled for three generations of x86 vectors and, elsewhere, for the target's own.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

use super::{Destination, Kernel, Values, View, run as run_kernel};
use crate::cpu::lanes::{Four, Lanes, Left, tile};

/// Runs the product on the widest vectors of this machine.
pub(super) fn run(a: View<'_>, b: View<'_>, c: Destination, accumulate: bool) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return run_kernel::<Avx512f>(a, b, c, accumulate);
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return run_kernel::<Avx2>(a, b, c, accumulate);
        }
    }
    run_kernel::<Baseline>(a, b, c, accumulate);
}

/// One compilation of the kernel: `$rows` rows by two vectors of C in registers.
macro_rules! version {
    ($(#[$doc:meta])* $name:ident, $lanes:ty, $rows:literal, $cols:literal $(, $feature:literal)?) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Kernel for $name {
            type Value = f32;
            const BLOCK: usize = 256;
            const A_PANEL: usize = $rows;
            const B_PANEL: usize = $cols;
            const A_UNIT: usize = $rows;
            const B_UNIT: usize = $cols;

            fn padded(k: usize) -> usize {
                k
            }

            fn pack_a(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [f32]) {
                pack::<$rows>(view, lines, k, out);
            }

            fn pack_b(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [f32]) {
                pack::<$cols>(view, lines, k, out);
            }

            unsafe fn block(a: &[f32], b: &[f32], m: usize, n: usize, k: usize, c: Destination, add: bool) {
                $(#[target_feature(enable = $feature)])?
                unsafe fn compiled(a: &[f32], b: &[f32], m: usize, n: usize, k: usize, c: Destination, add: bool) {
                    // SAFETY: the caller's.
                    unsafe { block::<$lanes, $rows, $cols>(a, b, m, n, k, c, add) }
                }
                // SAFETY: the caller's, who also knows that the machine has the features.
                unsafe { compiled(a, b, m, n, k, c, add) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
version!(
    /// 512-bit vectors.
    Avx512f, __m512, 8, 32, "avx512f"
);
#[cfg(target_arch = "x86_64")]
version!(
    /// 256-bit vectors.
    Avx2, __m256, 6, 16, "avx2,fma"
);
version!(
    /// The target's own vectors.
    Baseline, Four, 4, 8
);

/// Panels of `W` lines: for every k, the lines' elements side by side.
fn pack<const W: usize>(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [f32]) {
    for (start, panel) in lines.clone().step_by(W).zip(out.chunks_exact_mut(W * k.len())) {
        let count = W.min(lines.end - start);
        let from = start * view.row_stride + k.start * view.column_stride;
        let strides = (view.row_stride, view.column_stride);
        match view.values {
            Values::F32(values) => pack_panel::<W, _>(&values[from..], strides, count, panel, |&x| x),
            Values::Bf16(values) => {
                pack_panel::<W, _>(&values[from..], strides, count, panel, |x| {
                    f32::from_bits(u32::from(x.to_bits()) << 16)
                });
            }
        }
    }
}

#[inline(always)]
fn pack_panel<const W: usize, T>(
    values: &[T],
    (line_stride, k_stride): (usize, usize),
    count: usize,
    panel: &mut [f32],
    widen: impl Fn(&T) -> f32,
) {
    if count < W {
        panel.fill(0.0);
    }
    let (columns, _) = panel.as_chunks_mut::<W>();
    if line_stride == 1 {
        for (k, column) in columns.iter_mut().enumerate() {
            let line = &values[k * k_stride..][..count];
            column.iter_mut().zip(line).for_each(|(out, x)| *out = widen(x));
        }
    } else {
        // A few k of every line at a time, so that what is read and what is written both stay in the first cache.
        for (piece, columns) in columns.chunks_mut(16).enumerate() {
            for line in 0..count {
                let from = &values[line * line_stride + piece * 16 * k_stride..];
                columns.iter_mut().zip(from.iter().step_by(k_stride)).for_each(|(column, x)| column[line] = widen(x));
            }
        }
    }
}

/// # Safety
/// As [`Kernel::block`].
#[inline(always)]
unsafe fn block<L: Lanes, const M: usize, const N: usize>(
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    c: Destination,
    add: bool,
) {
    // A panel of B stays in the first cache while the panels of A pass by.
    for (j, b) in (0..n).step_by(N).zip(b.chunks_exact(N * k)) {
        for (i, a) in (0..m).step_by(M).zip(a.chunks_exact(M * k)) {
            let a = Left { start: a.as_ptr(), row_stride: 1, depth_stride: M };
            let (rows, cols) = (M.min(m - i), N.min(n - j));
            // SAFETY: the panels hold k times M and N values; rows `i..i + rows` and columns `j..j + cols` lie within C
            // and are this task's alone.
            unsafe {
                let sums = tile::<L, M, 2>([[L::splat(0.0); 2]; M], a, b.as_ptr(), N, k);
                let out = c.at(i, j);
                if cols == N {
                    for r in 0..M {
                        for v in 0..2 {
                            if r < rows {
                                let to = out.start.add(r * out.stride + v * L::LEN);
                                let sum = if add { L::load(to).add(sums[r][v]) } else { sums[r][v] };
                                sum.store(to);
                            }
                        }
                    }
                } else {
                    let mut square = [[0.0; N]; M];
                    for r in 0..M {
                        for v in 0..2 {
                            sums[r][v].store(square[r].as_mut_ptr().add(v * L::LEN));
                        }
                    }
                    for (r, sums) in square.iter().enumerate().take(rows) {
                        let to = std::slice::from_raw_parts_mut(out.start.add(r * out.stride), cols);
                        to.iter_mut().zip(sums).for_each(|(to, sum)| *to = if add { *to + sum } else { *sum });
                    }
                }
            }
        }
    }
}

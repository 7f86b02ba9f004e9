//! f32 products, compiled for two generations of x86 vectors and for the target's own vectors.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

use super::{Destination, Kernel, Segment, Values, View, Visit};
use crate::cpu::kernels::simd::{Four, Lanes, Left, tile};

/// Runs the work on the widest vectors of this machine.
pub(super) fn on_widest<V: Visit>(work: V) -> V::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return work.visit::<Avx512f>();
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return work.visit::<Avx2>();
        }
    }
    work.visit::<Baseline>()
}

/// One compilation of the microkernel: a register block of `$rows` rows by two vectors of C.
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

            unsafe fn block(segments: &[Segment<'_, f32>], m: usize, n: usize, to: Destination, _: bool) {
                $(#[target_feature(enable = $feature)])?
                unsafe fn compiled(segments: &[Segment<'_, f32>], m: usize, n: usize, to: Destination) {
                    // SAFETY: guaranteed by the caller.
                    unsafe { block::<$lanes, $rows, $cols>(segments, m, n, to) }
                }
                // SAFETY: guaranteed by the caller, including that the machine has the features.
                unsafe { compiled(segments, m, n, to) }
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

/// Packs panels of `W` lines: for every k, the elements of the lines side by side.
fn pack<const W: usize>(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [f32]) {
    for (start, panel) in lines
        .clone()
        .step_by(W)
        .zip(out.chunks_exact_mut(W * k.len()))
    {
        let count = W.min(lines.end - start);
        let from = start * view.row_stride + k.start * view.column_stride;
        let strides = (view.row_stride, view.column_stride);
        match view.values {
            Values::F32(values) => {
                pack_panel::<W, _>(&values[from..], strides, count, panel, |&x| x);
            }
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
            column
                .iter_mut()
                .zip(line)
                .for_each(|(out, x)| *out = widen(x));
        }
    } else {
        // A few k of every line at a time, so that reads and writes both stay in the L1 cache.
        for (piece, columns) in columns.chunks_mut(16).enumerate() {
            for line in 0..count {
                let from = &values[line * line_stride + piece * 16 * k_stride..];
                columns
                    .iter_mut()
                    .zip(from.iter().step_by(k_stride))
                    .for_each(|(column, x)| column[line] = widen(x));
            }
        }
    }
}

/// # Safety
/// As [`Kernel::block`].
#[inline(always)]
unsafe fn block<L: Lanes, const M: usize, const N: usize>(
    segments: &[Segment<'_, f32>],
    m: usize,
    n: usize,
    to: Destination,
) {
    // A panel of B stays in the L1 cache while the panels of A stream past.
    for j in (0..n).step_by(N) {
        for i in (0..m).step_by(M) {
            let (rows, cols) = (M.min(m - i), N.min(n - j));
            let mut sums = [[L::splat(0.0); 2]; M];
            for Segment {
                a,
                a_panel,
                b,
                b_panel,
                k,
            } in segments
            {
                let (a, b) = (
                    &a[i / M * a_panel..][..M * k],
                    &b[j / N * b_panel..][..N * k],
                );
                let a = Left {
                    start: a.as_ptr(),
                    row_stride: 1,
                    depth_stride: M,
                };
                // SAFETY: the panels hold k times M and N values.
                sums = unsafe { tile::<L, M, 2>(sums, a, b.as_ptr(), N, *k) };
            }
            // SAFETY: rows `i..i + rows` and columns `j..j + cols` lie within C, and only this task
            // accesses them.
            unsafe {
                let to = to.at(i, j);
                if cols == N {
                    for r in 0..M {
                        for v in 0..2 {
                            if r < rows {
                                let to = to.at(r, v * L::LEN);
                                let mut sum = sums[r][v];
                                if let Some(bias) = to.bias {
                                    sum = sum.add(L::load(bias));
                                }
                                if let Some((onto, _)) = to.onto {
                                    sum = L::load(onto).add(sum);
                                }
                                sum.store(to.to);
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
                        sums.iter()
                            .enumerate()
                            .take(cols)
                            .for_each(|(c, sum)| to.at(r, c).write(*sum));
                    }
                }
            }
        }
    }
}

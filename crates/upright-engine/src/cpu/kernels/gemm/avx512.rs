//! bf16 products with `vdpbf16ps`.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::pack::{DEPTH, LINES, Order, assert_panels, pack};
use super::{Destination, Kernel, Segment, View};

/// AVX512-BF16: a register block of 8 rows by 48 columns of C.
pub(super) struct Avx512;

/// Rows of the register block: half a panel of A.
const ROWS: usize = 8;
/// Panels of B side by side in the register block.
const PANELS: usize = 3;

impl Kernel for Avx512 {
    /// A pair of bf16.
    type Value = u32;
    const BLOCK: usize = 512;
    const A_PANEL: usize = LINES;
    const B_PANEL: usize = LINES;
    const A_UNIT: usize = LINES;
    const B_UNIT: usize = PANELS * LINES;

    fn padded(k: usize) -> usize {
        k.next_multiple_of(DEPTH) / 2
    }

    fn pack_a(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [u32]) {
        pack(Order::Pairs, view, lines, k, out);
    }

    fn pack_b(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [u32]) {
        pack(Order::Lines, view, lines, k, out);
    }

    unsafe fn block(segments: &[Segment<'_, u32>], m: usize, n: usize, to: Destination, _: bool) {
        assert!(!segments.is_empty(), "a sum of at least one product");
        segments
            .iter()
            .for_each(|segment| assert_panels(segment, m, n));
        // SAFETY: guaranteed by the caller; the lengths of the panels were asserted above.
        unsafe { block(segments, m, n, to) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn block(segments: &[Segment<'_, u32>], m: usize, n: usize, to: Destination) {
    for i in (0..m).step_by(ROWS) {
        let rows = ROWS.min(m - i);
        for j in (0..n).step_by(PANELS * LINES) {
            let cols = (PANELS * LINES).min(n - j);
            // SAFETY: rows `i..i + rows` and columns `j..j + cols` lie within the panels and within C.
            unsafe {
                let to = to.at(i, j);
                match cols.div_ceil(LINES) {
                    1 => micro::<1>(segments, i, j, rows, cols, to),
                    2 => micro::<2>(segments, i, j, rows, cols, to),
                    _ => micro::<3>(segments, i, j, rows, cols, to),
                }
            }
        }
    }
}

/// Multiplies half a panel of A, from row `i` on, with `V` panels of B, from column `j` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn micro<const V: usize>(
    segments: &[Segment<'_, u32>],
    i: usize,
    j: usize,
    rows: usize,
    cols: usize,
    to: Destination,
) {
    let mut sums = MaybeUninit::<[[__m512; V]; ROWS]>::uninit();
    // SAFETY: the panels hold the segments' pairs of ROWS and of V * 16 lines; there is at least
    // one segment, and the first one writes all sums; rows and columns of C beyond `rows` and
    // `cols` are masked.
    unsafe {
        for (index, segment) in segments.iter().enumerate() {
            let a = segment
                .a
                .as_ptr()
                .add(i / LINES * segment.a_panel + i % LINES * 16);
            let b = segment.b.as_ptr().add(j / LINES * segment.b_panel);
            add_products(
                sums.as_mut_ptr(),
                index > 0,
                a,
                b,
                segment.b_panel,
                segment.k.div_ceil(2),
            );
        }
        let sums = sums.assume_init_ref();
        for r in 0..ROWS {
            for v in 0..V {
                if r < rows {
                    store(to.at(r, v * 16), (cols - v * 16).min(16), sums[r][v]);
                }
            }
        }
    }
}

/// Adds the products of half a panel of A and `V` panels of B, `panel` values apart, to the sums,
/// or to zero unless `further`.
///
/// This is a separate function with a single loop. If the loop is inlined into the loop over
/// segments, or nested as a loop over pairs in a loop over tiles, the compiler keeps the sums on
/// the stack and stores all of them for every pair.
///
/// # Safety
/// The panels hold `pairs` pairs of bf16 of ROWS and of `V` * 16 lines; the sums can be written,
/// and have been if `further`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn add_products<const V: usize>(
    to: *mut [[__m512; V]; ROWS],
    further: bool,
    mut a: *const u32,
    mut b: *const u32,
    panel: usize,
    pairs: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
    if further {
        // SAFETY: guaranteed by the caller.
        sums = unsafe { *to };
    }
    for pair in 0..pairs {
        // SAFETY: guaranteed by the caller; a panel of A is tiles of 16 lines by 16 pairs, a panel
        // of B is a row of 16 lines per pair.
        unsafe {
            let mut columns = [_mm512_setzero_si512(); V];
            for v in 0..V {
                columns[v] = _mm512_loadu_si512(b.add(v * panel).cast());
            }
            for r in 0..ROWS {
                let x = _mm512_set1_epi32(a.add(r * 16).cast::<i32>().read());
                for v in 0..V {
                    sums[r][v] = _mm512_dpbf16_ps(sums[r][v], bf16x32(x), bf16x32(columns[v]));
                }
            }
            a = a.wrapping_add(if pair % 16 == 15 { 1 + 15 * LINES } else { 1 });
            b = b.wrapping_add(LINES);
        }
    }
    // SAFETY: guaranteed by the caller.
    unsafe { *to = sums };
}

/// Adds bias and residual to the first `count` of 16 sums of a row and writes them.
///
/// # Safety
/// `count` (1 to 16) elements lie within C, and only the caller accesses them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(to: Destination, count: usize, mut sums: __m512) {
    let mask = u16::MAX >> (16 - count);
    // SAFETY: the mask limits every access to `count` values.
    unsafe {
        if let Some(bias) = to.bias {
            sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, bias));
        }
        if let Some((onto, _)) = to.onto {
            sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, onto), sums);
        }
        _mm512_mask_storeu_ps(to.to, mask, sums);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn bf16x32(pairs: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without invalid values.
    unsafe { std::mem::transmute(pairs) }
}

//! Packing into bf16 panels for the two bf16 tiers.
//!
//! Both tiers use panels of 16 lines, split along k into tiles of 32 and padded with zeros. A tile
//! is 1 KB of contiguous memory: 16 x 16 pairs `(k, k + 1)` of bf16, 32 bits per pair. In a tile of
//! A, the 16 pairs of a line are contiguous; in a tile of B, the pairs of the 16 lines at one k
//! are. `tdpbf16ps` reads this layout. `vdpbf16ps` uses it too: a row of B's tile is a vector, and
//! a pair of A's tile is broadcast.

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::{Segment, Values, View};
use crate::cpu::kernels::convert::rounded;

/// Lines of a panel.
pub(super) const LINES: usize = 16;
/// Elements of k in a tile.
pub(super) const DEPTH: usize = 32;
/// Prefetch distance along a line of weights, in bytes.
const AHEAD: usize = 256;
/// Pairs in a tile.
pub(super) const TILE: usize = LINES * DEPTH / 2;

/// Which index of a tile is contiguous.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `[line][pair]`, tiles of A.
    Pairs,
    /// `[pair][line]`, tiles of B.
    Lines,
}

/// Packs `lines` of a view of lines by k, at the given k. `out` receives `TILE` pairs for every 16
/// lines and 32 k.
pub(super) fn pack(
    order: Order,
    view: &View<'_>,
    lines: Range<usize>,
    k: Range<usize>,
    out: &mut [u32],
) {
    assert!(lines.end <= view.rows && k.end <= view.cols);
    assert!(super::Tier::Avx512.available());
    // SAFETY: the ranges lie within the view, whose elements `product` asserted to lie within the values; the machine
    // has the features.
    unsafe { pack_panels(order, view, lines, k, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_panels(
    order: Order,
    view: &View<'_>,
    lines: Range<usize>,
    k: Range<usize>,
    out: &mut [u32],
) {
    let panel_len = k.len().div_ceil(DEPTH) * TILE;
    let mut line = lines.start;
    let mut panels = out.chunks_exact_mut(panel_len);
    if let Values::Bf16(values) = view.values
        && order == Order::Lines
        && view.row_stride == 1
    {
        while line + 2 * LINES <= lines.end {
            let (Some(first), Some(second)) = (panels.next(), panels.next()) else {
                return;
            };
            // SAFETY: elements `(line + i, k)`, `i < 32`, lie within the values.
            unsafe {
                two_panels(
                    values.as_ptr().add(line),
                    view.column_stride,
                    k.clone(),
                    first,
                    second,
                );
            };
            line += 2 * LINES;
        }
    }
    for (line, panel) in (line..lines.end).step_by(LINES).zip(panels) {
        let count = LINES.min(lines.end - line);
        for (k0, tile) in k
            .clone()
            .step_by(DEPTH)
            .zip(panel.as_chunks_mut::<TILE>().0)
        {
            let depth = DEPTH.min(k.end - k0);
            let from = line * view.row_stride + k0 * view.column_stride;
            // SAFETY: elements `(line + i, k0 + j)`, `i < count`, `j < depth` lie within the values.
            let (rows, found) = unsafe {
                match view.values {
                    Values::F32(values) => load_f32(values.as_ptr().add(from), view, count, depth),
                    Values::Bf16(values) => {
                        load_bf16(values.as_ptr().add(from), view, count, depth)
                    }
                }
            };
            let rows = if found == order {
                rows
            } else {
                transpose(rows)
            };
            for (out, row) in tile.as_chunks_mut::<16>().0.iter_mut().zip(rows) {
                // SAFETY: 16 pairs are 64 bytes.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), row) };
            }
        }
    }
}

/// Packs two panels of B from weights whose lines are adjacent: 32 lines at one k are one cache
/// line.
///
/// # Safety
/// 32 elements can be read at `from + k * stride` for every k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn two_panels(
    from: *const bf16,
    stride: usize,
    k: Range<usize>,
    first: &mut [u32],
    second: &mut [u32],
) {
    // Word 2i is line i of the even k, word 2i + 1 line i of the odd k. The permutation numbers the
    // words of the odd k after the 32 words of the even k.
    let mut low = [0u16; 32];
    for (i, word) in low.iter_mut().enumerate() {
        *word = (i / 2 + 32 * (i % 2)) as u16;
    }
    let high = low.map(|word| word + LINES as u16);
    let outs = first
        .as_chunks_mut::<16>()
        .0
        .iter_mut()
        .zip(second.as_chunks_mut::<16>().0);
    // SAFETY: guaranteed by the caller; 32 words and 16 pairs are 64 bytes; a prefetch is only a
    // hint.
    unsafe {
        let (low, high) = (
            _mm512_loadu_si512(low.as_ptr().cast()),
            _mm512_loadu_si512(high.as_ptr().cast()),
        );
        for (pair, (first, second)) in outs.enumerate() {
            let at = k.start + 2 * pair;
            let line = from.wrapping_add(at * stride);
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(DEPTH * stride).cast());
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add((DEPTH + 1) * stride).cast());
            let load = |line: *const bf16, there: bool| match there {
                true => _mm512_loadu_si512(line.cast()),
                false => _mm512_setzero_si512(),
            };
            let even = load(line, at < k.end);
            let odd = load(line.wrapping_add(stride), at + 1 < k.end);
            _mm512_storeu_si512(
                first.as_mut_ptr().cast(),
                _mm512_permutex2var_epi16(even, low, odd),
            );
            _mm512_storeu_si512(
                second.as_mut_ptr().cast(),
                _mm512_permutex2var_epi16(even, high, odd),
            );
        }
    }
}

/// Asserts that panels of `m` and `n` lines hold the segment's tiles: the kernels read through
/// pointers.
pub(super) fn assert_panels(segment: &Segment<'_, u32>, m: usize, n: usize) {
    let tiles = segment.k.div_ceil(DEPTH) * TILE;
    let end = |lines: usize, panel: usize| (lines.div_ceil(LINES) - 1) * panel + tiles;
    assert!(
        segment.k > 0
            && end(m, segment.a_panel) <= segment.a.len()
            && end(n, segment.b_panel) <= segment.b.len()
    );
}

type Rows = [__m512i; 16];

/// Loads a tile of f32, in the order that its strides make cheap.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load_f32(from: *const f32, view: &View<'_>, lines: usize, depth: usize) -> (Rows, Order) {
    let mut rows = [_mm512_setzero_si512(); 16];
    // SAFETY: masks keep every load within `lines` by `depth` elements, which the caller
    // guarantees.
    unsafe {
        if view.column_stride == 1 {
            let (low, high) = (mask16(depth), mask16(depth.saturating_sub(16)));
            for (i, row) in rows.iter_mut().enumerate().take(lines) {
                let line = from.add(i * view.row_stride);
                let first = _mm512_maskz_loadu_ps(low, line);
                let second = _mm512_maskz_loadu_ps(high, line.wrapping_add(16));
                *row = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            }
            (rows, Order::Pairs)
        } else if view.row_stride == 1 {
            let mask = mask16(lines);
            // Lane 2i is line i of the even k, lane 2i + 1 line i of the odd k.
            let interleave = _mm512_add_epi16(
                _mm512_cvtepu16_epi32(_mm256_setr_epi16(
                    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                )),
                _mm512_slli_epi32(
                    _mm512_cvtepu16_epi32(_mm256_setr_epi16(
                        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                    )),
                    16,
                ),
            );
            for (pair, row) in rows.iter_mut().enumerate().take(depth.div_ceil(2)) {
                let line = from.wrapping_add(2 * pair * view.column_stride);
                let odd = if 2 * pair + 1 < depth { mask } else { 0 };
                let even = _mm512_maskz_loadu_ps(mask, line);
                let odd = _mm512_maskz_loadu_ps(odd, line.wrapping_add(view.column_stride));
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                *row = _mm512_permutexvar_epi16(interleave, both);
            }
            (rows, Order::Lines)
        } else {
            (
                load_one_by_one(view, lines, depth, |at| rounded(*from.add(at)).to_bits()),
                Order::Pairs,
            )
        }
    }
}

/// Loads a tile of bf16, in the order that its strides make cheap.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load_bf16(
    from: *const bf16,
    view: &View<'_>,
    lines: usize,
    depth: usize,
) -> (Rows, Order) {
    let mut rows = [_mm512_setzero_si512(); 16];
    // SAFETY: masks keep every load within `lines` by `depth` elements, which the caller
    // guarantees.
    unsafe {
        if view.column_stride == 1 {
            let mask = u32::MAX >> (DEPTH - depth);
            for (i, row) in rows.iter_mut().enumerate().take(lines) {
                let line = from.add(i * view.row_stride);
                // Weights come from main memory, and their lines are too many streams for the
                // hardware prefetcher.
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_byte_add(AHEAD).cast());
                *row = _mm512_maskz_loadu_epi16(mask, line.cast());
            }
            (rows, Order::Pairs)
        } else if view.row_stride == 1 {
            let mask = mask16(lines);
            for (pair, row) in rows.iter_mut().enumerate().take(depth.div_ceil(2)) {
                let line = from.wrapping_add(2 * pair * view.column_stride);
                let odd = if 2 * pair + 1 < depth { mask } else { 0 };
                let next = line.wrapping_add(view.column_stride);
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(DEPTH * view.column_stride).cast());
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(DEPTH * view.column_stride).cast());
                let even = _mm256_maskz_loadu_epi16(mask, line.cast());
                let odd = _mm256_maskz_loadu_epi16(odd, next.cast());
                *row = _mm512_or_si512(
                    _mm512_cvtepu16_epi32(even),
                    _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16),
                );
            }
            (rows, Order::Lines)
        } else {
            (
                load_one_by_one(view, lines, depth, |at| (*from.add(at)).to_bits()),
                Order::Pairs,
            )
        }
    }
}

/// Loads a tile of any strides, element by element.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_one_by_one(
    view: &View<'_>,
    lines: usize,
    depth: usize,
    element: impl Fn(usize) -> u16,
) -> Rows {
    let mut pairs = [[0u32; 16]; 16];
    for i in 0..lines {
        for j in 0..depth {
            let bits = u32::from(element(i * view.row_stride + j * view.column_stride));
            pairs[i][j / 2] |= bits << (16 * (j % 2));
        }
    }
    // SAFETY: 16 pairs are 64 bytes.
    pairs.map(|row| unsafe { _mm512_loadu_si512(row.as_ptr().cast()) })
}

fn mask16(count: usize) -> __mmask16 {
    if count >= 16 {
        u16::MAX
    } else {
        (1 << count) - 1
    }
}

/// Transposes 16 x 16 pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: Rows) -> Rows {
    let mut t = rows;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..4 {
        u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // Lane l of u[4 g + c] now holds column 4 l + c of rows 4 g .. 4 g + 4: what is left is a 4 x 4 transpose of lanes.
    let mut out = u;
    for c in 0..4 {
        let low01 = _mm512_shuffle_i32x4(u[c], u[4 + c], 0x88);
        let high01 = _mm512_shuffle_i32x4(u[c], u[4 + c], 0xdd);
        let low23 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0x88);
        let high23 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0xdd);
        out[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        out[8 + c] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
        out[4 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        out[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
    }
    out
}

//! Products of matrices that fit a core's cache, and the layouts of keys and values that make them fast.

use crate::cpu::lanes::{Lanes, Left, Work, tile};

/// Keys of a block: scores are computed for this many at a time.
pub(super) const KEYS: usize = 32;

/// Length to which the vectors of a head are padded with zeros.
pub(super) fn padded(head_size: usize) -> usize {
    head_size.next_multiple_of(16)
}

/// How element `(row, k)` of the left operand of a product is found.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) depth_stride: usize,
}

/// `C += A B`: A `[rows, depth]`, B `[depth, cols]`, C `[rows, cols]`, rows of B and C `b_stride` and `c_stride` apart,
/// cols a multiple of 16. Every element is one chain over k in ascending order that starts from what C holds.
#[inline(always)]
pub(super) fn add_product<L: Lanes>(
    [rows, cols, depth]: [usize; 3],
    a: Matrix<'_>,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    if rows == 0 || depth == 0 {
        return;
    }
    assert!(cols.is_multiple_of(16) && cols > 0);
    assert!((rows - 1) * a.row_stride + (depth - 1) * a.depth_stride < a.values.len());
    assert!((depth - 1) * b_stride + cols <= b.len() && (rows - 1) * c_stride + cols <= c.len());
    L::compiled(Product { rows, cols, depth, a, b, b_stride, c, c_stride });
}

struct Product<'a> {
    rows: usize,
    cols: usize,
    depth: usize,
    a: Matrix<'a>,
    b: &'a [f32],
    b_stride: usize,
    c: &'a mut [f32],
    c_stride: usize,
}

impl Work for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, cols, depth, a, b, b_stride, c, c_stride } = self;
        for row in (0..rows).step_by(6) {
            let mut col = 0;
            while col < cols {
                let start = &a.values[row * a.row_stride..];
                let a = Left { start: start.as_ptr(), row_stride: a.row_stride, depth_stride: a.depth_stride };
                let (b, c) = (&b[col..], &mut c[row * c_stride + col..]);
                let wide = cols - col >= 2 * L::LEN;
                // SAFETY: `add_product` asserted that every element of A, B and C that the tile touches is there.
                unsafe {
                    if wide {
                        tiles::<L, 2>(rows - row, depth, a, b.as_ptr(), b_stride, c.as_mut_ptr(), c_stride);
                    } else {
                        tiles::<L, 1>(rows - row, depth, a, b.as_ptr(), b_stride, c.as_mut_ptr(), c_stride);
                    }
                }
                col += if wide { 2 * L::LEN } else { L::LEN };
            }
        }
    }
}

/// # Safety
/// The tile's elements of A, B and C can be read, those of C written.
#[inline(always)]
unsafe fn tiles<L: Lanes, const V: usize>(
    rows: usize,
    depth: usize,
    a: Left,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        match rows {
            1 => one::<L, 1, V>(depth, a, b, b_stride, c, c_stride),
            2 => one::<L, 2, V>(depth, a, b, b_stride, c, c_stride),
            3 => one::<L, 3, V>(depth, a, b, b_stride, c, c_stride),
            4 => one::<L, 4, V>(depth, a, b, b_stride, c, c_stride),
            5 => one::<L, 5, V>(depth, a, b, b_stride, c, c_stride),
            _ => one::<L, 6, V>(depth, a, b, b_stride, c, c_stride),
        }
    }
}

/// # Safety
/// As [`tiles`].
#[inline(always)]
unsafe fn one<L: Lanes, const R: usize, const V: usize>(
    depth: usize,
    a: Left,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; R];
        for r in 0..R {
            for v in 0..V {
                sums[r][v] = L::load(c.add(r * c_stride + v * L::LEN));
            }
        }
        let sums = tile::<L, R, V>(sums, a, b, b_stride, depth);
        for r in 0..R {
            for v in 0..V {
                sums[r][v].store(c.add(r * c_stride + v * L::LEN));
            }
        }
    }
}

/// Copies head vectors into rows of `padded` values; the padding of `out` is zero already.
pub(super) fn gather<'a>(vectors: impl Iterator<Item = &'a [f32]>, out: &mut [f32], padded: usize) {
    for (row, vector) in out.chunks_exact_mut(padded).zip(vectors) {
        row[..vector.len()].copy_from_slice(vector);
    }
}

/// Transposes rows of `padded` values in blocks of [`KEYS`] rows, `[block][value][key]`, of the first `head_size`
/// values; the padding of `out` is zero already.
pub(super) fn transpose_blocks(rows: &[f32], padded: usize, head_size: usize, out: &mut [f32]) {
    for (rows, block) in rows.chunks(KEYS * padded).zip(out.chunks_exact_mut(KEYS * head_size)) {
        for (key, row) in rows.chunks_exact(padded).enumerate() {
            for (value, column) in row.iter().zip(block.as_chunks_mut::<KEYS>().0) {
                column[key] = *value;
            }
        }
    }
}

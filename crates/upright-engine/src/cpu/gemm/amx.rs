//! bf16 products with `tdpbf16ps`.

use std::arch::asm;
use std::ops::Range;

use super::pack::{DEPTH, LINES, Order, TILE, pack};
use super::{Destination, Kernel, View};

/// AMX: 32 rows by 32 columns of C in four tiles.
pub(super) struct Amx;

impl Kernel for Amx {
    /// A pair of bf16.
    type Value = u32;
    const BLOCK: usize = 512;
    const A_PANEL: usize = LINES;
    const B_PANEL: usize = LINES;
    const A_UNIT: usize = 2 * LINES;
    const B_UNIT: usize = 2 * LINES;

    fn padded(k: usize) -> usize {
        k.next_multiple_of(DEPTH) / 2
    }

    fn pack_a(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [u32]) {
        pack(Order::Pairs, view, lines, k, out);
    }

    fn pack_b(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [u32]) {
        pack(Order::Lines, view, lines, k, out);
    }

    unsafe fn block(a: &[u32], b: &[u32], m: usize, n: usize, k: usize, c: Destination, add: bool) {
        let _ = (a, b, m, n, k, c, add, TILE);
        // SAFETY: the tier was asserted.
        unsafe { asm!("tilerelease") };
    }
}

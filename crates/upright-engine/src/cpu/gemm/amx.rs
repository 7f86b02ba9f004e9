//! bf16 products with `tdpbf16ps`.
//!
//! The intrinsics are unstable, so these are inline assembly. Tile registers belong to a thread and nothing else in the
//! program uses them: a block configures them, and releases them before it returns.

use std::arch::asm;
use std::arch::x86_64::_mm512_load_ps;
use std::ops::Range;

use super::avx512::store;
use super::pack::{DEPTH, LINES, Order, TILE, pack};
use super::{Destination, Kernel, View};

/// AMX: 32 rows by 32 columns of C in four tiles.
pub(super) struct Amx;

/// Rows and columns of C in registers: two panels of A by two of B.
const SIDE: usize = 2 * LINES;
/// Bytes of a row of a tile.
const ROW: usize = 64;

impl Kernel for Amx {
    /// A pair of bf16.
    type Value = u32;
    const BLOCK: usize = 512;
    const A_PANEL: usize = LINES;
    const B_PANEL: usize = LINES;
    const A_UNIT: usize = SIDE;
    const B_UNIT: usize = SIDE;

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
        // SAFETY: the caller's.
        unsafe { block::<Hardware>(a, b, m, n, k, c, add) }
    }
}

/// Four tiles of sums, `[row panel][column panel][row][column]`.
#[repr(C, align(64))]
struct Sums([[[[f32; LINES]; LINES]; 2]; 2]);

/// What tiles do: by the processor, or by the tests' model of it.
trait Tiles {
    /// Makes the tiles ready on this thread; dropping the value releases them.
    fn configure() -> Self;

    /// Writes to `sums` the products of up to two panels of A and two of B, `tiles` tiles long.
    ///
    /// # Safety
    /// The panels hold `tiles` tiles each.
    unsafe fn multiply(&self, a: [*const u32; 2], b: [*const u32; 2], tiles: usize, sums: &mut Sums);
}

/// # Safety
/// As [`Kernel::block`].
#[target_feature(enable = "avx512f")]
unsafe fn block<T: Tiles>(a: &[u32], b: &[u32], m: usize, n: usize, k: usize, c: Destination, add: bool) {
    let tiles = k.div_ceil(DEPTH);
    let panel = tiles * TILE;
    assert!(a.len() >= m.div_ceil(LINES) * panel && b.len() >= n.div_ceil(LINES) * panel);
    let processor = T::configure();
    let mut sums = Sums([[[[0.0; LINES]; LINES]; 2]; 2]);
    // Where a second panel is missing, the first stands in and what comes of it is not written.
    let pair = |values: &[u32], line: usize, lines: usize| {
        let first = &values[line / LINES * panel..];
        let second = if line + LINES < lines { &first[panel..] } else { first };
        [first.as_ptr(), second.as_ptr()]
    };
    for i in (0..m).step_by(SIDE) {
        for j in (0..n).step_by(SIDE) {
            // SAFETY: the assertion above: every panel is `tiles` tiles long.
            unsafe { processor.multiply(pair(a, i, m), pair(b, j, n), tiles, &mut sums) };
            for r in 0..SIDE.min(m - i) {
                for (column, tile) in (j..n.min(j + SIDE)).step_by(LINES).zip(&sums.0[r / LINES]) {
                    // SAFETY: a row of sums is a vector; row `i + r` and these columns lie within C and are the caller's.
                    unsafe {
                        let sums = _mm512_load_ps(tile[r % LINES].as_ptr());
                        store(c.at(i + r, column).start, LINES.min(n - column), sums, add);
                    }
                }
            }
        }
    }
}

/// The processor's tiles: 0 to 3 are sums, 4 and 5 of A, 6 and 7 of B.
struct Hardware;

impl Tiles for Hardware {
    fn configure() -> Self {
        /// Palette 1; 64 bytes in a row of each of eight tiles (16-bit numbers from byte 16), 16 rows (from byte 48).
        #[repr(C, align(64))]
        struct Config([u8; 64]);
        let mut config = Config([0; 64]);
        config.0[0] = 1;
        for tile in 0..8 {
            config.0[16 + 2 * tile] = ROW as u8;
            config.0[48 + tile] = LINES as u8;
        }
        // SAFETY: the tier is available; the instruction reads 64 bytes and zeroes the tiles, which nothing else uses.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                config = in(reg) &raw const config,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags)
            );
        }
        Self
    }

    unsafe fn multiply(&self, a: [*const u32; 2], b: [*const u32; 2], tiles: usize, sums: &mut Sums) {
        const BYTES: usize = TILE * size_of::<u32>();
        // SAFETY: the tiles are configured. Each turn reads 1 KB at every pointer, `tiles` times; 4 KB are written to
        // `sums`. `tiles` is at least 1.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a0} + {row}]",
                "tileloadd tmm6, [{b0} + {row}]",
                "tileloadd tmm7, [{b1} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, {bytes}",
                "add {a1}, {bytes}",
                "add {b0}, {bytes}",
                "add {b1}, {bytes}",
                "dec {tiles}",
                "jnz 2b",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + {bytes}], tmm1",
                "tilestored [{sums} + {row} + 2 * {bytes}], tmm2",
                "tilestored [{sums} + {row} + 3 * {bytes}], tmm3",
                a0 = inout(reg) a[0] => _,
                a1 = inout(reg) a[1] => _,
                b0 = inout(reg) b[0] => _,
                b1 = inout(reg) b[1] => _,
                tiles = inout(reg) tiles => _,
                sums = in(reg) sums,
                row = in(reg) ROW,
                bytes = const BYTES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: the tiles are done with. Releasing spares the system from saving them.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

#[cfg(test)]
pub(super) mod model {
    use half::bf16;

    use super::*;

    /// The kernel on [`Software`] tiles; runs wherever its packing does.
    pub(in crate::cpu::gemm) struct Model;

    impl Kernel for Model {
        type Value = u32;
        const BLOCK: usize = Amx::BLOCK;
        const A_PANEL: usize = Amx::A_PANEL;
        const B_PANEL: usize = Amx::B_PANEL;
        const A_UNIT: usize = Amx::A_UNIT;
        const B_UNIT: usize = Amx::B_UNIT;

        fn padded(k: usize) -> usize {
            Amx::padded(k)
        }

        fn pack_a(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [u32]) {
            Amx::pack_a(view, lines, k, out);
        }

        fn pack_b(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [u32]) {
            Amx::pack_b(view, lines, k, out);
        }

        unsafe fn block(a: &[u32], b: &[u32], m: usize, n: usize, k: usize, c: Destination, add: bool) {
            // SAFETY: the caller's.
            unsafe { block::<Software>(a, b, m, n, k, c, add) }
        }
    }

    /// `tdpbf16ps` as the manual states it, over the same tiles in the same order as [`Hardware`]. On the Sapphire Rapids
    /// of the emulator Bochs 3.0 both gave the same bits.
    struct Software;

    impl Tiles for Software {
        fn configure() -> Self {
            Self
        }

        unsafe fn multiply(&self, a: [*const u32; 2], b: [*const u32; 2], tiles: usize, sums: &mut Sums) {
            sums.0 = [[[[0.0; LINES]; LINES]; 2]; 2];
            for tile in 0..tiles {
                // SAFETY: the caller's.
                let load = |panel: *const u32| unsafe { &*panel.add(tile * TILE).cast::<[[u32; 16]; 16]>() };
                for (i, a) in a.into_iter().enumerate() {
                    for (j, b) in b.into_iter().enumerate() {
                        dot_products(&mut sums.0[i][j], load(a), load(b));
                    }
                }
            }
        }
    }

    /// A row's products of even k and of odd k are summed apart, fused and from zero, then added to each other and to the
    /// sums. Subnormals count as zero.
    fn dot_products(sums: &mut [[f32; 16]; 16], a: &[[u32; 16]; 16], b: &[[u32; 16]; 16]) {
        let flush = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
        let float = |pair: u32, half: u32| flush(bf16::from_bits((pair >> (16 * half)) as u16).to_f32());
        for m in 0..16 {
            for n in 0..16 {
                let mut halves = [0.0; 2];
                for k in 0..16 {
                    for half in 0..2 {
                        let x = float(a[m][k], half as u32);
                        halves[half] = flush(x.mul_add(float(b[k][n], half as u32), halves[half]));
                    }
                }
                sums[m][n] = flush(sums[m][n] + flush(halves[0] + halves[1]));
            }
        }
    }
}

//! bf16 products with `tdpbf16ps`.
//!
//! The intrinsics are unstable, so this module uses inline assembly. Tile registers belong to a
//! thread, and nothing else in the program uses them: a block configures them and releases them
//! before it returns.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::pack::{DEPTH, LINES, Order, TILE, assert_panels, pack};
use super::{Destination, Kernel, Segment, View};

/// AMX: a register block of 32 rows by 32 columns of C, in four tiles.
pub(super) struct Amx;

/// Rows and columns of the register block: two panels of A by two of B.
const SIDE: usize = 2 * LINES;
/// Bytes of a row of a tile.
const ROW: usize = 64;

impl Kernel for Amx {
    /// A pair of bf16.
    type Value = u32;
    const BLOCK: usize = 2048;
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

    unsafe fn block(
        segments: &[Segment<'_, u32>],
        m: usize,
        n: usize,
        to: Destination,
        stream_a: bool,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe { block::<Hardware>(segments, m, n, to, stream_a) }
    }
}

/// Scratch memory for a register block that lies partly outside C, or to which both a bias and a
/// residual are added.
#[repr(C, align(64))]
struct Square([[f32; SIDE]; SIDE]);

/// Operations on tiles, of the processor or of the tests' model of it. Four tiles hold sums.
trait Tiles {
    /// Configures the tiles on this thread; dropping the value releases them.
    fn configure() -> Self;

    /// Zeroes the sums.
    fn zero(&mut self);

    /// Loads the sums from a square of values whose rows are `stride` apart; a stride of 0 repeats
    /// one row.
    ///
    /// # Safety
    /// 32 rows of 32 values can be read from `from` on.
    unsafe fn load(&mut self, from: *const f32, stride: usize);

    /// Adds the products of two panels of A and two of B, `tiles` tiles long. `stream_a` as for [`Kernel::block`].
    ///
    /// # Safety
    /// The panels hold `tiles` tiles each; `tiles` is at least 1.
    unsafe fn multiply(
        &mut self,
        a: [*const u32; 2],
        b: [*const u32; 2],
        tiles: usize,
        stream_a: bool,
    );

    /// Writes the sums to a square whose rows are `stride` apart.
    ///
    /// # Safety
    /// 32 rows of 32 values can be written from `to` on.
    unsafe fn store(&self, to: *mut f32, stride: usize);
}

/// # Safety
/// As [`Kernel::block`].
#[target_feature(enable = "avx512f")]
unsafe fn block<T: Tiles>(
    segments: &[Segment<'_, u32>],
    m: usize,
    n: usize,
    to: Destination,
    stream_a: bool,
) {
    segments
        .iter()
        .for_each(|segment| assert_panels(segment, m, n));
    let mut tiles = T::configure();
    let mut square = Square([[0.0; SIDE]; SIDE]);
    // If there is no second panel, the first takes its place, and its sums are not written.
    let pair = |values: &[u32], panel: usize, line: usize, lines: usize| {
        let first = &values[line / LINES * panel..];
        let second = if line + LINES < lines {
            &first[panel..]
        } else {
            first
        };
        [first.as_ptr(), second.as_ptr()]
    };
    // The streaming panels pass once: the inner loop runs over the panels that stay in the cache.
    let (outer, inner) = if stream_a { (m, n) } else { (n, m) };
    for far in (0..outer).step_by(SIDE) {
        for near in (0..inner).step_by(SIDE) {
            let (i, j) = if stream_a { (far, near) } else { (near, far) };
            let whole = i + SIDE <= m && j + SIDE <= n;
            // SAFETY: rows from `i` and columns from `j` on lie within C, and only the caller
            // accesses them.
            let to = unsafe { to.at(i, j) };
            // The sums start with bias or residual: loading them into tiles is faster than adding
            // them with vectors after the tiles are stored.
            match (to.onto, to.bias) {
                (None, None) => tiles.zero(),
                // SAFETY: the square lies within C, the bias has a value for each of its columns.
                (None, Some(bias)) if whole => unsafe { tiles.load(bias, 0) },
                // SAFETY: likewise.
                (Some((onto, stride)), None) if whole => unsafe { tiles.load(onto, stride) },
                _ => {
                    for (r, row) in square.0.iter_mut().enumerate().take(m - i) {
                        for column in (0..SIDE.min(n - j)).step_by(LINES) {
                            // SAFETY: row `i + r` and these columns lie within C; half a row of the square is a vector.
                            unsafe {
                                let begun = begun(to, r, column, LINES.min(n - j - column));
                                _mm512_store_ps(row.as_mut_ptr().add(column), begun);
                            }
                        }
                    }
                    // SAFETY: `square` holds 32 rows of 32 values.
                    unsafe { tiles.load(square.0.as_ptr().cast(), SIDE) };
                }
            }
            for segment in segments {
                let (a, b) = (
                    pair(segment.a, segment.a_panel, i, m),
                    pair(segment.b, segment.b_panel, j, n),
                );
                // SAFETY: asserted above: every panel holds the segment's tiles, and there is at
                // least one.
                unsafe { tiles.multiply(a, b, segment.k.div_ceil(DEPTH), stream_a) };
            }
            if whole {
                // SAFETY: the square lies within C.
                unsafe { tiles.store(to.to, to.stride) };
                continue;
            }
            // SAFETY: `square` holds 32 rows of 32 values.
            unsafe { tiles.store(square.0.as_mut_ptr().cast(), SIDE) };
            for (r, row) in square.0.iter().enumerate().take(m - i) {
                for column in (0..SIDE.min(n - j)).step_by(LINES) {
                    let mask = u16::MAX >> (LINES - LINES.min(n - j - column));
                    // SAFETY: half a row of the square is a vector; row `i + r` and these columns lie within C.
                    unsafe {
                        let sums = _mm512_load_ps(row.as_ptr().add(column));
                        _mm512_mask_storeu_ps(to.to.add(r * to.stride + column), mask, sums);
                    }
                }
            }
        }
    }
}

/// Initial values of `count` sums of row `r`, from `column` on: bias plus residual.
///
/// # Safety
/// `count` (1 to 16) elements lie within C.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn begun(to: Destination, r: usize, column: usize, count: usize) -> __m512 {
    let mask = u16::MAX >> (LINES - count);
    // SAFETY: the mask limits every access to `count` values.
    unsafe {
        let to = to.at(r, column);
        let onto = to.onto.map(|(onto, _)| _mm512_maskz_loadu_ps(mask, onto));
        let bias = to.bias.map(|bias| _mm512_maskz_loadu_ps(mask, bias));
        match (onto, bias) {
            (Some(onto), Some(bias)) => _mm512_add_ps(onto, bias),
            (one, other) => one.or(other).unwrap_or(_mm512_setzero_ps()),
        }
    }
}

/// Bytes of a tile.
const BYTES: usize = TILE * size_of::<u32>();

/// The processor's tiles: 0 to 3 hold sums, 4 and 5 hold A, 6 and 7 hold B. Between calls the sums
/// stay in the tile registers, which belong to the thread and which the compiler does not track.
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

    fn zero(&mut self) {
        // SAFETY: the tiles are configured, and nothing else uses them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem, preserves_flags)
            );
        }
    }

    unsafe fn load(&mut self, from: *const f32, stride: usize) {
        // SAFETY: the tiles are configured; 32 rows of 32 values are read, which the caller
        // guarantees.
        unsafe {
            asm!(
                "tileloadd tmm0, [{from} + {stride}]",
                "tileloadd tmm1, [{from} + {stride} + {row}]",
                "tileloadd tmm2, [{below} + {stride}]",
                "tileloadd tmm3, [{below} + {stride} + {row}]",
                from = in(reg) from,
                below = in(reg) from.add(LINES * stride),
                stride = in(reg) stride * size_of::<f32>(),
                row = const ROW,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly, preserves_flags)
            );
        }
    }

    unsafe fn multiply(
        &mut self,
        a: [*const u32; 2],
        b: [*const u32; 2],
        tiles: usize,
        stream_a: bool,
    ) {
        /// The loop, with the instructions that load tiles of A and of B.
        macro_rules! products {
            ($a:literal, $b:literal) => {
                asm!(
                    "2:",
                    concat!($a, " tmm4, [{a0} + {row}]"),
                    concat!($b, " tmm6, [{b0} + {row}]"),
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    concat!($b, " tmm7, [{b1} + {row}]"),
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    concat!($a, " tmm5, [{a1} + {row}]"),
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a0}, {bytes}",
                    "add {a1}, {bytes}",
                    "add {b0}, {bytes}",
                    "add {b1}, {bytes}",
                    "dec {tiles}",
                    "jnz 2b",
                    a0 = inout(reg) a[0] => _,
                    a1 = inout(reg) a[1] => _,
                    b0 = inout(reg) b[0] => _,
                    b1 = inout(reg) b[1] => _,
                    tiles = inout(reg) tiles => _,
                    row = in(reg) ROW,
                    bytes = const BYTES,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly)
                )
            };
        }
        // Panels that stay in the L2 cache bypass the L1 cache, which keeps the streaming pair.
        // SAFETY: the tiles are configured. Each of the `tiles` iterations reads 1 KB at every
        // pointer.
        unsafe {
            if stream_a {
                products!("tileloadd", "tileloaddt1");
            } else {
                products!("tileloaddt1", "tileloadd");
            }
        }
    }

    unsafe fn store(&self, to: *mut f32, stride: usize) {
        // SAFETY: the tiles are configured; 32 rows of 32 values are written, which the caller
        // guarantees.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}], tmm0",
                "tilestored [{to} + {stride} + {row}], tmm1",
                "tilestored [{below} + {stride}], tmm2",
                "tilestored [{below} + {stride} + {row}], tmm3",
                to = in(reg) to,
                below = in(reg) to.add(LINES * stride),
                stride = in(reg) stride * size_of::<f32>(),
                row = const ROW,
                options(nostack, preserves_flags)
            );
        }
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: the tiles are no longer used. Releasing them spares the system from saving them.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

#[cfg(test)]
pub(super) mod model {
    use half::bf16;

    use super::*;

    /// The kernel on [`Software`] tiles; runs wherever its packing runs.
    pub(in crate::cpu::kernels::gemm) struct Model;

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

        unsafe fn block(
            segments: &[Segment<'_, u32>],
            m: usize,
            n: usize,
            to: Destination,
            stream_a: bool,
        ) {
            // SAFETY: guaranteed by the caller.
            unsafe { block::<Software>(segments, m, n, to, stream_a) }
        }
    }

    /// `tdpbf16ps` as the manual specifies it, over the same tiles in the same order as
    /// [`Hardware`]. Both gave the same bits on the Sapphire Rapids of the emulator Bochs 3.0.
    struct Software([[[[f32; LINES]; LINES]; 2]; 2]);

    impl Tiles for Software {
        fn configure() -> Self {
            Self([[[[f32::NAN; LINES]; LINES]; 2]; 2])
        }

        fn zero(&mut self) {
            self.0 = [[[[0.0; LINES]; LINES]; 2]; 2];
        }

        unsafe fn load(&mut self, from: *const f32, stride: usize) {
            for row in 0..SIDE {
                for column in 0..SIDE {
                    let sum = &mut self.0[row / LINES][column / LINES][row % LINES][column % LINES];
                    // SAFETY: guaranteed by the caller.
                    *sum = unsafe { from.add(row * stride + column).read() };
                }
            }
        }

        unsafe fn multiply(
            &mut self,
            a: [*const u32; 2],
            b: [*const u32; 2],
            tiles: usize,
            _: bool,
        ) {
            for tile in 0..tiles {
                // SAFETY: guaranteed by the caller.
                let load = |panel: *const u32| unsafe {
                    &*panel.add(tile * TILE).cast::<[[u32; 16]; 16]>()
                };
                for (i, a) in a.into_iter().enumerate() {
                    for (j, b) in b.into_iter().enumerate() {
                        dot_products(&mut self.0[i][j], load(a), load(b));
                    }
                }
            }
        }

        unsafe fn store(&self, to: *mut f32, stride: usize) {
            for row in 0..SIDE {
                for column in 0..SIDE {
                    let sum = self.0[row / LINES][column / LINES][row % LINES][column % LINES];
                    // SAFETY: guaranteed by the caller.
                    unsafe { to.add(row * stride + column).write(sum) };
                }
            }
        }
    }

    /// The products of even k and of odd k of a row are summed separately, fused and starting from
    /// zero, then added to each other and to the sums. Subnormals count as zero.
    fn dot_products(sums: &mut [[f32; 16]; 16], a: &[[u32; 16]; 16], b: &[[u32; 16]; 16]) {
        let flush = |x: f32| {
            if x.is_subnormal() {
                0.0f32.copysign(x)
            } else {
                x
            }
        };
        let float =
            |pair: u32, half: u32| flush(bf16::from_bits((pair >> (16 * half)) as u16).to_f32());
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

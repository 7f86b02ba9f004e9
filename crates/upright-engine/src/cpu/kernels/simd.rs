//! f32 vectors of three widths behind one trait, and the tile of products that the portable
//! microkernel builds on.
//!
//! Loops over plain arrays would suffice if the compiler kept a tile of sums in registers reliably;
//! it does not. Code generic over [`Lanes`] is marked `#[inline(always)]` and compiled, through
//! [`dispatch`] or [`Lanes::compiled`], inside a function with the target features of its vector.
//! No other code may use a vector whose features are not known to be available, so nothing in this
//! module leaves `cpu`.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use bytemuck::Pod;
use half::bf16;

/// A vector of f32. Operations are elementwise; reductions (`sum`, `largest`) have a fixed order.
pub(crate) trait Lanes: Copy {
    /// Number of lanes; divides 16.
    const LEN: usize;

    /// Runs the work in its own function, compiled for this vector, so that shared loops are
    /// compiled once. Callable only from work on the same vector.
    fn compiled<W: Work>(work: W) -> W::Output;
    /// # Safety
    /// `LEN` values can be read.
    unsafe fn load(from: *const f32) -> Self;
    /// Loads bf16 values, exactly.
    ///
    /// # Safety
    /// `LEN` values can be read.
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        let mut lanes = [0.0; 16];
        for (i, lane) in lanes.iter_mut().enumerate().take(Self::LEN) {
            // SAFETY: guaranteed by the caller.
            *lane = unsafe { *from.add(i) }.float();
        }
        // SAFETY: no vector has more than 16 lanes.
        unsafe { Self::load(lanes.as_ptr()) }
    }
    /// # Safety
    /// `LEN` values can be written.
    unsafe fn store(self, to: *mut f32);
    fn splat(x: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self * a + b`, rounded once where the processor can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The larger value; NaN where `self` is NaN.
    fn max(self, other: Self) -> Self;
    /// `self`, but 0 where `x < limit`.
    fn zero_where_below(self, x: Self, limit: Self) -> Self;
    /// 2 to the power of the integer in the low bits of each lane.
    fn power_of_low_bits(self) -> Self;
    /// A vector whose lane i, below `count`, is lane `i + count`; `count` is a power of two below `LEN`.
    fn moved_down(self, count: usize) -> Self;
    /// The first lane.
    fn first(self) -> f32;

    /// The lanes.
    #[inline(always)]
    fn to_array(self) -> [f32; 16] {
        let mut lanes = [0.0; 16];
        // SAFETY: no vector has more than 16 lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }

    /// Sum of the lanes: adds the upper half to the lower half until one lane is left.
    #[inline(always)]
    fn sum(self) -> f32 {
        halved(self, |low, high| low.add(high))
    }

    /// Largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        halved(self, |low, high| low.max(high))
    }
}

/// Reduces all lanes to one number by halves.
#[inline(always)]
fn halved<L: Lanes>(mut vector: L, join: impl Fn(L, L) -> L) -> f32 {
    for count in [8, 4, 2, 1] {
        if count < L::LEN {
            vector = join(vector, vector.moved_down(count));
        }
    }
    vector.first()
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86_lanes {
    ($vector:ty, $features:literal, $len:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $fused:ident, $max:ident, $first:ident, |$value:ident, $x:ident, $limit:ident| $below:expr, |$bits:ident| $power:expr,
     |$wide:ident, $count:ident| $moved:expr) => {
        impl Lanes for $vector {
            const LEN: usize = $len;
            #[inline(always)]
            fn compiled<W: Work>(work: W) -> W::Output {
                #[inline(never)]
                #[target_feature(enable = $features)]
                fn compiled<W: Work>(work: W) -> W::Output {
                    work.run::<$vector>()
                }
                // SAFETY: the features are available, see the module documentation.
                unsafe { compiled(work) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: guaranteed by the caller; the features are available, see the module
                // documentation.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: guaranteed by the caller; the features are available, see the module
                // documentation.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            fn splat(x: f32) -> Self {
                // SAFETY: the features are available, see the module documentation.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: the features are available, see the module documentation.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: the features are available, see the module documentation.
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                // SAFETY: the features are available, see the module documentation.
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                // SAFETY: the features are available, see the module documentation.
                unsafe { $div(self, other) }
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                // SAFETY: the features are available, see the module documentation.
                unsafe { $fused(self, a, b) }
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // SAFETY: the features are available, see the module documentation. If an operand
                // is NaN, the second is the result.
                unsafe { $max(other, self) }
            }
            #[inline(always)]
            fn zero_where_below(self, $x: Self, $limit: Self) -> Self {
                let $value = self;
                // SAFETY: the features are available, see the module documentation.
                unsafe { $below }
            }
            #[inline(always)]
            fn power_of_low_bits(self) -> Self {
                let $bits = self;
                // SAFETY: the features are available, see the module documentation.
                unsafe { $power }
            }
            #[inline(always)]
            fn moved_down(self, $count: usize) -> Self {
                let $wide = self;
                // SAFETY: the features are available, see the module documentation.
                unsafe { $moved }
            }
            #[inline(always)]
            fn first(self) -> f32 {
                // SAFETY: the features are available, see the module documentation.
                unsafe { $first(self) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86_lanes!(
    __m512,
    "avx512f",
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_fmadd_ps,
    _mm512_max_ps,
    _mm512_cvtss_f32,
    |value, x, limit| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), value),
    |bits| _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_slli_epi32::<23>(_mm512_castps_si512(bits)),
        _mm512_set1_epi32(ONE)
    )),
    |wide, count| match count {
        8 => _mm512_shuffle_f32x4::<0b11_10_11_10>(wide, wide),
        4 => _mm512_shuffle_f32x4::<0b01_01_01_01>(wide, wide),
        2 => _mm512_permute_ps::<0b11_10_11_10>(wide),
        _ => _mm512_permute_ps::<0b01_01_01_01>(wide),
    }
);

#[cfg(target_arch = "x86_64")]
x86_lanes!(
    __m256,
    "avx2,fma",
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_fmadd_ps,
    _mm256_max_ps,
    _mm256_cvtss_f32,
    |value, x, limit| _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, limit), value),
    |bits| _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_slli_epi32::<23>(_mm256_castps_si256(bits)),
        _mm256_set1_epi32(ONE)
    )),
    |wide, count| match count {
        4 => _mm256_permute2f128_ps::<0b01>(wide, wide),
        2 => _mm256_permute_ps::<0b11_10_11_10>(wide),
        _ => _mm256_permute_ps::<0b01_01_01_01>(wide),
    }
);

/// Bits of 1.0.
const ONE: i32 = 0x3f80_0000;

/// Four lanes of the target's own arithmetic; never fused, because a fused multiply-add might be a library call.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Four([f32; 4]);

impl Four {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let (a, b) = (self.0, other.0);
        Self([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
    }
}

impl Lanes for Four {
    const LEN: usize = 4;
    #[inline(never)]
    fn compiled<W: Work>(work: W) -> W::Output {
        work.run::<Self>()
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: guaranteed by the caller.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        self.mul(a).add(b)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    fn zero_where_below(self, x: Self, limit: Self) -> Self {
        let below = x.zip(limit, |x, limit| if x < limit { 1.0 } else { 0.0 });
        self.zip(below, |value, below| if below == 1.0 { 0.0 } else { value })
    }
    #[inline(always)]
    fn power_of_low_bits(self) -> Self {
        Self(
            self.0
                .map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(ONE as u32))),
        )
    }
    #[inline(always)]
    fn moved_down(self, count: usize) -> Self {
        Self(std::array::from_fn(|i| self.0[(i + count) % 4]))
    }
    #[inline(always)]
    fn first(self) -> f32 {
        self.0[0]
    }
}

/// e^x, with a relative error below 1.5e-7 for x in (-87, 88); 0 below.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(x: L) -> L {
    const LOWEST: f32 = -87.0;
    /// Adding it rounds to an integer, which then lies in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: products of the first with small integers are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let limit = L::splat(LOWEST);
    let clamped = x.max(limit);
    let shifted = clamped.mul_add(L::splat(std::f32::consts::LOG2_E), L::splat(ROUND));
    let n = shifted.sub(L::splat(ROUND));
    let r = n.mul_add(L::splat(-LN_2_HIGH), clamped);
    let r = n.mul_add(L::splat(-LN_2_LOW), r);
    // Minimax on |r| <= ln(2) / 2 (Cephes): e^r = 1 + r + r^2 q(r).
    let mut q = L::splat(1.987_569_1e-4);
    for coefficient in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        q = q.mul_add(r, L::splat(coefficient));
    }
    let e = q.mul_add(r.mul(r), r).add(L::splat(1.0));
    e.mul(shifted.power_of_low_bits())
        .zero_where_below(x, limit)
}

/// Element type that vectors are loaded from.
pub(crate) trait Element: Pod + Send + Sync {
    /// The value as f32, exactly.
    fn float(self) -> f32;
    /// # Safety
    /// `L::LEN` values can be read.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Element for f32 {
    #[inline(always)]
    fn float(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn float(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load_bf16(from) }
    }
}

/// Left operand of a [`tile`]: element `(row, k)` is at
/// `start + row * row_stride + k * depth_stride`.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) start: *const f32,
    pub(super) row_stride: usize,
    pub(super) depth_stride: usize,
}

/// `sums + A B`; every element is one chain over k in ascending order. A is `[R, depth]`; row k of
/// B, `V` vectors wide, starts at `b + k * b_stride`.
///
/// # Safety
/// All elements of A and B can be read.
#[inline(always)]
pub(super) unsafe fn tile<L: Lanes, const R: usize, const V: usize>(
    mut sums: [[L; V]; R],
    a: Left,
    b: *const f32,
    b_stride: usize,
    depth: usize,
) -> [[L; V]; R] {
    for k in 0..depth {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (row, b) = (a.start.add(k * a.depth_stride), b.add(k * b_stride));
            let mut columns = [L::splat(0.0); V];
            for v in 0..V {
                columns[v] = L::load(b.add(v * L::LEN));
            }
            for r in 0..R {
                let x = L::splat(*row.add(r * a.row_stride));
                for v in 0..V {
                    sums[r][v] = x.mul_add(columns[v], sums[r][v]);
                }
            }
        }
    }
    sums
}

/// Work that runs on the widest vectors of this machine.
pub(crate) trait Work {
    /// Result of the work.
    type Output;
    /// The work. Must be `#[inline(always)]`, like everything in it that is generic over the vectors.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Runs the work on the widest vectors of this machine.
pub(crate) fn dispatch<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return __m512::compiled(work);
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return __m256::compiled(work);
        }
    }
    Four::compiled(work)
}

/// Number of lanes of the widest vectors of this machine.
pub(crate) fn width() -> usize {
    struct Width;
    impl Work for Width {
        type Output = usize;
        #[inline(always)]
        fn run<L: Lanes>(self) -> usize {
            L::LEN
        }
    }
    dispatch(Width)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp([f32; 16]);

    impl Work for Exp {
        type Output = [f32; 16];
        #[inline(always)]
        fn run<L: Lanes>(self) -> [f32; 16] {
            let mut out = [0.0; 16];
            for at in (0..16).step_by(L::LEN) {
                // SAFETY: the number of lanes divides 16.
                unsafe { exp(L::load(self.0.as_ptr().add(at))).store(out.as_mut_ptr().add(at)) };
            }
            out
        }
    }

    #[test]
    fn exp_is_that_of_f64() {
        let check = |exp: fn(Exp) -> [f32; 16]| {
            for step in 0..200_000u32 {
                let x = -86.9 + step as f32 * (174.0 / 200_000.0);
                let found = f64::from(exp(Exp([x; 16]))[7]);
                let want = f64::from(x).exp();
                assert!(
                    (found / want - 1.0).abs() < 1.5e-7,
                    "exp({x}) = {found}, not {want}"
                );
            }
            let found = exp(Exp([
                f32::NAN,
                f32::NEG_INFINITY,
                -1e4,
                -87.1,
                0.0,
                -0.0,
                1.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
            ]));
            assert!(found[0].is_nan());
            assert_eq!(found[1..6], [0.0, 0.0, 0.0, 1.0, 1.0]);
        };
        check(dispatch::<Exp>);
        check(Exp::run::<Four>);
    }

    struct Horizontal([f32; 16]);

    impl Work for Horizontal {
        /// Lanes, sum, largest.
        type Output = (usize, f32, f32);
        #[inline(always)]
        fn run<L: Lanes>(self) -> (usize, f32, f32) {
            // SAFETY: no vector has more than 16 lanes.
            let vector = unsafe { L::load(self.0.as_ptr()) };
            (L::LEN, vector.sum(), vector.largest())
        }
    }

    #[test]
    fn lanes_are_added_by_halves_and_the_largest_is_found_anywhere() {
        let check = |run: fn(Horizontal) -> (usize, f32, f32)| {
            for turn in 0..16 {
                let mut lanes: [f32; 16] =
                    std::array::from_fn(|i| 1.0 + (i * 37 % 16) as f32 * 1e-7 + i as f32 * 0.3);
                lanes.rotate_left(turn);
                let (len, sum, largest) = run(Horizontal(lanes));
                let mut halves = lanes[..len].to_vec();
                while halves.len() > 1 {
                    let (low, high) = halves.split_at(halves.len() / 2);
                    halves = low.iter().zip(high).map(|(a, b)| a + b).collect();
                }
                assert_eq!(sum, halves[0]);
                assert_eq!(
                    largest,
                    lanes[..len].iter().copied().fold(f32::MIN, f32::max)
                );
                lanes[turn % len] = f32::NAN;
                assert!(run(Horizontal(lanes)).1.is_nan());
            }
        };
        check(dispatch::<Horizontal>);
        check(Horizontal::run::<Four>);
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            check(__m256::compiled::<Horizontal>);
        }
    }
}

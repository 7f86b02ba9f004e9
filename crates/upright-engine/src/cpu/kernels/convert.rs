//! Conversion between slices of f32 and bf16.

use half::bf16;

use super::simd::{Element, Lanes, Work, dispatch};

/// Rounds as `vcvtneps2bf16` does: to nearest even, subnormals to zero, NaN stays NaN.
#[inline(always)]
pub(super) fn rounded(x: f32) -> bf16 {
    let bits = x.to_bits();
    let even = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let bits = if x.is_nan() { bits | 1 << 22 } else { even };
    bf16::from_bits(
        (if x.abs() < f32::MIN_POSITIVE {
            x.to_bits() & 1 << 31
        } else {
            bits
        } >> 16) as u16,
    )
}

/// `y = x`, [`rounded`]. Both have the same length.
pub(super) fn round(x: &[f32], y: &mut [bf16]) {
    assert_eq!(x.len(), y.len(), "slices of equal length");
    dispatch(Round(x, y));
}

/// `y = x`, exactly. Both have the same length.
pub(super) fn widen(x: &[bf16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "slices of equal length");
    dispatch(Widen(x, y));
}

struct Round<'a>(&'a [f32], &'a mut [bf16]);

impl Work for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        self.0
            .iter()
            .zip(self.1)
            .for_each(|(x, y)| *y = rounded(*x));
    }
}

struct Widen<'a>(&'a [bf16], &'a mut [f32]);

impl Work for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        self.0.iter().zip(self.1).for_each(|(x, y)| *y = x.float());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_half_does_but_for_subnormals_and_comes_back() {
        let spread =
            (0..1 << 20).map(|i: u32| f32::from_bits(i.wrapping_mul(4099).wrapping_add(i << 28)));
        let edges = [
            0.0,
            -0.0,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MIN_POSITIVE,
            -1e-45,
        ];
        let more = [
            0x3f80_8000,
            0x3f81_8000,
            0x3f80_7fff,
            0x3f80_8001,
            0x007f_ffff,
            0x807f_ffff,
        ]
        .map(f32::from_bits);
        let x: Vec<f32> = spread.chain(edges).chain(more).collect();
        let mut y = vec![bf16::ZERO; x.len()];
        round(&x, &mut y);
        let mut back = vec![0.0; x.len()];
        widen(&y, &mut back);
        for ((x, y), back) in x.iter().zip(&y).zip(back) {
            let wanted = bf16::from_f32(if x.abs() < f32::MIN_POSITIVE {
                0f32.copysign(*x)
            } else {
                *x
            });
            assert!(
                y.to_bits() == wanted.to_bits() || (x.is_nan() && y.is_nan()),
                "{x}: {y}"
            );
            assert_eq!(back.to_bits(), u32::from(y.to_bits()) << 16);
        }
    }
}

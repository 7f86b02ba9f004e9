//! Layer norm and root-mean-square norm of rows, forward and backward. The norms are frozen: only the input gets a
//! gradient.

use rayon::prelude::*;

use super::{
    elementwise::{Map, Summand, map, total},
    simd::{Lanes, Work, dispatch},
};
use upright_model::{config::NormKind, weights::NormWeights};

/// Rows that a thread processes at a time.
const ROWS: usize = 16;

/// A norm over rows of `width` values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm<'a> {
    /// Layer or root mean square.
    pub kind: NormKind,
    /// Added to the variance, under the square root.
    pub eps: f32,
    /// Scale and bias, length `width`.
    pub weights: &'a NormWeights,
}

impl Norm<'_> {
    fn width(&self) -> usize {
        self.weights.scale.len()
    }

    /// Mean of a row (0 for root mean square) and its reciprocal standard deviation or root mean
    /// square.
    #[inline(always)]
    fn statistics<L: Lanes>(&self, x: &[f32]) -> (f32, f32) {
        let width = x.len() as f32;
        let mean = match self.kind {
            NormKind::Layer => total::<L, 1>(&Value, [x]) / width,
            NormKind::Rms => 0.0,
        };
        let variance = total::<L, 1>(&SquaredFrom(mean), [x]) / width;
        // A row whose squares overflow must not become zeros, which would look like a valid result.
        let rstd = if variance == f32::INFINITY {
            f32::NAN
        } else {
            1.0 / (variance + self.eps).sqrt()
        };
        (mean, rstd)
    }

    /// Normalizes one row into `y`.
    pub(crate) fn row(&self, x: &[f32], y: &mut [f32]) {
        dispatch(Row { norm: *self, x, y });
    }

    /// Adds to `dx` the gradient of one row with respect to its input `x`, given `dy`.
    pub(crate) fn row_backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        dispatch(RowBackward {
            norm: *self,
            x,
            dy,
            dx,
        });
    }

    /// Normalizes every row of `x` `[T, width]` into `y`.
    pub(crate) fn forward(&self, x: &[f32], y: &mut [f32]) {
        let width = self.width();
        y.par_chunks_mut(width * ROWS)
            .zip(x.par_chunks(width * ROWS))
            .for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    self.row(x, y);
                }
            });
    }

    /// Adds to `dx` the gradient with respect to `x`, given `dy`; all `[T, width]`.
    pub(crate) fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let width = self.width();
        let chunks = x.par_chunks(width * ROWS).zip(dy.par_chunks(width * ROWS));
        dx.par_chunks_mut(width * ROWS)
            .zip(chunks)
            .for_each(|(dx, (x, dy))| {
                for ((dx, x), dy) in dx
                    .chunks_exact_mut(width)
                    .zip(x.chunks_exact(width))
                    .zip(dy.chunks_exact(width))
                {
                    self.row_backward(x, dy, dx);
                }
            });
    }
}

/// [`Norm::row`] on vectors.
struct Row<'a> {
    norm: Norm<'a>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Work for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self {
            norm: Norm { weights, .. },
            x,
            y,
        } = self;
        let (mean, rstd) = self.norm.statistics::<L>(x);
        let normal = Normal { mean, rstd };
        match &weights.bias {
            Some(bias) => map::<L, f32, 3, 1>(&normal, [x, &weights.scale, bias], [y]),
            None => map::<L, f32, 2, 1>(&normal, [x, &weights.scale], [y]),
        }
    }
}

/// [`Norm::row_backward`] on vectors.
struct RowBackward<'a> {
    norm: Norm<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Work for RowBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { norm, x, dy, dx } = self;
        let (width, scale) = (x.len() as f32, &norm.weights.scale[..]);
        let (mean, rstd) = norm.statistics::<L>(x);
        let along = total::<L, 3>(&Along(mean), [dy, scale, x]) / width * rstd * rstd;
        let shift = match norm.kind {
            NormKind::Layer => total::<L, 2>(&Product, [dy, scale]) / width,
            NormKind::Rms => 0.0,
        };
        map::<L, f32, 3, 1>(
            &Slope {
                mean,
                rstd,
                along,
                shift,
            },
            [dy, scale, x],
            [dx],
        );
    }
}

/// `x`.
struct Value;
impl Summand<1> for Value {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x]: [L; 1]) -> L {
        x
    }
}

/// `(x - mean)^2`.
struct SquaredFrom(f32);
impl Summand<1> for SquaredFrom {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x]: [L; 1]) -> L {
        let off = x.sub(L::splat(self.0));
        off.mul(off)
    }
}

/// `dy scale`.
struct Product;
impl Summand<2> for Product {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [dy, scale]: [L; 2]) -> L {
        dy.mul(scale)
    }
}

/// `dy scale (x - mean)`.
struct Along(f32);
impl Summand<3> for Along {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [dy, scale, x]: [L; 3]) -> L {
        dy.mul(scale).mul(x.sub(L::splat(self.0)))
    }
}

/// `(x - mean) rstd scale`, plus a bias if there is one.
struct Normal {
    mean: f32,
    rstd: f32,
}
impl Map<2, 1> for Normal {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x, scale]: [L; 2], _: [L; 1]) -> [L; 1] {
        [x.sub(L::splat(self.mean))
            .mul(L::splat(self.rstd))
            .mul(scale)]
    }
}
impl Map<3, 1> for Normal {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x, scale, bias]: [L; 3], was: [L; 1]) -> [L; 1] {
        let [y] = self.apply([x, scale], was);
        [y.add(bias)]
    }
}

/// Adds `rstd (dy scale - shift - (x - mean) along)`.
struct Slope {
    mean: f32,
    rstd: f32,
    along: f32,
    shift: f32,
}
impl Map<3, 1> for Slope {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [dy, scale, x]: [L; 3], [dx]: [L; 1]) -> [L; 1] {
        let off = x.sub(L::splat(self.mean)).mul(L::splat(self.along));
        [dx.add(
            dy.mul(scale)
                .sub(L::splat(self.shift))
                .sub(off)
                .mul(L::splat(self.rstd)),
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The norm in f64, for finite differences.
    fn oracle(kind: NormKind, eps: f64, w: &NormWeights, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = if kind == NormKind::Layer {
            x.iter().sum::<f64>() / n
        } else {
            0.0
        };
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let rstd = 1.0 / (variance + eps).sqrt();
        (0..x.len())
            .map(|i| {
                (x[i] - mean) * rstd * f64::from(w.scale[i])
                    + w.bias.as_ref().map_or(0.0, |b| f64::from(b[i]))
            })
            .collect()
    }

    #[test]
    fn both_norms_match_f64_and_its_finite_differences() {
        for (kind, width) in [
            (NormKind::Layer, 37),
            (NormKind::Rms, 37),
            (NormKind::Layer, 16),
            (NormKind::Rms, 5),
        ] {
            let value = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 1000) as f32 / 500.0 - 1.0;
            let weights = NormWeights {
                scale: (0..width).map(|i| 1.0 + value(i, 1)).collect(),
                bias: (kind == NormKind::Layer).then(|| (0..width).map(|i| value(i, 2)).collect()),
            };
            let norm = Norm {
                kind,
                eps: 1e-5,
                weights: &weights,
            };
            let x: Vec<f32> = (0..3 * width).map(|i| value(i, 3) + 0.4).collect();
            let dy: Vec<f32> = (0..3 * width).map(|i| value(i, 4)).collect();
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.5; x.len()]);
            norm.forward(&x, &mut y);
            norm.backward(&x, &dy, &mut dx);
            for row in 0..3 {
                let at = row * width..(row + 1) * width;
                let x64: Vec<f64> = x[at.clone()].iter().map(|&v| f64::from(v)).collect();
                let truth = oracle(kind, 1e-5, &weights, &x64);
                for i in 0..width {
                    assert!((f64::from(y[at.start + i]) - truth[i]).abs() < 2e-6);
                    let loss = |shift: f64| {
                        let mut moved = x64.clone();
                        moved[i] += shift;
                        let out = oracle(kind, 1e-5, &weights, &moved);
                        out.iter()
                            .zip(&dy[at.clone()])
                            .map(|(o, d)| o * f64::from(*d))
                            .sum::<f64>()
                    };
                    let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                    assert!(
                        (f64::from(dx[at.start + i]) - 0.5 - slope).abs() < 1e-5,
                        "{kind:?} {width}"
                    );
                }
            }
        }
    }
}

//! Layer norm and root-mean-square norm of rows, forward and backward. The norms are frozen: only the input gets a
//! gradient.

use rayon::prelude::*;

use super::{Lanes, Work, dispatch};
use crate::{config::NormKind, weights::NormWeights};

/// Lanes of a row's sums: enough independent additions to fill a vector register, and a fixed order of summation.
const LANES: usize = 16;

/// Rows handed to a thread at a time.
const ROWS: usize = 16;

/// A norm over rows of `width` values.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Layer or root mean square.
    pub kind: NormKind,
    /// Added under the root.
    pub eps: f32,
    /// Scale and bias, length `width`.
    pub weights: &'a NormWeights,
}

/// Sum of `f(i)` over a row in a fixed order.
#[inline(always)]
fn sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = len - len % LANES;
    for base in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(base + lane);
        }
    }
    let tail: f32 = (whole..len).map(&f).sum();
    lanes.iter().sum::<f32>() + tail
}

impl Norm<'_> {
    fn width(&self) -> usize {
        self.weights.scale.len()
    }

    /// Mean (0 for root mean square) and reciprocal root of a row.
    #[inline(always)]
    fn statistics(&self, x: &[f32]) -> (f32, f32) {
        let width = x.len() as f32;
        let mean = match self.kind {
            NormKind::Layer => sum(x.len(), |i| x[i]) / width,
            NormKind::Rms => 0.0,
        };
        let variance = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / width;
        // A row too large to square must not come out as zeros, which would look like a healthy one.
        let rstd = if variance == f32::INFINITY { f32::NAN } else { 1.0 / (variance + self.eps).sqrt() };
        (mean, rstd)
    }

    /// Normalises one row into `y`.
    pub fn row(&self, x: &[f32], y: &mut [f32]) {
        dispatch(Row { norm: *self, x, y });
    }

    #[inline(always)]
    fn row_here(&self, x: &[f32], y: &mut [f32]) {
        let (mean, rstd) = self.statistics(x);
        let scale = &self.weights.scale[..x.len()];
        for ((y, x), s) in y.iter_mut().zip(x).zip(scale) {
            *y = (x - mean) * rstd * s;
        }
        if let Some(bias) = &self.weights.bias {
            for (y, b) in y.iter_mut().zip(bias) {
                *y += b;
            }
        }
    }

    /// Adds to `dx` the gradient of one row with respect to its input `x`, given `dy`.
    pub fn row_backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        dispatch(RowBackward { norm: *self, x, dy, dx });
    }

    #[inline(always)]
    fn row_backward_here(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let (mean, rstd) = self.statistics(x);
        let (width, scale) = (x.len() as f32, &self.weights.scale[..x.len()]);
        let along = sum(x.len(), |i| dy[i] * scale[i] * (x[i] - mean)) / width * rstd * rstd;
        let shift = match self.kind {
            NormKind::Layer => sum(x.len(), |i| dy[i] * scale[i]) / width,
            NormKind::Rms => 0.0,
        };
        for i in 0..x.len() {
            dx[i] += rstd * (dy[i] * scale[i] - shift - (x[i] - mean) * along);
        }
    }

    /// Normalises every row of `x` `[T, width]` into `y`.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        let width = self.width();
        y.par_chunks_mut(width * ROWS).zip(x.par_chunks(width * ROWS)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                self.row(x, y);
            }
        });
    }

    /// Adds to `dx` the gradient with respect to `x`, given `dy`; all `[T, width]`.
    pub fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let width = self.width();
        let chunks = x.par_chunks(width * ROWS).zip(dy.par_chunks(width * ROWS));
        dx.par_chunks_mut(width * ROWS).zip(chunks).for_each(|(dx, (x, dy))| {
            for ((dx, x), dy) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width)) {
                self.row_backward(x, dy, dx);
            }
        });
    }
}

/// [`Norm::row`], compiled for the widest vectors: the compiler makes them of the plain loops, whose sums have 16 lanes
/// whatever the vectors.
struct Row<'a> {
    norm: Norm<'a>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Work for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        self.norm.row_here(self.x, self.y);
    }
}

/// [`Norm::row_backward`], likewise.
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
        self.norm.row_backward_here(self.x, self.dy, self.dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The norm in f64, for finite differences.
    fn oracle(kind: NormKind, eps: f64, w: &NormWeights, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let rstd = 1.0 / (variance + eps).sqrt();
        (0..x.len())
            .map(|i| (x[i] - mean) * rstd * f64::from(w.scale[i]) + w.bias.as_ref().map_or(0.0, |b| f64::from(b[i])))
            .collect()
    }

    #[test]
    fn both_norms_match_f64_and_its_finite_differences() {
        for (kind, width) in [(NormKind::Layer, 37), (NormKind::Rms, 37), (NormKind::Layer, 16), (NormKind::Rms, 5)] {
            let value = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 1000) as f32 / 500.0 - 1.0;
            let weights = NormWeights {
                scale: (0..width).map(|i| 1.0 + value(i, 1)).collect(),
                bias: (kind == NormKind::Layer).then(|| (0..width).map(|i| value(i, 2)).collect()),
            };
            let norm = Norm { kind, eps: 1e-5, weights: &weights };
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
                        out.iter().zip(&dy[at.clone()]).map(|(o, d)| o * f64::from(*d)).sum::<f64>()
                    };
                    let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                    assert!((f64::from(dx[at.start + i]) - 0.5 - slope).abs() < 1e-5, "{kind:?} {width}");
                }
            }
        }
    }
}

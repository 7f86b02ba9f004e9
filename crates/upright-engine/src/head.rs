//! From hidden states to log-probabilities, and to unit gradients, in one pass over chunks of the vocabulary: no logits
//! tensor is ever whole.
//!
//! For a row with hidden state h (normed) and a target y, `logp = (W h)_y - lse(W h)` and
//! `d logp / dh = W_y - Wᵀ softmax(W h)`. The second term does not depend on the target or on the loss's slope, so it is
//! made together with the log-sum-exp, while slopes are still unknown, with the running maximum taken out as in online
//! softmax. A loss's slope only scales it later.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use crate::{
    buffer::Buffer,
    cpu::{
        Lanes, Tier, Work, dispatch, exp,
        gemm::{Finish, Onto, Packed, Term, View, product, sum},
        norm::Norm,
    },
    pack::{Pack, Target},
    weights::Matrix,
};

/// Scored rows worked on together.
const ROWS: usize = 2048;
/// Vocabulary rows of one chunk.
const VOCABULARY: usize = 2048;

/// The head of a decoder.
pub(crate) struct Head<'a> {
    pub(crate) tier: Tier,
    pub(crate) norm: Norm<'a>,
    pub(crate) weight: &'a Matrix,
}

/// What backward needs of the scored rows.
pub(crate) struct HeadTrace {
    /// Rows of the pack with a target, ascending.
    rows: Vec<usize>,
    /// Targets of every row: `(index in rows, target)`, ascending.
    wanted: Vec<(usize, usize)>,
    /// Their hidden states before the final norm, `[rows, H]`.
    x: Buffer<f32>,
    /// `Wᵀ softmax(W h)` of each, `[rows, H]`.
    expected: Buffer<f32>,
}

/// One scored row of the online softmax. Atomic because rows are gone through in any order on any thread, each by one.
struct Running {
    /// Largest logit yet, f32.
    maximum: AtomicU32,
    /// Sum of `exp(logit - maximum)`, f64.
    sum: AtomicU64,
    /// By what the newest chunk shrinks everything before it, f32.
    correction: AtomicU32,
}

impl Running {
    fn new() -> Self {
        let before = AtomicU32::new(f32::NEG_INFINITY.to_bits());
        Self { maximum: before, sum: AtomicU64::new(0f64.to_bits()), correction: AtomicU32::new(0) }
    }

    fn maximum(&self) -> f32 {
        f32::from_bits(self.maximum.load(Relaxed))
    }

    fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Relaxed))
    }

    fn correction(&self) -> f32 {
        f32::from_bits(self.correction.load(Relaxed))
    }

    /// Turns a chunk's logits into `exp(logit - maximum)` and takes them in.
    fn absorb(&self, z: &mut [f32]) {
        let before = self.maximum();
        let (maximum, sum) = dispatch(Absorb { before, z });
        let correction = (before - maximum).exp();
        self.sum.store((self.sum() * f64::from(correction) + sum).to_bits(), Relaxed);
        self.maximum.store(maximum.to_bits(), Relaxed);
        self.correction.store(correction.to_bits(), Relaxed);
    }
}

impl Head<'_> {
    /// Log-probability of every target, and a trace for [`Head::backward`] if `keep`.
    pub(crate) fn forward(&self, x: &[f32], targets: &[Target], keep: bool) -> (Vec<f64>, HeadTrace) {
        let hidden = self.weight.cols;
        let mut rows: Vec<usize> = targets.iter().map(|t| t.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut gathered = Buffer::new(rows.len() * hidden);
        gathered.par_chunks_mut(hidden).zip(&rows).for_each(|(to, &row)| {
            to.copy_from_slice(&x[row * hidden..(row + 1) * hidden]);
        });
        // Targets by the scored row they belong to, so that a chunk of rows finds its own.
        let mut wanted: Vec<(usize, usize)> = targets
            .iter()
            .enumerate()
            .map(|(i, t)| (rows.binary_search(&t.row).expect("collected from the targets"), i))
            .collect();
        wanted.sort_unstable();

        let mut logp = vec![0.0; targets.len()];
        let mut expected = Buffer::new(if keep { rows.len() * hidden } else { 0 });
        for start in (0..rows.len()).step_by(ROWS) {
            let count = ROWS.min(rows.len() - start);
            let own = wanted.partition_point(|w| w.0 < start)..wanted.partition_point(|w| w.0 < start + count);
            let own: Vec<_> = wanted[own].iter().map(|&(row, i)| (row - start, i, targets[i].token as usize)).collect();
            let normed = Packed::from_rows(self.tier, count, hidden, |row, y| {
                self.norm.row(&gathered[(start + row) * hidden..][..hidden], y);
            });
            let expected = keep.then(|| &mut expected[start * hidden..(start + count) * hidden]);
            self.chunk_of_rows(&normed, &own, &mut logp, expected);
        }
        (logp, HeadTrace { rows, wanted, x: gathered, expected })
    }

    /// Logits of every row of `x` `[rows, H]`: `[rows, V]`, for choosing a next token.
    pub(crate) fn logits(&self, x: &[f32]) -> Vec<f32> {
        let (vocabulary, hidden) = (self.weight.rows, self.weight.cols);
        let rows = x.len() / hidden;
        let mut normed = vec![0.0; x.len()];
        self.norm.forward(x, &mut normed);
        let mut z = vec![0.0; rows * vocabulary];
        let w = View::bf16(self.weight.data(), vocabulary, hidden);
        product(self.tier, View::rows(&normed, rows, hidden), w.t(), &mut z, vocabulary, false);
        z
    }

    /// One pass over the vocabulary for some rows; `own` lists `(row, target, token)`.
    fn chunk_of_rows(
        &self,
        normed: &Packed,
        own: &[(usize, usize, usize)],
        logp: &mut [f64],
        mut expected: Option<&mut [f32]>,
    ) {
        let (vocabulary, hidden, count) = (self.weight.rows, self.weight.cols, normed.rows());
        let running: Vec<Running> = (0..count).map(|_| Running::new()).collect();
        let mut z = Buffer::new(count * VOCABULARY.min(vocabulary));
        for first in (0..vocabulary).step_by(VOCABULARY) {
            let width = VOCABULARY.min(vocabulary - first);
            let w = View::bf16(&self.weight.data()[first * hidden..(first + width) * hidden], width, hidden);
            let z = &mut z[..count * width];
            sum(self.tier, &[Term::new(normed, w.t())], z, width, Finish::default());
            for &(row, target, token) in own {
                if (first..first + width).contains(&token) {
                    logp[target] = f64::from(z[row * width + token - first]);
                }
            }
            let Some(expected) = expected.as_deref_mut() else {
                z.par_chunks_mut(width).zip(&running).for_each(|(z, running)| running.absorb(z));
                continue;
            };
            let shares = Packed::from_rows(self.tier, count, width, |row, shares| {
                shares.copy_from_slice(&z[row * width..][..width]);
                running[row].absorb(shares);
            });
            if first > 0 {
                expected.par_chunks_mut(hidden).zip(&running).for_each(|(row, running)| {
                    // Most often nothing has grown.
                    let correction = running.correction();
                    if correction != 1.0 {
                        row.iter_mut().for_each(|v| *v *= correction);
                    }
                });
            }
            let onto = if first > 0 { Onto::Itself } else { Onto::Nothing };
            sum(self.tier, &[Term::new(&shares, w)], expected, hidden, Finish { onto, bias: None });
        }
        if let Some(expected) = expected {
            expected.par_chunks_mut(hidden).zip(&running).for_each(|(row, running)| {
                let scale = (1.0 / running.sum()) as f32;
                row.iter_mut().for_each(|v| *v *= scale);
            });
        }
        for &(row, target, _) in own {
            logp[target] -= f64::from(running[row].maximum()) + running[row].sum().ln();
        }
    }

    /// The gradient of the residual stream under the final norm, `[T, H]`, that the slopes (d loss / d logp of each target)
    /// ask for.
    pub(crate) fn backward(&self, pack: &Pack, trace: &HeadTrace, slopes: &[f64]) -> Buffer<f32> {
        let hidden = self.weight.cols;
        let mut dx = Buffer::new(pack.tokens.len() * hidden);
        dx.par_chunks_mut(hidden).enumerate().for_each(|(row, dx)| {
            dx.fill(0.0);
            let Ok(index) = trace.rows.binary_search(&row) else { return };
            let at = index * hidden..(index + 1) * hidden;
            let own = trace.wanted.partition_point(|w| w.0 < index)..trace.wanted.partition_point(|w| w.0 <= index);
            let own =
                trace.wanted[own].iter().map(|(_, target)| (pack.targets[*target].token as usize, slopes[*target]));
            let total = own.clone().map(|(_, slope)| slope).sum::<f64>() as f32;
            let mut d: Vec<f32> = trace.expected[at.clone()].iter().map(|e| -total * e).collect();
            for (token, slope) in own {
                let w = &self.weight.data()[token * hidden..(token + 1) * hidden];
                d.iter_mut().zip(w).for_each(|(d, w)| *d += slope as f32 * w.to_f32());
            }
            self.norm.row_backward(&trace.x[at], &d, dx);
        });
        dx
    }
}

/// Turns logits into `exp(z - maximum)` in place, the maximum being the largest of them and of `before`; gives it and
/// their sum.
struct Absorb<'a> {
    before: f32,
    z: &'a mut [f32],
}

impl Work for Absorb<'_> {
    type Output = (f32, f64);

    #[inline(always)]
    fn run<L: Lanes>(self) -> (f32, f64) {
        let Self { before, z } = self;
        let (whole, tail) = z.split_at_mut(z.len() - z.len() % L::LEN);
        let mut largest = L::splat(before);
        for chunk in whole.chunks_exact(L::LEN) {
            // SAFETY: the chunk has LEN values.
            largest = unsafe { L::load(chunk.as_ptr()) }.max(largest);
        }
        let maximum = tail.iter().fold(largest.largest(), |a, &b| if b > a { b } else { a });
        let mut sum = 0f64;
        // A few additions in f32, then on in f64.
        for block in whole.chunks_mut(16 * L::LEN) {
            let mut partial = L::splat(0.0);
            for chunk in block.chunks_exact_mut(L::LEN) {
                // SAFETY: the chunk has LEN values.
                unsafe {
                    let e = exp(L::load(chunk.as_ptr()).sub(L::splat(maximum)));
                    e.store(chunk.as_mut_ptr());
                    partial = partial.add(e);
                }
            }
            sum += f64::from(partial.sum());
        }
        for value in tail {
            *value = exp(L::splat(*value - maximum)).to_array()[0];
            sum += f64::from(*value);
        }
        (maximum, sum)
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::{config::NormKind, weights::NormWeights};

    /// Three chunks of the vocabulary and two of the rows, with rows that two targets share, against f64.
    #[test]
    fn chunks_add_up_to_the_whole_softmax() {
        let (vocabulary, hidden, rows) = (2 * VOCABULARY + 37, 16, ROWS + 44);
        let value = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 2003) as f32 / 1001.5 - 1.0;
        let w: Vec<bf16> = (0..vocabulary * hidden).map(|i| bf16::from_f32(1.5 * value(i, 1))).collect();
        let weight = Matrix::owned(vocabulary, hidden, w.clone());
        let weights = NormWeights { scale: vec![1.0; hidden], bias: None };
        let norm = Norm { kind: NormKind::Rms, eps: 1e-6, weights: &weights };
        let x: Vec<f32> = (0..rows * hidden).map(|i| value(i, 2)).collect();
        let token = |row: usize, k: usize| ((row * 131 + k * 4099) % vocabulary) as u32;
        let targets: Vec<Target> =
            (0..rows).flat_map(|row| [0, 1].map(|k| Target { row, token: token(row, k) })).collect();
        let head = Head { tier: Tier::Portable, norm, weight: &weight };
        let (logp, trace) = head.forward(&x, &targets, true);
        assert_eq!(head.forward(&x, &targets, false).0, logp);
        for row in (0..rows).step_by(37) {
            let mut h = vec![0.0; hidden];
            norm.row(&x[row * hidden..(row + 1) * hidden], &mut h);
            let column = |v: usize| w[v * hidden..(v + 1) * hidden].iter().map(|w| f64::from(w.to_f32()));
            let z: Vec<f64> =
                (0..vocabulary).map(|v| column(v).zip(&h).map(|(w, h)| w * f64::from(*h)).sum()).collect();
            let total: f64 = z.iter().map(|z| z.exp()).sum();
            for k in 0..2 {
                let truth = z[token(row, k) as usize] - total.ln();
                assert!((logp[2 * row + k] - truth).abs() < 1e-5, "row {row}: {} {truth}", logp[2 * row + k]);
            }
            let mut expected = vec![0.0; hidden];
            for v in 0..vocabulary {
                column(v).zip(&mut expected).for_each(|(w, e)| *e += z[v].exp() / total * w);
            }
            for (found, truth) in trace.expected[row * hidden..(row + 1) * hidden].iter().zip(expected) {
                assert!((f64::from(*found) - truth).abs() < 1e-5, "row {row}: {found} {truth}");
            }
        }
    }
}

//! The output head: from hidden states to log-probabilities and their gradients, in one pass over
//! chunks of the vocabulary. The logits are never stored as a whole; only a probe, which may have
//! no backward pass, stores the softmax.
//!
//! For a row with hidden state h (normalized) and a target y, `logp = (W h)_y - lse(W h)` and
//! `d logp / dh = W_y - Wᵀ softmax(W h)`. The second term depends neither on the target nor on the
//! slope of the loss. So it is computed together with the log-sum-exp, before the slopes are known,
//! with a running maximum as in online softmax. The slope only scales it later. If the batch may
//! not be trained on, the softmax is kept instead, and the backward pass computes the term with the
//! same sums in the same order.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use upright_model::{pack::Target, weights::Matrix};

use super::{
    best::Best,
    buffer::Buffer,
    kernels::{
        Lanes, Work, dispatch, exp,
        gemm::{Finish, Onto, Packed, Term, View, product, sum},
        norm::Norm,
    },
    tier::Tier,
};
use crate::next::Candidate;

/// Rows with targets that are processed together.
const ROWS: usize = 2048;
/// Vocabulary rows of one chunk.
const VOCABULARY: usize = 2048;

/// The head of a decoder.
pub(crate) struct Head<'a> {
    pub(crate) tier: Tier,
    pub(crate) norm: Norm<'a>,
    pub(crate) weight: &'a Matrix,
}

/// What a forward pass keeps for [`Head::backward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: only the log-probabilities are needed.
    Nothing,
    /// The softmax, `[rows, V]` in the tier's precision, from which the backward pass computes the
    /// gradient: for a forward pass that may have no backward pass.
    Softmax,
    /// The gradient.
    Gradient,
}

/// What the backward pass needs of the rows with targets.
pub(crate) struct HeadTrace {
    /// Targets of every row: `(row, target)`, ascending.
    wanted: Vec<(usize, usize)>,
    /// Hidden states before the final norm, `[rows, H]`.
    x: Buffer<f32>,
    expected: Expected,
}

/// `Wᵀ softmax(W h)` of the rows with targets.
enum Expected {
    /// Computed, `[rows, H]`.
    Made(Buffer<f32>),
    /// The softmax to compute it from, in groups of [`ROWS`] rows.
    Softmax(Vec<Softmax>),
}

/// The softmax of some rows, by chunks of the vocabulary.
struct Softmax {
    chunks: Vec<Shares>,
    /// Sum of all shares of every row.
    sums: Vec<f64>,
}

/// One chunk of the softmax, not yet divided by the sum.
struct Shares {
    /// First vocabulary row.
    first: usize,
    /// `exp(logit - maximum)` `[rows, width]`, with the maximum over this chunk and all earlier
    /// ones.
    shares: Packed,
    /// Factor per row by which this chunk's maximum shrinks all earlier chunks.
    corrections: Vec<f32>,
}

/// State of the online softmax for one row. Atomic because any thread may process a row; only one
/// thread does at a time.
struct Running {
    /// Largest logit so far, f32.
    maximum: AtomicU32,
    /// Sum of `exp(logit - maximum)`, f64.
    sum: AtomicU64,
    /// Factor by which the newest chunk shrinks all earlier chunks, f32.
    correction: AtomicU32,
}

impl Running {
    fn new() -> Self {
        let before = AtomicU32::new(f32::NEG_INFINITY.to_bits());
        Self {
            maximum: before,
            sum: AtomicU64::new(0f64.to_bits()),
            correction: AtomicU32::new(0),
        }
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

    /// Adds a chunk's logits, and writes `exp(logit - maximum)` to `shares` if given.
    fn absorb(&self, z: &[f32], shares: Option<&mut [f32]>) {
        let before = self.maximum();
        let (maximum, sum) = dispatch(Absorb { before, z, shares });
        let correction = (before - maximum).exp();
        self.sum.store(
            (self.sum() * f64::from(correction) + sum).to_bits(),
            Relaxed,
        );
        self.maximum.store(maximum.to_bits(), Relaxed);
        self.correction.store(correction.to_bits(), Relaxed);
    }
}

impl Head<'_> {
    /// Log-probability of every target, and the `count` most likely tokens of every scored row, best
    /// first. `x` `[rows, H]` holds the hidden states of the rows that `scored` lists.
    pub(crate) fn best(
        &self,
        x: &[f32],
        scored: &[usize],
        targets: &[Target],
        count: usize,
    ) -> (Vec<f64>, Vec<Vec<Candidate>>) {
        let hidden = self.weight.cols;
        let mut logp = vec![0.0; targets.len()];
        let mut all = Vec::with_capacity(scored.len());
        let wanted = by_row(scored, targets);
        for start in (0..scored.len()).step_by(ROWS) {
            let rows = ROWS.min(scored.len() - start);
            let own = of_rows(&wanted, start..start + rows, targets);
            let normed = Packed::from_rows(self.tier, rows, hidden, |row, y| {
                self.norm.row(&x[(start + row) * hidden..][..hidden], y);
            });
            let mut best = Vec::with_capacity(rows);
            for _ in 0..rows {
                best.push(Best::new(count));
            }
            self.softmax(&normed, &own, &mut logp, None, &mut best);
            for best in best {
                all.push(best.into_candidates());
            }
        }
        (logp, all)
    }

    /// Log-probability of every target, and a trace for [`Head::backward`]. `x` `[rows, H]` holds
    /// the hidden states of the rows of the pack that `scored` lists.
    pub(crate) fn forward(
        &self,
        x: Buffer<f32>,
        scored: &[usize],
        targets: &[Target],
        keep: Keep,
    ) -> (Vec<f64>, HeadTrace) {
        let hidden = self.weight.cols;
        let wanted = by_row(scored, targets);
        let mut logp = vec![0.0; targets.len()];
        let mut made = Buffer::new(if keep == Keep::Gradient { x.len() } else { 0 });
        let mut softmax = Vec::new();
        for start in (0..scored.len()).step_by(ROWS) {
            let count = ROWS.min(scored.len() - start);
            let own = of_rows(&wanted, start..start + count, targets);
            let normed = Packed::from_rows(self.tier, count, hidden, |row, y| {
                self.norm.row(&x[(start + row) * hidden..][..hidden], y);
            });
            match keep {
                Keep::Nothing => _ = self.softmax(&normed, &own, &mut logp, None, &mut []),
                Keep::Softmax => {
                    let mut chunks = Vec::new();
                    let sums = self.softmax(
                        &normed,
                        &own,
                        &mut logp,
                        Some(&mut |shares| chunks.push(shares)),
                        &mut [],
                    );
                    softmax.push(Softmax { chunks, sums });
                }
                Keep::Gradient => {
                    let expected = &mut made[start * hidden..(start + count) * hidden];
                    let mut add = |shares| self.add(&shares, expected);
                    let sums = self.softmax(&normed, &own, &mut logp, Some(&mut add), &mut []);
                    divide(expected, &sums);
                }
            }
        }
        let expected = if keep == Keep::Softmax {
            Expected::Softmax(softmax)
        } else {
            Expected::Made(made)
        };
        (
            logp,
            HeadTrace {
                wanted,
                x,
                expected,
            },
        )
    }

    /// Logits of every row of `x` `[rows, H]`: `[rows, V]`, for choosing a next token.
    pub(crate) fn logits(&self, x: &[f32]) -> Vec<f32> {
        let (vocabulary, hidden) = (self.weight.rows, self.weight.cols);
        let rows = x.len() / hidden;
        let mut normed = vec![0.0; x.len()];
        self.norm.forward(x, &mut normed);
        let mut z = vec![0.0; rows * vocabulary];
        let w = View::bf16(self.weight.data(), vocabulary, hidden);
        product(
            self.tier,
            View::rows(&normed, rows, hidden),
            w.t(),
            &mut z,
            vocabulary,
            false,
        );
        z
    }

    /// Runs one pass over the vocabulary for some rows. Writes the log-probabilities of `own`,
    /// which lists `(row, target, token)`, and returns the sum of every row's shares. `each`
    /// receives the shares chunk by chunk. `best` has one entry per row, or none.
    fn softmax(
        &self,
        normed: &Packed,
        own: &[(usize, usize, usize)],
        logp: &mut [f64],
        mut each: Option<&mut dyn FnMut(Shares)>,
        best: &mut [Best],
    ) -> Vec<f64> {
        let (vocabulary, count) = (self.weight.rows, normed.rows());
        let running: Vec<Running> = (0..count).map(|_| Running::new()).collect();
        let mut z = Buffer::new(count * VOCABULARY.min(vocabulary));
        for first in (0..vocabulary).step_by(VOCABULARY) {
            let width = VOCABULARY.min(vocabulary - first);
            let z = &mut z[..count * width];
            sum(
                self.tier,
                &[Term::new(normed, self.rows(first, width).t())],
                z,
                width,
                Finish::default(),
            );
            for &(row, target, token) in own {
                if (first..first + width).contains(&token) {
                    logp[target] = f64::from(z[row * width + token - first]);
                }
            }
            best.par_iter_mut()
                .zip(z.par_chunks(width))
                .for_each(|(best, z)| best.absorb(first, z));
            let Some(each) = &mut each else {
                z.par_chunks(width)
                    .zip(&running)
                    .for_each(|(z, running)| running.absorb(z, None));
                continue;
            };
            let shares = Packed::from_rows(self.tier, count, width, |row, shares| {
                running[row].absorb(&z[row * width..][..width], Some(shares));
            });
            each(Shares {
                first,
                shares,
                corrections: running.iter().map(Running::correction).collect(),
            });
        }
        for &(row, target, _) in own {
            logp[target] -= f64::from(running[row].maximum()) + running[row].sum().ln();
        }
        for (best, running) in best.iter_mut().zip(&running) {
            best.finish(f64::from(running.maximum()) + running.sum().ln());
        }
        running.iter().map(Running::sum).collect()
    }

    /// Adds the vocabulary's rows, weighted by a chunk's shares, to `expected` `[rows, H]`. The
    /// first chunk overwrites it.
    fn add(
        &self,
        Shares {
            first,
            shares,
            corrections,
        }: &Shares,
        expected: &mut [f32],
    ) {
        let hidden = self.weight.cols;
        if *first > 0 {
            expected
                .par_chunks_mut(hidden)
                .zip(corrections)
                .for_each(|(row, &correction)| {
                    // The maximum rarely grows.
                    if correction != 1.0 {
                        row.iter_mut().for_each(|v| *v *= correction);
                    }
                });
        }
        let onto = if *first > 0 {
            Onto::Itself
        } else {
            Onto::Nothing
        };
        let w = self.rows(*first, shares.cols());
        sum(
            self.tier,
            &[Term::new(shares, w)],
            expected,
            hidden,
            Finish { onto, bias: None },
        );
    }

    /// Rows of the weight, `[count, H]`.
    fn rows(&self, first: usize, count: usize) -> View<'_> {
        let hidden = self.weight.cols;
        View::bf16(
            &self.weight.data()[first * hidden..(first + count) * hidden],
            count,
            hidden,
        )
    }

    /// The gradient of the hidden states before the final norm, `[rows, H]`, given the slopes
    /// (`d loss / d logp` of every target).
    pub(crate) fn backward(
        &self,
        trace: HeadTrace,
        targets: &[Target],
        slopes: &[f64],
    ) -> Buffer<f32> {
        let hidden = self.weight.cols;
        let HeadTrace {
            wanted,
            x,
            expected,
        } = trace;
        let expected = match expected {
            Expected::Made(expected) => expected,
            Expected::Softmax(softmax) => {
                let mut expected = Buffer::new(x.len());
                for (Softmax { chunks, sums }, expected) in
                    softmax.into_iter().zip(expected.chunks_mut(ROWS * hidden))
                {
                    chunks
                        .into_iter()
                        .for_each(|shares| self.add(&shares, expected));
                    divide(expected, &sums);
                }
                expected
            }
        };
        let mut dx = Buffer::new(x.len());
        dx.par_chunks_mut(hidden).enumerate().for_each(|(row, dx)| {
            dx.fill(0.0);
            let at = row * hidden..(row + 1) * hidden;
            let own = wanted.partition_point(|w| w.0 < row)..wanted.partition_point(|w| w.0 <= row);
            let own = wanted[own]
                .iter()
                .map(|(_, target)| (targets[*target].token as usize, slopes[*target]));
            let total = own.clone().map(|(_, slope)| slope).sum::<f64>() as f32;
            let mut d: Vec<f32> = expected[at.clone()].iter().map(|e| -total * e).collect();
            for (token, slope) in own {
                let w = &self.weight.data()[token * hidden..(token + 1) * hidden];
                d.iter_mut()
                    .zip(w)
                    .for_each(|(d, w)| *d += slope as f32 * w.to_f32());
            }
            self.norm.row_backward(&x[at], &d, dx);
        });
        dx
    }
}

/// Targets as `(row, target)`, ascending, so that a chunk of rows finds its own. Rows count along
/// `scored`.
fn by_row(scored: &[usize], targets: &[Target]) -> Vec<(usize, usize)> {
    let mut wanted = Vec::with_capacity(targets.len());
    for (index, target) in targets.iter().enumerate() {
        let row = scored
            .binary_search(&target.row)
            .expect("a target's row is listed");
        wanted.push((row, index));
    }
    wanted.sort_unstable();
    wanted
}

/// The targets of some rows as `(row, target, token)`, with rows counted from the first of them.
fn of_rows(
    wanted: &[(usize, usize)],
    rows: Range<usize>,
    targets: &[Target],
) -> Vec<(usize, usize, usize)> {
    let first = wanted.partition_point(|wanted| wanted.0 < rows.start);
    let end = wanted.partition_point(|wanted| wanted.0 < rows.end);
    let mut own = Vec::with_capacity(end - first);
    for &(row, target) in &wanted[first..end] {
        own.push((row - rows.start, target, targets[target].token as usize));
    }
    own
}

/// Divides every row by its sum.
fn divide(rows: &mut [f32], sums: &[f64]) {
    rows.par_chunks_mut(rows.len() / sums.len())
        .zip(sums)
        .for_each(|(row, sum)| {
            let scale = (1.0 / sum) as f32;
            row.iter_mut().for_each(|v| *v *= scale);
        });
}

/// The maximum of the logits and `before`, and the sum of `exp(z - maximum)`. The summands are
/// written to `shares` if given.
struct Absorb<'a> {
    before: f32,
    z: &'a [f32],
    shares: Option<&'a mut [f32]>,
}

impl Work for Absorb<'_> {
    type Output = (f32, f64);

    #[inline(always)]
    fn run<L: Lanes>(self) -> (f32, f64) {
        /// Vectors added up in f32 before the sum continues in f64.
        const FEW: usize = 16;
        let Self {
            before,
            z,
            mut shares,
        } = self;
        assert!(
            shares.as_ref().is_none_or(|shares| shares.len() == z.len()),
            "one share per logit"
        );
        let (whole, tail) = z.split_at(z.len() - z.len() % L::LEN);
        let mut largest = L::splat(before);
        for chunk in whole.chunks_exact(L::LEN) {
            // SAFETY: the chunk has LEN values.
            largest = unsafe { L::load(chunk.as_ptr()) }.max(largest);
        }
        let maximum = tail
            .iter()
            .fold(largest.largest(), |a, &b| if b > a { b } else { a });
        let mut sum = 0f64;
        for start in (0..whole.len()).step_by(FEW * L::LEN) {
            let mut partial = L::splat(0.0);
            for at in (start..whole.len().min(start + FEW * L::LEN)).step_by(L::LEN) {
                // SAFETY: LEN values from `at` on lie in both.
                unsafe {
                    let e = exp(L::load(whole.as_ptr().add(at)).sub(L::splat(maximum)));
                    if let Some(shares) = &mut shares {
                        e.store(shares.as_mut_ptr().add(at));
                    }
                    partial = partial.add(e);
                }
            }
            sum += f64::from(partial.sum());
        }
        for (i, value) in tail.iter().enumerate() {
            let e = exp(L::splat(*value - maximum)).to_array()[0];
            if let Some(shares) = &mut shares {
                shares[whole.len() + i] = e;
            }
            sum += f64::from(e);
        }
        (maximum, sum)
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use upright_model::{config::NormKind, weights::NormWeights};

    /// Three chunks of the vocabulary and two of the rows, with rows that two targets share, against f64.
    #[test]
    fn chunks_add_up_to_the_whole_softmax() {
        let (vocabulary, hidden, rows) = (2 * VOCABULARY + 37, 16, ROWS + 44);
        let value = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 2003) as f32 / 1001.5 - 1.0;
        let w: Vec<bf16> = (0..vocabulary * hidden)
            .map(|i| bf16::from_f32(1.5 * value(i, 1)))
            .collect();
        let weight = Matrix::owned(vocabulary, hidden, w.clone());
        let weights = NormWeights {
            scale: vec![1.0; hidden],
            bias: None,
        };
        let norm = Norm {
            kind: NormKind::Rms,
            eps: 1e-6,
            weights: &weights,
        };
        let x: Vec<f32> = (0..rows * hidden).map(|i| value(i, 2)).collect();
        let token = |row: usize, k: usize| ((row * 131 + k * 4099) % vocabulary) as u32;
        let targets: Vec<Target> = (0..rows)
            .flat_map(|row| {
                [0, 1].map(|k| Target {
                    row,
                    token: token(row, k),
                })
            })
            .collect();
        let head = Head {
            tier: Tier::Portable,
            norm,
            weight: &weight,
        };
        let scored: Vec<usize> = (0..rows).collect();
        let forward = |keep| head.forward(Buffer::from(&x[..]), &scored, &targets, keep);
        let (logp, trace) = forward(Keep::Gradient);
        assert_eq!(forward(Keep::Nothing).0, logp);
        let Expected::Made(made) = &trace.expected else {
            panic!("the gradient is computed")
        };
        for row in (0..rows).step_by(37) {
            let mut h = vec![0.0; hidden];
            norm.row(&x[row * hidden..(row + 1) * hidden], &mut h);
            let column = |v: usize| {
                w[v * hidden..(v + 1) * hidden]
                    .iter()
                    .map(|w| f64::from(w.to_f32()))
            };
            let z: Vec<f64> = (0..vocabulary)
                .map(|v| column(v).zip(&h).map(|(w, h)| w * f64::from(*h)).sum())
                .collect();
            let total: f64 = z.iter().map(|z| z.exp()).sum();
            for k in 0..2 {
                let truth = z[token(row, k) as usize] - total.ln();
                assert!(
                    (logp[2 * row + k] - truth).abs() < 1e-5,
                    "row {row}: {} {truth}",
                    logp[2 * row + k]
                );
            }
            let mut expected = vec![0.0; hidden];
            for v in 0..vocabulary {
                column(v)
                    .zip(&mut expected)
                    .for_each(|(w, e)| *e += z[v].exp() / total * w);
            }
            for (found, truth) in made[row * hidden..(row + 1) * hidden].iter().zip(expected) {
                assert!(
                    (f64::from(*found) - truth).abs() < 1e-5,
                    "row {row}: {found} {truth}"
                );
            }
        }
        let (later, kept) = forward(Keep::Softmax);
        assert_eq!(later, logp);
        let slopes: Vec<f64> = (0..targets.len()).map(|i| f64::from(value(i, 3))).collect();
        let backward = |trace| head.backward(trace, &targets, &slopes).to_vec();
        assert_eq!(
            backward(kept),
            backward(trace),
            "the gradient computed in the backward pass has the same bits"
        );
    }
}

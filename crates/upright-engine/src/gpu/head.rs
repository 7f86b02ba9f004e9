//! The output head on a device: from hidden states to log-probabilities and their gradients, in one pass over chunks of the
//! vocabulary. The mirror of `cpu/head.rs`.

use std::sync::Arc;

use half::bf16;
use upright_base::Result;
use upright_kernels::Element;

use super::{
    array::Array,
    device::{Device, Product},
    kernels::{
        head::{self, Best, Chunk, Shares, Softmax},
        norm,
    },
    tables::DeviceTargets,
    weights::Norm,
};
use crate::{
    cpu::{head::Keep, kernels::counters::Counters},
    next::Candidate,
};

/// Sizes at which the head's work is cut. A row's bits depend on the vocabulary's alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Rows that are processed together.
    pub(super) rows: usize,
    /// Tokens of a chunk of the vocabulary.
    pub(super) vocabulary: usize,
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            rows: 4096,
            vocabulary: 8192,
        }
    }
}

/// The head of a decoder.
pub(super) struct Head<'a> {
    pub(super) device: &'a Arc<dyn Device>,
    pub(super) counters: &'a Counters,
    pub(super) norm: &'a Norm,
    /// `[V, H]`.
    pub(super) weight: &'a Array<bf16>,
    pub(super) cut: Cut,
}

/// What the backward pass needs of the rows with targets.
pub(super) struct HeadTrace {
    /// Hidden states before the final norm, `[rows, H]`.
    x: Array<f32>,
    /// Sums of the softmaxes, `[rows]`.
    sum: Array<f64>,
    expected: Expected,
}

/// `Wᵀ softmax(W h)` of the rows with targets, not yet divided by the sums.
enum Expected {
    /// Computed, `[rows, H]`.
    Made(Array<f32>),
    /// The softmax to compute it from: the chunks of every group of rows.
    Softmax(Vec<Vec<Shares>>),
}

impl Head<'_> {
    fn hidden(&self) -> usize {
        self.norm.scale.len()
    }

    fn vocabulary(&self) -> usize {
        self.weight.len() / self.hidden()
    }

    /// Log-probability of every target in the pack's order, and a trace for [`Head::backward`]. `x` `[rows, H]` holds the hidden
    /// states of the rows with targets.
    pub(super) fn forward(
        &self,
        x: Array<f32>,
        targets: &DeviceTargets,
        keep: Keep,
    ) -> Result<(Vec<f64>, HeadTrace)> {
        let hidden = self.hidden();
        let rows = x.len() / hidden;
        let softmax = self.softmax(rows, targets)?;
        let logp = Array::new(self.device, targets.by_row.tokens.len())?;
        let made_len = if keep == Keep::Gradient { x.len() } else { 0 };
        let made = Array::new(self.device, made_len)?;
        let none = self.best_lists(0, 0)?;
        let mut groups = Vec::new();
        for start in (0..rows).step_by(self.cut.rows) {
            let count = self.cut.rows.min(rows - start);
            let group = part(targets, &softmax, start);
            let normed = self.normed(&x, start, count)?;
            let mut chunks = Vec::new();
            self.each_chunk(&normed, count, |chunk| {
                match keep {
                    Keep::Nothing => head::absorb(count, chunk, &group.0, &group.1)?,
                    Keep::Softmax => {
                        chunks.push(head::absorb_shares(count, chunk, &group.0, &group.1)?);
                    }
                    Keep::Gradient => {
                        let shares = head::absorb_shares(count, chunk, &group.0, &group.1)?;
                        self.add(count, &shares, &made.at(start * hidden))?;
                    }
                }
                Ok(())
            })?;
            head::finish(count, &group.0, &group.1, &logp, &none)?;
            groups.push(chunks);
        }
        let logp = targets.by_row.in_order(logp.read()?);
        let expected = if keep == Keep::Softmax {
            Expected::Softmax(groups)
        } else {
            Expected::Made(made)
        };
        let sum = softmax.sum;
        Ok((logp, HeadTrace { x, sum, expected }))
    }

    /// Log-probability of every target in the pack's order, and the `count` most likely tokens of every row, best first.
    pub(super) fn best(
        &self,
        x: &Array<f32>,
        targets: &DeviceTargets,
        count: usize,
    ) -> Result<(Vec<f64>, Vec<Vec<Candidate>>)> {
        let hidden = self.hidden();
        let rows = x.len() / hidden;
        let softmax = self.softmax(rows, targets)?;
        let logp = Array::new(self.device, targets.by_row.tokens.len())?;
        let count = count.min(self.vocabulary());
        let mut all = Vec::with_capacity(rows);
        for start in (0..rows).step_by(self.cut.rows) {
            let group_rows = self.cut.rows.min(rows - start);
            let group = part(targets, &softmax, start);
            let normed = self.normed(x, start, group_rows)?;
            let best = self.best_lists(group_rows, count)?;
            self.each_chunk(&normed, group_rows, |chunk| {
                head::absorb(group_rows, chunk, &group.0, &group.1)?;
                head::best(group_rows, chunk, &best)
            })?;
            head::finish(group_rows, &group.0, &group.1, &logp, &best)?;
            let (tokens, values) = (best.tokens.read()?, best.logp.read()?);
            for row in 0..group_rows {
                let mut found = Vec::with_capacity(count);
                for place in row * count..(row + 1) * count {
                    if tokens[place] >= 0 {
                        found.push(Candidate {
                            token: tokens[place].cast_unsigned(),
                            logp: values[place],
                        });
                    }
                }
                all.push(found);
            }
        }
        Ok((targets.by_row.in_order(logp.read()?), all))
    }

    /// Logits of every row of `x` `[rows, H]`: `[rows, V]`.
    pub(super) fn logits(&self, x: &Array<f32>) -> Result<Vec<f32>> {
        let rows = x.len() / self.hidden();
        let vocabulary = self.vocabulary();
        let mut logits = vec![0.0; rows * vocabulary];
        for start in (0..rows).step_by(self.cut.rows) {
            let count = self.cut.rows.min(rows - start);
            let normed = self.normed(x, start, count)?;
            self.each_chunk(&normed, count, |chunk| {
                let z = chunk.z.read()?;
                for (row, z) in z.chunks(chunk.width).take(count).enumerate() {
                    let to = (start + row) * vocabulary + chunk.first;
                    logits[to..to + chunk.width].copy_from_slice(z);
                }
                Ok(())
            })?;
        }
        Ok(logits)
    }

    /// Normalizes some rows of `x`.
    fn normed(&self, x: &Array<f32>, start: usize, count: usize) -> Result<Array<bf16>> {
        let hidden = self.hidden();
        let normed = Array::new(self.device, count * hidden)?;
        let x = x.at(start * hidden);
        norm::forward(self.norm, count, &x, &normed, hidden)?;
        Ok(normed)
    }

    /// A softmax before its first chunk.
    fn softmax(&self, rows: usize, targets: &DeviceTargets) -> Result<Softmax> {
        Ok(Softmax {
            maximum: Array::new(self.device, rows)?,
            sum: Array::new(self.device, rows)?,
            logits: Array::new(self.device, targets.by_row.tokens.len())?,
        })
    }

    /// Lists of the `count` most likely tokens of every row, before the first chunk.
    fn best_lists(&self, rows: usize, count: usize) -> Result<Best> {
        Ok(Best {
            count,
            logits: Array::new(self.device, rows * count)?,
            tokens: Array::new(self.device, rows * count)?,
            logp: Array::new(self.device, rows * count)?,
        })
    }

    /// Computes the logits of normalized rows chunk by chunk of the vocabulary.
    fn each_chunk(
        &self,
        normed: &Array<bf16>,
        rows: usize,
        mut each: impl FnMut(Chunk<'_>) -> Result<()>,
    ) -> Result<()> {
        let (hidden, vocabulary) = (self.hidden(), self.vocabulary());
        let widest = self.cut.vocabulary.min(vocabulary);
        let z = Array::new(self.device, rows * widest)?;
        for first in (0..vocabulary).step_by(self.cut.vocabulary) {
            let width = widest.min(vocabulary - first);
            let weight = self.weight.at(first * hidden);
            self.multiply(&Product {
                m: rows,
                n: width,
                k: hidden,
                a: normed.place(),
                a_stride: hidden,
                b: weight.place(),
                b_stride: hidden,
                b_transposed: true,
                c: None,
                bias: None,
                d: z.place(),
                d_element: Element::F32,
            })?;
            let z = &z;
            each(Chunk { z, first, width })?;
        }
        Ok(())
    }

    /// Adds the vocabulary's rows, weighted by a chunk's shares, to `expected` `[rows, H]`. The first chunk overwrites it.
    fn add(&self, rows: usize, shares: &Shares, expected: &Array<f32>) -> Result<()> {
        let hidden = self.hidden();
        if shares.first > 0 {
            head::rescale(rows, hidden, expected, &shares.corrections)?;
        }
        let weight = self.weight.at(shares.first * hidden);
        self.multiply(&Product {
            m: rows,
            n: hidden,
            k: shares.width,
            a: shares.shares.place(),
            a_stride: Shares::padded(shares.width),
            b: weight.place(),
            b_stride: hidden,
            b_transposed: false,
            c: (shares.first > 0).then(|| expected.place()),
            bias: None,
            d: expected.place(),
            d_element: Element::F32,
        })
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        self.counters.add_products(product.multiply_adds());
        self.device.multiply(product)
    }

    /// The gradient of the hidden states before the final norm, `[rows, H]`, in f32 and in bf16, given one slope per target of
    /// the pack. Rows in bf16 are `width` values apart.
    pub(super) fn backward(
        &self,
        trace: HeadTrace,
        targets: &DeviceTargets,
        slopes: &[f64],
        width: usize,
    ) -> Result<(Array<f32>, Array<bf16>)> {
        let hidden = self.hidden();
        let HeadTrace { x, sum, expected } = trace;
        let rows = x.len() / hidden;
        let made = match expected {
            Expected::Made(made) => made,
            Expected::Softmax(groups) => {
                let made = Array::new(self.device, x.len())?;
                for (group, chunks) in groups.into_iter().enumerate() {
                    let start = group * self.cut.rows;
                    let count = self.cut.rows.min(rows - start);
                    for shares in chunks {
                        self.add(count, &shares, &made.at(start * hidden))?;
                    }
                }
                made
            }
        };
        let mut by_row = Vec::with_capacity(slopes.len());
        for index in &targets.by_row.order {
            by_row.push(slopes[*index]);
        }
        let slopes = Array::from(self.device, &by_row)?;
        let d = Array::new(self.device, x.len())?;
        let dx = Array::zeros(self.device, x.len())?;
        let rounded = Array::new(self.device, rows * width)?;
        if rows > 0 {
            let of = &targets.targets;
            head::gradient(rows, hidden, &made, &sum, of, &slopes, self.weight, &d)?;
        }
        norm::backward(self.norm, rows, &x, &d, &dx, Some((&rounded, width)))?;
        Ok((dx, rounded))
    }
}

/// The targets and the softmax of the rows from `start` on.
fn part(targets: &DeviceTargets, softmax: &Softmax, start: usize) -> (head::Targets, Softmax) {
    let targets = head::Targets {
        first: targets.targets.first.at(start),
        tokens: targets.targets.tokens.clone(),
    };
    let softmax = Softmax {
        maximum: softmax.maximum.at(start),
        sum: softmax.sum.at(start),
        logits: softmax.logits.clone(),
    };
    (targets, softmax)
}

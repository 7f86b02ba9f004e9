//! Frozen linears of one input with their LoRA pairs, forward and backward.
//!
//! Queries, keys and values are one matrix, and so are gate and up. The pairs extend it: for K inputs, N outputs and rank R in
//! all, the matrix has N + R rows of K + R values.
//!
//! ```text
//!              K       R
//!         N |  W   |   B  |        y = [x, u] [W, B]ᵀ         u = scale x Aᵀ
//!         R |  A   |      |        dx = [dy, du] [W; A]       du = scale dy B
//! ```
//!
//! So a linear with its pairs is one product in either direction, and no pass over y adds the pair. Rows of x have room for u after
//! their K values, and rows of dy for du after their N values.

use std::sync::Arc;

use half::bf16;
use upright_base::Result;
use upright_kernels::Element;
use upright_model::{
    adapter::{AdapterLayout, LoraTarget, Slot},
    weights::Linear as Frozen,
};

use super::{
    array::Array,
    device::{Device, Product},
    kernels::{
        rows::{Rows, gather},
        thin::{self, Columns, Factor},
    },
};
use crate::cpu::kernels::counters::Counters;

/// Ranks take a multiple of this many columns.
const RANKS: usize = 8;

/// What all linears of a pass share.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) device: &'a Arc<dyn Device>,
    pub(super) counters: &'a Counters,
    /// Whether the LoRA pairs take part.
    pub(super) adapted: bool,
    /// The numbers from 0 on, at least one per row.
    pub(super) identity: &'a Array<i32>,
}

/// Linears of one input.
#[derive(Debug)]
pub(super) struct Linear {
    /// K.
    pub(super) inputs: usize,
    /// N, over all parts.
    pub(super) outputs: usize,
    parts: Vec<Part>,
    /// `[N + room, K + room]`.
    matrix: Array<bf16>,
    /// Rows and columns for pairs.
    room: usize,
    bias: Option<Array<f32>>,
    pairs: Vec<Pair>,
}

/// One linear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) slot: Slot,
    pub(super) outputs: usize,
}

/// The LoRA pair of a part.
#[derive(Debug)]
struct Pair {
    target: LoraTarget,
    /// First output of the part.
    first: usize,
    /// First column of the pair among the R columns.
    column: usize,
    /// Columns of the pair: the rank, rounded up.
    padded: usize,
    /// B transposed, `[rank, outputs]`.
    transposed: Array<bf16>,
}

/// Where a product goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output<'a> {
    /// f32, with an optional addend of the same shape.
    F32(&'a Array<f32>, Option<&'a Array<f32>>),
    /// bf16, rounded once.
    Bf16(&'a Array<bf16>),
}

impl Linear {
    /// Uploads linears. `frozen` has one per part, or is empty where only sizes matter.
    pub(super) fn open(
        device: &Arc<dyn Device>,
        inputs: usize,
        parts: Vec<Part>,
        has_bias: bool,
        frozen: &[&Frozen],
    ) -> Result<Self> {
        let outputs = parts.iter().map(|part| part.outputs).sum();
        let mut bias = None;
        if has_bias {
            let mut values = Vec::with_capacity(outputs);
            for linear in frozen {
                values.extend_from_slice(linear.bias.as_ref().expect("a bias per part"));
            }
            values.resize(outputs, 0.0);
            bias = Some(Array::from(device, &values)?);
        }
        let mut linear = Self {
            inputs,
            outputs,
            parts,
            matrix: Array::new(device, 0)?,
            room: 0,
            bias,
            pairs: Vec::new(),
        };
        linear.upload(device, 0, frozen)?;
        Ok(linear)
    }

    /// Uploads the weights with room for pairs, all of it zero.
    fn upload(&mut self, device: &Arc<dyn Device>, room: usize, frozen: &[&Frozen]) -> Result<()> {
        // The old matrix goes first: two of them may not fit.
        self.matrix = Array::new(device, 0)?;
        let stride = self.inputs + room;
        self.matrix = if room == 0 {
            Array::new(device, self.outputs * stride)?
        } else {
            Array::zeros(device, (self.outputs + room) * stride)?
        };
        self.room = room;
        let mut first = 0;
        for (part, linear) in self.parts.iter().zip(frozen) {
            let values = linear.weight.data();
            self.matrix
                .write_rows(values, self.inputs, first * stride, stride)?;
            first += part.outputs;
        }
        Ok(())
    }

    /// Values from one row of the matrix to the next.
    fn stride(&self) -> usize {
        self.inputs + self.room
    }

    /// R: columns of all pairs.
    fn rank(&self, scope: Scope<'_>) -> usize {
        if !scope.adapted {
            return 0;
        }
        self.pairs
            .last()
            .map_or(0, |pair| pair.column + pair.padded)
    }

    /// Values of a row of the input, with those that the pairs need.
    pub(super) fn input_width(&self, scope: Scope<'_>) -> usize {
        self.inputs + self.rank(scope)
    }

    /// Values of a row of the output's gradient, with those that the pairs need.
    pub(super) fn output_width(&self, scope: Scope<'_>) -> usize {
        self.outputs + self.rank(scope)
    }

    /// Whether a pair takes part.
    pub(super) fn adapts(&self, scope: Scope<'_>) -> bool {
        self.rank(scope) > 0
    }

    /// Copies an adapter's pairs into the matrix.
    pub(super) fn fold(
        &mut self,
        device: &Arc<dyn Device>,
        layer: usize,
        layout: &AdapterLayout,
        parameters: &Array<f32>,
        frozen: &[&Frozen],
    ) -> Result<()> {
        let mut found = Vec::new();
        let (mut first, mut column) = (0, 0);
        for part in &self.parts {
            if let Some(target) = layout.find(layer, part.slot) {
                let padded = target.rank.next_multiple_of(RANKS);
                found.push((target, first, column, padded));
                column += padded;
            }
            first += part.outputs;
        }
        let is_same = found.len() == self.pairs.len()
            && found.iter().zip(&self.pairs).all(|((target, ..), pair)| {
                (target.slot, target.rank) == (pair.target.slot, pair.target.rank)
            });
        if column > self.room {
            self.upload(device, column, frozen)?;
        } else if !is_same {
            self.clear()?;
        }
        if !is_same {
            self.pairs.clear();
            for (target, first, column, padded) in &found {
                self.pairs.push(Pair {
                    target: (*target).clone(),
                    first: *first,
                    column: *column,
                    padded: *padded,
                    transposed: Array::new(device, target.rank * target.outputs)?,
                });
            }
        }
        for (pair, (target, ..)) in self.pairs.iter_mut().zip(found) {
            // Another adapter of the same shape may have another scale or place.
            pair.target = target.clone();
        }
        for pair in &self.pairs {
            let target = &pair.target;
            let stride = self.stride();
            let a = thin::Copy {
                start: target.a().start,
                rows: target.rank,
                columns: target.inputs,
                to: (self.outputs + pair.column) * stride,
                stride,
            };
            let b = thin::Copy {
                start: target.b().start,
                rows: target.outputs,
                columns: target.rank,
                to: pair.first * stride + self.inputs + pair.column,
                stride,
            };
            let transposed = thin::Copy {
                to: 0,
                stride: target.outputs,
                ..b
            };
            thin::copy(parameters, &self.matrix, a, false)?;
            thin::copy(parameters, &self.matrix, b, false)?;
            thin::copy(parameters, &pair.transposed, transposed, true)?;
        }
        Ok(())
    }

    /// Sets the room for pairs to zero.
    fn clear(&self) -> Result<()> {
        let (room, stride) = (self.room, self.stride());
        if room == 0 {
            return Ok(());
        }
        let zeros = vec![bf16::ZERO; self.outputs * room];
        self.matrix.write_rows(&zeros, room, self.inputs, stride)?;
        self.matrix.at(self.outputs * stride).zero()
    }

    /// Computes `y`, `[rows, N]`, from `x`, whose rows have [`Linear::input_width`] values. Writes u after the K values of each
    /// row, and returns a copy of it, `[rows, R]`, if `keeps`.
    pub(super) fn forward(
        &self,
        scope: Scope<'_>,
        rows: usize,
        x: Rows<'_, bf16>,
        y: Output<'_>,
        keeps: bool,
    ) -> Result<Option<Array<bf16>>> {
        if rows == 0 {
            return Ok(None);
        }
        let rank = self.rank(scope);
        let mut kept = None;
        if rank > 0 {
            self.reduce(scope, rows, x)?;
            if keeps {
                let u = Array::new(scope.device, rows * rank)?;
                let to = Rows {
                    values: &u,
                    stride: rank,
                };
                let from = x.values.at(self.inputs);
                let from = Rows {
                    values: &from,
                    stride: x.stride,
                };
                gather(rows, rank, from, scope.identity, to)?;
                kept = Some(u);
            }
        }
        self.multiply(scope, rows, x, self.inputs + rank, true, y)?;
        Ok(kept)
    }

    /// Writes u after the K values of each row of `x`.
    fn reduce(&self, scope: Scope<'_>, rows: usize, x: Rows<'_, bf16>) -> Result<()> {
        let scale = self.pairs[0].target.scale;
        let stride = self.stride();
        let factor = |column: usize, rank: usize, padded: usize, scale: f32| Factor {
            values: &self.matrix,
            start: (self.outputs + column) * stride,
            stride,
            rank,
            padded,
            scale,
        };
        // All pairs at once: the rows between them are zero.
        if self.pairs.iter().all(|pair| pair.target.scale == scale) {
            let rank = self.rank(scope);
            scope.count(rows, self.inputs, rank);
            let to = [0, self.inputs, self.inputs];
            return thin::product(rows, x, to, &factor(0, rank, rank, scale));
        }
        for pair in &self.pairs {
            scope.count(rows, self.inputs, pair.padded);
            let to = [0, self.inputs, self.inputs + pair.column];
            let target = &pair.target;
            let factor = factor(pair.column, target.rank, pair.padded, target.scale);
            thin::product(rows, x, to, &factor)?;
        }
        Ok(())
    }

    /// One product with the matrix, from the left K values of each row of `a` on.
    fn multiply(
        &self,
        scope: Scope<'_>,
        rows: usize,
        a: Rows<'_, bf16>,
        k: usize,
        is_forward: bool,
        to: Output<'_>,
    ) -> Result<()> {
        let n = if is_forward {
            self.outputs
        } else {
            self.inputs
        };
        let (c, d, d_element) = match to {
            Output::F32(d, c) => (c.map(Array::place), d.place(), Element::F32),
            Output::Bf16(d) => (None, d.place(), Element::Bf16),
        };
        let bias = self.bias.as_ref().filter(|_| is_forward);
        let product = Product {
            m: rows,
            n,
            k,
            a: a.values.place(),
            a_stride: a.stride,
            b: self.matrix.place(),
            b_stride: self.stride(),
            b_transposed: is_forward,
            c,
            bias: bias.map(Array::place),
            d,
            d_element,
        };
        scope.counters.add_products(product.multiply_adds());
        scope.device.multiply(&product)
    }

    /// Runs the backward pass. `dy` has rows of [`Linear::output_width`] values and gets du. If a pair takes part, adds its
    /// gradients to `gradient`, given `x` and `u` of the forward pass. Writes the gradient of the input, `[rows, K]`, if `dx` is
    /// given.
    pub(super) fn backward(
        &self,
        scope: Scope<'_>,
        rows: usize,
        dy: Rows<'_, bf16>,
        x: Option<Rows<'_, bf16>>,
        u: Option<&Array<bf16>>,
        gradient: &Array<f32>,
        dx: Option<Output<'_>>,
    ) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let rank = self.rank(scope);
        if rank > 0 {
            let x = x.expect("the input of an adapted linear");
            let u = u.expect("u of the forward pass");
            self.reduce_back(scope, rows, dy)?;
            self.add_gradients(scope, rows, dy, x, u, gradient)?;
        }
        let Some(dx) = dx else {
            return Ok(());
        };
        self.multiply(scope, rows, dy, self.outputs + rank, false, dx)
    }

    /// Writes du after the N values of each row of `dy`.
    fn reduce_back(&self, scope: Scope<'_>, rows: usize, dy: Rows<'_, bf16>) -> Result<()> {
        for pair in &self.pairs {
            let target = &pair.target;
            let factor = Factor {
                values: &pair.transposed,
                start: 0,
                stride: target.outputs,
                rank: target.rank,
                padded: pair.padded,
                scale: target.scale,
            };
            scope.count(rows, target.outputs, pair.padded);
            let to = [pair.first, target.outputs, self.outputs + pair.column];
            thin::product(rows, dy, to, &factor)?;
        }
        Ok(())
    }

    /// Adds the gradients of A and B of every pair, given du.
    fn add_gradients(
        &self,
        scope: Scope<'_>,
        rows: usize,
        dy: Rows<'_, bf16>,
        x: Rows<'_, bf16>,
        u: &Array<bf16>,
        gradient: &Array<f32>,
    ) -> Result<()> {
        let (inputs, rank) = (self.inputs, self.rank(scope));
        let columns = |rows, from, count| Columns { rows, from, count };
        let u = Rows {
            values: u,
            stride: rank,
        };
        for pair in &self.pairs {
            let target = &pair.target;
            scope.count(rows, target.outputs, target.rank);
            let slopes = columns(dy, pair.first, target.outputs);
            let u = columns(u, pair.column, target.rank);
            let of_b = thin::gradient(rows, slopes, u, false)?;
            of_b.add_all_to(gradient, target.b().start)?;
        }
        // All pairs at once, so that x is read once. Columns of du beyond the rank of a pair are zero.
        scope.count(rows, inputs, rank);
        let du = columns(dy, self.outputs, rank);
        let of_a = thin::gradient(rows, columns(x, 0, inputs), du, true)?;
        for pair in &self.pairs {
            let first = pair.column * inputs;
            let range = first..first + pair.target.rank * inputs;
            of_a.add_to(range, gradient, pair.target.a().start)?;
        }
        Ok(())
    }
}

impl Scope<'_> {
    /// Counts a product of `[rows, k]` and `[k, n]`.
    fn count(self, rows: usize, k: usize, n: usize) {
        self.counters
            .add_products(rows as u64 * k as u64 * n as u64);
    }
}

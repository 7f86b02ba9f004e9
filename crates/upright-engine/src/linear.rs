//! A frozen linear with its LoRA pair, forward and backward.

use crate::{
    adapter::{Adapter, AdapterLayout, LoraTarget, Slot},
    cpu::{
        Tier,
        gemm::{Values, View, product},
    },
    weights::Linear,
};

/// What every linear of a block shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) tier: Tier,
    pub(crate) layer: usize,
    pub(crate) adapter: Option<&'a Adapter>,
}

impl<'a> Scope<'a> {
    fn lora(&self, slot: Slot) -> Option<Lora<'a>> {
        let adapter = self.adapter?;
        let target = adapter.layout.find(self.layer, slot)?;
        Some(Lora { target, parameters: &adapter.parameters })
    }

    pub(crate) fn layout(&self) -> Option<&'a AdapterLayout> {
        self.adapter.map(|adapter| &*adapter.layout)
    }

    /// Whether the adapter touches a linear of this block.
    pub(crate) fn adapts(&self, slot: Slot) -> bool {
        self.layout().is_some_and(|layout| layout.find(self.layer, slot).is_some())
    }

    /// `y = x Wᵀ + b + scale (x Aᵀ) Bᵀ` for `x` `[T, K]`; row `t` of `y` starts at `y[t * stride]`.
    pub(crate) fn forward(&self, linear: &Linear, slot: Slot, x: &[f32], y: &mut [f32], stride: usize) {
        let (outputs, inputs) = (linear.weight.rows, linear.weight.cols);
        let tokens = x.len() / inputs;
        let x = View::rows(x, tokens, inputs);
        product(self.tier, x, View::bf16(linear.weight.data(), outputs, inputs).t(), y, stride, false);
        if let Some(lora) = self.lora(slot) {
            let u = lora.reduce(self.tier, x);
            product(self.tier, View::rows(&u, tokens, lora.target.rank), lora.b().t(), y, stride, true);
        }
        if let Some(bias) = &linear.bias {
            for row in y.chunks_mut(stride).take(tokens) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }

    /// Given `dy` (row `t` at `dy[t * stride]`): adds the adapter's gradient to `gradient`, which needs `x` `[T, K]` where
    /// the linear is adapted, and writes or adds `dx` `[T, K]` where it is wanted.
    pub(crate) fn backward(
        &self,
        linear: &Linear,
        slot: Slot,
        x: Option<&[f32]>,
        dy: &[f32],
        stride: usize,
        gradient: &mut [f32],
        dx: Option<(&mut [f32], Accumulate)>,
    ) {
        let (outputs, inputs) = (linear.weight.rows, linear.weight.cols);
        let tokens = dy.len().div_ceil(stride);
        let dy = View::strided(Values::F32(dy), tokens, outputs, stride);
        let mut dx = dx.map(|(dx, accumulate)| {
            let w = View::bf16(linear.weight.data(), outputs, inputs);
            product(self.tier, dy, w, dx, inputs, accumulate == Accumulate::Add);
            dx
        });
        let Some(lora) = self.lora(slot) else { return };
        let target = lora.target;
        let x = View::rows(x.expect("an adapted linear keeps its input"), tokens, inputs);
        let u = lora.reduce(self.tier, x);
        let u = View::rows(&u, tokens, target.rank);
        product(self.tier, dy.t(), u, &mut gradient[target.b()], target.rank, true);
        let mut du = vec![0.0; tokens * target.rank];
        product(self.tier, dy, lora.b(), &mut du, target.rank, false);
        du.iter_mut().for_each(|v| *v *= target.scale);
        let du = View::rows(&du, tokens, target.rank);
        product(self.tier, du.t(), x, &mut gradient[target.a()], inputs, true);
        if let Some(dx) = &mut dx {
            product(self.tier, du, lora.a(), dx, inputs, true);
        }
    }
}

/// Whether a product replaces its destination or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulate {
    Replace,
    Add,
}

/// A and B of one adapted linear.
struct Lora<'a> {
    target: &'a LoraTarget,
    parameters: &'a [f32],
}

impl<'a> Lora<'a> {
    /// A, `[R, K]`.
    fn a(&self) -> View<'a> {
        View::rows(&self.parameters[self.target.a()], self.target.rank, self.target.inputs)
    }

    /// B, `[N, R]`.
    fn b(&self) -> View<'a> {
        View::rows(&self.parameters[self.target.b()], self.target.outputs, self.target.rank)
    }

    /// `scale x Aᵀ`, `[T, R]`.
    fn reduce(&self, tier: Tier, x: View<'_>) -> Vec<f32> {
        let mut u = vec![0.0; x.rows * self.target.rank];
        product(tier, x, self.a().t(), &mut u, self.target.rank, false);
        u.iter_mut().for_each(|v| *v *= self.target.scale);
        u
    }
}

//! A frozen linear with its LoRA pair, forward and backward.

use rayon::prelude::*;

use upright_model::{
    adapter::{AdapterLayout, LoraTarget, Slot},
    weights::Linear,
};

use super::{
    buffer::Buffer,
    kernels::gemm::{Finish, Onto, Operand, Packed, Term, View, product, sum},
    tier::Tier,
};

/// Outputs that a thread transposes at a time: a few cache lines of every row.
const LINES: usize = 64;

/// What all linears of a block share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) tier: Tier,
    pub(crate) layer: usize,
    pub(crate) adapter: Option<HostAdapter<'a>>,
}

/// An adapter's layout and its parameters in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostAdapter<'a> {
    pub(crate) layout: &'a AdapterLayout,
    pub(crate) parameters: &'a [f32],
}

/// A linear's term of a sum: `x Wᵀ + scale (x Aᵀ) Bᵀ`, for `x` `[T, K]`.
pub(crate) struct LinearTerm<'a> {
    linear: &'a Linear,
    x: &'a Packed,
    slot: Slot,
    /// The LoRA pair, and `scale x Aᵀ`, `[T, R]`.
    lora: Option<(Lora<'a>, Buffer<f32>)>,
}

/// `scale x Aᵀ`, `[T, R]`, of the adapted linears of a block, saved in the forward pass for the
/// backward pass.
#[derive(Default)]
pub(crate) struct Reduced(Vec<(Slot, Buffer<f32>)>);

impl Reduced {
    /// Saves the part of a linear whose forward pass is done.
    pub(crate) fn keep(&mut self, part: LinearTerm<'_>) {
        self.0
            .extend(part.lora.map(|(_, reduced)| (part.slot, reduced)));
    }

    fn of(&self, slot: Slot) -> &[f32] {
        &self
            .0
            .iter()
            .find(|(other, _)| *other == slot)
            .expect("an adapted linear of the forward pass")
            .1
    }
}

/// The gradient of a linear's output, in a backward pass.
pub(crate) struct Output<'a> {
    pub(crate) linear: &'a Linear,
    pub(crate) slot: Slot,
    /// `[T, N]`.
    pub(crate) dy: Operand<'a>,
    /// `dy` as rows; required if the linear is adapted.
    pub(crate) rows: Option<View<'a>>,
}

impl<'a> Scope<'a> {
    fn lora(&self, slot: Slot) -> Option<Lora<'a>> {
        let adapter = self.adapter?;
        let target = adapter.layout.find(self.layer, slot)?;
        Some(Lora {
            target,
            parameters: adapter.parameters,
        })
    }

    pub(crate) fn layout(&self) -> Option<&'a AdapterLayout> {
        self.adapter.map(|adapter| adapter.layout)
    }

    /// Whether a linear of this block is adapted.
    pub(crate) fn adapts(&self, slot: Slot) -> bool {
        self.layout()
            .is_some_and(|layout| layout.find(self.layer, slot).is_some())
    }

    /// A linear applied to `x`.
    pub(crate) fn part<'p>(&self, linear: &'p Linear, slot: Slot, x: &'p Packed) -> LinearTerm<'p>
    where
        'a: 'p,
    {
        let lora = self.lora(slot).map(|lora| {
            let u = lora.reduce(self.tier, x);
            (lora, u)
        });
        LinearTerm {
            linear,
            x,
            slot,
            lora,
        }
    }

    /// `y = the parts + their biases + onto`; row `t` of `y` starts at `y[t * stride]`.
    pub(crate) fn forward(
        &self,
        parts: &[LinearTerm<'_>],
        y: &mut [f32],
        stride: usize,
        onto: Onto<'_>,
    ) {
        let terms: Vec<Term<'_>> = parts
            .iter()
            .flat_map(
                |LinearTerm {
                     linear, x, lora, ..
                 }| {
                    let w =
                        View::bf16(linear.weight.data(), linear.weight.rows, linear.weight.cols);
                    let up = lora.as_ref().map(|(lora, u)| {
                        Term::new(View::rows(u, x.rows(), lora.target.rank), lora.b().t())
                    });
                    [Some(Term::new(*x, w.t())), up]
                },
            )
            .flatten()
            .collect();
        let biases: Vec<&[f32]> = parts
            .iter()
            .filter_map(|part| part.linear.bias.as_deref())
            .collect();
        let together: Vec<f32>;
        let bias = match biases[..] {
            [] => None,
            [bias] => Some(bias),
            _ => {
                together = (0..biases[0].len())
                    .map(|n| biases.iter().map(|bias| bias[n]).sum())
                    .collect();
                Some(&together[..])
            }
        };
        sum(self.tier, &terms, y, stride, Finish { onto, bias });
    }

    /// Runs the backward pass through linears of one input. Adds the adapter's gradient to
    /// `gradient`; if a linear is adapted, this needs the input `x` `[T, K]` and its product with A
    /// from the forward pass, `reduced`. Writes `dx = sum dy W`, `[T, K]`, if `dx` is given with
    /// its row stride.
    pub(crate) fn backward(
        &self,
        outputs: &[Output<'_>],
        x: Option<View<'_>>,
        reduced: &Reduced,
        gradient: &mut [f32],
        dx: Option<(&mut [f32], usize)>,
    ) {
        let inputs = outputs[0].linear.weight.cols;
        let loras: Vec<_> = outputs
            .iter()
            .filter_map(|output| Some((output, self.lora(output.slot)?)))
            .collect();
        // `scale dy B`, `[T, R]`, of every adapted linear.
        let mut slopes: Vec<(Buffer<f32>, Lora<'_>)> = Vec::with_capacity(loras.len());
        if !loras.is_empty() {
            let x = x.expect("an adapted linear keeps its input");
            let tokens = x.rows;
            for (output, lora) in loras {
                let (target, dy) = (
                    lora.target,
                    output
                        .rows
                        .expect("an adapted linear's gradient comes in rows"),
                );
                let u = View::rows(reduced.of(output.slot), tokens, target.rank);
                // B's gradient is computed transposed, so that the wide side is packed in its own
                // layout.
                let mut db = Buffer::new(target.rank * target.outputs);
                product(self.tier, u.t(), dy, &mut db, target.outputs, false);
                add_transposed(&db, target.rank, &mut gradient[target.b()]);
                let mut du = Buffer::new(tokens * target.rank);
                sum(
                    self.tier,
                    &[Term::new(output.dy, lora.b())],
                    &mut du,
                    target.rank,
                    Finish::default(),
                );
                du.iter_mut().for_each(|v| *v *= target.scale);
                let rows = View::rows(&du, tokens, target.rank);
                product(
                    self.tier,
                    rows.t(),
                    x,
                    &mut gradient[target.a()],
                    inputs,
                    true,
                );
                slopes.push((du, lora));
            }
        }
        if let Some((dx, stride)) = dx {
            let frozen = outputs.iter().map(|Output { linear, dy, .. }| Term {
                a: *dy,
                b: View::bf16(linear.weight.data(), linear.weight.rows, inputs),
            });
            let adapted = slopes.iter().map(|(du, lora)| {
                Term::new(
                    View::rows(du, du.len() / lora.target.rank, lora.target.rank),
                    lora.a(),
                )
            });
            let terms: Vec<Term<'_>> = frozen.chain(adapted).collect();
            sum(self.tier, &terms, dx, stride, Finish::default());
        }
    }
}

/// Adds `y` `[R, N]` to `x` `[N, R]`.
fn add_transposed(y: &[f32], rank: usize, x: &mut [f32]) {
    let outputs = y.len() / rank;
    x.par_chunks_mut(rank * LINES)
        .enumerate()
        .for_each(|(chunk, x)| {
            for (r, y) in y.chunks_exact(outputs).enumerate() {
                x.iter_mut()
                    .skip(r)
                    .step_by(rank)
                    .zip(&y[chunk * LINES..])
                    .for_each(|(x, y)| *x += y);
            }
        });
}

/// A and B of one adapted linear.
struct Lora<'a> {
    target: &'a LoraTarget,
    parameters: &'a [f32],
}

impl<'a> Lora<'a> {
    /// A, `[R, K]`.
    fn a(&self) -> View<'a> {
        View::rows(
            &self.parameters[self.target.a()],
            self.target.rank,
            self.target.inputs,
        )
    }

    /// B, `[N, R]`.
    fn b(&self) -> View<'a> {
        View::rows(
            &self.parameters[self.target.b()],
            self.target.outputs,
            self.target.rank,
        )
    }

    /// `scale x Aᵀ`, `[T, R]`.
    fn reduce(&self, tier: Tier, x: &Packed) -> Buffer<f32> {
        let mut u = Buffer::new(x.rows() * self.target.rank);
        sum(
            tier,
            &[Term::new(x, self.a().t())],
            &mut u,
            self.target.rank,
            Finish::default(),
        );
        u.iter_mut().for_each(|v| *v *= self.target.scale);
        u
    }
}

//! The MLP's nonlinearity, forward and backward.

use super::{
    elementwise::{Map, map},
    gemm::Values,
    simd::{Element, Lanes, Work, dispatch, exp},
};
use upright_model::config::Activation;

/// `h = activation(inner)` of one token. For SwiGLU, `inner` is twice as long as `h` (gate, then
/// up), and the result is `silu(gate) * up`.
pub(crate) fn forward(kind: Activation, inner: Values<'_>, h: &mut [f32]) {
    match inner {
        Values::F32(inner) => forward_of(kind, inner, h),
        Values::Bf16(inner) => forward_of(kind, inner, h),
    }
}

fn forward_of<E: Element>(kind: Activation, inner: &[E], h: &mut [f32]) {
    let (gate, up) = inner.split_at(inner.len() - h.len());
    match kind {
        Activation::SwiGlu => along(&SwiGlu, [gate, up], [h]),
        Activation::GeluTanh => along(&GeluTanh, [up], [h]),
        Activation::Gelu => along(&Gelu, [up], [h]),
    }
}

/// Turns the gradient of `h`, given in the place of `up`, into the gradient of `inner`, in place.
/// Both slices have the same length.
pub(crate) fn backward(kind: Activation, inner: Values<'_>, d: &mut [f32]) {
    match inner {
        Values::F32(inner) => backward_of(kind, inner, d),
        Values::Bf16(inner) => backward_of(kind, inner, d),
    }
}

fn backward_of<E: Element>(kind: Activation, inner: &[E], d: &mut [f32]) {
    match kind {
        Activation::SwiGlu => {
            let ((gate, up), (d_gate, d_up)) =
                (inner.split_at(inner.len() / 2), d.split_at_mut(d.len() / 2));
            along(&SwiGluSlope, [gate, up], [d_up, d_gate]);
        }
        Activation::GeluTanh => along(&GeluTanhSlope, [inner], [d]),
        Activation::Gelu => along(&GeluSlope, [inner], [d]),
    }
}

/// Applies a function along slices, on the widest vectors of this machine.
fn along<E: Element, const N: usize, const M: usize>(
    function: &impl Map<N, M>,
    inputs: [&[E]; N],
    outputs: [&mut [f32]; M],
) {
    struct Along<'a, F, E, const N: usize, const M: usize>(&'a F, [&'a [E]; N], [&'a mut [f32]; M]);
    impl<F: Map<N, M>, E: Element, const N: usize, const M: usize> Work for Along<'_, F, E, N, M> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes>(self) {
            map::<L, E, N, M>(self.0, self.1, self.2);
        }
    }
    dispatch(Along(function, inputs, outputs));
}

#[inline(always)]
fn constant<L: Lanes>(x: f32) -> L {
    L::splat(x)
}

/// `x` clamped to at most `limit`.
#[inline(always)]
fn at_most<L: Lanes>(x: L, limit: f32) -> L {
    let zero = constant::<L>(0.0);
    zero.sub(zero.sub(x).max(constant(-limit)))
}

#[inline(always)]
fn sigmoid<L: Lanes>(x: L) -> L {
    let one = constant::<L>(1.0);
    one.div(one.add(exp(at_most(constant::<L>(0.0).sub(x), 87.0))))
}

/// The error function, absolute error below 3e-7: the rational minimax approximation that Eigen uses on [-4, 4].
#[inline(always)]
fn erf<L: Lanes>(x: L) -> L {
    let x = at_most(x.max(constant(-4.0)), 4.0);
    let s = x.mul(x);
    let mut p = constant::<L>(-2.726_142_3e-10);
    for coefficient in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p.mul_add(s, constant(coefficient));
    }
    let mut q = constant::<L>(-1.456_607_2e-5);
    for coefficient in [
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ] {
        q = q.mul_add(s, constant(coefficient));
    }
    x.mul(p).div(q)
}

/// The standard normal distribution function.
#[inline(always)]
fn phi<L: Lanes>(x: L) -> L {
    let half = constant::<L>(0.5);
    half.mul_add(erf(x.mul(constant(std::f32::consts::FRAC_1_SQRT_2))), half)
}

/// The sigmoid inside GELU's tanh approximation: `(1 + tanh(u)) / 2 = sigmoid(2 u)`, `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
#[inline(always)]
fn tanh_gate<L: Lanes>(x: L) -> L {
    let cubic = x.mul(x).mul_add(constant(TANH_CUBIC), constant(1.0)).mul(x);
    sigmoid(cubic.mul(constant(2.0 * TANH_SCALE)))
}

/// `sqrt(2 / pi)` and the cubic coefficient of the tanh approximation.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBIC: f32 = 0.044_715;

/// `(gate, up) -> silu(gate) up`.
struct SwiGlu;
impl Map<2, 1> for SwiGlu {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [gate, up]: [L; 2], _: [L; 1]) -> [L; 1] {
        [gate.mul(sigmoid(gate)).mul(up)]
    }
}

/// `(gate, up, d_h) -> (d_up, d_gate)`; silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g).
struct SwiGluSlope;
impl Map<2, 2> for SwiGluSlope {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [gate, up]: [L; 2], [d_h, _]: [L; 2]) -> [L; 2] {
        let (s, one) = (sigmoid(gate), constant::<L>(1.0));
        let slope = gate.mul_add(one.sub(s), one).mul(s);
        [d_h.mul(gate).mul(s), d_h.mul(up).mul(slope)]
    }
}

/// `x Phi(x)`.
struct Gelu;
impl Map<1, 1> for Gelu {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x]: [L; 1], _: [L; 1]) -> [L; 1] {
        [x.mul(phi(x))]
    }
}

/// `(x, d_h) -> d_x`. The slope is Phi(x) + x phi(x), and one exponential e^(-x^2 / 2) serves both
/// terms: the tail of Phi is half of it times a polynomial in 1 / (1 + p |x| / sqrt 2), with an
/// absolute error below 8e-8 (Abramowitz and Stegun 7.1.26).
struct GeluSlope;
impl Map<1, 1> for GeluSlope {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x]: [L; 1], [d_h]: [L; 1]) -> [L; 1] {
        const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
        /// `1 / sqrt(2 pi)`.
        const DENSITY: f32 = 0.398_942_3;
        let (zero, one) = (constant::<L>(0.0), constant::<L>(1.0));
        let e = exp(x.mul(x).mul(constant(-0.5)));
        let t = one.div(x.max(zero.sub(x)).mul_add(constant(P), one));
        let mut tail = constant::<L>(0.5 * 1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            tail = tail.mul_add(t, constant(0.5 * coefficient));
        }
        let tail = tail.mul(t).mul(e);
        // Phi(x) is 1 - tail above 0, and tail below.
        let phi = tail.add(one.sub(tail.add(tail)).zero_where_below(x, zero));
        [d_h.mul(x.mul(e).mul_add(constant(DENSITY), phi))]
    }
}

/// The tanh approximation of GELU.
struct GeluTanh;
impl Map<1, 1> for GeluTanh {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x]: [L; 1], _: [L; 1]) -> [L; 1] {
        [x.mul(tanh_gate(x))]
    }
}

/// `(x, d_h) -> d_x` of the tanh approximation: with s = sigmoid(2 u), the slope is s + 2 x s (1 - s) u'.
struct GeluTanhSlope;
impl Map<1, 1> for GeluTanhSlope {
    #[inline(always)]
    fn apply<L: Lanes>(&self, [x]: [L; 1], [d_h]: [L; 1]) -> [L; 1] {
        let (s, one) = (tanh_gate(x), constant::<L>(1.0));
        let du = x
            .mul(x)
            .mul_add(constant(3.0 * TANH_CUBIC), one)
            .mul(constant(2.0 * TANH_SCALE));
        [d_h.mul(x.mul(s).mul(one.sub(s)).mul_add(du, s))]
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// The error function in f64: Simpson's rule on 2 / sqrt(pi) e^(-t^2), far below f32's resolution.
    fn erf64(x: f64) -> f64 {
        let (n, f) = (2000, |t: f64| (-t * t).exp());
        let h = x / f64::from(n);
        let inner: f64 = (1..n)
            .map(|i| f(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 })
            .sum();
        (f(0.0) + inner + f(x)) * h / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
    }

    fn value(kind: Activation, gate: f64, up: f64) -> f64 {
        match kind {
            Activation::Gelu => 0.5 * up * (1.0 + erf64(up / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * up
                    * (1.0
                        + ((2.0 / std::f64::consts::PI).sqrt() * (up + 0.044_715 * up.powi(3)))
                            .tanh())
            }
            Activation::SwiGlu => gate / (1.0 + (-gate).exp()) * up,
        }
    }

    /// Within a few units in the last place of f32.
    fn close(found: f32, truth: f64) -> bool {
        (f64::from(found) - truth).abs() < 3e-6 * truth.abs().max(1.0)
    }

    #[test]
    fn values_and_slopes_match_f64_and_its_finite_differences() {
        let up: Vec<f32> = (0..133).map(|i| (i as f32 - 66.0) * 0.1).collect();
        let gate: Vec<f32> = (0..133)
            .map(|i| ((i * 37) % 133) as f32 * 0.2 - 13.0)
            .collect();
        let d_h: Vec<f32> = (0..133)
            .map(|i| ((i * 11) % 17) as f32 * 0.1 - 0.8)
            .collect();
        for kind in [Activation::Gelu, Activation::GeluTanh, Activation::SwiGlu] {
            let gated = kind == Activation::SwiGlu;
            let inner = if gated {
                [&gate[..], &up].concat()
            } else {
                up.clone()
            };
            let (mut h, mut d) = (vec![0.0; 133], vec![0.0; inner.len()]);
            forward(kind, Values::F32(&inner), &mut h);
            d[inner.len() - 133..].copy_from_slice(&d_h);
            backward(kind, Values::F32(&inner), &mut d);
            let (d_gate, d_up) = d.split_at(inner.len() - 133);
            for i in 0..133 {
                let (g, u, d, e) = (
                    f64::from(gate[i]),
                    f64::from(up[i]),
                    f64::from(d_h[i]),
                    1e-5,
                );
                assert!(close(h[i], value(kind, g, u)), "{kind:?} at {u}: {}", h[i]);
                let by_up = (value(kind, g, u + e) - value(kind, g, u - e)) / (2.0 * e) * d;
                assert!(
                    close(d_up[i], by_up),
                    "{kind:?} at {u}: {} {by_up}",
                    d_up[i]
                );
                if gated {
                    let by_gate = (value(kind, g + e, u) - value(kind, g - e, u)) / (2.0 * e) * d;
                    assert!(
                        close(d_gate[i], by_gate),
                        "{kind:?} at {g}: {} {by_gate}",
                        d_gate[i]
                    );
                }
            }
        }
    }

    #[test]
    fn bf16_is_taken_as_the_numbers_that_it_is() {
        for (kind, parts) in [
            (Activation::Gelu, 1),
            (Activation::GeluTanh, 1),
            (Activation::SwiGlu, 2),
        ] {
            let inner: Vec<bf16> = (0..133 * parts)
                .map(|i| bf16::from_f32((i as f32 - 66.0) * 0.07))
                .collect();
            let wide: Vec<f32> = inner.iter().map(|x| x.to_f32()).collect();
            let run = |inner: Values<'_>| {
                let (mut h, mut d) = (vec![0.0; 133], vec![0.5; 133 * parts]);
                forward(kind, inner, &mut h);
                backward(kind, inner, &mut d);
                [h, d]
                    .concat()
                    .into_iter()
                    .map(f32::to_bits)
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                run(Values::Bf16(&inner)),
                run(Values::F32(&wide)),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn extremes_stay_finite() {
        let (up, gate) = ([1e4f32, -1e4, 0.0, 88.0], [-1e4f32, 1e4, -200.0, 200.0]);
        for kind in [Activation::Gelu, Activation::GeluTanh, Activation::SwiGlu] {
            let inner = if kind == Activation::SwiGlu {
                [gate, up].concat()
            } else {
                up.to_vec()
            };
            let (mut h, mut d) = ([0.0; 4], vec![1.0; inner.len()]);
            forward(kind, Values::F32(&inner), &mut h);
            backward(kind, Values::F32(&inner), &mut d);
            assert!(
                h.iter().chain(&d).all(|v| v.is_finite()),
                "{kind:?}: {h:?} {d:?}"
            );
        }
    }
}

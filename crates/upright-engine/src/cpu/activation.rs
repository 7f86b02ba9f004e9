//! The MLP's nonlinearity, forward and backward.

use rayon::prelude::*;

use super::math::{erf, exp};
use crate::config::Activation;

/// Values handed to a thread at a time.
const CHUNK: usize = 16 * 1024;

/// `tanh` by [`exp`].
#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `sqrt(2 / pi)` and the cubic's factor of the tanh approximation.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBIC: f32 = 0.044_715;

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    // Phi(x) + x phi(x); 0.3989... = 1 / sqrt(2 pi).
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * 0.398_942_3 * exp(-0.5 * x * x)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x)))
}

#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    let t = tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x));
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * x * x)
}

/// `h = activation(up)`, or `silu(gate) * up` for SwiGLU (where `gate` is given); all of one length.
pub fn forward(kind: Activation, gate: Option<&[f32]>, up: &[f32], h: &mut [f32]) {
    h.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, h)| {
        let at = chunk * CHUNK..chunk * CHUNK + h.len();
        let up = &up[at.clone()];
        match kind {
            Activation::Gelu => h.iter_mut().zip(up).for_each(|(h, u)| *h = gelu(*u)),
            Activation::GeluTanh => h.iter_mut().zip(up).for_each(|(h, u)| *h = gelu_tanh(*u)),
            Activation::SwiGlu => {
                let gate = &gate.expect("SwiGLU has a gate")[at];
                for i in 0..h.len() {
                    h[i] = gate[i] * sigmoid(gate[i]) * up[i];
                }
            }
        }
    });
}

/// Turns `d_h` into `d_up` in place and, for SwiGLU, writes `d_gate`.
pub fn backward(kind: Activation, gate: Option<&[f32]>, up: &[f32], d_h: &mut [f32], d_gate: Option<&mut [f32]>) {
    if let (Activation::SwiGlu, Some(gate), Some(d_gate)) = (kind, gate, d_gate) {
        d_h.par_chunks_mut(CHUNK).zip(d_gate.par_chunks_mut(CHUNK)).enumerate().for_each(|(chunk, (d_h, d_gate))| {
            let at = chunk * CHUNK..chunk * CHUNK + d_h.len();
            let (gate, up) = (&gate[at.clone()], &up[at]);
            for i in 0..d_h.len() {
                let (g, s) = (gate[i], sigmoid(gate[i]));
                d_gate[i] = d_h[i] * up[i] * s * (1.0 + g * (1.0 - s));
                d_h[i] *= g * s;
            }
        });
        return;
    }
    d_h.par_chunks_mut(CHUNK).zip(up.par_chunks(CHUNK)).for_each(|(d_h, up)| match kind {
        Activation::GeluTanh => d_h.iter_mut().zip(up).for_each(|(d, u)| *d *= gelu_tanh_slope(*u)),
        _ => d_h.iter_mut().zip(up).for_each(|(d, u)| *d *= gelu_slope(*u)),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_the_finite_differences_of_the_values() {
        for (value, slope) in [(gelu as fn(f32) -> f32, gelu_slope as fn(f32) -> f32), (gelu_tanh, gelu_tanh_slope)] {
            for i in -50..=50 {
                let x = i as f32 * 0.1;
                let difference = (f64::from(value(x + 4e-3)) - f64::from(value(x - 4e-3))) / 8e-3;
                assert!((f64::from(slope(x)) - difference).abs() < 1.5e-4, "at {x}");
            }
        }
        let known = [(1.0, 0.841_344_7), (-0.5, -0.154_268_8), (3.0, 2.995_950_3)];
        for (x, y) in known {
            assert!((gelu(x) - y).abs() < 5e-7);
        }
    }

    #[test]
    fn swiglu_backward_is_the_derivative_of_its_forward() {
        let (gate, up, d_h) = ([0.3f32, -2.0, 4.0], [1.5f32, 0.7, -0.2], [0.9f32, -1.1, 0.4]);
        let value = |g: f64, u: f64| g / (1.0 + (-g).exp()) * u;
        let (mut d_up, mut d_gate, mut h) = (d_h, [0f32; 3], [0f32; 3]);
        forward(Activation::SwiGlu, Some(&gate), &up, &mut h);
        backward(Activation::SwiGlu, Some(&gate), &up, &mut d_up, Some(&mut d_gate));
        for i in 0..3 {
            let (g, u, d) = (f64::from(gate[i]), f64::from(up[i]), f64::from(d_h[i]));
            assert!((f64::from(h[i]) - value(g, u)).abs() < 1e-6);
            let by_gate = (value(g + 1e-6, u) - value(g - 1e-6, u)) / 2e-6 * d;
            let by_up = (value(g, u + 1e-6) - value(g, u - 1e-6)) / 2e-6 * d;
            assert!((f64::from(d_gate[i]) - by_gate).abs() < 1e-6 && (f64::from(d_up[i]) - by_up).abs() < 1e-6);
        }
    }
}

//! Nonlinearities of the MLP against their definitions in f64, and their gradients against finite differences.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Buffer, Number, launch};

use crate::{
    needs_compiler,
    numbers::{by_columns, ints, numbers, rounded},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    SwiGlu,
    Gelu,
    GeluTanh,
}

const KINDS: [Kind; 3] = [Kind::SwiGlu, Kind::Gelu, Kind::GeluTanh];

impl Kind {
    fn kernel(self, rest: &str) -> String {
        let name = match self {
            Self::SwiGlu => "swiglu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
        };
        format!("{name}_{rest}")
    }

    /// Values of a row of the input per value of the output.
    fn parts(self) -> usize {
        if self == Self::SwiGlu { 2 } else { 1 }
    }

    /// The function in f64. `gate` has no effect on GELU.
    fn value(self, gate: f64, up: f64) -> f64 {
        match self {
            Self::SwiGlu => gate / (1.0 + (-gate).exp()) * up,
            Self::Gelu => 0.5 * up * (1.0 + erf(up / 2f64.sqrt())),
            Self::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (up + 0.044_715 * up.powi(3));
                0.5 * up * (1.0 + u.tanh())
            }
        }
    }
}

/// The error function by its power series, which loses digits above 4.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..90 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn round(values: &[f32]) -> Buffer<bf16> {
    Buffer::from(
        values
            .iter()
            .map(|x| bf16::from_f32(*x))
            .collect::<Vec<_>>(),
    )
}

/// Rows of values: `width` in a row of the output, at most `largest` in magnitude.
#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    width: usize,
    padded: usize,
    stride: usize,
    rows: usize,
    largest: f32,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1usize..2100, 0usize..9, 0usize..9, 1usize..4);
    let largest = prop::sample::select(vec![1.0f32, 6.0, 60.0]);
    let kind = prop::sample::select(KINDS.to_vec());
    (kind, sizes, largest, any::<u64>()).prop_map(|(kind, sizes, largest, seed)| {
        let (width, padding, more, rows) = sizes;
        let padded = width + padding;
        Case {
            kind,
            width,
            padded,
            stride: padded + more,
            rows,
            largest,
            seed,
        }
    })
}

impl Case {
    fn inner(&self) -> Buffer<bf16> {
        let count = self.rows * self.width * self.kind.parts();
        let mut values = numbers(self.seed, count);
        values.iter_mut().for_each(|x| *x *= self.largest);
        round(&values)
    }

    fn d_h(&self) -> Buffer<bf16> {
        Buffer::from(rounded(!self.seed, self.rows * self.width))
    }

    /// Gate and up of a value of the output, among `inner`.
    fn places(&self, row: usize, column: usize) -> [usize; 2] {
        let start = row * self.width * self.kind.parts() + column;
        [start, start + (self.kind.parts() - 1) * self.width]
    }

    fn forward(&self, inner: &Buffer<bf16>) -> Buffer<bf16> {
        let mut h = Buffer::unwritten(self.rows * self.stride);
        let mut args = vec![inner.input(), h.output()];
        args.extend(ints([self.width, self.padded, self.stride]));
        launch(
            &self.kind.kernel("forward"),
            by_columns(self.rows, self.padded),
            self.seed,
            &mut args,
        )
        .unwrap();
        h
    }

    /// The gradient of the input, in rows that are `more` wider than they have values.
    fn backward(&self, inner: &Buffer<bf16>, d_h: &Buffer<bf16>, more: usize) -> Buffer<bf16> {
        let stride = self.kind.parts() * self.width + more;
        let mut d = Buffer::unwritten(self.rows * stride);
        let mut args = vec![inner.input(), d_h.input(), d.output()];
        args.extend(ints([self.width, stride]));
        launch(
            &self.kind.kernel("backward"),
            by_columns(self.rows, self.width),
            self.seed,
            &mut args,
        )
        .unwrap();
        d
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn functions_are_those_of_f64(case in cases()) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let inner = case.inner();
        let h = case.forward(&inner);
        for (row, h) in h.chunks_exact(case.stride).enumerate() {
            for column in 0..case.width {
                let [gate, up] = case.places(row, column).map(|at| f64::from(inner[at].to_f32()));
                let want = case.kind.value(gate, up);
                // A unit in the last place of bf16. Errors of the error function are absolute.
                let bound = want.abs() / 256.0 + 5e-7 * up.abs() + 1e-30;
                prop_assert!((f64::from(h[column].to_f32()) - want).abs() <= bound, "{} {} {}", h[column], want, up);
            }
            prop_assert!(h[case.width..case.padded].iter().all(|h| h.to_bits() == 0));
            prop_assert!(h[case.padded..].iter().all(|h| h.to_bits() == bf16::UNWRITTEN.to_bits()));
        }
    }

    #[test]
    fn gradients_are_finite_differences_of_f64(case in cases(), more in 0usize..9) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let (inner, d_h) = (case.inner(), case.d_h());
        let d = case.backward(&inner, &d_h, more);
        let (parts, step) = (case.kind.parts(), 1e-5);
        let stride = parts * case.width + more;
        for row in 0..case.rows {
            let d = &d[row * stride..][..stride];
            for column in 0..case.width {
                let d_h = f64::from(d_h[row * case.width + column].to_f32());
                let [gate, up] = case.places(row, column).map(|at| f64::from(inner[at].to_f32()));
                let value = |gate, up| case.kind.value(gate, up);
                let by_up = (value(gate, up + step) - value(gate, up - step)) / (2.0 * step) * d_h;
                let by_gate = (value(gate + step, up) - value(gate - step, up)) / (2.0 * step) * d_h;
                let mut pairs = vec![(by_up, d[(parts - 1) * case.width + column])];
                if parts == 2 {
                    pairs.push((by_gate, d[column]));
                }
                for (want, found) in pairs {
                    // A unit in the last place of bf16, and errors of the functions and of the difference.
                    let bound = want.abs() / 256.0 + 1e-6 * (1.0 + up.abs().max(gate.abs()));
                    prop_assert!((f64::from(found.to_f32()) - want).abs() <= bound, "{} {} {} {}", found, want, gate, up);
                }
            }
            prop_assert!(d[parts * case.width..].iter().all(|d| d.to_bits() == bf16::UNWRITTEN.to_bits()));
        }
    }
}

/// A case of one row.
fn one_row(kind: Kind, width: usize) -> Case {
    Case {
        kind,
        width,
        padded: width,
        stride: width,
        rows: 1,
        largest: 1.0,
        seed: 0,
    }
}

#[test]
fn large_numbers_give_finite_results_and_nan_stays() {
    needs_compiler!();
    let values = [
        1e4f32, -1e4, 1e18, -1e18, 88.0, -88.0, -103.0, 0.0, -0.0, 1e-30,
    ];
    for kind in KINDS {
        let case = one_row(kind, values.len());
        let mut inner = values.to_vec();
        if kind == Kind::SwiGlu {
            inner.extend([1.0; 10]);
        }
        let (inner, ones) = (round(&inner), round(&[1.0; 10]));
        let h = case.forward(&inner);
        let d = case.backward(&inner, &ones, 0);
        assert!(
            h.iter().chain(d.iter()).all(|x| x.is_finite()),
            "{kind:?} {:?} {:?}",
            &h[..],
            &d[..]
        );
        let case = one_row(kind, 1);
        let inner = round(&[f32::NAN, 1.0][..kind.parts()]);
        let h = case.forward(&inner);
        let d = case.backward(&inner, &round(&[1.0]), 0);
        assert!(h[0].is_nan() && d[0].is_nan(), "{kind:?}");
    }
}

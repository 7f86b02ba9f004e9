//! The output head beside the CPU's. Best tokens, their logits and e^x are the same in bits. Log-probabilities differ by the
//! order of additions, and gradients by the rounding of shares to bf16, which the CPU's tier here does not do.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_model::{config::NormKind, pack::Target, weights::Matrix, weights::NormWeights};

use super::numbers;
use crate::cpu::{
    best::Best,
    buffer::Buffer as HostBuffer,
    head::{Head, Keep},
    kernels::{Lanes, Work, dispatch, exp, norm::Norm},
    tier::Tier,
};

/// Columns of a chunk, as in the CPU engine.
const CHUNK: usize = 2048;

fn sizes(sizes: &[usize]) -> Vec<Arg<'static>> {
    sizes.iter().map(|size| Arg::I32(*size as i32)).collect()
}

/// Columns of a matrix with `vocabulary` columns, as a matrix of their own.
fn columns(z: &[f32], vocabulary: usize, first: usize, width: usize) -> Buffer<f32> {
    let mut chunk = Vec::new();
    for row in z.chunks(vocabulary) {
        chunk.extend_from_slice(&row[first..first + width]);
    }
    Buffer::from(chunk)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_best_tokens_are_those_of_the_cpu(
        vocabulary in 1usize..3000, chunk in 300usize..1500, count in 1usize..40, coarse: bool, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let mut z = numbers(seed, vocabulary);
        if coarse {
            z.iter_mut().for_each(|z| *z = (*z * 20.0).round());
        }
        let mut best = Best::new(count);
        let (mut logits, mut tokens) = (Buffer::<f32>::unwritten(count), Buffer::<i32>::unwritten(count));
        for first in (0..vocabulary).step_by(chunk) {
            let width = chunk.min(vocabulary - first);
            best.absorb(first, &z[first..first + width]);
            let z = columns(&z, vocabulary, first, width);
            let mut args = vec![z.input(), logits.output(), tokens.output()];
            args.extend(sizes(&[first, width, width, count]));
            launch("head_best", [1, 1, 1], seed, &mut args).unwrap();
        }
        let want = best.into_candidates();
        for (place, want) in want.iter().enumerate() {
            prop_assert_eq!(tokens[place], want.token as i32);
            prop_assert_eq!(f64::from(logits[place]), want.logp);
        }
        prop_assert!(tokens[want.len()..].iter().all(|token| *token == -1));
    }
}

struct Exp<'a>(&'a [f32]);

impl Work for Exp<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(self) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.0.len());
        for x in self.0 {
            values.push(exp(L::splat(*x)).to_array()[0]);
        }
        values
    }
}

/// The sum of a row with the logits 0 and x is 1 + e^x, from which e^x can be read exactly.
#[test]
fn e_to_the_x_has_the_bits_of_the_cpu() {
    if upright_emulator::missing().is_some() {
        return;
    }
    let rows = 1000;
    let mut x = numbers(3, rows);
    x.iter_mut().for_each(|x| *x = *x * 9.0 - 9.0);
    let z = Buffer::from(x.iter().flat_map(|x| [0.0, *x]).collect::<Vec<f32>>());
    let first_target = Buffer::from(vec![0i32; rows + 1]);
    let tokens = Buffer::from(Vec::<i32>::new());
    let mut logits = Buffer::<f32>::unwritten(0);
    let (mut maximum, mut sum) = (
        Buffer::<f32>::unwritten(rows),
        Buffer::<f64>::unwritten(rows),
    );
    let mut args = vec![z.input(), first_target.input(), tokens.input()];
    args.extend([maximum.output(), sum.output(), logits.output()]);
    args.extend(sizes(&[0, 2, 2]));
    launch("head_absorb", [rows as u32, 1, 1], 0, &mut args).unwrap();
    for (sum, want) in sum.iter().zip(dispatch(Exp(&x))) {
        assert_eq!((sum - 1.0) as f32, want);
    }
}

#[test]
fn log_probabilities_and_gradients_are_those_of_the_cpu() {
    if upright_emulator::missing().is_some() {
        return;
    }
    let (vocabulary, hidden, rows, seed) = (2 * CHUNK + 37, 16, 5, 11);
    let mut w = numbers(1, vocabulary * hidden);
    w.iter_mut().for_each(|w| *w *= 2.0);
    let w: Vec<bf16> = w.into_iter().map(bf16::from_f32).collect();
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
    let head = Head {
        tier: Tier::Portable,
        norm,
        weight: &weight,
    };
    let x = numbers(2, rows * hidden);
    let mut targets = Vec::new();
    let mut first_target = vec![0i32];
    for row in 0..rows {
        for k in 0..row % 3 {
            let token = ((row * 1311 + k * 2099) % vocabulary) as u32;
            targets.push(Target { row, token });
        }
        first_target.push(targets.len() as i32);
    }
    let scored: Vec<usize> = (0..rows).collect();
    let slopes = Buffer::from(
        numbers(3, targets.len())
            .into_iter()
            .map(f64::from)
            .collect::<Vec<_>>(),
    );
    let (want_logp, want_best) = head.best(&x, &scored, &targets, 7);
    let (_, trace) = head.forward(HostBuffer::from(&x[..]), &scored, &targets, Keep::Gradient);
    let want = head.backward(trace, &targets, &slopes);

    let z = head.logits(&x);
    let grid = [rows as u32, 1, 1];
    let first_target = Buffer::from(first_target);
    let tokens = Buffer::from(
        targets
            .iter()
            .map(|target| target.token as i32)
            .collect::<Vec<_>>(),
    );
    let (mut maximum, mut sum) = (
        Buffer::<f32>::unwritten(rows),
        Buffer::<f64>::unwritten(rows),
    );
    let mut logits = Buffer::<f32>::unwritten(targets.len());
    let mut best_logits = Buffer::<f32>::unwritten(rows * 7);
    let mut best_tokens = Buffer::<i32>::unwritten(rows * 7);
    let mut expected = Buffer::from(vec![0.0f32; rows * hidden]);
    for first in (0..vocabulary).step_by(CHUNK) {
        let width = CHUNK.min(vocabulary - first);
        let z = columns(&z, vocabulary, first, width);
        let mut shares = Buffer::<bf16>::unwritten(rows * width);
        let mut corrections = Buffer::<f32>::unwritten(rows);
        let mut args = vec![z.input(), first_target.input(), tokens.input()];
        args.extend([maximum.output(), sum.output(), logits.output()]);
        args.extend([shares.output(), corrections.output()]);
        args.extend(sizes(&[first, width, width, width]));
        launch("head_absorb_shares", grid, seed, &mut args).unwrap();
        let mut args = vec![z.input(), best_logits.output(), best_tokens.output()];
        args.extend(sizes(&[first, width, width, 7]));
        launch("head_best", grid, seed, &mut args).unwrap();
        let mut args = vec![expected.output(), corrections.input()];
        args.extend(sizes(&[hidden]));
        launch("head_rescale", grid, seed, &mut args).unwrap();
        for row in 0..rows {
            for (share, own) in shares[row * width..][..width].iter().zip(first..) {
                for column in 0..hidden {
                    let weight = w[own * hidden + column].to_f32();
                    expected[row * hidden + column] += share.to_f32() * weight;
                }
            }
        }
    }
    let mut logp = Buffer::<f64>::unwritten(targets.len());
    let mut best_logp = Buffer::<f64>::unwritten(rows * 7);
    let mut args = vec![
        maximum.input(),
        sum.input(),
        first_target.input(),
        logits.input(),
    ];
    args.extend([logp.output(), best_logits.input(), best_logp.output()]);
    args.extend(sizes(&[7]));
    launch("head_finish", grid, seed, &mut args).unwrap();
    for (found, want) in logp.iter().zip(&want_logp) {
        assert!((found - want).abs() < 4e-6, "{found} {want}");
    }
    for (place, want) in want_best.iter().flatten().enumerate() {
        assert_eq!(best_tokens[place], want.token as i32);
        assert!((best_logp[place] - want.logp).abs() < 4e-6);
    }

    let weights = Buffer::from(w);
    let mut d = Buffer::<f32>::unwritten(rows * hidden);
    let mut args = vec![
        expected.input(),
        sum.input(),
        first_target.input(),
        tokens.input(),
    ];
    args.extend([slopes.input(), weights.input(), d.output()]);
    args.extend(sizes(&[hidden, hidden, hidden]));
    launch("head_gradient", grid, seed, &mut args).unwrap();
    let mut dx = vec![0.0; rows * hidden];
    for row in 0..rows {
        let at = row * hidden..(row + 1) * hidden;
        norm.row_backward(&x[at.clone()], &d[at.clone()], &mut dx[at]);
    }
    let (mut wrong, mut length) = (0.0, 0.0);
    for (found, want) in dx.iter().zip(want.iter()) {
        wrong += (found - want).powi(2);
        length += want.powi(2);
    }
    // A share is rounded to bf16, by at most 1 / 256, and the errors of many shares cancel.
    assert!(wrong.sqrt() < length.sqrt() / 512.0, "{wrong} of {length}");
}

//! The output head against its definition in f64.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};

use crate::{needs_compiler, numbers::numbers};

/// Gets the first token, the shares and the corrections of a chunk.
type Each<'a> = &'a mut dyn FnMut(usize, &Buffer<bf16>, &Buffer<f32>);

/// Rows of logits with their targets.
#[derive(Clone)]
struct Rows {
    /// `[rows, vocabulary]`
    z: Vec<f32>,
    vocabulary: usize,
    /// Tokens of the targets of every row.
    targets: Vec<Vec<i32>>,
}

/// What the chunks of all rows come to.
struct Softmax {
    maximum: Buffer<f32>,
    sum: Buffer<f64>,
    logp: Buffer<f64>,
    best_tokens: Buffer<i32>,
    best_logp: Buffer<f64>,
}

impl Rows {
    /// Rows with logits in (-20, 20), of which many are equal, and with 0 to 2 targets.
    fn new(rows: usize, vocabulary: usize, seed: u64) -> Self {
        let mut z = numbers(seed, rows * vocabulary);
        z.iter_mut().for_each(|z| *z = (*z * 160.0).round() * 0.125);
        let mut targets = Vec::new();
        for row in 0..rows {
            let token = |k: u64| ((seed >> 5) + row as u64 * 131 + k * 4099) % vocabulary as u64;
            let mut tokens = vec![token(1) as i32, token(2) as i32];
            tokens.truncate((seed as usize + row) % 3);
            targets.push(tokens);
        }
        Self {
            z,
            vocabulary,
            targets,
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.z[row * self.vocabulary..][..self.vocabulary]
    }

    /// One row by itself.
    fn alone(&self, row: usize) -> Self {
        Self {
            z: self.row(row).to_vec(),
            vocabulary: self.vocabulary,
            targets: vec![self.targets[row].clone()],
        }
    }

    fn first_target(&self) -> Buffer<i32> {
        let mut first = vec![0];
        for tokens in &self.targets {
            first.push(first.last().unwrap() + tokens.len() as i32);
        }
        Buffer::from(first)
    }

    fn tokens(&self) -> Buffer<i32> {
        Buffer::from(self.targets.concat())
    }

    /// A chunk of the logits: the number of columns, and the values with rows `stride` apart, which end in NaN.
    fn chunk(&self, first: usize, chunk: usize, stride: usize) -> (usize, Buffer<f32>) {
        let width = chunk.min(self.vocabulary - first);
        let mut values = vec![f32::NAN; self.targets.len() * stride];
        for row in 0..self.targets.len() {
            let from = &self.row(row)[first..first + width];
            values[row * stride..][..width].copy_from_slice(from);
        }
        (width, Buffer::from(values))
    }

    /// Runs all chunks. If there is a function, it gets the shares of each chunk, `[rows, stride]`, and the corrections.
    fn softmax(
        &self,
        chunk: usize,
        count: usize,
        seed: u64,
        mut each: Option<Each<'_>>,
    ) -> Softmax {
        let (rows, stride) = (self.targets.len(), chunk + 3);
        let grid = [rows as u32, 1, 1];
        let (first_target, tokens) = (self.first_target(), self.tokens());
        let (mut maximum, mut sum) = (Buffer::unwritten(rows), Buffer::unwritten(rows));
        let mut logits = Buffer::<f32>::unwritten(tokens.len());
        let mut best_logits = Buffer::<f32>::unwritten(rows * count);
        let mut best_tokens = Buffer::<i32>::unwritten(rows * count);
        for first in (0..self.vocabulary).step_by(chunk) {
            let (width, z) = self.chunk(first, chunk, stride);
            let mut args = vec![z.input(), first_target.input(), tokens.input()];
            args.extend([maximum.output(), sum.output(), logits.output()]);
            let sizes = [first, width, stride].map(|size| Arg::I32(size as i32));
            if let Some(each) = &mut each {
                let mut shares = Buffer::<bf16>::unwritten(rows * stride);
                let mut corrections = Buffer::<f32>::unwritten(rows);
                args.extend([shares.output(), corrections.output()]);
                args.extend(sizes);
                args.push(Arg::I32(stride as i32));
                launch("head_absorb_shares", grid, seed, &mut args).unwrap();
                assert_eq!(shares.first_unwritten(), None);
                each(first, &shares, &corrections);
            } else {
                args.extend(sizes);
                launch("head_absorb", grid, seed, &mut args).unwrap();
            }
            if count > 0 {
                let mut args = vec![z.input(), best_logits.output(), best_tokens.output()];
                args.extend([first, width, stride, count].map(|size| Arg::I32(size as i32)));
                launch("head_best", grid, seed, &mut args).unwrap();
                assert_eq!(best_tokens.first_unwritten(), None);
            }
        }
        let mut logp = Buffer::unwritten(tokens.len());
        let mut best_logp = Buffer::unwritten(rows * count);
        let mut args = [
            maximum.input(),
            sum.input(),
            first_target.input(),
            logits.input(),
            logp.output(),
            best_logits.input(),
            best_logp.output(),
            Arg::I32(count as i32),
        ];
        launch("head_finish", grid, seed, &mut args).unwrap();
        assert_eq!(logits.first_unwritten(), None);
        assert_eq!(best_logp.first_unwritten(), None);
        Softmax {
            maximum,
            sum,
            logp,
            best_tokens,
            best_logp,
        }
    }
}

/// ln of the sum of e^z.
fn log_sum(z: &[f64]) -> f64 {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| (z - largest).exp()).sum();
    largest + sum.ln()
}

fn wide(z: &[f32]) -> Vec<f64> {
    z.iter().map(|z| f64::from(*z)).collect()
}

/// Error of a log-probability: e^x is off by 1.5e-7 of itself, and 16 values are added in f32.
const LOGP: f64 = 1e-6;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn log_probabilities_and_best_tokens_are_those_of_f64(
        rows in 1usize..5, vocabulary in 1usize..3000, chunk in 1usize..1200,
        count in prop_oneof![0usize..4, 4usize..129], seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let chunk = chunk.max(vocabulary / 8 + 1);
        let data = Rows::new(rows, vocabulary, seed);
        let found = data.softmax(chunk, count, seed, None);
        let mut logp = found.logp.iter();
        for row in 0..rows {
            let z = wide(data.row(row));
            let log_sum = log_sum(&z);
            for token in &data.targets[row] {
                let want = z[*token as usize] - log_sum;
                let logp = logp.next().unwrap();
                prop_assert!((logp - want).abs() < LOGP, "{} {}", logp, want);
            }
            let mut order: Vec<usize> = (0..vocabulary).collect();
            order.sort_by(|a, b| z[*b].total_cmp(&z[*a]).then(a.cmp(b)));
            let tokens = &found.best_tokens[row * count..][..count];
            let best_logp = &found.best_logp[row * count..][..count];
            for place in 0..count {
                if let Some(want) = order.get(place) {
                    prop_assert_eq!(tokens[place], *want as i32);
                    prop_assert!((best_logp[place] - (z[*want] - log_sum)).abs() < LOGP);
                } else {
                    prop_assert_eq!((tokens[place], best_logp[place]), (-1, f64::NEG_INFINITY));
                }
            }
        }
    }

    /// Products with the shares, rescaled by the corrections, come to the expectation of the weights.
    #[test]
    fn shares_and_gradient_are_those_of_f64(
        rows in 1usize..4, vocabulary in 2usize..1500, chunk in 1usize..700, hidden in 1usize..12, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let chunk = chunk.max(vocabulary / 6 + 1);
        let data = Rows::new(rows, vocabulary, seed);
        let (grid, stride) = ([rows as u32, 1, 1], hidden + 5);
        let weights: Vec<bf16> = numbers(seed ^ 9, vocabulary * stride).into_iter().map(bf16::from_f32).collect();
        let weights = Buffer::from(weights);
        let weight = |token: usize, column: usize| f64::from(weights[token * stride + column].to_f32());
        let mut expected = Buffer::from(vec![0.0f32; rows * hidden]);
        let mut add = |first: usize, shares: &Buffer<bf16>, corrections: &Buffer<f32>| {
            let mut args = [expected.output(), corrections.input(), Arg::I32(hidden as i32)];
            launch("head_rescale", grid, seed, &mut args).unwrap();
            let width = shares.len() / rows;
            for row in 0..rows {
                for column in 0..hidden {
                    let mut sum = 0.0;
                    for share in 0..width.min(vocabulary - first) {
                        sum += f64::from(shares[row * width + share].to_f32()) * weight(first + share, column);
                    }
                    expected[row * hidden + column] += sum as f32;
                }
                for share in vocabulary.saturating_sub(first)..width {
                    assert_eq!(shares[row * width + share].to_bits(), 0);
                }
            }
        };
        let softmax = data.softmax(chunk, 0, seed, Some(&mut add));
        let (first_target, tokens) = (data.first_target(), data.tokens());
        let slopes: Vec<f64> = numbers(seed ^ 5, tokens.len()).into_iter().map(f64::from).collect();
        let slopes = Buffer::from(slopes);
        let padded = hidden + 2;
        let mut d = Buffer::<f32>::unwritten(rows * padded);
        let mut args = vec![expected.input(), softmax.sum.input(), first_target.input(), tokens.input()];
        args.extend([slopes.input(), weights.input(), d.output()]);
        args.extend([hidden, padded, stride].map(|size| Arg::I32(size as i32)));
        launch("head_gradient", grid, seed, &mut args).unwrap();
        for row in 0..rows {
            let z = wide(data.row(row));
            let log_sum = log_sum(&z);
            let own = first_target[row] as usize..first_target[row + 1] as usize;
            for column in 0..padded {
                let mut want = 0.0;
                let mut bound = 1e-6;
                for target in own.clone().filter(|_| column < hidden) {
                    want += slopes[target] * weight(tokens[target] as usize, column);
                    for (token, z) in z.iter().enumerate() {
                        let part = (z - log_sum).exp() * slopes[target] * weight(token, column);
                        want -= part;
                        // A share is rounded to bf16, by at most 1 / 256 of itself.
                        bound += part.abs() / 256.0;
                    }
                }
                let found = f64::from(d[row * padded + column]);
                prop_assert!((found - want).abs() <= bound, "{} {} {}", found, want, bound);
            }
        }
    }
}

#[test]
fn bits_of_a_row_depend_on_the_row_alone() {
    needs_compiler!();
    let data = Rows::new(5, 1000, 77);
    let together = data.softmax(300, 6, 0, None);
    let mut target = 0;
    for row in 0..5 {
        let alone = data.alone(row).softmax(300, 6, row as u64, None);
        let end = target + alone.logp.len();
        assert_eq!(alone.maximum[0], together.maximum[row]);
        assert_eq!(alone.sum[0].to_bits(), together.sum[row].to_bits());
        assert_eq!(alone.logp[..], together.logp[target..end]);
        assert_eq!(alone.best_tokens[..], together.best_tokens[row * 6..][..6]);
        assert_eq!(alone.best_logp[..], together.best_logp[row * 6..][..6]);
        target = end;
    }
}

/// Equal logits everywhere: the smallest tokens win, across chunks too.
#[test]
fn ties_go_to_the_smaller_token() {
    needs_compiler!();
    let mut data = Rows::new(1, 700, 1);
    data.z.fill(2.5);
    let found = data.softmax(256, 9, 3, None);
    assert_eq!(found.best_tokens[..], [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for logp in found.best_logp.iter() {
        assert!((logp + 700f64.ln()).abs() < LOGP);
    }
}

/// A target among the best tokens has the same bits there, and a maximum that grows late shrinks what came before.
#[test]
fn large_logits_stay_finite_and_nan_shows() {
    needs_compiler!();
    let mut data = Rows::new(1, 600, 2);
    data.targets = vec![vec![599, 0]];
    data.z[599] = 3e4;
    data.z[0] = -3e4;
    let found = data.softmax(128, 1, 3, None);
    assert_eq!((found.logp[0], found.best_tokens[0]), (0.0, 599));
    assert_eq!(found.logp[0], found.best_logp[0]);
    assert_eq!(found.logp[1], -6e4);
    data.z[77] = f32::NAN;
    let found = data.softmax(128, 1, 3, None);
    assert!(found.logp.iter().all(|logp| logp.is_nan()));
    assert_eq!(found.best_tokens[0], 599);
}

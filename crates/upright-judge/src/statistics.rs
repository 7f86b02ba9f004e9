//! Win rates and their errors. A preference is a number from 1 (the reference wins) to 2 (the model
//! wins), and 1.5 is a tie.

use upright_math::mean::Mean;

use crate::{Judged, Pair};

/// How often a judge prefers a model's answers to the reference's. Rates are in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct WinRate {
    /// Mean of the preferences less 1, over pairs with all verdicts.
    pub rate: Mean,
    /// Pairs.
    pub pairs: usize,
    /// Pairs that lack a verdict.
    pub missing: usize,
    /// The rate if every missing verdict were lost, and if it were won.
    pub bounds: [f64; 2],
    /// Pairs that the model wins.
    pub wins: usize,
    /// Pairs that the reference wins.
    pub losses: usize,
    /// Ties.
    pub ties: usize,
    /// The rate with every preference rounded to a win, a tie or a loss, as AlpacaEval rounds.
    pub discrete_rate: f64,
    /// Pairs whose winner changes with the order, and pairs that were judged in both orders.
    pub flips: Option<[usize; 2]>,
    /// How often the answer that is shown first wins.
    pub first_shown: Option<Mean>,
    /// Mean length in characters of the model's answers and the reference's.
    pub lengths: [f64; 2],
    /// The rate at equal lengths, by a logistic fit.
    pub length_adjusted: Option<f64>,
}

impl WinRate {
    /// The win rate in judged pairs.
    pub fn of(pairs: &[Pair], judged: &[Judged]) -> Self {
        let mut rates = Vec::new();
        let mut fitted = Vec::new();
        let mut bounds = [0.0; 2];
        let mut discrete = 0.0;
        let mut count = [0; 3];
        let mut flips = [0; 2];
        let mut first = Vec::new();
        let mut lengths = [0.0; 2];
        for (pair, judged) in pairs.iter().zip(judged) {
            let output = pair.output.chars().count() as f64;
            let reference = pair.reference.chars().count() as f64;
            lengths[0] += output;
            lengths[1] += reference;
            for (bound, lost) in bounds.iter_mut().zip([1.0, 2.0]) {
                *bound += bound_of(judged, lost) - 1.0;
            }
            for verdict in &judged.verdicts {
                if let Some(preference) = verdict.preference {
                    let model = preference - 1.0;
                    first.push(if verdict.is_swapped {
                        model
                    } else {
                        1.0 - model
                    });
                }
            }
            if let [one, two] = &judged.verdicts[..]
                && let (Some(one), Some(two)) = (one.preference, two.preference)
            {
                flips[0] += usize::from((one - 1.5) * (two - 1.5) < 0.0);
                flips[1] += 1;
            }
            let Some(preference) = judged.preference() else {
                continue;
            };
            let won = preference - 1.0;
            rates.push(100.0 * won);
            fitted.push((output - reference, won));
            // Python rounds half to even: 1.5 is replaced before, and no other preference is a half.
            let outcome = usize::from(won >= 0.5) + usize::from(won > 0.5);
            count[outcome] += 1;
            discrete += [0.0, 50.0, 100.0][outcome];
        }
        let n = pairs.len() as f64;
        let rate = Mean::of(&rates);
        for first in &mut first {
            *first *= 100.0;
        }
        Self {
            rate,
            pairs: pairs.len(),
            missing: pairs.len() - rate.count,
            bounds: bounds.map(|sum| 100.0 * sum / n),
            wins: count[2],
            losses: count[0],
            ties: count[1],
            discrete_rate: discrete / rate.count as f64,
            flips: (flips[1] > 0).then_some(flips),
            first_shown: (!first.is_empty()).then(|| Mean::of(&first)),
            lengths: lengths.map(|sum| sum / n),
            length_adjusted: length_adjusted(&fitted),
        }
    }

    /// The share of pairs that lack a verdict.
    pub fn missing_share(&self) -> f64 {
        self.missing as f64 / self.pairs as f64
    }
}

/// A pair's preference with every missing verdict replaced.
fn bound_of(judged: &Judged, replacement: f64) -> f64 {
    if judged.verdicts.is_empty() {
        return 1.5;
    }
    let mut sum = 0.0;
    for verdict in &judged.verdicts {
        sum += verdict.preference.unwrap_or(replacement);
    }
    sum / judged.verdicts.len() as f64
}

/// The mean difference of two models' win rates in percentage points, over pairs where both have
/// verdicts. `first` and `second` judge the same instructions in the same order.
pub fn difference(first: &[Judged], second: &[Judged]) -> Mean {
    let mut differences = Vec::new();
    for (first, second) in first.iter().zip(second) {
        if let (Some(first), Some(second)) = (first.preference(), second.preference()) {
            differences.push(100.0 * (second - first));
        }
    }
    Mean::of(&differences)
}

/// Steps of Newton's method.
const NEWTON: usize = 100;
/// Variance of the normal prior of both parameters. It only keeps them finite where all answers win.
const VARIANCE: f64 = 100.0;

/// The win rate in percent at equal lengths. Fits `won = sigmoid(theta + beta * tanh(gap / sd))` by
/// maximum likelihood, where `gap` is the difference of lengths, and returns `sigmoid(theta)`.
/// `None` for fewer than three pairs, or if all lengths differ by the same.
fn length_adjusted(fitted: &[(f64, f64)]) -> Option<f64> {
    let gaps: Vec<f64> = fitted.iter().map(|(gap, _)| *gap).collect();
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    let mut squares = 0.0;
    for gap in &gaps {
        squares += (gap - mean) * (gap - mean);
    }
    let deviation = (squares / (n - 1.0)).sqrt();
    if gaps.len() < 3 || deviation == 0.0 {
        return None;
    }
    let mut theta = 0.0;
    let mut beta = 0.0;
    for _ in 0..NEWTON {
        // Gradient and Hessian of the log-likelihood with its prior.
        let mut slope = [-theta / VARIANCE, -beta / VARIANCE];
        let mut curve = [1.0 / VARIANCE, 0.0, 1.0 / VARIANCE];
        for (gap, won) in fitted {
            let x = (gap / deviation).tanh();
            let expected = sigmoid(theta + beta * x);
            let weight = expected * (1.0 - expected);
            slope[0] += won - expected;
            slope[1] += (won - expected) * x;
            curve[0] += weight;
            curve[1] += weight * x;
            curve[2] += weight * x * x;
        }
        let determinant = curve[0] * curve[2] - curve[1] * curve[1];
        let step = [
            (curve[2] * slope[0] - curve[1] * slope[1]) / determinant,
            (curve[0] * slope[1] - curve[1] * slope[0]) / determinant,
        ];
        // A step of at most 2 keeps Newton's method from leaving for good.
        let longest = step[0].abs().max(step[1].abs());
        let scale = if longest > 2.0 { 2.0 / longest } else { 1.0 };
        theta += scale * step[0];
        beta += scale * step[1];
        if longest < 1e-12 {
            break;
        }
    }
    Some(100.0 * sigmoid(theta))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Verdict, cost::Tokens};
    use serde_json::Value;

    fn judged(preferences: &[Option<f64>]) -> Judged {
        let mut verdicts = Vec::new();
        for (index, preference) in preferences.iter().enumerate() {
            verdicts.push(Verdict {
                is_swapped: index == 1,
                preference: *preference,
                kept: Value::Null,
                tokens: Tokens::default(),
                seconds: 0.0,
            });
        }
        Judged { verdicts }
    }

    fn pair(reference: usize, output: usize) -> Pair {
        Pair {
            instruction: "i".into(),
            reference: "r".repeat(reference),
            output: "o".repeat(output),
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn rates_count_every_pair() {
        let pairs = [pair(2, 4), pair(2, 2), pair(1, 1), pair(3, 3), pair(2, 0)];
        let all = [
            judged(&[Some(2.0)]),
            judged(&[Some(1.0)]),
            judged(&[]),
            judged(&[Some(1.75)]),
            judged(&[None]),
        ];
        let rate = WinRate::of(&pairs, &all);
        // Preferences less 1: 1, 0, 0.5, 0.75; one is missing.
        close(rate.rate.mean, 56.25);
        // Standard deviation with n - 1: sqrt((0.4375^2 + 0.5625^2 + 0.0625^2 + 0.1875^2) / 3).
        close(
            rate.rate.error.unwrap(),
            100.0 * (0.546_875_f64 / 3.0 / 4.0).sqrt(),
        );
        assert_eq!((rate.pairs, rate.missing), (5, 1));
        assert_eq!((rate.wins, rate.ties, rate.losses), (2, 1, 1));
        close(rate.bounds[0], 45.0);
        close(rate.bounds[1], 65.0);
        close(rate.discrete_rate, 62.5);
        assert_eq!(rate.lengths, [2.0, 2.0]);
        assert_eq!(rate.flips, None);
        close(rate.missing_share(), 0.2);
    }

    #[test]
    fn both_orders_are_averaged_and_compared() {
        let pairs = [pair(1, 1), pair(1, 1), pair(1, 1), pair(1, 1)];
        let all = [
            // The model wins in both orders.
            judged(&[Some(1.8), Some(2.0)]),
            // The answer that is shown first wins: not swapped, that is the reference.
            judged(&[Some(1.0), Some(2.0)]),
            judged(&[Some(1.2), None]),
            judged(&[Some(1.5), Some(1.0)]),
        ];
        let rate = WinRate::of(&pairs, &all);
        close(rate.rate.mean, 100.0 * (0.9 + 0.5 + 0.25) / 3.0);
        assert_eq!(
            (rate.wins, rate.ties, rate.losses, rate.missing),
            (1, 1, 1, 1)
        );
        assert_eq!(rate.flips, Some([1, 3]));
        close(rate.bounds[0], 100.0 * (0.9 + 0.5 + 0.1 + 0.25) / 4.0);
        close(rate.bounds[1], 100.0 * (0.9 + 0.5 + 0.6 + 0.25) / 4.0);
        let first = rate.first_shown.unwrap();
        close(
            first.mean,
            100.0 * (0.2 + 1.0 + 1.0 + 1.0 + 0.8 + 0.5 + 0.0) / 7.0,
        );
    }

    #[test]
    fn differences_are_paired() {
        let first = [judged(&[Some(1.0)]), judged(&[Some(1.5)]), judged(&[None])];
        let second = [
            judged(&[Some(2.0)]),
            judged(&[Some(1.75)]),
            judged(&[Some(2.0)]),
        ];
        let mean = difference(&first, &second);
        close(mean.mean, 62.5);
        close(mean.error.unwrap(), 37.5);
        assert_eq!(mean.count, 2);
    }

    #[test]
    fn a_longer_answer_that_wins_by_length_alone_is_adjusted_away() {
        // Won as often as sigmoid(2 tanh(gap / sd)): at equal lengths, half.
        let gaps = [-40.0, -20.0, -10.0, 10.0, 20.0, 40.0, 100.0];
        let mean = gaps.iter().sum::<f64>() / 7.0;
        let squares: f64 = gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum();
        let deviation = (squares / 6.0).sqrt();
        let fitted: Vec<(f64, f64)> = gaps
            .iter()
            .map(|gap| (*gap, sigmoid(2.0 * (gap / deviation).tanh())))
            .collect();
        let plain = 100.0 * fitted.iter().map(|(_, won)| won).sum::<f64>() / 7.0;
        let adjusted = length_adjusted(&fitted).unwrap();
        // The prior pulls both parameters a little towards 0.
        assert!(
            (adjusted - 50.0).abs() < 0.5 && plain > 55.0,
            "{adjusted} {plain}"
        );
        assert_eq!(length_adjusted(&[(1.0, 1.0), (1.0, 0.0), (1.0, 0.5)]), None);
        assert_eq!(length_adjusted(&[(1.0, 1.0), (2.0, 0.0)]), None);
    }

    proptest! {
        #[test]
        fn adjusted_rates_are_rates(rows in prop::collection::vec((-5000.0..5000.0_f64, 0.0..=1.0_f64), 3..40), all in 0..3) {
            let rows: Vec<(f64, f64)> = rows
                .into_iter()
                .map(|(gap, won)| (gap, [won, 0.0, 1.0][all as usize]))
                .collect();
            if let Some(rate) = length_adjusted(&rows) {
                prop_assert!((0.0..=100.0).contains(&rate), "{rate}");
            }
        }
    }
}

//! What losses of a chosen and a rejected response share: their metrics, and the logistic loss of a
//! margin.

use super::{Response, RowLoss, Totals};

/// Metrics of every pair loss, with TRL's names. `logps/` are sums over a response's tokens,
/// whatever the loss divides by (TRL's ORPO and CPO trainers report means there; here the means are
/// `rewards/` divided by beta).
pub const METRICS: [&str; 6] = [
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
];

/// [`METRICS`] and the metrics that a loss adds.
pub const fn metrics<const N: usize>(more: &[&'static str]) -> [&'static str; N] {
    let mut all = [""; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < METRICS.len() {
            METRICS[i]
        } else {
            more[i - METRICS.len()]
        };
        i += 1;
    }
    all
}

/// A number with at most four decimals and no trailing zeros.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A pair's part of the mean over pairs, from its own `value`, slopes, rewards and further metrics.
/// Arrays of two numbers are in the order chosen, rejected.
pub fn part(
    responses: &[Response],
    totals: Totals,
    value: f64,
    slopes: [f64; 2],
    rewards: [f64; 2],
    more: &[f64],
) -> RowLoss {
    let share = 1.0 / totals.rows as f64;
    let accurate = if rewards[0] > rewards[1] { 1.0 } else { 0.0 };
    let margin = rewards[0] - rewards[1];
    let metrics = [
        rewards[0],
        rewards[1],
        accurate,
        margin,
        responses[0].policy,
        responses[1].policy,
    ];
    RowLoss {
        loss: share * value,
        slopes: slopes.iter().map(|slope| share * slope).collect(),
        metrics: metrics
            .iter()
            .chain(more)
            .map(|metric| share * metric)
            .collect(),
    }
}

/// Log-probability per token, log pi(y|x) / |y|, of the chosen and the rejected response.
pub fn means(responses: &[Response]) -> [f64; 2] {
    [0, 1].map(|i| responses[i].policy / responses[i].tokens as f64)
}

/// -(1 - e) log sigmoid(h) - e log sigmoid(-h) and its derivative, e sigmoid(h) - (1 - e) sigmoid(-h), where e is the
/// label smoothing.
pub fn logistic(h: f64, flipped: f64) -> (f64, f64) {
    let mut value = -(1.0 - flipped) * log_sigmoid(h);
    if flipped > 0.0 {
        value -= flipped * log_sigmoid(-h);
    }
    (value, flipped * sigmoid(h) - (1.0 - flipped) * sigmoid(-h))
}

/// log(1 / (1 + e^-x)) without overflow, and without losing e^-x next to 1.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e^-x); if e^-x overflows to infinity, the result is 0.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// log sigmoid(-1000) = -1000 to the last bit, and sigmoid(1000)'s complement is e^-1000, which is 0.
    #[test]
    fn the_logistic_function_neither_overflows_nor_rounds_to_its_limit() {
        assert_eq!(
            (log_sigmoid(-1e3), log_sigmoid(1e3), sigmoid(-1e3)),
            (-1e3, 0.0, 0.0)
        );
        assert_eq!(log_sigmoid(40.0), -(-40f64).exp());
        assert_eq!(logistic(f64::INFINITY, 0.0), (0.0, 0.0));
    }

    /// Two pairs in the step, so half of everything: rewards 3 and 1, sums -6 and -8.
    #[test]
    fn metrics_are_named_in_their_order() {
        let response = |policy| Response {
            policy,
            reference: None,
            tokens: 2,
        };
        let responses = [response(-6.0), response(-8.0)];
        let part = part(
            &responses,
            Totals { rows: 2, tokens: 8 },
            5.0,
            [-1.0, 4.0],
            [3.0, 1.0],
            &[7.0],
        );
        assert_eq!((part.loss, part.slopes), (2.5, vec![-0.5, 2.0]));
        assert_eq!(part.metrics, [1.5, 0.5, 0.5, 1.0, -3.0, -4.0, 3.5]);
        assert_eq!(metrics::<7>(&["more"])[5..], ["logps/rejected", "more"]);
        assert_eq!(means(&responses), [-3.0, -4.0]);
    }
}

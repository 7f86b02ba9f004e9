//! ORPO (Hong et al. 2024, arXiv 2403.07691, equations 4, 6 and 7): the negative log-likelihood of
//! the chosen response, plus a term that compares the odds of the pair; no reference.
//!
//! With P(y) = exp(log pi(y|x) / |y|) and odds(y) = P(y) / (1 - P(y)): loss -log P(y_w) + beta * (-log sigmoid(log odds(y_w)
//! - log odds(y_l))). beta is the paper's lambda (TRL's name and default).
//!
//! Only response tokens are in the loss, and each response is divided by its own length, as in the
//! paper and LLaMA-Factory's `pref_loss: orpo`. TRL's ORPO trainer averages the first term over all
//! tokens of a batch's chosen sequences, prompts included, as the authors' code does by default.

use super::{LossSpec, Response, RowLoss, Totals, pair};
use crate::settings::{ABOVE_0, Recorded, Setting, Values};

/// Odds ratio preference optimization. Rewards are beta * log P(y). The names of metrics are TRL's:
/// `log_odds_chosen` is the log of the odds ratio, `log_odds_ratio` its log sigmoid, so the loss is
/// `nll_loss` - beta * `log_odds_ratio`.
pub static ORPO: LossSpec = LossSpec {
    name: "orpo",
    flag: None,
    responses: 2,
    reference: false,
    settings: &[
        Setting::number("beta", "odds-ratio weight", "B", 0.1, ABOVE_0)
            .recorded(Recorded::Always)
            .shared(),
    ],
    unit: None,
    phrase: |_| "the orpo loss".to_owned(),
    about: |_| {
        "The ORPO loss is the negative log-likelihood of the chosen response plus a term that falls as its odds rise above those \
         of the rejected one. It has no reference model. There is no single value that means no preference."
            .to_owned()
    },
    metrics: &pair::metrics::<9>(&["nll_loss", "log_odds_ratio", "log_odds_chosen"]),
    row,
};

/// Slopes with respect to the sums of log-probabilities: -1 / |y_w|, and beta / |y| times the slope
/// of the second term.
fn row(settings: &Values, responses: &[Response], totals: Totals) -> RowLoss {
    let beta = settings.number("beta");
    let means = pair::means(responses);
    let [chosen, rejected] = means.map(log_odds);
    let log_ratio = chosen.0 - rejected.0;
    let (value, slope) = pair::logistic(log_ratio, 0.0);
    let slopes = [
        (beta * slope * chosen.1 - 1.0) / responses[0].tokens as f64,
        -beta * slope * rejected.1 / responses[1].tokens as f64,
    ];
    let nll = -means[0];
    let more = [nll, -value, log_ratio];
    pair::part(
        responses,
        totals,
        nll + beta * value,
        slopes,
        means.map(|mean| beta * mean),
        &more,
    )
}

/// log(P / (1 - P)) at log P, and its derivative with respect to log P, 1 / (1 - P).
///
/// Both grow without bound as P approaches 1. There, log P consists of a few roundings of f32
/// logits, and its gradient is as small as the derivative is large. Closer than f32's epsilon, a
/// slope would be a huge multiple of rounding errors, so log P is clamped to -epsilon (log odds of
/// 15.9). A certain response has a finite loss, and is still pushed away if it is the rejected one.
fn log_odds(log_p: f64) -> (f64, f64) {
    let log_p = log_p.min(-f64::from(f32::EPSILON));
    (log_p - log_1m_exp(log_p), -1.0 / log_p.exp_m1())
}

/// log(1 - e^x) for x < 0, without losing x near 0 or e^x next to 1 (Maechler 2012).
fn log_1m_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 {
        (-x.exp_m1()).ln()
    } else {
        (-x.exp()).ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::super::Objective;
    use super::*;

    const ONE: Totals = Totals {
        rows: 1,
        tokens: 10,
    };

    fn row(policy: [f64; 2], tokens: [usize; 2]) -> Vec<Response> {
        [0, 1]
            .map(|i| Response {
                policy: policy[i],
                reference: None,
                tokens: tokens[i],
            })
            .to_vec()
    }

    /// Probabilities per token 3/4 and 1/3: odds 3 and 1/2, ratio 6, sigmoid(log 6) = 6/7. With
    /// beta 0.7 the loss is -log(3/4) - 0.7 log(6/7) = 0.2876821 + 0.7 * 0.1541507. Slopes: d log
    /// odds / d log P is 1 / (1 - P) = 4 and 3/2, and the derivative of -log sigmoid is -1/7, so
    /// (-1 - 0.7 * 4 / 7) / 4 tokens = -0.35 and 0.7 * 1.5 / 7 / 5 tokens = 0.03.
    #[test]
    fn likelihood_of_the_chosen_and_odds_of_both() {
        let orpo = Objective::new(&ORPO).with("beta", 0.7);
        let part = orpo.row(
            &row([4.0 * 0.75f64.ln(), 5.0 * (1.0 / 3.0f64).ln()], [4, 5]),
            ONE,
        );
        assert!((part.loss - 0.395_587_548).abs() < 1e-9, "{part:?}");
        assert!(
            (part.slopes[0] + 0.35).abs() < 1e-15 && (part.slopes[1] - 0.03).abs() < 1e-15,
            "{part:?}"
        );
        let [nll, ratio, odds] = part.metrics[6..] else {
            panic!("{part:?}")
        };
        assert!((nll - 0.287_682_072).abs() < 1e-9 && (odds - 6f64.ln()).abs() < 1e-15);
        assert!(
            (ratio - (6.0f64 / 7.0).ln()).abs() < 1e-15
                && (part.loss - (nll - 0.7 * ratio)).abs() < 1e-15
        );
        assert!((part.metrics[0] - 0.7 * 0.75f64.ln()).abs() < 1e-15 && part.metrics[2] == 1.0);
    }

    /// log(1 - e^x) is log(-x) + x/2 + O(x^2) near 0 and -e^x - O(e^2x) far from it; at -log 2 it is -log 2, from both sides.
    #[test]
    fn log_1m_exp_keeps_its_digits_at_both_ends() {
        for x in [-1e-6, -1e-9, -1e-15, -1e-300] {
            let found = log_1m_exp(x);
            assert!(
                (found - ((-x).ln() + x / 2.0)).abs() < 1e-12,
                "{x}: {found}"
            );
        }
        for x in [-40f64, -300.0, -700.0] {
            assert!((log_1m_exp(x) / -x.exp() - 1.0).abs() < 1e-15, "{x}");
        }
        assert_eq!(log_1m_exp(-1e4), 0.0);
        for x in [-LN_2, -LN_2 + 1e-15, -LN_2 - 1e-15] {
            assert!((log_1m_exp(x) + LN_2).abs() < 4e-15);
        }
    }

    /// If the chosen response is certain, the second term's slope tends to -odds(y_l): sigmoid(-z)
    /// / (1 - P_w) = odds(y_l) / (P_w + odds(y_l) (1 - P_w)). With P_l = 1/3 that is -1/2, for log
    /// P_w = -1e-6 and for values that are clamped to -f32::EPSILON.
    #[test]
    fn a_certain_chosen_response_has_a_finite_slope() {
        let orpo = Objective::new(&ORPO).with("beta", 1.0);
        for log_p in [-1e-6, -1e-9, -1e-12, 0.0, 1e-8] {
            let part = orpo.row(&row([log_p, (1.0 / 3.0f64).ln()], [1, 1]), ONE);
            assert!(
                (part.slopes[0] - (-1.0 - 0.5)).abs() < 1e-6,
                "{log_p}: {part:?}"
            );
            assert!((0.0..1e-5).contains(&part.loss), "{log_p}: {part:?}");
        }
    }

    /// A certain rejected response: log odds stop at log(1 / epsilon) = 15.94, and the response is
    /// still pushed away.
    #[test]
    fn a_certain_rejected_response_is_pushed_away() {
        let orpo = Objective::new(&ORPO).with("beta", 1.0);
        for log_p in [-1e-9, 0.0, 1e-8] {
            let part = orpo.row(&row([-LN_2, log_p], [1, 1]), ONE);
            assert!(
                (part.loss - (LN_2 + 15.942_385)).abs() < 1e-5,
                "{log_p}: {part:?}"
            );
            assert!(
                (part.slopes[1] * f64::from(f32::EPSILON) - 1.0).abs() < 1e-6,
                "{log_p}: {part:?}"
            );
        }
        // Both responses are certain: the odds are equal.
        let part = orpo.row(&row([0.0, 0.0], [3, 2]), ONE);
        assert!(
            (part.loss - LN_2).abs() < 1e-15 && part.slopes.iter().all(|slope| slope.is_finite()),
            "{part:?}"
        );
    }
}

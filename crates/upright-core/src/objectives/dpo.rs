//! DPO (1)-(3) and IPO, which compare the policy's log-ratio of a pair with the reference's.
//!
//! With logits = (log pi(y_w|x) - log ref(y_w|x)) - (log pi(y_l|x) - log ref(y_l|x)), sums over the tokens of a response,
//! and h = beta * logits:
//! - DPO: -(1 - e) log sigmoid(h) - e log sigmoid(-h), where e is the label smoothing (0: the paper's loss; else cDPO, as
//!   in the DPO authors' code; TRL 1.16 ignores its label_smoothing with this loss);
//! - IPO (Azar et al. 2023, equation 17): (logits - 1 / (2 beta))^2, with sums as in that paper and the DPO authors' code
//!   (TRL divides log-probabilities by the length of the response first).

use super::{LossSpec, Response, RowLoss, Totals, pair};
use crate::settings::{ABOVE_0, BELOW_HALF, Recorded, Setting, Values};

/// The KL strength of losses with a reference.
pub(super) const BETA: Setting = Setting::number("beta", "KL strength", "B", 0.1, ABOVE_0)
    .recorded(Recorded::Always)
    .shared();

/// Label smoothing.
pub(super) const LABEL_SMOOTHING: Setting = Setting::number(
    "label-smoothing",
    "label smoothing, the assumed fraction of flipped pairs,",
    "SHARE",
    0.0,
    BELOW_HALF,
)
.recorded(Recorded::Always)
.shared();

/// Direct preference optimization (1)-(3), with label smoothing. The flag has TRL's name.
pub static DPO: LossSpec = LossSpec {
    name: "dpo",
    flag: Some("sigmoid"),
    responses: 2,
    reference: true,
    settings: &[BETA, LABEL_SMOOTHING],
    metrics: &pair::METRICS,
    unit: Some("nats"),
    phrase: |settings| {
        let beta = settings.number("beta");
        format!("direct preference optimization (DPO, beta {beta})")
    },
    about: |_| {
        "The loss of direct preference optimization (DPO) falls as the chosen response becomes more likely than the rejected one, \
         relative to a frozen reference model. 0.693 means no preference."
            .to_owned()
    },
    row: |settings, responses, totals| row(settings, responses, totals, sigmoid_loss),
};

/// Identity preference optimization (Azar et al. 2023).
pub static IPO: LossSpec = LossSpec {
    name: "ipo",
    flag: None,
    responses: 2,
    reference: true,
    settings: &[BETA],
    metrics: &pair::METRICS,
    unit: None,
    phrase: |_| "the ipo loss".to_owned(),
    about: about_ipo,
    row: |settings, responses, totals| row(settings, responses, totals, squared_loss),
};

/// A model without a preference has logits of 0, and so the square of the target as its loss.
fn about_ipo(settings: &Values) -> String {
    let margin = 0.5 / settings.number("beta");
    format!(
        "The IPO loss is the squared distance of the margin from its target, {}. The margin is the log-ratio by which the chosen \
         response has become more likely than the rejected one, relative to a frozen reference model. {} means no preference, and \
         a margin above the target raises the loss too.",
        pair::short(margin),
        pair::short(margin * margin)
    )
}

/// `loss` maps logits to a value and its derivative. The derivative is the slope of the chosen
/// response, and its negative is the slope of the rejected response.
fn row(
    settings: &Values,
    responses: &[Response],
    totals: Totals,
    loss: fn(&Values, f64) -> (f64, f64),
) -> RowLoss {
    let [chosen, rejected] = log_ratios(responses);
    let (value, slope) = loss(settings, chosen - rejected);
    let beta = settings.number("beta");
    let rewards = [beta * chosen, beta * rejected];
    pair::part(responses, totals, value, [slope, -slope], rewards, &[])
}

/// log pi(y|x) - log ref(y|x) of the chosen and the rejected response.
pub(super) fn log_ratios(responses: &[Response]) -> [f64; 2] {
    let ratio = |response: &Response| {
        response.policy - response.reference.expect("the row has a reference")
    };
    [ratio(&responses[0]), ratio(&responses[1])]
}

/// d/dlogits = beta * (-(1 - e) sigmoid(-h) + e sigmoid(h)).
pub(super) fn sigmoid_loss(settings: &Values, logits: f64) -> (f64, f64) {
    let beta = settings.number("beta");
    let (value, slope) = pair::logistic(beta * logits, settings.number("label-smoothing"));
    (value, beta * slope)
}

/// d/dlogits = 2 * (logits - 1 / (2 beta)).
fn squared_loss(settings: &Values, logits: f64) -> (f64, f64) {
    let distance = logits - 0.5 / settings.number("beta");
    (distance * distance, 2.0 * distance)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::super::{Objective, evaluate};
    use super::*;

    fn objective(loss: &'static LossSpec, beta: f64, label_smoothing: f64) -> Objective {
        Objective::new(loss)
            .with("beta", beta)
            .with("label-smoothing", label_smoothing)
    }

    fn row(policy: [f64; 2], reference: [f64; 2]) -> Vec<Response> {
        (0..2)
            .map(|i| Response {
                policy: policy[i],
                reference: Some(reference[i]),
                tokens: 5,
            })
            .collect()
    }

    /// torchtune's `test_dpo_loss.py`: beta 0.1; ratios chosen minus rejected of the policy -0.4,
    /// 20, 20, of the reference -0.4, 10, 0; so logits 0, 10, 20 and h 0, 1, 2: -log sigmoid(h) =
    /// log(1 + e^-h) = 0.6931, 0.3133, 0.1269.
    #[test]
    fn published_losses() {
        let dpo = objective(&DPO, 0.1, 0.0);
        let rows = [
            row([-0.5, -0.1], [-0.5, -0.1]),
            row([-10.0, -30.0], [-10.1, -20.1]),
            row([-1.0, -21.0], [-0.1, -0.1]),
        ];
        let one = Totals {
            rows: 1,
            tokens: 10,
        };
        for (row, expected) in rows.iter().zip([LN_2, 0.313_262, 0.126_928]) {
            assert!((dpo.row(row, one).loss - expected).abs() < 1e-6);
        }
        let (loss, slopes, metrics) = evaluate(&dpo, &rows);
        assert!((loss - (LN_2 + 0.313_262 + 0.126_928) / 3.0).abs() < 1e-6);
        // -beta (1 - sigmoid(1)) / 3 = -0.1 * 0.268941 / 3
        assert!((slopes[1][0] + 0.008_964_7).abs() < 1e-7 && slopes[1][1] == -slopes[1][0]);
        // rewards: chosen 0, 0.01, -0.09; rejected 0, -0.99, -2.09; the first pair has equal
        // rewards, which do not count as accurate
        let expected = [
            -0.08 / 3.0,
            -3.08 / 3.0,
            2.0 / 3.0,
            1.0,
            -11.5 / 3.0,
            -51.1 / 3.0,
        ];
        assert!(
            metrics
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-12),
            "{metrics:?}"
        );
    }

    #[test]
    fn policy_equal_to_reference_is_ln_2() {
        for (logps, beta, smoothing) in [
            ([-80.1, -77.9], 0.1, 0.0),
            ([-3e4, -1e-3], 5.0, 0.0),
            ([-9.0, -4.0], 0.1, 0.3),
        ] {
            let rows: Vec<_> = (0..8).map(|_| row(logps, logps)).collect();
            let (loss, slopes, _) = evaluate(&objective(&DPO, beta, smoothing), &rows);
            assert!((loss - LN_2).abs() < 1e-15, "{loss}");
            assert!((slopes[0][0] + beta * (0.5 - smoothing) / 8.0).abs() < 1e-16);
        }
    }

    /// h = 1: -(0.9 log sigmoid(1) + 0.1 log sigmoid(-1)) = 0.9 * 0.3132617 + 0.1 * 1.3132617 = 0.4132617, and
    /// d/dh = sigmoid(1) - 0.9 = -0.1689414.
    #[test]
    fn label_smoothing_pulls_the_margin_to_a_finite_value() {
        let smooth = objective(&DPO, 0.5, 0.1);
        let part = smooth.row(
            &row([-1.0, -3.0], [-1.0, -1.0]),
            Totals {
                rows: 1,
                tokens: 10,
            },
        );
        assert!((part.loss - 0.413_261_687).abs() < 1e-9);
        assert!((part.slopes[0] - 0.5 * -0.168_941_421).abs() < 1e-9);
        // The minimum is where sigmoid(h) = 0.9.
        let h = (0.9f64 / 0.1).ln();
        assert!(
            smooth
                .row(
                    &row([h / 0.5, 0.0], [0.0, 0.0]),
                    Totals {
                        rows: 1,
                        tokens: 10
                    }
                )
                .slopes[0]
                .abs()
                < 1e-15
        );
    }

    /// beta 0.25: (logits - 2)^2 at logits 3 is 1, slope 2; at the target 2 both are 0.
    #[test]
    fn ipo_is_a_squared_distance_to_half_over_beta() {
        let ipo = objective(&IPO, 0.25, 0.0);
        let at = |logits: f64| {
            ipo.row(
                &row([-5.0 + logits, -7.0], [-5.0, -7.0]),
                Totals {
                    rows: 2,
                    tokens: 10,
                },
            )
        };
        assert_eq!((at(3.0).loss, at(3.0).slopes), (0.5, vec![1.0, -1.0]));
        assert_eq!((at(2.0).loss, at(2.0).slopes[0]), (0.0, 0.0));
        assert_eq!(at(0.0).loss, 2.0);
    }

    #[test]
    fn huge_margins_stay_finite() {
        for kind in [&DPO, &IPO] {
            for smoothing in [0.0, 0.1] {
                for logits in [1e3, -1e3, 1e6, -1e6, 1e150, -1e150] {
                    let objective = objective(kind, 0.5, smoothing);
                    let part = objective.row(
                        &row([logits, -1e3], [0.0, -1e3]),
                        Totals { rows: 1, tokens: 2 },
                    );
                    let numbers = part.slopes.iter().chain(&part.metrics).chain([&part.loss]);
                    assert!(
                        numbers.clone().all(|x| x.is_finite()),
                        "{kind:?} {logits}: {part:?}"
                    );
                }
            }
        }
    }

    /// A log-probability of -infinity means a broken model, not a large margin: the loss shows it.
    #[test]
    fn an_infinite_log_probability_is_not_hidden() {
        let dpo = objective(&DPO, 0.1, 0.0);
        let part = dpo.row(
            &row([f64::NEG_INFINITY, -1.0], [-1.0, -1.0]),
            Totals { rows: 1, tokens: 2 },
        );
        assert_eq!(part.loss, f64::INFINITY);
    }
}

//! A loss: the hinge of SLiC-HF (Zhao et al. 2023, arXiv 2305.10425, equation 1) on log-probabilities per token, without the
//! regularization.
//!
//! With m(y) = log pi(y|x) / |y|: loss max(0, delta - m(y_w) + m(y_l)). delta is the setting `delta`.

use upright_core::{
    objectives::{
        LossSpec, Response, RowLoss, Totals,
        pair::{self, METRICS},
    },
    settings::{FROM_0, Setting, Values},
};

/// The loss, as the program knows it.
pub(crate) static HINGE: LossSpec = LossSpec {
    name: "hinge",
    flag: None,
    responses: 2,
    reference: false,
    settings: &[Setting::number(
        "delta",
        "margin at which a pair has no loss, in nats per token,",
        "NATS",
        1.0,
        FROM_0,
    )],
    metrics: &METRICS,
    unit: Some("nats/token"),
    phrase: |settings| format!("the hinge loss with delta {}", settings.number("delta")),
    about: |settings| {
        let delta = settings.number("delta");
        format!(
            "The hinge loss is 0 once the mean log-probability per token of the chosen response exceeds that of the rejected one by \
             {delta}. {delta} means no preference."
        )
    },
    row,
};

/// Slopes: -1 / |y_w| and 1 / |y_l| below the margin, 0 above it.
fn row(settings: &Values, responses: &[Response], totals: Totals) -> RowLoss {
    let rewards = pair::means(responses);
    let distance = settings.number("delta") - rewards[0] + rewards[1];
    let slopes = if distance > 0.0 {
        [
            -1.0 / responses[0].tokens as f64,
            1.0 / responses[1].tokens as f64,
        ]
    } else {
        [0.0, 0.0]
    };
    pair::part(responses, totals, distance.max(0.0), slopes, rewards, &[])
}

#[cfg(test)]
mod tests {
    use upright_core::objectives::{Objective, evaluate};

    use super::*;

    fn pair(chosen: f64, rejected: f64) -> Vec<Response> {
        let response = |policy| Response {
            policy,
            reference: None,
            tokens: 4,
        };
        vec![response(chosen), response(rejected)]
    }

    /// -6 / 4 and -8 / 4 nats per token differ by 0.5, so the loss is 1 - 0.5. -4 / 4 and -12 / 4 differ by 2.
    #[test]
    fn a_pair_has_a_loss_below_the_margin() {
        let hinge = Objective::new(&HINGE);
        let (loss, slopes, _) = evaluate(&hinge, &[pair(-6.0, -8.0)]);
        assert_eq!(loss, 0.5);
        assert_eq!(slopes, [[-0.25, 0.25]]);
        let (loss, slopes, _) = evaluate(&hinge, &[pair(-4.0, -12.0)]);
        assert_eq!(loss, 0.0);
        assert_eq!(slopes, [[0.0, 0.0]]);
    }

    #[test]
    fn slopes_are_the_derivatives_of_the_loss() {
        let hinge = Objective::new(&HINGE).with("delta", 0.7);
        let (_, slopes, _) = evaluate(&hinge, &[pair(-6.0, -6.5)]);
        let step = 2f64.powi(-14);
        for response in 0..2 {
            let moved = |by: f64| {
                let mut pair = pair(-6.0, -6.5);
                pair[response].policy += by;
                evaluate(&hinge, &[pair]).0
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((difference - slopes[0][response]).abs() < 1e-9);
        }
    }
}

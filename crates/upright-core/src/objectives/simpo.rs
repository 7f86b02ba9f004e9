//! SimPO (Meng et al. 2024, arXiv 2405.14734, equation 6): compares the log-probabilities per token
//! of a pair with each other, without a reference.
//!
//! h = beta * log pi(y_w|x) / |y_w| - beta * log pi(y_l|x) / |y_l| - gamma; loss -log sigmoid(h),
//! with label smoothing as in `dpo.rs` (the authors' code and TRL's CPO trainer have it; the
//! paper's loss does not). gamma is the target margin between the rewards, `simpo_gamma` in TRL and
//! LLaMA-Factory. The authors' models have beta 2 or 2.5, and the authors suggest starting with
//! gamma / beta = 0.5: hence the defaults 2 and 1. TRL and LLaMA-Factory start with beta 0.1 and
//! gamma 0.5.

use super::{LossSpec, Response, RowLoss, Totals, dpo::LABEL_SMOOTHING, pair};
use crate::settings::{ABOVE_0, FROM_0, Recorded, Setting, Values};

/// Simple preference optimization. Rewards are beta * log pi(y|x) / |y|; the margin does not subtract gamma.
pub static SIMPO: LossSpec = LossSpec {
    name: "simpo",
    flag: None,
    responses: 2,
    reference: false,
    settings: &[
        Setting::number("beta", "reward scale", "B", 2.0, ABOVE_0)
            .recorded(Recorded::Always)
            .shared(),
        LABEL_SMOOTHING,
        Setting::number("gamma", "target reward margin", "G", 1.0, FROM_0),
    ],
    metrics: &pair::METRICS,
    unit: None,
    phrase: |_| "the simpo loss".to_owned(),
    about,
    row,
};

/// The loss of equal rewards is log(1 + e^gamma), with the opposite sign for the pairs that label smoothing assumes to be flipped.
fn about(settings: &Values) -> String {
    let gamma = settings.number("gamma");
    let flipped = settings.number("label-smoothing");
    let even = (1.0 - flipped) * gamma.exp().ln_1p() + flipped * (-gamma).exp().ln_1p();
    format!(
        "The SimPO loss falls as the mean log-probability per token of the chosen response rises above that of the rejected one. \
         It has no reference model. {even:.3} means no preference."
    )
}

/// Slopes: beta / |y| times d/dh, with the opposite sign for the rejected response.
fn row(settings: &Values, responses: &[Response], totals: Totals) -> RowLoss {
    let beta = settings.number("beta");
    let gamma = settings.number("gamma");
    let label_smoothing = settings.number("label-smoothing");
    let rewards = pair::means(responses).map(|mean| beta * mean);
    let (value, slope) = pair::logistic(rewards[0] - rewards[1] - gamma, label_smoothing);
    let slopes = [
        slope * beta / responses[0].tokens as f64,
        -slope * beta / responses[1].tokens as f64,
    ];
    pair::part(responses, totals, value, slopes, rewards, &[])
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::super::Objective;
    use super::*;

    fn row(policy: [f64; 2], tokens: [usize; 2]) -> Vec<Response> {
        [0, 1]
            .map(|i| Response {
                policy: policy[i],
                reference: None,
                tokens: tokens[i],
            })
            .to_vec()
    }

    /// The defaults: -4 / 4 = -1 and -6 / 3 = -2 nats per token, rewards -2 and -4, h = 2 - 1 = 1:
    /// -log sigmoid(1) = 0.3132617, and -sigmoid(-1) = -0.2689414 times 2 / 4 and -2 / 3.
    #[test]
    fn likelihoods_a_token_are_compared() {
        let simpo = Objective::new(&SIMPO);
        assert_eq!(simpo.settings.number("beta"), 2.0);
        assert_eq!(simpo.settings.number("gamma"), 1.0);
        let part = simpo.row(&row([-4.0, -6.0], [4, 3]), Totals { rows: 1, tokens: 7 });
        assert!((part.loss - 0.313_261_688).abs() < 1e-9);
        assert!(
            (part.slopes[0] + 0.134_470_711).abs() < 1e-9
                && (part.slopes[1] - 0.179_294_280).abs() < 1e-9
        );
        assert_eq!(part.metrics, [-2.0, -4.0, 1.0, 2.0, -4.0, -6.0]);
    }

    /// A margin of exactly gamma is h = 0, where the loss is ln 2. Equal rewards are h = -gamma:
    /// the loss is log(1 + e^gamma), and they do not count as accurate.
    #[test]
    fn gamma_is_the_margin_asked_for() {
        let simpo = Objective::new(&SIMPO).with("beta", 2.5).with("gamma", 1.25);
        let totals = Totals {
            rows: 1,
            tokens: 12,
        };
        assert!((simpo.row(&row([-4.0, -12.0], [4, 8]), totals).loss - LN_2).abs() < 1e-15);
        let equal = simpo.row(&row([-4.0, -8.0], [4, 8]), totals);
        assert!((equal.loss - 1.25f64.exp().ln_1p()).abs() < 1e-15 && equal.metrics[2] == 0.0);
    }
}

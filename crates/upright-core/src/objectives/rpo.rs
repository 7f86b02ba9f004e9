//! RPO: DPO plus the negative log-likelihood of the chosen response (Iterative Reasoning Preference
//! Optimization, Pang et al. 2024, arXiv 2404.19733, version 3, section 2).
//!
//! DPO's loss of the pair (`dpo.rs`, label smoothing included) + alpha * (-log pi(y_w|x) / |y_w|).
//! As in the paper, every response is divided by its own length, so a long response weighs no more
//! than a short one. In the paper's first version, alpha was a factor of the DPO term.
//!
//! LLaMA-Factory's `pref_ftx` is this alpha, off by default. TRL's
//! `loss_type=["sigmoid", "sft"], loss_weights=[1, alpha]` (formerly `rpo_alpha`) divides the sum
//! over a batch's chosen responses by the tokens of all of them, so a long response weighs more.
//! The chosen responses come from the preference data. Rows of an instruction data set belong to
//! another objective, SFT.

use super::{
    LossSpec, Response, RowLoss, Totals,
    dpo::{BETA, LABEL_SMOOTHING, log_ratios, sigmoid_loss},
    pair,
};
use crate::settings::{FROM_0, Setting, Values};

/// DPO with the negative log-likelihood of the chosen response. `nll_loss` is TRL's name; the loss is `dpo_loss` + alpha *
/// `nll_loss`.
pub static RPO: LossSpec = LossSpec {
    name: "rpo",
    flag: None,
    responses: 2,
    reference: true,
    settings: &[
        BETA,
        LABEL_SMOOTHING,
        Setting::number(
            "alpha",
            "weight of the chosen response's negative log-likelihood per token",
            "A",
            1.0,
            FROM_0,
        ),
    ],
    unit: None,
    phrase: |_| "the rpo loss".to_owned(),
    about: |_| {
        "The RPO loss is the DPO loss plus a weighted negative log-likelihood of the chosen response. The DPO term falls as the \
         chosen response becomes more likely than the rejected one, relative to a frozen reference model. There is no single \
         value that means no preference."
            .to_owned()
    },
    metrics: &pair::metrics::<8>(&["nll_loss", "dpo_loss"]),
    row,
};

/// Slopes: DPO's, plus -alpha / |y_w| for the chosen response.
fn row(settings: &Values, responses: &[Response], totals: Totals) -> RowLoss {
    let alpha = settings.number("alpha");
    let beta = settings.number("beta");
    let ratios = log_ratios(responses);
    let (dpo, slope) = sigmoid_loss(settings, ratios[0] - ratios[1]);
    let nll = -pair::means(responses)[0];
    let slopes = [slope - alpha / responses[0].tokens as f64, -slope];
    pair::part(
        responses,
        totals,
        dpo + alpha * nll,
        slopes,
        ratios.map(|ratio| beta * ratio),
        &[nll, dpo],
    )
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::super::{Objective, dpo::DPO, evaluate};
    use super::*;

    fn row(policy: [f64; 2], reference: [f64; 2], tokens: [usize; 2]) -> Vec<Response> {
        [0, 1]
            .map(|i| Response {
                policy: policy[i],
                reference: Some(reference[i]),
                tokens: tokens[i],
            })
            .to_vec()
    }

    /// beta 0.5, alpha 2: ratios 1 and -1, so h = 0.5 * 2 = 1 and -log sigmoid(1) = 0.3132617; the
    /// chosen response has -6 / 4 = -1.5 nats per token, so the loss is 0.3132617 + 2 * 1.5. d/dh =
    /// -sigmoid(-1) = -0.2689414, so the slopes are -0.1344707 - 2 / 4 and 0.1344707.
    #[test]
    fn dpo_and_the_chosen_response_a_token() {
        let rpo = Objective::new(&RPO).with("beta", 0.5).with("alpha", 2.0);
        let part = rpo.row(
            &row([-6.0, -9.0], [-7.0, -8.0], [4, 3]),
            Totals { rows: 1, tokens: 7 },
        );
        assert!((part.loss - 3.313_261_688).abs() < 1e-9, "{part:?}");
        assert!(
            (part.slopes[0] + 0.634_470_711).abs() < 1e-9
                && (part.slopes[1] - 0.134_470_711).abs() < 1e-9
        );
        assert_eq!(part.metrics[..6], [0.5, -0.5, 1.0, 1.0, -6.0, -9.0]);
        assert!(part.metrics[6] == 1.5 && (part.metrics[7] - 0.313_261_688).abs() < 1e-9);
    }

    /// Policy equal to the reference. Means of 2 and 6 nats per token weigh the same, though one
    /// response has nine times the tokens: ln 2 + (2 + 6) / 2, where a mean over all tokens would
    /// give ln 2 + (18 + 6) / 10.
    #[test]
    fn every_response_is_divided_by_its_own_length() {
        let rows = [
            row([-18.0, -5.0], [-18.0, -5.0], [9, 2]),
            row([-6.0, -5.0], [-6.0, -5.0], [1, 2]),
        ];
        let (loss, slopes, _) = evaluate(&Objective::new(&RPO), &rows);
        assert!((loss - (LN_2 + 4.0)).abs() < 1e-15);
        assert!(
            (slopes[0][0] - (-0.025 - 1.0 / 18.0)).abs() < 1e-16
                && (slopes[1][0] - (-0.025 - 0.5)).abs() < 1e-15
        );
    }

    /// With alpha 0 the loss is DPO's, to the bit, label smoothing included.
    #[test]
    fn without_alpha_it_is_dpo() {
        let settings = |loss| {
            Objective::new(loss)
                .with("beta", 0.3)
                .with("label-smoothing", 0.2)
                .with("alpha", 0.0)
        };
        let (rows, totals) = (
            row([-6.0, -9.0], [-7.0, -7.5], [4, 3]),
            Totals { rows: 3, tokens: 7 },
        );
        let [rpo, dpo] = [&RPO, &DPO].map(|loss| settings(loss).row(&rows, totals));
        assert_eq!((rpo.loss, rpo.slopes), (dpo.loss, dpo.slopes));
        assert_eq!(rpo.metrics[..6], dpo.metrics);
    }
}

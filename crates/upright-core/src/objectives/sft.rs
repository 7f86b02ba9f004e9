//! SFT (4): the negative log-likelihood of the response given the prompt.
//!
//! As in the authors' code, it is the mean over all tokens in the loss of the step. The paper's
//! formula averages summed log-probabilities over rows.

use super::{LossSpec, Response, RowLoss, Totals};
use crate::settings::Values;

/// Negative log-likelihood.
pub static SFT: LossSpec = LossSpec {
    name: "sft",
    flag: None,
    responses: 1,
    reference: false,
    settings: &[],
    metrics: &[],
    unit: Some("nats/token"),
    phrase: |_| "the negative log-likelihood of responses (SFT)".to_owned(),
    about: |_| {
        "The loss is the negative log-likelihood of a response, per token; 0 would be certainty."
            .to_owned()
    },
    row,
};

/// -sum(logp) / tokens of the step. The slope of every token is -1 / tokens of the step.
fn row(_: &Values, responses: &[Response], totals: Totals) -> RowLoss {
    let slope = -1.0 / totals.tokens as f64;
    RowLoss {
        loss: slope * responses[0].policy,
        slopes: vec![slope],
        metrics: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Objective, Response, Totals};
    use super::SFT;

    /// Two rows of 3 and 1 tokens: -(-6 - 2) / 4 = 2. The mean of the rows' means, (2 + 2) / 2,
    /// agrees only because both rows have the same mean; with -6 and -4 it is (6 + 4) / 4 = 2.5
    /// against (2 + 4) / 2 = 3.
    #[test]
    fn tokens_weigh_the_same_in_every_row() {
        let sft = Objective::new(&SFT);
        let totals = Totals { rows: 2, tokens: 4 };
        let part = |policy, tokens| {
            sft.row(
                &[Response {
                    policy,
                    reference: None,
                    tokens,
                }],
                totals,
            )
        };
        assert_eq!(part(-6.0, 3).loss + part(-2.0, 1).loss, 2.0);
        assert_eq!(part(-6.0, 3).loss + part(-4.0, 1).loss, 2.5);
        assert_eq!(part(-6.0, 3).slopes, [-0.25]);
    }
}

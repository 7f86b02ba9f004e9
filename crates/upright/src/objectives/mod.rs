//! Objectives: log-probabilities in, loss and slopes out. Plain f64, no tensor, no text. A new loss is a new file, and
//! its line in [`LossKind`] and in [`LossKind::form`].
//!
//! A loss here is a sum over rows, and each row's part is a function of the log-probabilities of its responses. The
//! totals of the step come first ([`Totals`], over all packs), so that a step cut into packs adds up to the same loss:
//! never a mean of means.

pub mod dpo;
pub mod sft;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The losses by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Negative log-likelihood of the response (4).
    Sft,
    /// Direct preference optimisation (1)-(3), with label smoothing.
    Dpo,
    /// Identity preference optimisation (Azar et al. 2023).
    Ipo,
}

impl LossKind {
    /// What the loss is made of.
    pub fn form(self) -> &'static Form {
        match self {
            Self::Sft => &sft::SFT,
            Self::Dpo => &dpo::DPO,
            Self::Ipo => &dpo::IPO,
        }
    }
}

/// What a loss needs, and the loss itself.
pub struct Form {
    /// Responses of a row: 1 (instruction), or 2 (preference: chosen, then rejected).
    pub responses: usize,
    /// Whether it needs the reference's log-probabilities.
    pub reference: bool,
    /// Names of the metrics, in the order of [`RowLoss::metrics`]; TRL's.
    pub metrics: &'static [&'static str],
    /// The part of one row.
    row: fn(&Objective, &[Response], Totals) -> RowLoss,
}

/// A loss with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Which loss.
    pub kind: LossKind,
    /// Strength of the tie to the reference; unused by SFT.
    pub beta: f64,
    /// Share of pairs taken to be labelled the wrong way round; DPO only.
    pub label_smoothing: f64,
}

/// Sizes of a step of one objective, over all its packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows.
    pub rows: usize,
    /// Scored tokens: of all responses, end-of-sequence included.
    pub tokens: usize,
}

/// One response of a row, as models score it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Response {
    /// Sum of the policy's log-probabilities over its tokens, in nats.
    pub policy: f64,
    /// The same sum of the reference; not looked at where the loss needs none.
    pub reference: Option<f64>,
    /// Number of tokens.
    pub tokens: usize,
}

/// What one row adds to a step.
#[derive(Clone, Debug, PartialEq)]
pub struct RowLoss {
    /// Its part of the loss: the parts of all rows sum to the loss of the step.
    pub loss: f64,
    /// d loss / d logp of every token of a response: one slope a response, for the loss sees only sums.
    pub slopes: Vec<f64>,
    /// Its part of every metric, in the order of [`Form::metrics`]: the parts of all rows sum to the step's value.
    pub metrics: Vec<f64>,
}

impl Objective {
    /// Loss, slopes and metrics of one row in a step of the given size.
    ///
    /// # Panics
    /// If the row has another number of responses than [`Form::responses`], or no reference where one is needed.
    pub fn row(&self, responses: &[Response], totals: Totals) -> RowLoss {
        let form = self.kind.form();
        assert_eq!(responses.len(), form.responses, "responses of a row of {:?}", self.kind);
        (form.row)(self, responses, totals)
    }
}

/// A whole batch at once: the loss, the slopes of every row, and the metrics.
pub fn evaluate(objective: &Objective, rows: &[Vec<Response>]) -> (f64, Vec<Vec<f64>>, Vec<f64>) {
    let totals = Totals::of(rows);
    let mut loss = 0.0;
    let mut metrics = vec![0.0; objective.kind.form().metrics.len()];
    let slopes = rows.iter().map(|row| {
        let part = objective.row(row, totals);
        loss += part.loss;
        metrics.iter_mut().zip(&part.metrics).for_each(|(sum, value)| *sum += value);
        part.slopes
    });
    let slopes = slopes.collect();
    (loss, slopes, metrics)
}

impl Totals {
    /// Sizes of a batch.
    pub fn of(rows: &[Vec<Response>]) -> Self {
        Self { rows: rows.len(), tokens: rows.iter().flatten().map(|response| response.tokens).sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slopes against central differences of the loss, for every response of every row. The step is exact in binary, and
    /// the losses are smooth with third derivatives of order 1: the error is about h^2 + 1e-16 / h.
    #[test]
    fn slopes_are_the_derivatives_of_the_loss() {
        let objectives = [
            Objective { kind: LossKind::Sft, beta: 0.1, label_smoothing: 0.0 },
            Objective { kind: LossKind::Dpo, beta: 0.1, label_smoothing: 0.0 },
            Objective { kind: LossKind::Dpo, beta: 0.7, label_smoothing: 0.2 },
            Objective { kind: LossKind::Ipo, beta: 0.3, label_smoothing: 0.0 },
        ];
        for objective in objectives {
            let response =
                |policy: f64, reference: f64, tokens| Response { policy, reference: Some(reference), tokens };
            let pairs = [
                [response(-12.0, -13.5, 7), response(-20.0, -19.0, 11)],
                [response(-40.0, -31.0, 12), response(-9.0, -20.0, 3)],
                [response(-5.0, -5.0, 2), response(-6.0, -6.0, 2)],
            ];
            let rows: Vec<_> = pairs.map(|pair| pair[..objective.kind.form().responses].to_vec()).to_vec();
            let (_, slopes, _) = evaluate(&objective, &rows);
            let h = 2f64.powi(-14);
            for (i, row) in rows.iter().enumerate() {
                for j in 0..row.len() {
                    let at = |shift: f64| {
                        let mut moved = rows.clone();
                        moved[i][j].policy += shift;
                        evaluate(&objective, &moved).0
                    };
                    let difference = (at(h) - at(-h)) / (2.0 * h);
                    assert!((difference - slopes[i][j]).abs() < 1e-9, "{objective:?}: {difference} {}", slopes[i][j]);
                }
            }
        }
    }

    #[test]
    fn a_step_cut_into_packs_adds_up_to_the_same_loss() {
        let rows: Vec<_> = [(-3.0, 2), (-50.0, 40), (-8.0, 5)]
            .map(|(policy, tokens)| vec![Response { policy, reference: None, tokens }])
            .to_vec();
        let sft = Objective { kind: LossKind::Sft, beta: 0.0, label_smoothing: 0.0 };
        let totals = Totals::of(&rows);
        let parts: f64 = rows.iter().map(|row| sft.row(row, totals).loss).sum();
        assert_eq!(totals, Totals { rows: 3, tokens: 47 });
        assert!((parts - 61.0 / 47.0).abs() < 1e-15);
    }
}

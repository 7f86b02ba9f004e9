//! Objectives: log-probabilities in, loss and slopes out. A slope is the derivative of the loss
//! with respect to a log-probability. Plain f64, no tensors, no text. A new loss is a new file and
//! its line in [`LOSSES`].
//!
//! A loss is a sum over rows. The part of each row is a function of the log-probabilities of its
//! responses and of the totals of the step ([`Totals`], over all packs). A step split into packs
//! therefore adds up to the same loss: it is never a mean of means.

mod dpo;
mod orpo;
pub mod pair;
mod rpo;
mod sft;
mod simpo;
mod spec;

pub use dpo::{DPO, IPO};
pub use orpo::ORPO;
pub use rpo::RPO;
pub use sft::SFT;
pub use simpo::SIMPO;
pub use spec::{LOSSES, LossSpec, all, settings};

use crate::settings::Values;

/// A loss with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Which loss.
    pub loss: &'static LossSpec,
    /// Values of [`LossSpec::settings`]. Others are ignored.
    pub settings: Values,
}

/// Sizes of a step of one objective, over all its packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows.
    pub rows: usize,
    /// Tokens in the loss, over all responses, end-of-sequence included.
    pub tokens: usize,
}

/// Log-probabilities of one response of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Response {
    /// Sum of the policy's log-probabilities over its tokens, in nats.
    pub policy: f64,
    /// The same sum under the reference model; ignored if the loss needs no reference.
    pub reference: Option<f64>,
    /// Number of tokens, at least 1.
    pub tokens: usize,
}

/// Contribution of one row to a step.
#[derive(Clone, Debug, PartialEq)]
pub struct RowLoss {
    /// Its part of the loss: the parts of all rows sum to the loss of the step.
    pub loss: f64,
    /// Derivative of the loss with respect to the log-probability of each token. There is one slope
    /// per response, because the loss depends only on sums over tokens.
    pub slopes: Vec<f64>,
    /// Its part of every metric, in the order of [`LossSpec::metrics`]: the parts of all rows sum
    /// to the value of the step.
    pub metrics: Vec<f64>,
}

impl Objective {
    /// A loss with its default settings.
    pub fn new(loss: &'static LossSpec) -> Self {
        Self {
            loss,
            settings: Values::defaults(loss.settings),
        }
    }

    /// The same loss with another value of a setting that is a number.
    #[must_use]
    pub fn with(self, setting: &str, value: f64) -> Self {
        Self {
            settings: self.settings.with(setting, value),
            ..self
        }
    }

    /// Loss, slopes and metrics of one row, in a step of the given size.
    ///
    /// # Panics
    /// If the number of responses is not [`LossSpec::responses`], or a required reference is
    /// missing.
    pub fn row(&self, responses: &[Response], totals: Totals) -> RowLoss {
        assert_eq!(
            responses.len(),
            self.loss.responses,
            "responses of a row of {}",
            self.loss
        );
        (self.loss.row)(&self.settings, responses, totals)
    }
}

/// Evaluates a whole batch: the loss, the slopes of every row, and the metrics.
pub fn evaluate(objective: &Objective, rows: &[Vec<Response>]) -> (f64, Vec<Vec<f64>>, Vec<f64>) {
    let totals = Totals::of(rows);
    let mut loss = 0.0;
    let mut metrics = vec![0.0; objective.loss.metrics.len()];
    let slopes = rows.iter().map(|row| {
        let part = objective.row(row, totals);
        loss += part.loss;
        metrics
            .iter_mut()
            .zip(&part.metrics)
            .for_each(|(sum, value)| *sum += value);
        part.slopes
    });
    let slopes = slopes.collect();
    (loss, slopes, metrics)
}

impl Totals {
    /// Sizes of a batch.
    pub fn of(rows: &[Vec<Response>]) -> Self {
        Self {
            rows: rows.len(),
            tokens: rows.iter().flatten().map(|response| response.tokens).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slopes compared with central differences of the loss, for every response of every row. The
    /// step is exact in binary, and the losses are smooth with third derivatives of order 1: the
    /// error is about h^2 + 1e-16 / h.
    #[test]
    fn slopes_are_the_derivatives_of_the_loss() {
        let defaults = all().iter().map(|loss| Objective::new(loss));
        let others = [
            Objective::new(&DPO)
                .with("beta", 0.7)
                .with("label-smoothing", 0.2),
            Objective::new(&IPO).with("beta", 0.3),
            Objective::new(&RPO)
                .with("beta", 0.3)
                .with("label-smoothing", 0.1)
                .with("alpha", 0.4),
            Objective::new(&ORPO).with("beta", 1.5),
            Objective::new(&SIMPO)
                .with("beta", 0.8)
                .with("gamma", 0.3)
                .with("label-smoothing", 0.2),
        ];
        for objective in defaults.chain(others) {
            let response = |policy: f64, reference: f64, tokens| Response {
                policy,
                reference: Some(reference),
                tokens,
            };
            let pairs = [
                [response(-12.0, -13.5, 7), response(-20.0, -19.0, 11)],
                [response(-40.0, -31.0, 12), response(-9.0, -20.0, 3)],
                [response(-5.0, -5.0, 2), response(-6.0, -6.0, 2)],
            ];
            let rows: Vec<_> = pairs
                .map(|pair| pair[..objective.loss.responses].to_vec())
                .to_vec();
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
                    assert!(
                        (difference - slopes[i][j]).abs() < 1e-9,
                        "{objective:?}: {difference} {}",
                        slopes[i][j]
                    );
                }
            }
        }
    }

    #[test]
    fn a_step_cut_into_packs_adds_up_to_the_same_loss() {
        let rows: Vec<_> = [(-3.0, 2), (-50.0, 40), (-8.0, 5)]
            .map(|(policy, tokens)| {
                vec![Response {
                    policy,
                    reference: None,
                    tokens,
                }]
            })
            .to_vec();
        let sft = Objective::new(&SFT);
        let totals = Totals::of(&rows);
        let parts: f64 = rows.iter().map(|row| sft.row(row, totals).loss).sum();
        assert_eq!(
            totals,
            Totals {
                rows: 3,
                tokens: 47
            }
        );
        assert!((parts - 61.0 / 47.0).abs() < 1e-15);
    }

    /// Pair losses, at every margin that f64 can hold. Mean log-probabilities per token are only
    /// ever negative.
    #[test]
    fn huge_margins_stay_finite() {
        for loss in all().iter().filter(|loss| loss.is_preference()) {
            for label_smoothing in [0.0, 0.1] {
                for far in [1e3, 1e6, 1e150] {
                    for policy in [[-far, -1.0], [-1.0, -far], [-far, -far]] {
                        let objective =
                            Objective::new(loss).with("label-smoothing", label_smoothing);
                        let row = policy.map(|policy| Response {
                            policy,
                            reference: Some(-1.0),
                            tokens: 2,
                        });
                        let part = objective.row(&row, Totals { rows: 1, tokens: 4 });
                        let mut numbers =
                            part.slopes.iter().chain(&part.metrics).chain([&part.loss]);
                        assert!(
                            numbers.all(|x| x.is_finite()),
                            "{loss} {policy:?}: {part:?}"
                        );
                        assert_eq!(part.metrics.len(), loss.metrics.len());
                    }
                }
            }
        }
    }

    #[test]
    fn losses_have_the_names_by_which_they_are_read() {
        for loss in all() {
            let named: Vec<_> = all()
                .iter()
                .filter(|other| other.name == loss.name)
                .collect();
            assert_eq!(named, [loss]);
            assert_eq!(
                loss.is_preference(),
                loss.metrics.starts_with(&pair::METRICS),
                "{loss}"
            );
        }
    }
}

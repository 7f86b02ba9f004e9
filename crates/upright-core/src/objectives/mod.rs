//! Objectives: log-probabilities in, loss and slopes out. A slope is the derivative of the loss
//! with respect to a log-probability. Plain f64, no tensors, no text. A new loss is a new file,
//! plus its lines in [`LossKind`] and in [`LossKind::spec`].
//!
//! A loss is a sum over rows. The part of each row is a function of the log-probabilities of its
//! responses and of the totals of the step ([`Totals`], over all packs). A step split into packs
//! therefore adds up to the same loss: it is never a mean of means.

pub mod dpo;
pub mod orpo;
pub mod pair;
pub mod rpo;
pub mod sft;
pub mod simpo;

use std::fmt;

/// The losses by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum LossKind {
    /// Negative log-likelihood of the response (4).
    Sft,
    /// Direct preference optimization (1)-(3), with label smoothing.
    Dpo,
    /// Identity preference optimization (Azar et al. 2023).
    Ipo,
    /// DPO plus the negative log-likelihood of the chosen response (Pang et al. 2024).
    Rpo,
    /// Odds ratio preference optimization (Hong et al. 2024); no reference.
    Orpo,
    /// Simple preference optimization (Meng et al. 2024); no reference.
    Simpo,
}

impl LossKind {
    /// Specification of the loss.
    pub fn spec(self) -> &'static LossSpec {
        match self {
            Self::Sft => &sft::SFT,
            Self::Dpo => &dpo::DPO,
            Self::Ipo => &dpo::IPO,
            Self::Rpo => &rpo::RPO,
            Self::Orpo => &orpo::ORPO,
            Self::Simpo => &simpo::SIMPO,
        }
    }
}

impl LossKind {
    /// All losses, in the order of the help texts.
    pub const ALL: &'static [Self] = &[
        Self::Sft,
        Self::Dpo,
        Self::Ipo,
        Self::Rpo,
        Self::Orpo,
        Self::Simpo,
    ];

    /// Name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Dpo => "dpo",
            Self::Ipo => "ipo",
            Self::Rpo => "rpo",
            Self::Orpo => "orpo",
            Self::Simpo => "simpo",
        }
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a loss needs, and its function.
pub struct LossSpec {
    /// Responses per row: 1 (instruction), or 2 (preference: chosen, then rejected).
    pub responses: usize,
    /// Whether it needs the reference's log-probabilities.
    pub reference: bool,
    /// Settings that the loss takes, with their defaults.
    pub defaults: Defaults,
    /// Names of the metrics, as in TRL and in the order of [`RowLoss::metrics`].
    pub metrics: &'static [&'static str],
    /// Computes the part of one row.
    row: fn(&Objective, &[Response], Totals) -> RowLoss,
}

/// Default settings of a loss. `None` if the loss does not take the setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// Default of [`Objective::beta`].
    pub beta: Option<f64>,
    /// Default of [`Objective::label_smoothing`].
    pub label_smoothing: Option<f64>,
    /// Default of [`Objective::alpha`].
    pub alpha: Option<f64>,
    /// Default of [`Objective::gamma`].
    pub gamma: Option<f64>,
}

impl Defaults {
    /// For a loss without settings.
    pub const NONE: Self = Self {
        beta: None,
        label_smoothing: None,
        alpha: None,
        gamma: None,
    };
}

/// A loss with its settings. Settings that the loss does not take ([`LossSpec::defaults`]) are
/// ignored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Which loss.
    pub kind: LossKind,
    /// KL strength; for ORPO the weight of the odds ratio, for SimPO the scale of the rewards.
    pub beta: f64,
    /// Label smoothing: assumed fraction of flipped pairs.
    pub label_smoothing: f64,
    /// Weight of the chosen response's negative log-likelihood.
    pub alpha: f64,
    /// Target margin between the rewards.
    pub gamma: f64,
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
    pub fn new(kind: LossKind) -> Self {
        let Defaults {
            beta,
            label_smoothing,
            alpha,
            gamma,
        } = kind.spec().defaults;
        let [beta, label_smoothing, alpha, gamma] =
            [beta, label_smoothing, alpha, gamma].map(|value| value.unwrap_or(0.0));
        Self {
            kind,
            beta,
            label_smoothing,
            alpha,
            gamma,
        }
    }

    /// Loss, slopes and metrics of one row, in a step of the given size.
    ///
    /// # Panics
    /// If the number of responses is not [`LossSpec::responses`], or a required reference is
    /// missing.
    pub fn row(&self, responses: &[Response], totals: Totals) -> RowLoss {
        let form = self.kind.spec();
        assert_eq!(
            responses.len(),
            form.responses,
            "responses of a row of {:?}",
            self.kind
        );
        (form.row)(self, responses, totals)
    }
}

/// Evaluates a whole batch: the loss, the slopes of every row, and the metrics.
pub fn evaluate(objective: &Objective, rows: &[Vec<Response>]) -> (f64, Vec<Vec<f64>>, Vec<f64>) {
    let totals = Totals::of(rows);
    let mut loss = 0.0;
    let mut metrics = vec![0.0; objective.kind.spec().metrics.len()];
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
        let all = LossKind::ALL.iter().map(|kind| Objective::new(*kind));
        let others = [
            Objective {
                beta: 0.7,
                label_smoothing: 0.2,
                ..Objective::new(LossKind::Dpo)
            },
            Objective {
                beta: 0.3,
                ..Objective::new(LossKind::Ipo)
            },
            Objective {
                beta: 0.3,
                label_smoothing: 0.1,
                alpha: 0.4,
                ..Objective::new(LossKind::Rpo)
            },
            Objective {
                beta: 1.5,
                ..Objective::new(LossKind::Orpo)
            },
            Objective {
                beta: 0.8,
                gamma: 0.3,
                label_smoothing: 0.2,
                ..Objective::new(LossKind::Simpo)
            },
        ];
        for objective in all.chain(others) {
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
                .map(|pair| pair[..objective.kind.spec().responses].to_vec())
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
        let sft = Objective::new(LossKind::Sft);
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
        let pairs = LossKind::ALL
            .iter()
            .filter(|kind| kind.spec().responses == 2);
        for &kind in pairs {
            for label_smoothing in [0.0, 0.1] {
                for far in [1e3, 1e6, 1e150] {
                    for policy in [[-far, -1.0], [-1.0, -far], [-far, -far]] {
                        let objective = Objective {
                            label_smoothing,
                            ..Objective::new(kind)
                        };
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
                            "{kind:?} {policy:?}: {part:?}"
                        );
                        assert_eq!(part.metrics.len(), kind.spec().metrics.len());
                    }
                }
            }
        }
    }

    #[test]
    fn losses_have_the_names_by_which_they_are_read() {
        for kind in LossKind::ALL {
            let named: Vec<_> = LossKind::ALL
                .iter()
                .filter(|other| other.name() == kind.name())
                .collect();
            assert_eq!(named, [kind]);
            let pairs = kind.spec().responses == 2;
            assert_eq!(
                pairs,
                kind.spec().metrics.starts_with(&pair::METRICS),
                "{kind}"
            );
        }
    }
}

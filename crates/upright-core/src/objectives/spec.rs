//! What a loss declares about itself.

use std::fmt;

use super::{Response, RowLoss, Totals};
use crate::settings::{Setting, Values};

/// A loss as the program knows it: its name, its settings, its words, what it needs, and its function. Every loss is a constant in
/// its own file and a line in [`super::LOSSES`].
#[derive(Clone, Copy)]
pub struct LossSpec {
    /// Name in settings and records.
    pub name: &'static str,
    /// The name of `--dpo-loss` if it differs.
    pub flag: Option<&'static str>,
    /// Responses per row: 1 (instruction), or 2 (preference: chosen, then rejected).
    pub responses: usize,
    /// Whether it needs the reference's log-probabilities.
    pub reference: bool,
    /// Settings that the loss takes, with their defaults.
    pub settings: &'static [Setting],
    /// Names of the metrics, as in TRL and in the order of [`RowLoss::metrics`].
    pub metrics: &'static [&'static str],
    /// Unit of the loss; `None` for a sum of different terms or a square.
    pub unit: Option<&'static str>,
    /// The loss in a sentence: "the SimPO loss".
    pub phrase: fn(&Values) -> String,
    /// Sentences for a reader who does not know the loss, with its value for a model without a preference where there is one.
    pub about: fn(&Values) -> String,
    /// Computes the part of one row from the settings, its responses and the sizes of the step.
    pub row: fn(&Values, &[Response], Totals) -> RowLoss,
}

impl LossSpec {
    /// Whether its rows are pairs of a chosen and a rejected response.
    pub fn is_preference(&self) -> bool {
        self.responses == 2
    }

    /// Whether the loss takes a setting.
    pub fn takes(&self, setting: &str) -> bool {
        self.settings.iter().any(|own| own.name == setting)
    }

    /// The name in `--dpo-loss`.
    pub fn flag_name(&self) -> &'static str {
        self.flag.unwrap_or(self.name)
    }
}

impl PartialEq for LossSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for LossSpec {}

impl fmt::Debug for LossSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for LossSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

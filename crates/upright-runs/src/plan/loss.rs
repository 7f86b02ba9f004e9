//! The settings of a loss: which settings it takes, the given values, and the defaults.

use super::checks::{no_such, real, wrong};
use crate::settings::Number;
use upright_base::{Error, Result};
use upright_core::objectives::{Defaults, LossKind, Objective};

/// Settings of a loss as the user wrote them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossSettings<'a> {
    /// Value of [`Objective::beta`].
    pub beta: Option<&'a Number>,
    /// Value of [`Objective::label_smoothing`].
    pub label_smoothing: Option<&'a Number>,
    /// Value of [`Objective::alpha`].
    pub alpha: Option<&'a Number>,
    /// Value of [`Objective::gamma`].
    pub gamma: Option<&'a Number>,
}

/// The default of one setting; `None` if the loss does not take the setting.
type Setting = fn(&Defaults) -> Option<f64>;

impl LossSettings<'_> {
    /// The loss with these settings and its defaults for the others. `key` maps a setting to its
    /// name in messages.
    ///
    /// # Errors
    /// A setting has a bad value, or the loss does not take it.
    pub fn of(self, kind: LossKind, key: impl Fn(&str) -> String) -> Result<Objective> {
        let value = |name: &str,
                     written: Option<&Number>,
                     setting: Setting,
                     must: &str,
                     fits: fn(f64) -> bool| {
            let default = setting(&kind.spec().defaults);
            match (written, default) {
                (Some(written), None) => Err(not_taken(&key(name), written, kind, setting)),
                (None, None) => Ok(0.0),
                (written, Some(default)) => real(&key(name), written, default, must, fits),
            }
        };
        let (above_0, from_0) = ("be a number above 0", "be a number of at least 0");
        let (smooth, is_share) = ("be at least 0 and below 0.5", |x| (0.0..0.5).contains(&x));
        Ok(Objective {
            kind,
            beta: value("beta", self.beta, |of| of.beta, above_0, |x| x > 0.0)?,
            label_smoothing: value(
                "label-smoothing",
                self.label_smoothing,
                |of| of.label_smoothing,
                smooth,
                is_share,
            )?,
            alpha: value("alpha", self.alpha, |of| of.alpha, from_0, |x| x >= 0.0)?,
            gamma: value("gamma", self.gamma, |of| of.gamma, from_0, |x| x >= 0.0)?,
        })
    }
}

fn not_taken(key: &str, written: &Number, kind: LossKind, setting: Setting) -> Error {
    let takes = |kind: &&LossKind| setting(&kind.spec().defaults).is_some();
    let others: Vec<String> = LossKind::ALL
        .iter()
        .filter(takes)
        .map(ToString::to_string)
        .collect();
    wrong(
        key,
        &format!("be left out: the loss {kind} does not take it"),
        written,
    )
    .hint(format!("losses that take it: {}", others.join(", ")))
}

/// The preference loss of `--dpo-loss`. The DPO loss is called `sigmoid` here, as in TRL; the
/// others go by their own names.
pub fn dpo_loss(written: Option<&str>) -> Result<LossKind> {
    let Some(written) = written else {
        return Ok(LossKind::Dpo);
    };
    let pairs = LossKind::ALL
        .iter()
        .filter(|kind| kind.spec().responses == 2);
    let name = |kind: &LossKind| {
        if *kind == LossKind::Dpo {
            "sigmoid".to_owned()
        } else {
            kind.to_string()
        }
    };
    let names: Vec<String> = pairs.clone().map(name).collect();
    let found = pairs
        .copied()
        .find(|kind| name(kind) == written || kind.to_string() == written);
    found.ok_or_else(|| no_such("dpo-loss", written, names.iter().map(String::as_str)))
}

//! The losses that a user can name, and their settings.

use crate::settings::checks::{named, no_such};
use upright_base::Result;
use upright_core::objectives::{self, DPO, LossSpec};

pub use super::declared::of_loss;

/// The loss of an `[[objective]]`. `key` names the setting in messages.
///
/// # Errors
/// There is no such loss.
pub fn loss(key: &str, name: &str) -> Result<&'static LossSpec> {
    named(key, name, objectives::all(), |loss| loss.name)
}

/// The preference loss of `--dpo-loss`. The DPO loss is called `sigmoid` here, as in TRL; the
/// others go by their own names.
pub fn dpo_loss(written: Option<&str>) -> Result<&'static LossSpec> {
    let Some(written) = written else {
        return Ok(&DPO);
    };
    let mut names = Vec::new();
    for loss in objectives::all() {
        if !loss.is_preference() {
            continue;
        }
        if loss.flag_name() == written || loss.name == written {
            return Ok(loss);
        }
        names.push(loss.flag_name());
    }
    Err(no_such("dpo-loss", written, names.iter().copied()))
}

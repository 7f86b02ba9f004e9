//! The loss to compute, and the reference model that it needs.

use std::path::{Path, PathBuf};

use upright_base::{Error, Result};
use upright_core::objectives::{Objective, SFT};
use upright_runs::{
    origin::OriginRows,
    plan::loss::{dpo_loss, of_loss},
    settings::checks::wrong,
};

use super::Loss;

/// The value of `--reference` that names the reference of the adapter's run.
const RUN: &str = "run";

/// The frozen reference model.
pub(super) enum Reference {
    /// The base model.
    Base,
    /// An adapter folder.
    Adapter(PathBuf),
}

impl Loss {
    /// Rejects two datasets, and flags of the other kind of rows.
    pub(super) fn check_flags(&self) -> Result<()> {
        if self.sft.is_some() && self.dpo.is_some() {
            return Err(Error::input(
                "sft and dpo are both given, but one dataset is scored at a time",
            )
            .hint("run the command twice: once with --sft, once with --dpo"));
        }
        let (strays, kind, other) = if self.sft.is_some() {
            let reference = ("reference", self.reference.is_some());
            let loss = ("dpo-loss", self.dpo_loss.is_some());
            (vec![reference, loss], "instruction", "dpo")
        } else {
            (vec![("turns", self.turns.is_some())], "preference", "sft")
        };
        for (key, is_given) in strays {
            if is_given {
                let message = format!("{key} has no effect on {kind} rows");
                return Err(Error::input(message).hint(format!(
                    "leave --{key} out, or give the rows with --{other}"
                )));
            }
        }
        Ok(())
    }

    /// The loss to compute; `None` if it needs a reference model and there is none. Settings that are
    /// not given are those of the adapter's run.
    pub(super) fn objective(
        &self,
        run: Option<&OriginRows<'_>>,
        has_reference: bool,
    ) -> Result<Option<Objective>> {
        let named = self.dpo_loss.as_ref().map(|_| "dpo-loss");
        let given = named.or(self.settings.keys().next());
        let of_run = run.filter(|_| self.sft.is_none()).map(OriginRows::loss);
        let loss = match (&self.sft, &self.dpo_loss, &of_run) {
            (Some(_), _, _) => &SFT,
            (None, None, Some(of_run)) => of_run.loss,
            (None, named, _) => dpo_loss(named.as_deref())?,
        };
        let written = |name: &str| {
            let shared = self.settings.get(name);
            shared.or(self.settings.get(&format!("dpo-{name}")))
        };
        let key = |name: &str| {
            if self.settings.get(name).is_some() {
                name.to_owned()
            } else {
                format!("dpo-{name}")
            }
        };
        let mut settings = of_loss(loss, written, key)?.of(loss.settings);
        if let Some(of_run) = of_run.filter(|of_run| of_run.loss == loss) {
            for (name, value) in of_run.settings.recorded() {
                if written(name).is_none() {
                    settings.set(name, value.clone());
                }
            }
        }
        let objective = Objective { loss, settings };
        if !loss.reference {
            return match &self.reference {
                Some(reference) => {
                    let must = format!("be left out: the loss {loss} uses no reference model");
                    Err(wrong("reference", &must, reference.display()))
                }
                None => Ok(Some(objective)),
            };
        }
        if has_reference {
            return Ok(Some(objective));
        }
        match given {
            Some(key) => Err(Error::input(format!(
                "{key} has no effect without a reference model"
            ))
            .hint(format!(
                "give --reference DIR, or none for the base model, or leave --{key} out"
            ))),
            None => Ok(None),
        }
    }

    /// Whether the reference of the adapter's run is used.
    pub(super) fn takes_run_reference(&self, run: Option<&OriginRows<'_>>) -> Result<bool> {
        match (&self.reference, run) {
            (Some(reference), None) if reference == Path::new(RUN) => Err(Error::input(
                "reference run: the adapter belongs to no run, or its run has no preference objective",
            )
            .hint("give --reference DIR, or none for the base model")),
            (Some(reference), Some(_)) => Ok(reference == Path::new(RUN)),
            (None, Some(run)) => Ok(self.dpo.is_some() && run.objective.is_preference()),
            (_, None) => Ok(false),
        }
    }
}

//! The loss to compute, and the reference model that it needs.

use std::path::{Path, PathBuf};

use upright_base::{Error, Result};
use upright_core::objectives::{LossKind, Objective};
use upright_runs::{
    origin::OriginRows,
    plan::{
        checks::wrong,
        loss::{LossSettings, dpo_loss},
    },
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
        let settings = [
            ("dpo-loss", self.dpo_loss.is_some()),
            ("beta", self.beta.is_some()),
            ("dpo-alpha", self.dpo_alpha.is_some()),
            ("dpo-gamma", self.dpo_gamma.is_some()),
        ];
        let given = settings.iter().find(|(_, given)| *given);
        let of_run = run.filter(|_| self.sft.is_none()).map(OriginRows::loss);
        let kind = match (&self.sft, &self.dpo_loss, of_run) {
            (Some(_), _, _) => LossKind::Sft,
            (None, None, Some(of_run)) => of_run.kind,
            (None, named, _) => dpo_loss(named.as_deref())?,
        };
        let key = |name: &str| {
            if name == "beta" {
                name.to_owned()
            } else {
                format!("dpo-{name}")
            }
        };
        let mut objective = LossSettings {
            beta: self.beta.as_ref(),
            alpha: self.dpo_alpha.as_ref(),
            gamma: self.dpo_gamma.as_ref(),
            ..LossSettings::default()
        }
        .of(kind, key)?;
        if let Some(of_run) = of_run.filter(|of_run| of_run.kind == kind) {
            objective = Objective {
                kind,
                beta: self.beta.as_ref().map_or(of_run.beta, |_| objective.beta),
                label_smoothing: of_run.label_smoothing,
                alpha: self
                    .dpo_alpha
                    .as_ref()
                    .map_or(of_run.alpha, |_| objective.alpha),
                gamma: self
                    .dpo_gamma
                    .as_ref()
                    .map_or(of_run.gamma, |_| objective.gamma),
            };
        }
        if !kind.spec().reference {
            return match &self.reference {
                Some(reference) => {
                    let must = format!("be left out: the loss {kind} uses no reference model");
                    Err(wrong("reference", &must, reference.display()))
                }
                None => Ok(Some(objective)),
            };
        }
        if has_reference {
            return Ok(Some(objective));
        }
        match given {
            Some((key, _)) => Err(Error::input(format!(
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

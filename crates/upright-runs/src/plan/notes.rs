//! Notes for the user before a run: settings that are ignored, and defaults that matter.

use super::objective::is_auto;
use super::{Plan, ReferencePlan, TooLong};
use crate::settings::{Config, Number};
use upright_core::methods;

impl Plan {
    /// Notes on this plan, one line each. `config` is the config that the plan was built from.
    pub fn notes(&self, config: &Config) -> Vec<String> {
        let mut notes = vec![];
        let mut note = |when: bool, text: String| {
            if when {
                notes.push(text);
            }
        };
        let several = self
            .objectives
            .iter()
            .filter(|objective| objective.weight > 0.0)
            .count()
            > 1;
        let missing: Vec<&str> = self
            .objectives
            .iter()
            .filter(|objective| objective.weight > 0.0 && objective.optimum.is_none())
            .map(|objective| &objective.name[..])
            .collect();
        note(
            self.method.needs_optima && several && !self.finds_optima && !missing.is_empty(),
            format!(
                "warning: {} has no optimum for {}: it assumes 0 and may train on one objective only. \
                 Give --optimum auto, which trains each objective alone first, or --optimum {}",
                self.method,
                missing.join(" and "),
                missing
                    .iter()
                    .map(|name| format!("{name}=LOSS"))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        );
        note(
            is_auto(config.optimum.as_ref()) && !self.finds_optima,
            format!(
                "--optimum auto is ignored: the run trains {} alone, so its own lowest loss is the optimum",
                self.objectives[0].name
            ),
        );
        for key in config.method_settings.keys() {
            let takers = methods::all().iter().filter(|method| method.takes(key));
            let takers: Vec<&str> = takers.map(|method| method.name).collect();
            note(
                !self.method.takes(key),
                format!(
                    "--{key} is ignored: the method is not {}",
                    takers.join(" or ")
                ),
            );
        }
        note(
            config.lambda.is_some() && !self.stages.is_empty(),
            "--lambda is ignored: the stages set the steps of each objective".into(),
        );
        for (index, objective) in self.objectives.iter().enumerate() {
            let trained =
                self.stages.is_empty() || self.stages.iter().any(|stage| stage.objective == index);
            note(
                !trained,
                format!(
                    "{} is evaluated but not trained on: no stage names it",
                    objective.name
                ),
            );
        }
        let compares = self.needs_reference();
        for key in config.loss_settings.keys() {
            let taken = self
                .objectives
                .iter()
                .any(|objective| objective.loss.takes(key));
            // A setting of `--dpo` that its loss does not take is an error.
            let is_shared = !key.starts_with("dpo-");
            note(
                is_shared && !taken,
                format!("--{key} is ignored: no objective's loss takes it"),
            );
        }
        note(
            config.reference.is_some() && !compares,
            "--reference is ignored: no objective uses a reference model".into(),
        );
        note(
            compares && config.reference.is_none(),
            "the reference model is the base model (--reference train:chosen trains a reference \
             model first, as in the paper)"
                .into(),
        );
        note(
            compares && self.init_adapter.is_some() && self.reference == ReferencePlan::Base,
            "the reference model is the base model without the adapter that the policy starts from"
                .into(),
        );
        let trained = matches!(self.reference, ReferencePlan::Train { .. });
        for (key, given) in [
            ("reference-epochs", config.reference_epochs.is_some()),
            ("reference-batch", config.reference_batch.is_some()),
            (
                "reference-learning-rate",
                config.reference_learning_rate.is_some(),
            ),
            ("reference-rows", config.reference_rows.is_some()),
        ] {
            note(
                given && !trained,
                format!("--{key} is ignored: no reference model is trained"),
            );
        }
        note(
            config.held_out.is_some()
                && self
                    .objectives
                    .iter()
                    .all(|objective| objective.eval_data.is_some()),
            "--held-out is ignored: every objective has its own held-out rows".into(),
        );
        note(
            config.min_prompt.is_some() && self.too_long == TooLong::Drop,
            "--min-prompt is ignored: rows that are too long are dropped".into(),
        );
        for objective in &self.objectives {
            note(
                self.held_out == 0.0 && objective.eval_data.is_none(),
                format!(
                    "{} has no held-out rows: it is evaluated on training rows only",
                    objective.name
                ),
            );
        }
        let shape = [
            ("--lora-rank", config.lora_rank.is_some()),
            ("--lora-alpha", config.lora_alpha.is_some()),
            ("--lora-targets", config.lora_targets.is_some()),
        ];
        let given: Vec<&str> = shape
            .iter()
            .filter(|(_, given)| *given)
            .map(|(key, _)| *key)
            .collect();
        let are = if given.len() == 1 { "is" } else { "are" };
        note(
            self.init_adapter.is_some() && !given.is_empty(),
            format!(
                "{} {are} ignored for the policy, which has the shape of --init-adapter",
                given.join(", ")
            ),
        );
        let unweighted =
            config.objective.len() > 1 && config.objective.iter().all(|o| o.weight.is_none());
        note(
            unweighted,
            "no weights are given: all objectives have equal weight".into(),
        );
        let mut weights = Vec::new();
        let mut are_divided = false;
        for (written, objective) in config.objective.iter().zip(&self.objectives) {
            let weight = written.weight.as_ref().and_then(Number::real);
            are_divided |= weight.is_some_and(|weight| weight != objective.weight);
            weights.push(format!("{} {:.4}", objective.name, objective.weight));
        }
        note(
            are_divided,
            format!(
                "the weights are divided by their sum: {}",
                weights.join(", ")
            ),
        );
        let no_length =
            config.steps.is_none() && config.epochs.is_none() && config.stages.is_none();
        note(
            no_length,
            "no length is given: training for one epoch of the dataset with the most steps".into(),
        );
        notes
    }
}

//! What a person should know before a run: settings without effect, and defaults that matter.

use super::{Plan, ReferencePlan, TooLong};
use crate::settings::Config;
use upright_core::methods::MethodKind;
use upright_core::objectives::Defaults;

impl Plan {
    /// One line each; none of them stops a run. `config` is what the plan was made from.
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
        let maxright = self.method == MethodKind::Maxright;
        for objective in &self.objectives {
            note(
                maxright && several && objective.weight > 0.0 && objective.optimum.is_none(),
                format!(
                    "no optimum is given for {}: maxright takes it as 0 (--optimum {0}=VALUE)",
                    objective.name
                ),
            );
        }
        note(
            config.probe_every.is_some() && !maxright,
            "probe-every has no effect: the method is not maxright".into(),
        );
        note(
            config.lambda.is_some() && !self.stages.is_empty(),
            "lambda has no effect: the stages say it all".into(),
        );
        for (index, objective) in self.objectives.iter().enumerate() {
            let trained =
                self.stages.is_empty() || self.stages.iter().any(|stage| stage.objective == index);
            note(
                !trained,
                format!(
                    "{} is evaluated and not trained: no stage names it",
                    objective.name
                ),
            );
        }
        let compares = self.needs_reference();
        let takes = |setting: fn(&Defaults) -> Option<f64>| {
            self.objectives
                .iter()
                .any(|objective| setting(&objective.loss.spec().defaults).is_some())
        };
        for (key, given, taken) in [
            ("beta", config.beta.is_some(), takes(|of| of.beta)),
            (
                "label-smoothing",
                config.label_smoothing.is_some(),
                takes(|of| of.label_smoothing),
            ),
        ] {
            note(
                given && !taken,
                format!("{key} has no effect: no objective's loss takes it"),
            );
        }
        note(
            config.reference.is_some() && !compares,
            "reference has no effect: no objective's loss compares with one".into(),
        );
        note(
            compares && config.reference.is_none(),
            "the reference is the base model itself (--reference train:chosen trains one, as the paper does)".into(),
        );
        note(
            compares && self.init_adapter.is_some() && self.reference == ReferencePlan::Base,
            "the reference is the base model without the adapter that the policy starts from"
                .into(),
        );
        let trained = matches!(self.reference, ReferencePlan::Train { .. });
        for (key, given) in [
            ("reference-epochs", config.reference_epochs.is_some()),
            ("reference-batch", config.reference_batch.is_some()),
            ("reference-rows", config.reference_rows.is_some()),
        ] {
            note(
                given && !trained,
                format!("{key} has no effect: no reference is trained"),
            );
        }
        note(
            config.held_out.is_some()
                && self
                    .objectives
                    .iter()
                    .all(|objective| objective.eval_data.is_some()),
            "held-out has no effect: every objective has held-out rows of its own".into(),
        );
        note(
            config.min_prompt.is_some() && self.too_long == TooLong::Drop,
            "min-prompt has no effect: rows that are too long are dropped".into(),
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
            ("lora-rank", config.lora_rank.is_some()),
            ("lora-alpha", config.lora_alpha.is_some()),
            ("lora-targets", config.lora_targets.is_some()),
        ];
        let given: Vec<&str> = shape
            .iter()
            .filter(|(_, given)| *given)
            .map(|(key, _)| *key)
            .collect();
        let has = if given.len() == 1 { "has" } else { "have" };
        note(
            self.init_adapter.is_some() && !given.is_empty(),
            format!(
                "{} {has} no effect on the policy: its shape is that of init-adapter",
                given.join(", ")
            ),
        );
        let unweighted =
            config.objective.len() > 1 && config.objective.iter().all(|o| o.weight.is_none());
        note(
            unweighted,
            "no weights are given: all objectives weigh the same".into(),
        );
        let no_length =
            config.steps.is_none() && config.epochs.is_none() && config.stages.is_none();
        note(
            no_length,
            "no length is given: one epoch of the longest dataset".into(),
        );
        notes
    }
}

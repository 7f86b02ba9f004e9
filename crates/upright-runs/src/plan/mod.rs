//! The plan of a run: a config with every default applied and every value checked, before anything
//! is loaded. A plan is stored in the run folder as `plan.toml`, and a resumed run must have the
//! same plan ([`Plan::differences`]).

mod build;
mod declared;
mod effects;
pub mod loss;
mod notes;
mod objective;
mod report_to;
mod schedule;
mod stages;
#[cfg(test)]
mod tests;

pub use schedule::{Schedule, Stage};

pub use declared::{defaults_of, plain_mix};
pub use effects::PlanSetting;
pub use objective::{listed, normalized, template};
pub use report_to::named_trackers;
pub use upright_data::TooLong;

use std::collections::HashSet;
use std::path::PathBuf;

use crate::settings::Effect;

use serde::{Deserialize, Serialize};

use crate::settings::checks::wrong;
use upright_base::{Error, Result};
use upright_core::methods::{MethodContext, MethodSpec};
use upright_core::objectives::{LossSpec, Objective};
use upright_core::optimizer::{Average, Curve, Iterate, LearningRate, adamw};
use upright_core::settings::Values;
use upright_core::train::Method;
use upright_data::one_or_many;
use upright_data::{ColumnMap, DataFile, TemplateName, Turns};
use upright_model::{Device, Recompute};

/// A training run. Equal plans give the same adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", remote = "Self")]
pub struct Plan {
    /// Folder of the base model.
    pub model: PathBuf,
    /// Run folder.
    pub out: PathBuf,
    /// Adapter that the policy starts from; `None` for a new adapter.
    pub init_adapter: Option<PathBuf>,
    /// Method that chooses the objectives to train on.
    pub method: &'static MethodSpec,
    /// Length of the run; `None` if it is the sum of the `stages`.
    pub length: Option<Length>,
    /// Settings of the method, and settings of other methods that plans always record.
    #[serde(flatten)]
    pub method_settings: Values,
    /// Whether missing optima are found before the run, by training each objective alone. False if
    /// there is only one objective. The record of the run has the optima too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finds_optima: bool,
    /// The average of the iterates that the run keeps.
    #[serde(default, skip_serializing_if = "Average::is_none")]
    pub average: Average,
    /// The iterate that the run exports as its adapter.
    #[serde(default, skip_serializing_if = "Iterate::is_last")]
    pub export_iterate: Iterate,
    /// Share of the prompts to hold out, for objectives without a held-out file.
    pub held_out: f64,
    /// Maximum length in tokens of a prompt plus one response.
    pub max_length: usize,
    /// Minimum prompt tokens to keep when truncating; with cut-response, minimum response tokens.
    pub min_prompt: usize,
    /// How to fit rows that are too long.
    pub too_long: TooLong,
    /// Seed of the initial adapter, the row order and the draws of the method.
    pub seed: u64,
    /// Steps between evaluations.
    pub eval_every: usize,
    /// Maximum rows per objective and set in an evaluation.
    pub eval_rows: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Number of newest checkpoints to keep.
    pub keep: usize,
    /// Number of CPU threads.
    pub threads: usize,
    /// Maximum tokens in a pack.
    pub token_budget: usize,
    /// Gradient checkpointing.
    pub recompute: Recompute,
    /// The device; `None` in plans of older builds and in [`Plan::anywhere`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The frozen reference model of the preference losses.
    pub reference: ReferencePlan,
    /// The LoRA adapter.
    pub lora: LoraPlan,
    /// Optimizer settings.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerPlan,
    /// The objectives; at least one.
    pub objectives: Vec<ObjectivePlan>,
    /// Stages of Sequential as given; if empty, the preference objectives come first, then the
    /// others, with steps in proportion to the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StagePlan>,
    /// Early stopping; `None` to run to the full length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopPlan>,
}

/// Target losses on training rows (`fit`) that stop the run
/// ([`upright_core::metrics::stopping::reached`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StopPlan {
    /// Alternative targets: one loss per objective, infinite for objectives without a target.
    pub points: Vec<Vec<f64>>,
    /// Tolerance: how far a loss may exceed its target.
    pub within: f64,
}

/// A loss with its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", remote = "Self")]
pub struct ObjectivePlan {
    /// Name in records.
    pub name: String,
    /// The loss.
    pub loss: &'static LossSpec,
    /// Files of training rows.
    #[serde(with = "one_or_many")]
    pub data: Vec<DataFile>,
    /// Renamed columns.
    #[serde(default, skip_serializing_if = "ColumnMap::is_empty")]
    pub map: ColumnMap,
    /// File of held-out rows; `None` to split them off the training rows.
    pub eval_data: Option<DataFile>,
    /// Prompt template; `None` for the default of the rows.
    pub template: Option<String>,
    /// The default that an existing run of this plan recorded. It takes precedence over the default
    /// of this build. No file has it: a run's record has the template of every objective.
    #[serde(skip)]
    pub recorded_template: Option<String>,
    /// Which assistant turns of a conversation to train on.
    #[serde(default, skip_serializing_if = "Turns::is_last")]
    pub turns: Turns,
    /// Use only the first usable rows of each file; `None` for all.
    pub rows: Option<usize>,
    /// Weight; the weights of all objectives sum to 1. With `--sft` and `--dpo`, lambda is the
    /// weight of DPO.
    pub weight: f64,
    /// Rows per step; [`Plan::batch`] is what a step takes.
    pub batch: usize,
    /// Settings of the loss, and settings of other losses that plans always record.
    #[serde(flatten)]
    pub settings: Values,
    /// Optimum f* on training rows (`fit`), for methods that compare gaps and for the
    /// gaps.
    pub optimum: Option<f64>,
    /// Optimum f* on held-out rows (`eval`), for the gaps.
    pub optimum_eval: Option<f64>,
    /// Rank among objectives that tie: preference losses come first.
    pub tie_rank: usize,
}

impl ReferenceRows {
    /// Whether an objective has rows of this kind.
    pub fn are_of(self, objective: &ObjectivePlan) -> bool {
        match self {
            Self::Chosen => objective.loss.is_preference() && objective.loss.reference,
            Self::Sft => !objective.is_preference(),
        }
    }
}

impl ObjectivePlan {
    /// Whether another objective has the same rows, with the same columns, template and turns.
    pub fn same_rows(&self, other: &Self) -> bool {
        let rows = |objective: &Self| {
            let Self {
                data,
                map,
                eval_data,
                template,
                turns,
                rows,
                ..
            } = objective.clone();
            (
                data,
                map,
                eval_data,
                template,
                turns,
                rows,
                objective.is_preference(),
            )
        };
        rows(self) == rows(other)
    }

    /// How a user writes a setting of this objective, such as `template`.
    pub fn setting(&self, key: &str) -> String {
        match &self.name[..] {
            name @ ("sft" | "dpo") => format!("--{name}-{key}"),
            name => format!("{key} of the objective {name}"),
        }
    }

    /// Whether the rows are pairs of a chosen and a rejected response.
    pub fn is_preference(&self) -> bool {
        self.loss.is_preference()
    }
}

/// Length of a run or of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Updates.
    Steps(usize),
    /// Epochs: of a stage, over its own dataset; of a run, over the dataset with the most steps.
    Epochs(f64),
}

/// A stage of Sequential.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StagePlan {
    /// Index of the objective to train on.
    pub objective: usize,
    /// Length of the stage.
    pub length: Length,
}

/// The frozen reference model of the preference losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferencePlan {
    /// The base model, without an adapter.
    Base,
    /// The base model with the adapter in this folder.
    Folder(PathBuf),
    /// The base model with an adapter that is trained first, with the adapter shape and optimizer
    /// of this plan.
    Train {
        /// Rows to train on.
        on: ReferenceRows,
        /// Epochs over these rows.
        epochs: f64,
        /// Rows per step.
        batch: usize,
        /// Use only the first usable rows of each file; `None` for the rows of the objective.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<usize>,
        /// Peak learning rate; `None` for that of the run.
        #[serde(
            rename = "learning-rate",
            default,
            skip_serializing_if = "Option::is_none"
        )]
        learning_rate: Option<f64>,
    },
}

/// The rows that a reference model is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceRows {
    /// The chosen responses of the preference objective that uses a reference model. There must be
    /// only one set of such rows.
    Chosen,
    /// The rows of the instruction objective. There must be only one set of such rows.
    Sft,
}

/// The LoRA adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoraPlan {
    /// LoRA rank.
    pub rank: usize,
    /// LoRA alpha; the adapter is scaled by alpha / rank.
    pub alpha: f64,
    /// Names of the linear layers to adapt, or `all-linear`. Plans of older builds may have none, for a
    /// default of the model family.
    pub targets: Vec<String>,
}

/// Optimizer settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OptimizerPlan {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning-rate schedule after the warm-up.
    pub schedule: Curve,
    /// Warm-up steps of each stage.
    pub warmup: usize,
    /// Maximum gradient norm; 0 disables clipping.
    pub clip: f64,
    /// Gradients of packs are summed in units of two to this power ([`GRADIENT_EXPONENT`]). `None`
    /// in plans of older builds, which summed them in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_exponent: Option<i32>,
    /// AdamW settings.
    pub adamw: adamw::AdamWConfig,
}

/// Gradients of packs are summed in units of two to this power. The measured gradients behind this
/// choice are in `docs/log/2026-11-29-gradient-histograms.md`.
pub const GRADIENT_EXPONENT: i32 = -44;

impl Plan {
    /// The plan as a TOML file.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::input(format!("plan: {error}")))
    }

    /// Checks a plan that was read from a file for values that no config produces and that would
    /// break the arithmetic.
    ///
    /// # Errors
    /// The first such value, by name.
    pub(crate) fn check_read(&self) -> Result<()> {
        for objective in &self.objectives {
            let name = &objective.name;
            if objective.batch == 0 {
                return Err(wrong(
                    &format!("objective {name}: batch"),
                    "be at least 1",
                    0,
                ));
            }
            if !(0.0..=1.0).contains(&objective.weight) {
                let must = "lie between 0 and 1";
                return Err(wrong(
                    &format!("objective {name}: weight"),
                    must,
                    objective.weight,
                ));
            }
        }
        let objectives = self.objectives.len();
        if let Some(stage) = self
            .stages
            .iter()
            .find(|stage| stage.objective >= objectives)
        {
            let must = format!("be the index of one of {objectives} objectives");
            return Err(wrong("objective of a stage", &must, stage.objective));
        }
        Ok(())
    }

    /// Differences that affect the result, as `key: this -> other`. If empty, the other plan can
    /// resume this run.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let old = self.settings();
        let new = other.settings();
        let value = |settings: &[PlanSetting], key: &str| {
            let found = settings.iter().find(|setting| setting.key == key);
            found.map_or("not set".to_owned(), |setting| setting.value.clone())
        };
        let mut seen = HashSet::new();
        let mut changes = Vec::new();
        for setting in old.iter().chain(&new) {
            let key = &setting.key;
            if setting.effect.is_free() || !seen.insert(key) {
                continue;
            }
            let then = value(&old, key);
            let now = value(&new, key);
            if then != now {
                changes.push(format!("{key}: {then} -> {now}"));
            }
        }
        changes
    }

    /// The plan without paths and settings that do not affect the result, so that identical work is
    /// recognized in any folder and on any machine.
    #[must_use]
    pub fn anywhere(&self) -> Self {
        let mut plan = self.without(Effect::is_free);
        for objective in &mut plan.objectives {
            // The run's facts include the hash of the template file.
            if let Some(Ok(TemplateName::File(_))) = objective.template.as_deref().map(str::parse) {
                objective.template = Some(".jinja".into());
            }
        }
        plan
    }

    /// The loss of an objective.
    pub fn objective(&self, index: usize) -> Objective {
        let objective = &self.objectives[index];
        Objective {
            loss: objective.loss,
            settings: objective.settings.of(objective.loss.settings),
        }
    }

    /// Rows of an objective in a step. An epoch counts whole batches whatever the method takes, so
    /// that runs that differ only in these batches have the same length.
    pub fn batch(&self, index: usize) -> usize {
        let divisor = (self.method.batch_divisor)(&self.method_settings);
        self.objectives[index].batch / divisor
    }

    /// Weights of the objectives.
    pub fn weights(&self) -> Vec<f64> {
        self.objectives
            .iter()
            .map(|objective| objective.weight)
            .collect()
    }

    /// Optimum f* of each objective on training rows, if given.
    pub fn optima(&self) -> Vec<Option<f64>> {
        self.objectives
            .iter()
            .map(|objective| objective.optimum)
            .collect()
    }

    /// Optimum f* of each objective on held-out rows, if given.
    pub fn optima_eval(&self) -> Vec<Option<f64>> {
        self.objectives
            .iter()
            .map(|objective| objective.optimum_eval)
            .collect()
    }

    /// Optimizer settings that train the reference model; those of the run, but for a learning rate
    /// of its own.
    pub fn reference_optimizer(&self) -> OptimizerPlan {
        let mut optimizer = self.optimizer;
        if let ReferencePlan::Train {
            learning_rate: Some(rate),
            ..
        } = self.reference
        {
            optimizer.learning_rate = rate;
        }
        optimizer
    }

    /// Whether any objective uses a reference model.
    pub fn needs_reference(&self) -> bool {
        self.objectives
            .iter()
            .any(|objective| objective.loss.reference)
    }

    /// The method. Missing optima are assumed to be 0.
    pub fn method(&self, schedule: &Schedule) -> Box<dyn Method> {
        let stages = schedule
            .stages
            .iter()
            .filter_map(|stage| Some((stage.objective?, stage.end)));
        (self.method.build)(MethodContext {
            weights: self.weights(),
            tie_ranks: self
                .objectives
                .iter()
                .map(|objective| objective.tie_rank)
                .collect(),
            optima: self
                .optima()
                .iter()
                .map(|optimum| optimum.unwrap_or(0.0))
                .collect(),
            settings: self.method_settings.of(self.method.settings),
            seed: self.seed,
            stages: stages.collect(),
        })
    }

    /// The learning-rate schedule over this many steps: of a stage, or of training the reference
    /// model.
    pub fn learning_rate(&self, steps: usize) -> LearningRate {
        let OptimizerPlan {
            learning_rate: peak,
            schedule: curve,
            warmup,
            ..
        } = self.optimizer;
        LearningRate {
            peak,
            curve,
            warmup,
            steps,
        }
    }
}

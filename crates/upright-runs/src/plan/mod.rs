//! What a config means: every default applied, every value checked, before anything is loaded. A plan is stored with its
//! run as `plan.toml`, and a resumed run must have the same one ([`Plan::differences`]).

mod build;
pub mod checks;
pub mod loss;
mod notes;
mod objective;
mod schedule;
mod stages;
#[cfg(test)]
mod tests;

pub use schedule::{Schedule, Stage};

pub use objective::{listed, template};
pub use upright_data::TooLong;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use upright_base::{Error, Result};
use upright_core::methods::{self, MethodKind};
use upright_core::objectives::{LossKind, Objective};
use upright_core::optimizer::{Curve, LearningRate, adamw};
use upright_core::train::Method;
use upright_data::one_or_many;
use upright_data::{ColumnMap, DataFile, TemplateName, Turns};
use upright_model::{Device, Recompute};

/// A training run. Two plans that are equal give the same adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Folder of the base model.
    pub model: PathBuf,
    /// Folder of the run.
    pub out: PathBuf,
    /// Adapter that the policy starts from; none: a fresh one.
    pub init_adapter: Option<PathBuf>,
    /// Rule over the objectives.
    pub method: MethodKind,
    /// Length of the run; none where `stages` say it.
    pub length: Option<Length>,
    /// MAXRIGHT looks at all losses every so many steps.
    pub probe_every: usize,
    /// Share of the prompts that is held out where an objective has no held-out file.
    pub held_out: f64,
    /// Most tokens of a prompt with one response.
    pub max_length: usize,
    /// Tokens of a prompt that cutting leaves.
    pub min_prompt: usize,
    /// What happens to a row that is too long.
    pub too_long: TooLong,
    /// Seed of the adapter, the order of rows and the draws.
    pub seed: u64,
    /// Steps between evaluations.
    pub eval_every: usize,
    /// Most rows of an objective that an evaluation scores, of either set.
    pub eval_rows: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Newest checkpoints that stay.
    pub keep: usize,
    /// Threads.
    pub threads: usize,
    /// Tokens of a pack.
    pub token_budget: usize,
    /// Gradient checkpointing.
    pub recompute: Recompute,
    /// The device; none in the plans of older builds, and where the place does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The frozen model that preference losses compare with.
    pub reference: ReferencePlan,
    /// The adapter.
    pub lora: LoraPlan,
    /// From gradients to updates.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerPlan,
    /// The losses with their data; at least one.
    pub objectives: Vec<ObjectivePlan>,
    /// Stages of Sequential as they were given; none: the preference objectives, then the others, by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StagePlan>,
    /// Where the run ends before its length; none: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopPlan>,
}

/// Losses on training rows (`fit`) that are good enough ([`upright_core::metrics::stopping::reached`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StopPlan {
    /// Points, any of which will do: a loss for every objective, infinite where none is asked for.
    pub points: Vec<Vec<f64>>,
    /// By how much a loss may be above that of a point.
    pub within: f64,
}

/// A loss with its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ObjectivePlan {
    /// Its name in records.
    pub name: String,
    /// Its loss.
    pub loss: LossKind,
    /// Its rows.
    #[serde(with = "one_or_many")]
    pub data: Vec<DataFile>,
    /// Columns of its rows under other names.
    #[serde(default, skip_serializing_if = "ColumnMap::is_empty")]
    pub map: ColumnMap,
    /// Its held-out rows; none: carved off.
    pub eval_data: Option<DataFile>,
    /// Template of its prompts; none: by the rows.
    pub template: Option<String>,
    /// Which turns of a conversation are trained.
    #[serde(default, skip_serializing_if = "Turns::is_last")]
    pub turns: Turns,
    /// Only its first rows; none: all.
    pub rows: Option<usize>,
    /// Its weight; all sum to 1. For two, lambda is that of DPO.
    pub weight: f64,
    /// Its rows a step.
    pub batch: usize,
    /// [`Objective::beta`]; 0 for a loss that does not take it.
    pub beta: f64,
    /// Share of pairs taken to be labelled the wrong way round; 0 for a loss that does not take it.
    pub label_smoothing: f64,
    /// Weight of the chosen response's negative log-likelihood; none for a loss that does not take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Margin that the rewards should have; none for a loss that does not take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// f* on training rows (`fit`), for the decision of MAXRIGHT and the gaps.
    pub optimum: Option<f64>,
    /// f* on held-out rows (`eval`), for the gaps.
    pub optimum_eval: Option<f64>,
    /// Preference among objectives that tie: preference losses first.
    pub tie_rank: usize,
}

impl ReferenceRows {
    /// Whether the rows of an objective are those.
    pub fn are_of(self, objective: &ObjectivePlan) -> bool {
        match self {
            Self::Chosen => objective.is_preference() && objective.loss.spec().reference,
            Self::Sft => !objective.is_preference(),
        }
    }
}

impl ObjectivePlan {
    /// Whether another objective has the same rows, read in the same way.
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

    /// Whether its rows are pairs of a chosen and a rejected response.
    pub fn is_preference(&self) -> bool {
        self.loss.spec().responses == 2
    }
}

/// How long something is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Updates.
    Steps(usize),
    /// Passes over a dataset: of a stage its own, of a run that with the most steps.
    Epochs(f64),
}

/// A stage of Sequential.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StagePlan {
    /// Index of its objective.
    pub objective: usize,
    /// How long it is.
    pub length: Length,
}

/// The frozen model that preference losses compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferencePlan {
    /// The base model, without an adapter.
    Base,
    /// The base model with the adapter in this folder.
    Folder(PathBuf),
    /// The base model with an adapter that is trained first, with this plan's adapter shape and optimizer.
    Train {
        /// On which rows.
        on: ReferenceRows,
        /// Passes over them.
        epochs: f64,
        /// Rows a step.
        batch: usize,
        /// Only the first rows of each file; none: those of the objective.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<usize>,
    },
}

/// What a reference is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceRows {
    /// The chosen responses of the preference objective that compares with a reference, of which there is one.
    Chosen,
    /// The rows of the instruction objective, of which there is one.
    Sft,
}

/// The LoRA adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoraPlan {
    /// Rank.
    pub rank: usize,
    /// It is scaled by alpha / rank.
    pub alpha: f64,
    /// Linear layers by name; empty: those of the model's family.
    pub targets: Vec<String>,
}

/// From gradients to updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OptimizerPlan {
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Learning rate after the warm-up.
    pub schedule: Curve,
    /// Steps of the warm-up, in each stage.
    pub warmup: usize,
    /// Largest norm of the gradient; 0: any.
    pub clip: f64,
    /// Gradients of packs are added in units of two to this power ([`GRADIENT_EXPONENT`]); none in the plans of older
    /// builds, which added them in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_exponent: Option<i32>,
    /// AdamW.
    pub adamw: adamw::AdamWConfig,
}

/// Unit of the sum of gradients: two to this power. LOG.md has the gradients that it was chosen from.
pub const GRADIENT_EXPONENT: i32 = -44;

/// Settings that change no result, and places whose contents are compared instead ([`crate::plan_record::Provenance`]): a resumed run
/// may have others. Everything else of the plan is compared.
const FREE: [&str; 13] = [
    "out",
    "threads",
    "device",
    "checkpoint-every",
    "keep",
    "recompute",
    "model",
    "init-adapter",
    "data",
    "eval-data",
    "folder",
    "files",
    "share",
];

impl Plan {
    /// The plan as a TOML file.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::input(format!("plan: {error}")))
    }

    /// Checks a plan that was read from a file for values that no config leads to and that arithmetic relies on.
    ///
    /// # Errors
    /// Names the first such value.
    pub(crate) fn check_read(&self) -> Result<()> {
        for objective in &self.objectives {
            let name = &objective.name;
            if objective.batch == 0 {
                return Err(checks::wrong(
                    &format!("objective {name}: batch"),
                    "be at least 1",
                    0,
                ));
            }
            if !(0.0..=1.0).contains(&objective.weight) {
                let must = "lie between 0 and 1";
                return Err(checks::wrong(
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
            return Err(checks::wrong(
                "objective of a stage",
                &must,
                stage.objective,
            ));
        }
        Ok(())
    }

    /// Settings whose change makes another run, as `key: this -> other`; empty: the other plan continues this one.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (old, new) = (self.settings(), other.settings());
        let value = |settings: &[(String, String)], key: &str| {
            settings
                .iter()
                .find(|(name, _)| name == key)
                .map_or("not set".into(), |(_, value)| value.clone())
        };
        let mut keys: Vec<_> = old.iter().chain(&new).map(|(key, _)| key.clone()).collect();
        let mut seen = std::collections::HashSet::new();
        keys.retain(|key| {
            seen.insert(key.clone()) && !FREE.contains(&key.rsplit('.').next().unwrap_or(key))
        });
        let changes = keys
            .iter()
            .map(|key| (key, value(&old, key), value(&new, key)));
        changes
            .filter(|(_, old, new)| old != new)
            .map(|(key, old, new)| format!("{key}: {old} -> {new}"))
            .collect()
    }

    /// The plan without what changes no result, so that equal work is found wherever it is done.
    #[must_use]
    pub fn anywhere(&self) -> Self {
        let mut plan = Self {
            out: PathBuf::new(),
            model: PathBuf::new(),
            init_adapter: self.init_adapter.as_ref().map(|_| PathBuf::new()),
            threads: 0,
            checkpoint_every: 0,
            keep: 0,
            recompute: Recompute::Auto,
            device: None,
            ..self.clone()
        };
        // The facts of a run say which adapters they are.
        if let ReferencePlan::Folder(folder) = &mut plan.reference {
            folder.clear();
        }
        for objective in &mut plan.objectives {
            objective.data = vec![PathBuf::new().into()];
            // What a file's template says is among the facts of a run.
            if let Some(Ok(TemplateName::File(_))) = objective.template.as_deref().map(str::parse) {
                objective.template = Some(".jinja".into());
            }
            objective.eval_data = objective.eval_data.as_ref().map(|_| PathBuf::new().into());
        }
        plan
    }

    /// Every setting as a key and a value, objectives by name.
    pub fn settings(&self) -> Vec<(String, String)> {
        fn flatten(key: &str, value: &toml::Value, into: &mut Vec<(String, String)>) {
            match value {
                toml::Value::Table(table) => table.iter().for_each(|(name, value)| {
                    flatten(
                        &if key.is_empty() {
                            name.clone()
                        } else {
                            format!("{key}.{name}")
                        },
                        value,
                        into,
                    );
                }),
                value => into.push((key.to_owned(), value.to_string())),
            }
        }
        let mut settings = vec![];
        let mut table = toml::Table::try_from(self).unwrap_or_default();
        table.remove("objectives");
        flatten("", &toml::Value::Table(table), &mut settings);
        for objective in &self.objectives {
            let table = toml::Table::try_from(objective).unwrap_or_default();
            flatten(&objective.name, &toml::Value::Table(table), &mut settings);
        }
        settings
    }

    /// The loss of an objective.
    pub fn objective(&self, index: usize) -> Objective {
        let ObjectivePlan {
            loss: kind,
            beta,
            label_smoothing,
            alpha,
            gamma,
            ..
        } = self.objectives[index];
        let [alpha, gamma] = [alpha, gamma].map(|value| value.unwrap_or(0.0));
        Objective {
            kind,
            beta,
            label_smoothing,
            alpha,
            gamma,
        }
    }

    /// Weights of the objectives.
    pub fn weights(&self) -> Vec<f64> {
        self.objectives
            .iter()
            .map(|objective| objective.weight)
            .collect()
    }

    /// f* on training rows, where given.
    pub fn optima(&self) -> Vec<Option<f64>> {
        self.objectives
            .iter()
            .map(|objective| objective.optimum)
            .collect()
    }

    /// f* on held-out rows, where given.
    pub fn optima_eval(&self) -> Vec<Option<f64>> {
        self.objectives
            .iter()
            .map(|objective| objective.optimum_eval)
            .collect()
    }

    /// Whether any objective compares with a reference.
    pub fn needs_reference(&self) -> bool {
        self.objectives
            .iter()
            .any(|objective| objective.loss.spec().reference)
    }

    /// The method. Optima that are not given count as 0.
    pub fn method(&self, schedule: &Schedule) -> Box<dyn Method> {
        let stages = schedule
            .stages
            .iter()
            .filter_map(|stage| Some((stage.objective?, stage.end)));
        self.method.build(&methods::MethodContext {
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
            probe_every: self.probe_every,
            seed: self.seed,
            stages: stages.collect(),
        })
    }

    /// The learning rate over so many steps: of a stage, or of training the reference.
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

//! The result of a run, read from the run folder alone.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan_record::PlanRecord;
use crate::{
    records::{self, SETS, metric_name},
    run_dir::read_lines,
};
use upright_base::Result;
use upright_core::methods::MethodSpec;

/// The metric for the share of pairs whose chosen response has the larger reward.
const ACCURACY: &str = "rewards/accuracies";

/// Summary of a run, finished or in progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The run folder.
    pub run: PathBuf,
    /// The method.
    pub method: &'static MethodSpec,
    /// Finished steps.
    pub steps: usize,
    /// The objectives, in the order of the plan.
    pub objectives: Vec<ObjectiveSummary>,
    /// Distance to the ideal point after the last step, on each of [`SETS`]; `None` unless every
    /// optimum is given.
    pub ideal_distance: [Option<f64>; 2],
    /// The same of the averaged adapter; `None` also if the run keeps no average.
    pub average_ideal_distance: [Option<f64>; 2],
    /// Time of all steps in seconds, without evaluations and checkpoints.
    pub seconds: f64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens of batches that were probed and not trained on.
    pub probed_tokens: u64,
    /// Training throughput in tokens/s, over the time of the steps.
    pub tokens_per_second: f64,
    /// Peak memory in GB.
    pub peak_memory_gb: Option<f64>,
    /// Identifies the arithmetic that decides the bits of every result: device, instructions, and
    /// their revision.
    pub arithmetic: String,
}

/// Summary of one objective. Arrays of two hold the values on held-out rows and on training rows,
/// as in [`SETS`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectiveSummary {
    /// Name in the plan.
    pub name: String,
    /// Weight in the plan.
    pub weight: f64,
    /// Steps that trained on it.
    pub steps: usize,
    /// Loss before the first step.
    pub start: [Option<f64>; 2],
    /// Loss after the last step.
    pub end: [Option<f64>; 2],
    /// Loss after the last step minus the optimum.
    pub gap: [Option<f64>; 2],
    /// Loss of the averaged adapter after the last step; `None` if the run keeps no average.
    pub average_end: [Option<f64>; 2],
    /// Loss of the averaged adapter minus the optimum.
    pub average_gap: [Option<f64>; 2],
    /// Share of pairs whose chosen response has the larger reward, after the last step. Preference
    /// objectives only.
    pub rewards_accuracy: [Option<f64>; 2],
}

impl Summary {
    /// Reads a run folder.
    pub fn read(run: &Path) -> Result<Self> {
        let written = PlanRecord::read(run)?;
        let steps = read_lines(&run.join("steps.jsonl"))?;
        let evals = read_lines(&run.join("evals.jsonl"))?;
        let number = |line: Option<&Map<String, Value>>, key: &str| {
            line.and_then(|line| line.get(key)?.as_f64())
        };
        let (first, last) = (evals.first(), evals.last());
        let both = |line, key: &str| SETS.map(|set| number(line, &format!("{set}/{key}")));
        let averaged =
            |key: &str| SETS.map(|set| number(last, &format!("{}{set}/{key}", records::AVERAGE)));
        let losses = || {
            written
                .plan
                .objectives
                .iter()
                .map(|objective| objective.loss)
        };
        let objectives = written.plan.objectives.iter().map(|objective| {
            let name = &objective.name;
            let trained = |line: &&Map<String, Value>| line.contains_key(&format!("loss/{name}"));
            let accuracy = match objective.loss.metrics.contains(&ACCURACY) {
                true => both(last, &metric_name(ACCURACY, name, losses())),
                false => [None, None],
            };
            ObjectiveSummary {
                name: name.clone(),
                weight: objective.weight,
                steps: steps.iter().filter(trained).count(),
                start: both(first, &format!("loss/{name}")),
                end: both(last, &format!("loss/{name}")),
                gap: both(last, &format!("gap/{name}")),
                average_end: averaged(&format!("loss/{name}")),
                average_gap: averaged(&format!("gap/{name}")),
                rewards_accuracy: accuracy,
            }
        });
        // `sum` of no steps would be -0.
        let total = |key: &str| {
            steps
                .iter()
                .filter_map(|line| number(Some(line), key))
                .fold(0.0, |sum, x| sum + x)
        };
        let (seconds, tokens) = (total("seconds"), total("tokens"));
        let peaks = steps
            .iter()
            .filter_map(|line| number(Some(line), "peak_memory_gb"));
        Ok(Self {
            run: run.to_owned(),
            method: written.plan.method,
            steps: steps.len(),
            objectives: objectives.collect(),
            ideal_distance: both(last, "ideal_distance"),
            average_ideal_distance: averaged("ideal_distance"),
            seconds,
            tokens: tokens as u64,
            probed_tokens: total(records::PROBED_TOKENS) as u64,
            tokens_per_second: if seconds > 0.0 { tokens / seconds } else { 0.0 },
            peak_memory_gb: peaks.reduce(f64::max),
            arithmetic: written.facts.arithmetic.clone(),
        })
    }
}

//! What a run came to, read from its folder alone.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan_record::PlanRecord;
use crate::{
    records::{SETS, metric_name},
    run_dir::read_lines,
};
use upright_base::Result;
use upright_core::methods::MethodKind;

/// The metric of pairs whose chosen response has the larger reward.
const ACCURACY: &str = "rewards/accuracies";

/// A finished run, or one on its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The run's folder.
    pub run: PathBuf,
    /// The method.
    pub method: MethodKind,
    /// Steps taken.
    pub steps: usize,
    /// The objectives, in the plan's order.
    pub objectives: Vec<ObjectiveSummary>,
    /// Euclidean norm of the gaps after the last step, on each of [`SETS`]; where every optimum is given.
    pub ideal_distance: [Option<f64>; 2],
    /// Seconds of all steps, without evaluations and checkpoints.
    pub seconds: f64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens trained on a second of steps.
    pub tokens_per_second: f64,
    /// Most memory held at once, in GB.
    pub peak_memory_gb: Option<f64>,
    /// Names what decides the bits of every result: the device, its instructions, and their revision.
    pub arithmetic: String,
}

/// One objective of a run. Pairs are held-out rows and training rows, as in [`SETS`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectiveSummary {
    /// Name in the plan.
    pub name: String,
    /// Its weight.
    pub weight: f64,
    /// Steps that trained on it.
    pub steps: usize,
    /// Loss before the first step.
    pub start: [Option<f64>; 2],
    /// Loss after the last step.
    pub end: [Option<f64>; 2],
    /// Loss after the last step less the optimum.
    pub gap: [Option<f64>; 2],
    /// Share of pairs whose chosen response has the larger reward after the last step; preference objectives only.
    pub rewards_accuracy: [Option<f64>; 2],
}

impl Summary {
    /// Reads a run's folder.
    pub fn read(run: &Path) -> Result<Self> {
        let written = PlanRecord::read(run)?;
        let steps = read_lines(&run.join("steps.jsonl"))?;
        let evals = read_lines(&run.join("evals.jsonl"))?;
        let number = |line: Option<&Map<String, Value>>, key: &str| {
            line.and_then(|line| line.get(key)?.as_f64())
        };
        let (first, last) = (evals.first(), evals.last());
        let both = |line, key: &str| SETS.map(|set| number(line, &format!("{set}/{key}")));
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
            let accuracy = match objective.loss.spec().metrics.contains(&ACCURACY) {
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
                rewards_accuracy: accuracy,
            }
        });
        // Of no step the sum would be -0.
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
            seconds,
            tokens: tokens as u64,
            tokens_per_second: if seconds > 0.0 { tokens / seconds } else { 0.0 },
            peak_memory_gb: peaks.reduce(f64::max),
            arithmetic: written.facts.arithmetic.clone(),
        })
    }
}

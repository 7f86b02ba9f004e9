//! The result of a run, read from the run folder alone.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::plan_record::PlanRecord;
use crate::{
    records::{PerSet, SetRecord, metric_name},
    run_dir::{read_evaluations, read_steps},
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
    /// Distance to the ideal point after the last step; `None` unless every optimum is given.
    pub ideal_distance: PerSet<Option<f64>>,
    /// The same of the averaged adapter; `None` also if the run keeps no average.
    pub average_ideal_distance: PerSet<Option<f64>>,
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

/// Summary of one objective.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectiveSummary {
    /// Name in the plan.
    pub name: String,
    /// Weight in the plan.
    pub weight: f64,
    /// Steps that trained on it.
    pub steps: usize,
    /// Loss before the first step.
    pub start: PerSet<Option<f64>>,
    /// Loss after the last step.
    pub end: PerSet<Option<f64>>,
    /// Loss after the last step minus the optimum.
    pub gap: PerSet<Option<f64>>,
    /// Loss of the averaged adapter after the last step; `None` if the run keeps no average.
    pub average_end: PerSet<Option<f64>>,
    /// Loss of the averaged adapter minus the optimum.
    pub average_gap: PerSet<Option<f64>>,
    /// Share of pairs whose chosen response has the larger reward, after the last step. Preference
    /// objectives only.
    pub rewards_accuracy: PerSet<Option<f64>>,
}

impl Summary {
    /// Reads a run folder.
    ///
    /// # Errors
    /// A file of the folder cannot be read, or is damaged.
    pub fn read(run: &Path) -> Result<Self> {
        let written = PlanRecord::read(run)?;
        let steps = read_steps(run)?;
        let evaluations = read_evaluations(run)?;
        let start = evaluations.first().map(|record| &record.last);
        let end = evaluations.last().map(|record| &record.last);
        let average = evaluations
            .last()
            .and_then(|record| record.average.as_ref());
        let planned = &written.plan.objectives;
        let mut objectives = Vec::with_capacity(planned.len());
        for objective in planned {
            let name = &objective.name;
            let mut rewards_accuracy = PerSet::default();
            if objective.loss.metrics.contains(&ACCURACY) {
                let losses = planned.iter().map(|objective| objective.loss);
                let metric = metric_name(ACCURACY, name, losses);
                rewards_accuracy = values(end, |set| set.metric(&metric));
            }
            let trained = steps.iter().filter(|step| step.has_trained_on(name));
            objectives.push(ObjectiveSummary {
                name: name.clone(),
                weight: objective.weight,
                steps: trained.count(),
                start: values(start, |set| set.loss(name)),
                end: values(end, |set| set.loss(name)),
                gap: values(end, |set| set.gap(name)),
                average_end: values(average, |set| set.loss(name)),
                average_gap: values(average, |set| set.gap(name)),
                rewards_accuracy,
            });
        }
        let mut seconds = 0.0;
        let mut tokens = 0;
        let mut probed_tokens = 0;
        let mut peak_memory_gb: Option<f64> = None;
        for step in &steps {
            seconds += step.seconds.unwrap_or(0.0);
            tokens += step.tokens.unwrap_or(0);
            probed_tokens += step.probed_tokens;
            if let Some(peak) = step.peak_memory_gb {
                peak_memory_gb = Some(peak_memory_gb.map_or(peak, |known| known.max(peak)));
            }
        }
        let tokens_per_second = if seconds > 0.0 {
            tokens as f64 / seconds
        } else {
            0.0
        };
        Ok(Self {
            run: run.to_owned(),
            method: written.plan.method,
            steps: steps.len(),
            objectives,
            ideal_distance: values(end, |set| set.ideal_distance),
            average_ideal_distance: values(average, |set| set.ideal_distance),
            seconds,
            tokens,
            probed_tokens,
            tokens_per_second,
            peak_memory_gb,
            arithmetic: written.facts.arithmetic.clone(),
        })
    }
}

/// One value of an evaluation on each set; `None` without the evaluation.
fn values(
    evaluated: Option<&PerSet<SetRecord>>,
    value: impl Fn(&SetRecord) -> Option<f64>,
) -> PerSet<Option<f64>> {
    PerSet::each(|set| value(&evaluated?[set]))
}

//! Records of steps.

use std::time::{Duration, Instant};

use upright_core::{metrics::gap::gap, train::Step};
use upright_engine::Decoder;
use upright_runs::{
    plan::Plan,
    records::{ObjectiveRecord, StepRecord},
};

use crate::{evaluation::named_metrics, learner::ModelLearner};

/// Start of a timed interval: wall-clock time, and busy time of the decoder's device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall: Instant,
    busy_seconds: Option<f64>,
    energy_joules: Option<f64>,
}

/// Duration and resource use of a timed interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elapsed {
    /// Wall-clock time.
    pub(super) wall: Duration,
    /// Share of the device that was busy for this process, from 0 to 1, if the device says so.
    utilization: Option<f64>,
    /// Energy of the whole device, if it counts it.
    energy_joules: Option<f64>,
    /// Peak memory so far, in bytes.
    peak_bytes: Option<usize>,
}

impl Clock {
    pub(super) fn now(decoder: &Decoder) -> Self {
        let usage = decoder.usage();
        Self {
            wall: Instant::now(),
            busy_seconds: usage.busy_seconds,
            energy_joules: usage.energy_joules,
        }
    }

    pub(super) fn elapsed(self, decoder: &Decoder) -> Elapsed {
        let wall = self.wall.elapsed();
        let usage = decoder.usage();
        let possible = wall.as_secs_f64() * usage.units as f64;
        let mut utilization = None;
        if let (Some(before), Some(after)) = (self.busy_seconds, usage.busy_seconds) {
            utilization = Some(((after - before) / possible).clamp(0.0, 1.0));
        }
        Elapsed {
            wall,
            utilization,
            energy_joules: usage
                .energy_joules
                .zip(self.energy_joules)
                .map(|(after, before)| after - before),
            peak_bytes: usage.peak_bytes,
        }
    }
}

/// The record of one step. Only [`TIMES`](upright_runs::records::TIMES) may differ between equal runs.
pub(super) fn step_record(
    step: &Step,
    learner: &ModelLearner<'_>,
    plan: &Plan,
    took: Elapsed,
) -> StepRecord {
    let report = &learner.report;
    let seconds = took.wall.as_secs_f64();
    let mut objectives = Vec::new();
    for (index, task) in learner.tasks.iter().enumerate() {
        let loss = step.losses[index];
        let optimum = plan.objectives[index].optimum;
        let mut metrics = Vec::new();
        if let Some(values) = &report.metrics[index] {
            metrics = named_metrics(&learner.tasks, index, values);
        }
        objectives.push(ObjectiveRecord {
            name: task.name.clone(),
            probe: step.probed[index],
            loss,
            gap: loss.zip(optimum).map(|(loss, optimum)| gap(loss, optimum)),
            metrics,
        });
    }
    StepRecord {
        step: step.index,
        weights: step.weights.clone(),
        objectives,
        grad_norm: Some(report.gradient_norm),
        learning_rate: Some(report.learning_rate),
        tokens: Some(report.tokens as u64),
        probed_tokens: report.probed_tokens as u64,
        tokens_per_second: Some(report.tokens as f64 / seconds),
        seconds: Some(seconds),
        utilization: took.utilization,
        energy_joules: took.energy_joules,
        peak_memory_gb: took.peak_bytes.map(|bytes| bytes as f64 / 1e9),
        ..StepRecord::default()
    }
}

/// Losses and throughput of the newest step, for a progress bar.
pub(super) fn step_note(step: &Step, learner: &ModelLearner<'_>, seconds: Duration) -> String {
    let losses = learner
        .tasks
        .iter()
        .zip(&step.losses)
        .filter_map(|(task, loss)| Some((task, (*loss)?)));
    let losses: Vec<String> = losses
        .map(|(task, loss)| format!("{} {loss:.4}", task.name))
        .collect();
    format!(
        "{}, {:.0} tokens/s",
        losses.join(", "),
        learner.report.tokens as f64 / seconds.as_secs_f64()
    )
}

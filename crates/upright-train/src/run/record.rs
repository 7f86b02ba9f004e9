//! Lines of `steps.jsonl`.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use upright_core::{metrics::gap::gap, train::Step};
use upright_engine::Decoder;
use upright_runs::{plan::Plan, records::PROBED_TOKENS};

use crate::{evaluation::metric_names, learner::ModelLearner};

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

/// The line of one step. Only [`TIMES`](upright_runs::records::TIMES) may differ between equal runs.
pub(super) fn step_line(
    step: &Step,
    learner: &ModelLearner<'_>,
    plan: &Plan,
    took: Elapsed,
) -> Map<String, Value> {
    let (report, seconds) = (&learner.report, took.wall.as_secs_f64());
    let mut line = Map::new();
    line.insert("step".into(), json!(step.index));
    line.insert("weights".into(), json!(step.weights));
    for (index, task) in learner.tasks.iter().enumerate() {
        if let Some(loss) = step.probed[index] {
            line.insert(format!("probe/{}", task.name), json!(loss));
        }
        if let Some(loss) = step.losses[index] {
            line.insert(format!("loss/{}", task.name), json!(loss));
            if let Some(optimum) = plan.objectives[index].optimum {
                line.insert(format!("gap/{}", task.name), json!(gap(loss, optimum)));
            }
        }
        for metrics in report.metrics[index].iter() {
            for (name, value) in metric_names(&learner.tasks, index).iter().zip(metrics) {
                line.insert(name.clone(), json!(value));
            }
        }
    }
    line.insert("grad_norm".into(), json!(report.gradient_norm));
    line.insert("learning_rate".into(), json!(report.learning_rate));
    line.insert("tokens".into(), json!(report.tokens));
    if report.probed_tokens > 0 {
        line.insert(PROBED_TOKENS.into(), json!(report.probed_tokens));
    }
    line.insert(
        "tokens_per_second".into(),
        json!(report.tokens as f64 / seconds),
    );
    line.insert("seconds".into(), json!(seconds));
    if let Some(utilization) = took.utilization {
        line.insert("utilization".into(), json!(utilization));
    }
    if let Some(energy) = took.energy_joules {
        line.insert("energy_joules".into(), json!(energy));
    }
    line.insert(
        "peak_memory_gb".into(),
        json!(took.peak_bytes.map(|bytes| bytes as f64 / 1e9)),
    );
    line
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

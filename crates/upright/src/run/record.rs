//! Lines of `steps.jsonl`.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use upright_engine::{memory, processor};

use crate::{
    evaluation::metric_names, learner::ModelLearner, metrics::gap::gap, plan::Plan, train::Step,
};

/// When a stretch of work began, by the wall's clock and by the processor's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall: Instant,
    processor: Option<f64>,
}

/// What a stretch of work took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// Wall-clock time.
    pub(super) wall: Duration,
    /// Share of the machine's cores that was busy for this process meanwhile, from 0 to 1.
    utilisation: Option<f64>,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self {
            wall: Instant::now(),
            processor: processor::seconds(),
        }
    }

    pub(super) fn took(self) -> Took {
        let wall = self.wall.elapsed();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let busy = self
            .processor
            .and_then(|before| Some(processor::seconds()? - before));
        Took {
            wall,
            utilisation: busy.map(|busy| (busy / (wall.as_secs_f64() * cores)).clamp(0.0, 1.0)),
        }
    }
}

/// Columns that may differ between equal runs.
pub const TIMES: [&str; 4] = [
    "seconds",
    "tokens_per_second",
    "utilisation",
    "peak_memory_gb",
];

/// The line of one step. Only [`TIMES`] may differ between equal runs.
pub(super) fn step_line(
    step: &Step,
    learner: &ModelLearner<'_>,
    plan: &Plan,
    took: Took,
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
    line.insert(
        "tokens_per_second".into(),
        json!(report.tokens as f64 / seconds),
    );
    line.insert("seconds".into(), json!(seconds));
    line.insert("utilisation".into(), json!(took.utilisation));
    line.insert(
        "peak_memory_gb".into(),
        json!(memory::peak_bytes().map(|bytes| bytes as f64 / 1e9)),
    );
    line
}

/// The newest figures, for a progress bar.
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

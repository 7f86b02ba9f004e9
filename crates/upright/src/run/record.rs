//! Lines of `steps.jsonl`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use upright_engine::memory;

use crate::{evaluation::metric_names, learner::ModelLearner, metrics::gap::gap, plan::Plan, train::Step};

/// The line of one step. Only `seconds`, `tokens_per_second` and `peak_memory_gb` may differ between equal runs.
pub(super) fn step_line(step: &Step, learner: &ModelLearner<'_>, plan: &Plan, seconds: Duration) -> Map<String, Value> {
    let (report, seconds) = (&learner.report, seconds.as_secs_f64());
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
    line.insert("tokens_per_second".into(), json!(report.tokens as f64 / seconds));
    line.insert("seconds".into(), json!(seconds));
    line.insert("peak_memory_gb".into(), json!(memory::peak_bytes().map(|bytes| bytes as f64 / 1e9)));
    line
}

/// The newest figures, for a progress bar.
pub(super) fn step_note(step: &Step, learner: &ModelLearner<'_>, seconds: Duration) -> String {
    let losses = learner.tasks.iter().zip(&step.losses).filter_map(|(task, loss)| Some((task, (*loss)?)));
    let losses: Vec<String> = losses.map(|(task, loss)| format!("{} {loss:.4}", task.name)).collect();
    format!("{}, {:.0} tokens/s", losses.join(", "), learner.report.tokens as f64 / seconds.as_secs_f64())
}

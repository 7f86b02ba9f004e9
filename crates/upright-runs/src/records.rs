//! The names under which a run's numbers stand in `steps.jsonl` and `evals.jsonl`.

use serde_json::{Map, Value};
use upright_core::LossKind;

use crate::plan::ObjectivePlan;

/// The two sets, by the prefix of their keys.
pub const SETS: [&str; 2] = ["eval", "fit"];

/// Columns that may differ between equal runs.
pub const TIMES: [&str; 4] = [
    "seconds",
    "tokens_per_second",
    "utilization",
    "peak_memory_gb",
];

/// The name under which a metric of an objective appears: TRL's, with the objective's name where the metric is one of
/// several of the run's `losses`.
pub fn metric_name(
    metric: &str,
    objective: &str,
    losses: impl Iterator<Item = LossKind>,
) -> String {
    let sharing = losses
        .filter(|loss| loss.spec().metrics.contains(&metric))
        .count();
    if sharing > 1 {
        format!("{metric}/{objective}")
    } else {
        metric.to_owned()
    }
}

/// Weighted sum of the held-out losses of a line of `evals.jsonl`; `None` where an objective that counts has no held-out
/// rows.
pub fn mixed(line: &Map<String, Value>, objectives: &[ObjectivePlan]) -> Option<f64> {
    let counting = objectives.iter().filter(|objective| objective.weight > 0.0);
    let loss = |objective: &ObjectivePlan| {
        line.get(&format!("{}/loss/{}", SETS[0], objective.name))?
            .as_f64()
    };
    counting
        .map(|objective| Some(objective.weight * loss(objective)?))
        .sum()
}

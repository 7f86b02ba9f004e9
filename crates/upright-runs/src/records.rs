//! Names of the metrics in `steps.jsonl` and `evals.jsonl`.

use serde_json::{Map, Value};
use upright_core::LossSpec;

use crate::plan::ObjectivePlan;

/// Key prefixes of the two evaluation sets: held-out rows and training rows.
pub const SETS: [&str; 2] = ["eval", "fit"];

/// Prefix of the keys of an averaged adapter in `evals.jsonl`, before the prefix of the set.
pub const AVERAGE: &str = "average/";

/// Key of the tokens that a step only probed. A step that trained on all its batches has no such
/// key.
pub const PROBED_TOKENS: &str = "probed_tokens";

/// Keys whose values may differ between identical runs. Energy is recorded where the device counts it.
pub const TIMES: [&str; 5] = [
    "seconds",
    "tokens_per_second",
    "utilization",
    "peak_memory_gb",
    "energy_joules",
];

/// The record name of a metric: the name that TRL uses, with the objective appended if several of
/// the run's `losses` have this metric.
pub fn metric_name(
    metric: &str,
    objective: &str,
    losses: impl Iterator<Item = &'static LossSpec>,
) -> String {
    let sharing = losses.filter(|loss| loss.metrics.contains(&metric)).count();
    if sharing > 1 {
        format!("{metric}/{objective}")
    } else {
        metric.to_owned()
    }
}

/// The lowest loss of an objective on one of [`SETS`] in any of these lines of `evals.jsonl`; `None`
/// if no line has it.
pub fn lowest_loss(evaluations: &[Map<String, Value>], set: &str, objective: &str) -> Option<f64> {
    let key = format!("{set}/loss/{objective}");
    let losses = evaluations
        .iter()
        .filter_map(|line| line.get(&key)?.as_f64());
    losses.reduce(f64::min)
}

/// Weighted sum of the held-out losses in a line of `evals.jsonl`. `None` if an objective with a
/// weight above 0 has no held-out loss.
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

//! The length of a run: `--steps`, `--epochs`, or `--stages`.

use super::{Length, ObjectivePlan, StagePlan};
use crate::settings::checks::{count, count_from, no_such, positive, wrong};
use crate::settings::{Config, Number};
use upright_base::{Error, Result};
use upright_core::methods::{self, MethodSpec};

/// Length of the run; `None` if it is the sum of the stages.
pub(super) fn length(config: &Config) -> Result<Option<Length>> {
    // A run with 0 steps evaluates the initial adapter.
    let least = if config.init_adapter.is_some() { 0 } else { 1 };
    let steps = config
        .steps
        .as_ref()
        .map(|steps| count_from(least, "steps", Some(steps), 0))
        .transpose()?;
    let epochs = config
        .epochs
        .as_ref()
        .map(|epochs| positive("epochs", Some(epochs), 0.0))
        .transpose()?;
    let both = |a: &str, b: &str| {
        Err(
            Error::input(format!("{a} and {b} both set the length of the run"))
                .hint("give one of them"),
        )
    };
    match (steps, epochs, &config.stages) {
        (Some(steps), Some(epochs), _) => {
            both(&format!("steps {steps}"), &format!("epochs {epochs}"))
        }
        (Some(steps), _, Some(stages)) => {
            both(&format!("steps {steps}"), &format!("stages {stages}"))
        }
        (_, Some(epochs), Some(stages)) => {
            both(&format!("epochs {epochs}"), &format!("stages {stages}"))
        }
        (None, None, Some(_)) => Ok(None),
        (Some(steps), ..) => Ok(Some(Length::Steps(steps))),
        (None, epochs, None) => Ok(Some(Length::Epochs(epochs.unwrap_or(1.0)))),
    }
}

/// Parses `--stages dpo:100,sft:3e`.
pub(super) fn stages(
    config: &Config,
    method: &MethodSpec,
    objectives: &[ObjectivePlan],
) -> Result<Vec<StagePlan>> {
    let Some(list) = &config.stages else {
        return Ok(vec![]);
    };
    if !method.has_stages {
        let staged = methods::all().iter().filter(|method| method.has_stages);
        let names: Vec<&str> = staged.map(|method| method.name).collect();
        let names = names.join(" or ");
        return Err(Error::input(format!(
            "stages {list} are given, but the method is not {names}"
        ))
        .hint(format!("give --method {names}, or leave --stages out")));
    }
    let hint = "write NAME:STEPS, or NAME:EPOCHS with the suffix e, e.g. dpo:100,sft:3e";
    if list.0.is_empty() {
        return Err(wrong("stages", "name a stage", list).hint(hint));
    }
    list.0
        .iter()
        .map(|entry| {
            stage(entry, objectives).map_err(|e| if e.hint.is_empty() { e.hint(hint) } else { e })
        })
        .collect()
}

fn stage(entry: &str, objectives: &[ObjectivePlan]) -> Result<StagePlan> {
    let Some((name, length)) = entry.rsplit_once(':') else {
        return Err(wrong(
            "stages",
            "be comma-separated NAME:LENGTH pairs",
            entry,
        ));
    };
    let names = objectives.iter().map(|objective| objective.name.as_str());
    let Some(objective) = names.clone().position(|known| known == name.trim()) else {
        return Err(no_such("objective of stages", name.trim(), names));
    };

    let key = format!("stages, {}: the length", name.trim());
    let length = match length.trim().strip_suffix('e') {
        Some(epochs) => Length::Epochs(positive(&key, Some(&Number::from(epochs)), 0.0)?),
        None => Length::Steps(count(&key, Some(&Number::from(length.trim())), 0)?),
    };
    Ok(StagePlan { objective, length })
}

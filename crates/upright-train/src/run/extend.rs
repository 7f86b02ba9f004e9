//! Extends a run: more steps than it was started with, with the same bytes as a run of that length from the start.

use std::fs;
use std::ops::Range;

use upright_base::{Error, Result, files};
use upright_core::optimizer::Curve;
use upright_model::peft;
use upright_runs::{
    plan::Plan,
    plan_record::{PLAN, PlanRecord},
    run_dir::{adapter_dir, average_dir, is_finished, last_dir, read_lines},
    settings,
};

/// Checks that the first steps of a run of `steps.start` steps are those of a run of `steps.end` steps.
///
/// # Errors
/// The run would be shorter, or its first steps would have been different in a longer run: a learning-rate schedule that
/// depends on the length, or stages.
pub(super) fn check(plan: &Plan, steps: Range<usize>) -> Result<()> {
    let run = plan.out.display();
    let Range { start, end } = steps;
    let hint = "train a new run that continues its adapter: --init-adapter RUN --out OTHER";
    if end < start {
        return Err(Error::input(format!(
            "{run}: cannot shorten a run from {start} to {end} steps"
        ))
        .hint("give at least as many --steps as the run was started with, or another --out"));
    }
    if plan.optimizer.schedule != Curve::Constant {
        return Err(Error::input(format!(
            "{run}: cannot extend a run with the {} schedule: its first {start} steps had the learning rates of a run of \
             {start} steps",
            plan.optimizer.schedule.name()
        ))
        .hint(hint));
    }
    if plan.method.has_stages {
        return Err(Error::input(format!(
            "{run}: cannot extend a run of {}: its stages would have other lengths",
            plan.method
        ))
        .hint(hint));
    }
    Ok(())
}

/// What to say of a finished run of `steps` planned steps that is resumed.
pub(super) fn finished(plan: &Plan, steps: usize) -> Result<String> {
    let done = read_lines(&plan.out.join("steps.jsonl"))?.len();
    let mut text = format!(
        "{}: already finished, with {done} steps",
        plan.out.display()
    );
    if done == steps && check(plan, steps..steps + 1).is_ok() {
        text += "; --resume with a larger --steps extends it";
    }
    Ok(text)
}

/// Makes the run in `plan.out` an unfinished one of the plan's length. It was started with `before` steps, and its newest
/// checkpoint is at step `first`. The caller holds its lock. Resuming removes an evaluation after the old last step that the
/// longer run would not have, and no longer keeps a checkpoint there.
///
/// # Errors
/// The run is finished but has no checkpoint of its last step, or its folder cannot be written.
pub(super) fn extend(
    plan: &Plan,
    config: &str,
    written: &PlanRecord,
    (before, first): (usize, usize),
) -> Result<()> {
    let run = &plan.out;
    if is_finished(run) && first != before {
        return Err(Error::input(format!(
            "{}: cannot extend the run: the checkpoint of its last step is missing",
            run.display()
        ))
        .hint("train a new run that continues its adapter: --init-adapter RUN --out OTHER"));
    }
    // In this order, a kill leaves a run that can be finished or extended again. The config makes a folder an adapter.
    let adapter = adapter_dir(run);
    let adapter_config = adapter.join(peft::CONFIG_FILE);
    if adapter_config.exists() {
        fs::remove_file(&adapter_config)
            .map_err(|error| Error::io(&adapter_config, "remove", error))?;
    }
    for folder in [adapter, average_dir(run), last_dir(run)] {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| Error::io(&folder, "remove", error))?;
        }
    }
    files::write_atomic(&run.join(settings::FILE), config.as_bytes())?;
    files::write_atomic(&run.join(PLAN), written.to_toml()?.as_bytes())
}

//! Extends a run: more steps than it was started with, with the same bytes as a run of that length from the start.

use std::fs;
use std::ops::Range;

use upright_base::{Error, Result, files};
use upright_core::{methods::MethodKind, optimizer::Curve};
use upright_runs::{
    plan::Plan,
    plan_record::{PLAN, PlanRecord},
    run_dir::adapter_dir,
    settings,
};

/// Makes the run in `plan.out` one of `steps.end` steps instead of `steps.start`: it is unfinished afterwards, and its newest
/// checkpoint is where it continues. The caller holds the run's lock.
///
/// # Errors
/// The run would be shorter, or its first steps would have been different in a longer run: a learning-rate schedule that
/// depends on the length, or stages.
pub(super) fn extend(
    plan: &Plan,
    config: &str,
    written: &PlanRecord,
    steps: Range<usize>,
) -> Result<()> {
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
    if plan.method == MethodKind::Sequential {
        return Err(Error::input(format!(
            "{run}: cannot extend a run of sequential: its stages would have other lengths"
        ))
        .hint(hint));
    }
    // In this order, a kill leaves a run that can be finished or extended again.
    let adapter = adapter_dir(&plan.out);
    if adapter.exists() {
        fs::remove_dir_all(&adapter).map_err(|error| Error::io(&adapter, "remove", error))?;
    }
    files::write_atomic(&plan.out.join(settings::FILE), config.as_bytes())?;
    files::write_atomic(&plan.out.join(PLAN), written.to_toml()?.as_bytes())
}

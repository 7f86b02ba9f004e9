//! Extends a run: more steps than it was started with, with the same bytes as a run of that length from the start.

use std::fs;
use std::ops::Range;

use upright_base::{Error, Result, files};
use upright_core::{methods::MethodKind, optimizer::Curve};
use upright_model::peft;
use upright_runs::{
    plan::Plan,
    plan_record::{PLAN, PlanRecord},
    run_dir::{adapter_dir, is_finished, read_lines},
    settings,
};

use crate::checkpoint::{Checkpoints, State};

/// Records of the evaluations of a run.
const EVALS: &str = "evals.jsonl";

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
    if plan.method == MethodKind::Sequential {
        return Err(Error::input(format!(
            "{run}: cannot extend a run of sequential: its stages would have other lengths"
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

/// A run that is to have more steps than it was started with. The caller holds its lock.
pub(super) struct Extension<'e> {
    /// The plan with the new length.
    pub(super) plan: &'e Plan,
    /// The config as written, with the new length.
    pub(super) config: &'e str,
    /// The record of the new plan.
    pub(super) written: &'e PlanRecord,
    /// Steps that the run was started with.
    pub(super) before: usize,
}

impl Extension<'_> {
    /// Makes the run an unfinished one of the new length. `found` is the state of its newest checkpoint, which is restored
    /// already. Returns the state to continue from.
    ///
    /// # Errors
    /// The run is finished but has no checkpoint of its last step, or its folder cannot be written.
    pub(super) fn start(
        &self,
        checkpoints: &Checkpoints,
        found: Option<State>,
    ) -> Result<Option<State>> {
        let run = &self.plan.out;
        let is_at_end = found
            .as_ref()
            .is_some_and(|state| state.step == self.before);
        if is_finished(run) && !is_at_end && self.before > 0 {
            return Err(Error::input(format!(
                "{}: cannot extend the run: the checkpoint of its last step is missing",
                run.display()
            ))
            .hint("train a new run that continues its adapter: --init-adapter RUN --out OTHER"));
        }
        // In this order, a kill leaves a run that can be finished or extended again.
        let adapter = adapter_dir(run);
        let config = adapter.join(peft::CONFIG_FILE);
        if config.exists() {
            fs::remove_file(&config).map_err(|error| Error::io(&config, "remove", error))?;
        }
        if adapter.exists() {
            fs::remove_dir_all(&adapter).map_err(|error| Error::io(&adapter, "remove", error))?;
        }
        files::write_atomic(&run.join(settings::FILE), self.config.as_bytes())?;
        files::write_atomic(&run.join(PLAN), self.written.to_toml()?.as_bytes())?;
        let Some(mut state) = found else {
            return Ok(None);
        };
        if !is_at_end {
            return Ok(Some(state));
        }
        // The longer run would not have been evaluated or saved where the shorter one ended.
        if !is_due(self.before, self.plan.eval_every) {
            self.drop_last_evaluation()?;
        }
        if !is_due(self.before, self.plan.checkpoint_every) && !state.rolling {
            state = checkpoints.make_rolling(state)?;
        }
        Ok(Some(state))
    }

    /// Removes the record of the evaluation after the last step.
    fn drop_last_evaluation(&self) -> Result<()> {
        let path = self.plan.out.join(EVALS);
        let text = files::read_text(&path)?;
        let mut kept = String::new();
        for (line, record) in text.lines().zip(read_lines(&path)?) {
            if record.get("step").and_then(serde_json::Value::as_u64) != Some(self.before as u64) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        files::write_atomic(&path, kept.as_bytes())
    }
}

fn is_due(step: usize, every: usize) -> bool {
    step == 0 || (every > 0 && step.is_multiple_of(every))
}

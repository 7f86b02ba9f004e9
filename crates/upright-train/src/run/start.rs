//! The start of a run, on one rank or on several.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use upright_base::{ErrorKind, Result, files, memory, progress::Progress};
use upright_ranks::World;
use upright_runs::{Summary, plan::Plan, plan_record, run_dir, settings, trackers::Trackers};

use super::{Model, Purpose, Work, rank_report, run_with, warnings};
use crate::ranks::{Follower, decided};

/// Runs a plan to its end in `plan.out`, or resumes it. `config` is the config as written, which is
/// saved beside the plan. The trackers get every record of the run.
pub fn run(
    plan: &Plan,
    config: &str,
    resume: bool,
    trackers: &mut Trackers,
    observer: &mut dyn Progress,
) -> Result<Summary> {
    let alone = Arc::new(World::alone());
    run_among(plan, config, resume, &alone, trackers, observer)?;
    Summary::read(&plan.out)
}

/// The same on several ranks, which share the packs. Rank 0 alone writes to `plan.out` and to the cache, and tells its trackers and
/// its observer; it returns `true`. All ranks read the model and the rows. The folder has the bytes of a run on one rank, except for times.
///
/// # Errors
/// Those of [`run`]. An error of one rank is an error of all ranks, and names the rank and its host.
pub fn run_among(
    plan: &Plan,
    config: &str,
    resume: bool,
    world: &Arc<World>,
    trackers: &mut Trackers,
    observer: &mut dyn Progress,
) -> Result<bool> {
    let done = if world.is_first() {
        started(plan, config, resume, world, trackers, observer)
    } else {
        let mut follower = Follower(observer.stop());
        let mut nobody = Trackers::none();
        started(plan, config, resume, world, &mut nobody, &mut follower)
    };
    world.settle(done)?;
    Ok(world.is_first())
}

/// Whether the output folder holds a run that is resumed, and what that run has recorded.
#[derive(Serialize, Deserialize)]
struct Recorded {
    is_resumed: bool,
    objectives: Vec<(Option<String>, Option<f64>, Option<f64>)>,
}

fn started(
    plan: &Plan,
    config: &str,
    resume: bool,
    world: &Arc<World>,
    trackers: &mut Trackers,
    observer: &mut dyn Progress,
) -> Result<()> {
    memory::forget_peak();
    let recorded = decided(world, || {
        let is_resumed = resume && run_dir::holds_run(&plan.out);
        if !is_resumed {
            run_dir::check_free(&plan.out)?;
        }
        let mut objectives = Vec::new();
        for objective in plan_record::with_recorded(plan).objectives {
            objectives.push((
                objective.recorded_template,
                objective.optimum,
                objective.optimum_eval,
            ));
        }
        Ok(Recorded {
            is_resumed,
            objectives,
        })
    })?;
    let mut plan = plan.clone();
    for (objective, (template, optimum, optimum_eval)) in
        plan.objectives.iter_mut().zip(recorded.objectives)
    {
        objective.recorded_template = template;
        objective.optimum = optimum;
        objective.optimum_eval = optimum_eval;
    }
    let is_resumed = recorded.is_resumed;
    let done = open_and_run(&plan, config, is_resumed, world, trackers, observer);
    done.map_err(|error| match error.kind {
        ErrorKind::Interrupted if plan.out.join(settings::FILE).is_file() => error.hint(format!(
            "run upright train --resume --out {} to continue",
            files::quoted(&plan.out)
        )),
        ErrorKind::Interrupted => error.hint("run the same command with --resume to continue"),
        ErrorKind::Input | ErrorKind::Failure => error,
    })
}

/// Opens the model and the rows of a plan and takes its steps. `is_resumed` says that the folder holds the run.
fn open_and_run(
    plan: &Plan,
    config: &str,
    is_resumed: bool,
    world: &Arc<World>,
    trackers: &mut Trackers,
    observer: &mut dyn Progress,
) -> Result<()> {
    let model = Model::of_plan_among(plan, world, observer)?;
    let datasets = world.slowly(|_| model.datasets(plan, observer))?;
    if !is_resumed {
        warnings::note(plan, &datasets, observer);
    }
    let work = Work {
        model: &model,
        plan,
        config,
        resume: is_resumed,
        purpose: Purpose::Run,
    };
    run_with(work, datasets, trackers, observer)?;
    rank_report::note(&model, observer)
}

//! Runs that other runs need: kept in the cache, each in a folder named by the hash of everything
//! that decides its result, where every later run with the same need finds it.

use upright_base::{
    Result,
    files::{self, Lock},
    progress::{Progress, Quiet},
};
use upright_data::Dataset;
use upright_runs::{plan::Plan, run_dir::is_finished, trackers::Trackers};

use super::{Model, Purpose, Work, run_with};
use crate::ranks::{Unless, decided};

/// Sets the output folder of a plan to its place under `folder` in the cache. Returns whether the
/// run there is finished, in the cache of rank 0. Writes nothing.
///
/// # Errors
/// The cache belongs to somebody else, or an adapter that the plan names cannot be read.
pub(super) fn place(
    model: &Model,
    plan: &mut Plan,
    datasets: &[Dataset],
    folder: &str,
) -> Result<bool> {
    // A requested template and a detected template give the same run.
    for (objective, data) in plan.objectives.iter_mut().zip(datasets) {
        objective.template = Some(data.template.to_string());
    }
    let hash = model.describe(plan, datasets)?.hash()?;
    files::check_own(&files::cache_dir())?;
    plan.out = files::cache_dir().join(folder).join(hash);
    decided(&model.world, || Ok(is_finished(&plan.out)))
}

/// Trains the run of a plan that [`place`] has placed, or continues it, unless the cache has it. The
/// folder above its place exists.
/// `what` begins the note that says so. Returns whether it was trained now.
///
/// # Errors
/// Those of a run. A stop leaves a run that the next call continues.
pub(super) fn train(
    model: &Model,
    plan: &Plan,
    datasets: Vec<Dataset>,
    (purpose, what): (Purpose<'_>, &str),
    observer: &mut dyn Progress,
) -> Result<bool> {
    let out = &plan.out;
    // Another process may hold the lock for as long as it trains.
    let _lock = model.world.slowly(|stop| {
        if !model.world.is_first() {
            return Ok(None);
        }
        let mut observer = Unless {
            observer: &mut *observer,
            stop,
        };
        Lock::wait(&out.with_extension("lock"), &mut observer).map(Some)
    })?;
    // Another process may have trained it in the meantime.
    if decided(&model.world, || Ok(is_finished(out)))? {
        return Ok(false);
    }
    observer.note(&format!("{what} in {}", out.display()));
    let written = plan.to_toml()?;
    let work = Work {
        model,
        plan,
        config: &written,
        resume: true,
        purpose,
    };
    // Its records are not those of the run that needs it.
    let mut trackers = Trackers::none();
    match purpose {
        // Its notes on rows, adapter and reference repeat the notes of the run that needs it.
        Purpose::Optimum(_) => run_with(work, datasets, &mut trackers, &mut Quiet(observer))?,
        Purpose::Run | Purpose::Reference => run_with(work, datasets, &mut trackers, observer)?,
    }
    Ok(true)
}

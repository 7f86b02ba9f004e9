//! A run, from its plan to its adapter: opens what the plan names, prepares the reference, and
//! takes the steps.

pub mod adapters;
mod cached;
mod extend;
pub mod model;
mod optima;
pub mod outline;
mod preflight;
mod rank_report;
mod record;
mod reference_policy;
mod start;
mod steps;
pub mod tasks;
mod warnings;

use serde::{Deserialize, Serialize};
use upright_base::{Error, ErrorKind, Result, files, progress::Progress};
use upright_core::{
    optimizer::{AdamW, Iterate, LearningRate},
    train::train,
};
use upright_data::Dataset;
use upright_model::peft;
use upright_ranks::World;
use upright_runs::{
    plan::{GRADIENT_EXPONENT, Plan, Schedule},
    plan_record::{self, PlanRecord},
    records::{EvalRecord, PerSet},
    run_dir::{self, RunDir, adapter_dir, average_dir, is_finished, last_dir},
    trackers::Trackers,
};

pub use model::Model;
pub use outline::Outline;
pub use preflight::Preflight;
pub use reference_policy::{first_batches, has_reference, reference_adapter, train_reference};
pub use start::{run, run_among};

use self::{record::Clock, reference_policy::ToTrain, steps::Run, tasks::tasks};
use crate::{
    checkpoint::{Checkpoints, Identity, Snapshot},
    evaluation::evaluate,
    learner::{ModelLearner, Optimization},
    ranks::{decided, on_first, share_vector},
};

/// What a run of this plan would do, and about how long it would take here. Writes nothing.
///
/// # Errors
/// Whatever would prevent the run from starting, except for its output folder.
pub fn outline(plan: &Plan, observer: &mut dyn Progress) -> Result<Outline> {
    let model = Model::of_plan(plan, observer)?;
    let datasets = model.datasets(plan, observer)?;
    warnings::note(plan, &datasets, observer);
    let rows: Vec<usize> = datasets.iter().map(|data| data.train.len()).collect();
    let schedule = Schedule::new(plan, &rows)?;
    let (adapter, lora) = model.adapter(plan, observer)?;
    model.check_finite(&datasets, &adapter)?;
    let to_train = ToTrain::new(&model, plan, observer)?;
    let alone = optima::runs(&model, plan, &schedule, &datasets)?;
    Outline::new(
        &model,
        plan,
        &schedule,
        &datasets,
        (&adapter, &lora),
        to_train.as_ref(),
        &alone,
    )
}

/// Why a run is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose<'p> {
    /// It is the run that was asked for.
    Run,
    /// It trains the reference of another run.
    Reference,
    /// It trains the objective of this name alone, for its optimum in another run.
    Optimum(&'p str),
}

impl Purpose<'_> {
    /// What its steps are called in progress bars and messages.
    fn steps(self) -> String {
        match self {
            Self::Run => "training".to_owned(),
            Self::Reference => "training the reference".to_owned(),
            Self::Optimum(name) => format!("training {name} alone for its optimum"),
        }
    }
}

/// A run whose model is open.
struct Work<'w> {
    model: &'w Model,
    plan: &'w Plan,
    /// The config as written.
    config: &'w str,
    /// Whether a run in the output folder is continued.
    resume: bool,
    purpose: Purpose<'w>,
}

/// Takes the steps of a run whose data is open; none if the run in its folder is finished.
fn run_with(
    work: &Work<'_>,
    datasets: Vec<Dataset>,
    trackers: &mut Trackers,
    observer: &mut dyn Progress,
) -> Result<()> {
    let &Work {
        model,
        plan,
        config,
        resume,
        purpose,
    } = work;
    let world = &*model.world;
    let written = model.describe(plan, &datasets)?;
    rank_report::check_equal(world, &written)?;
    let rows: Vec<usize> = datasets.iter().map(|data| data.train.len()).collect();
    let schedule = Schedule::new(plan, &rows)?;
    let mut lock = None;
    let begun = decided(world, || {
        if !resume || !run_dir::holds_run(&plan.out) {
            return Ok(Begun::No);
        }
        lock = Some(RunDir::take(&plan.out, false)?);
        let before = match plan_record::check_unchanged(&plan.out, &written)? {
            Some(before) => Schedule::new(&before.plan, &rows)?.steps,
            None => schedule.steps,
        };
        optima::check_recorded(plan, &rows)?;
        if before != schedule.steps {
            extend::check(plan, before..schedule.steps)?;
            return Ok(Begun::Shorter(before));
        }
        Ok(if is_finished(&plan.out) {
            Begun::Finished
        } else {
            Begun::Yes
        })
    })?;
    let is_begun = begun != Begun::No;
    if begun == Begun::Finished {
        if purpose == Purpose::Run && world.is_first() {
            observer.note(&extend::finished(plan, schedule.steps)?);
        }
        return Ok(());
    }
    for stage in schedule
        .stages
        .iter()
        .filter(|stage| (1..=plan.optimizer.warmup).contains(&stage.steps()))
    {
        let (warmup, steps) = (plan.optimizer.warmup, stage.steps());
        observer.note(&format!(
            "warning: the warm-up (--warmup {warmup}) covers a whole stage (number of steps: {steps})"
        ));
    }
    let (adapter, lora) = model.adapter(plan, observer)?;
    model.check_finite(&datasets, &adapter)?;
    let to_train = ToTrain::new(model, plan, observer)?;
    let alone = optima::runs(model, plan, &schedule, &datasets)?;
    if purpose == Purpose::Run && !is_begun && world.is_first() {
        let outline = Outline::new(
            model,
            plan,
            &schedule,
            &datasets,
            (&adapter, &lora),
            to_train.as_ref(),
            &alone,
        )?;
        for line in outline.lines() {
            observer.note(&line);
        }
        if world.size() > 1 {
            let ranks = world.size();
            observer.note(&format!(
                "  times are of one rank; {ranks} ranks share the packs"
            ));
        }
    }
    let reference =
        reference_policy::prepare(model, plan, &schedule, &datasets, to_train, observer)?;
    let plan = &optima::find(model, plan, &alone, &datasets, observer)?;
    let written = PlanRecord {
        plan: plan.clone(),
        ..written
    };
    let tasks = tasks(plan, datasets, reference.as_ref());

    let mut method = plan.method(&schedule);
    let optimization = Optimization {
        optimizer: AdamW::new(plan.optimizer.adamw),
        learning_rate: rate_at(plan, &schedule, 0),
        clip: plan.optimizer.clip,
        gradient_exponent: plan
            .optimizer
            .gradient_exponent
            .unwrap_or(GRADIENT_EXPONENT),
        average: plan.average,
    };
    let mut learner = ModelLearner::new(
        &model.decoder,
        adapter,
        optimization,
        plan.token_budget,
        tasks,
    )?
    .among(&model.world);
    if purpose == Purpose::Run {
        rank_report::note_idle(&learner, observer);
    }

    let identity = Identity {
        lora,
        base: model.base(),
    };
    let mut checkpoints =
        Checkpoints::new(RunDir::checkpoints(&plan.out), identity.clone(), plan.keep);
    let mut found = None;
    if is_begun {
        found = decided(world, || {
            let newest =
                checkpoints.newest(model.decoder.config(), |skipped| observer.note(&skipped));
            let Some(snapshot) = newest else {
                return Ok(None);
            };
            let state = snapshot.state.clone();
            restore(&mut learner, snapshot)?;
            Ok(Some(state))
        })?;
    }
    if let Some(state) = &found {
        learner.learning_rate = rate_at(plan, &schedule, state.step);
        learner.optimizer.updates = state.updates;
        for (task, order) in learner.tasks.iter_mut().zip(&state.orders) {
            task.order.restore(order)?;
        }
        method.restore(&state.method);
        share_parameters(world, &mut learner)?;
    }
    let first = found.as_ref().map_or(0, |state| state.step);
    if let Begun::Shorter(before) = begun {
        on_first(world, || {
            extend::extend(plan, config, &written, (before, first))
        })?;
        observer.note(&format!(
            "extending the run from {before} to {} steps",
            schedule.steps
        ));
        if plan.finds_optima {
            observer.note(
                "the optima stay as the run recorded them, although a longer run may go lower",
            );
        }
    }
    if found.is_some() {
        observer.note(&format!("continuing at step {first} of {}", schedule.steps));
    }

    // A new run is evaluated before it writes anything.
    let start = if is_begun {
        None
    } else {
        let start = evaluation(&learner, 0, plan, observer);
        Some(start.map_err(|error| match world.is_broken() {
            true => error,
            false => before_training(error),
        })?)
    };
    let dir = on_first(world, || {
        let lock = lock.map_or_else(|| RunDir::take(&plan.out, true), Ok)?;
        RunDir::open(
            &plan.out,
            lock,
            config,
            &written.to_toml()?,
            first,
            schedule.steps,
            plan.eval_every,
        )
    })?;
    let mut run = Run {
        plan,
        schedule: &schedule,
        dir,
        checkpoints: &mut checkpoints,
        trackers,
        observer,
        last: Clock::now(&model.decoder),
        evaluated: None,
        reached: false,
    };
    match start {
        Some(start) => run.record_evaluation(&start)?,
        None => run.catch_up(&learner, first, found)?,
    }

    run.observer.begin(&purpose.steps(), schedule.steps);
    run.observer.resume(first);
    run.last = Clock::now(&model.decoder);
    let (mut stopped, mut current) = (None, first);
    // A run that was killed between its last evaluation and its adapter has no step left to take.
    let last = if run.reached { first } else { schedule.steps };
    let trained = train(
        &mut learner,
        &mut *method,
        first..last,
        |step, learner, method| {
            let flow = run.after(step, learner, method)?;
            current = step.index + 1;
            if flow.is_break() && !run.reached {
                stopped = Some(step.index + 1);
            }
            Ok(flow)
        },
    );
    run.observer.end();
    trained.map_err(|error| {
        let place = format!("step {current}");
        // Another rank may have named the step.
        let is_named = error.message.contains(&format!("{place}: "));
        if error.kind == ErrorKind::Failure && !is_named {
            error.at(place)
        } else {
            error
        }
    })?;
    if run.reached {
        run.observer.note(&format!(
            "stopped at step {current}: an evaluation reached --stop-at"
        ));
    }
    if let Some(step) = stopped {
        let whose = match purpose {
            Purpose::Run => String::new(),
            Purpose::Reference | Purpose::Optimum(_) => format!(" of {}", purpose.steps()),
        };
        return Err(Error::interrupted(&format!(
            "after step {step} of {}{whose}",
            schedule.steps
        )));
    }
    on_first(world, || export(&learner, plan, &identity))?;
    Ok(())
}

/// Whether the run of a plan was begun before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Begun {
    No,
    Yes,
    /// With fewer steps, which are given.
    Shorter(usize),
    /// It is finished, with as many steps.
    Finished,
}

/// Gives every rank the adapter, the moments and the average of rank 0.
fn share_parameters(world: &World, learner: &mut ModelLearner<'_>) -> Result<()> {
    share_vector(world, &mut learner.adapter.parameters)?;
    share_vector(world, &mut learner.moments.m)?;
    share_vector(world, &mut learner.moments.v)?;
    if let Some(average) = &mut learner.average {
        share_vector(world, &mut average.parameters)?;
    }
    Ok(())
}

/// Writes the run's adapters. The one that the plan exports goes last, because it marks the run as
/// finished.
fn export(learner: &ModelLearner<'_>, plan: &Plan, identity: &Identity) -> Result<()> {
    let mut adapters = vec![(adapter_dir(&plan.out), &learner.adapter)];
    if let Some(average) = &learner.average {
        match plan.export_iterate {
            Iterate::Last => adapters.push((average_dir(&plan.out), average)),
            Iterate::Average => {
                adapters = vec![
                    (adapter_dir(&plan.out), average),
                    (last_dir(&plan.out), &learner.adapter),
                ];
            }
        }
    }
    let Identity { lora, base } = identity;
    for (folder, adapter) in adapters.into_iter().rev() {
        files::create_dir(&folder)?;
        peft::write(&folder, &adapter.to_host()?, lora, base)?;
    }
    Ok(())
}

/// Turns a failure before any training into an input error: the files of the model or of an adapter
/// cause it.
fn before_training(error: Error) -> Error {
    if error.kind != ErrorKind::Failure {
        return error;
    }
    let error = error
        .at("the first evaluation")
        .hint("download the model or the adapter again: a file is damaged");
    Error {
        kind: ErrorKind::Input,
        ..error
    }
}

/// The record of an evaluation. All ranks have to hold the same adapter.
fn evaluation(
    learner: &ModelLearner<'_>,
    step: usize,
    plan: &Plan,
    observer: &mut dyn Progress,
) -> Result<EvalRecord> {
    rank_report::check_adapter(learner, step)?;
    let optima = PerSet {
        held_out: plan.optima_eval(),
        training: plan.optima(),
    };
    Ok(evaluate(learner, step, observer)?.record(&learner.tasks, &optima))
}

/// Puts the tensors of a checkpoint back into the learner.
fn restore(learner: &mut ModelLearner<'_>, snapshot: Snapshot) -> Result<()> {
    let Snapshot {
        state,
        adapter,
        m,
        v,
        average,
    } = snapshot;
    if adapter.layout != learner.adapter.layout
        || state.orders.len() != learner.tasks.len()
        || average.is_some() != learner.average.is_some()
    {
        return Err(Error::failure(format!(
            "the checkpoint of step {} does not match this run",
            state.step
        )));
    }
    learner.adapter.parameters.write(&adapter.parameters)?;
    learner.moments.m.write(&m)?;
    learner.moments.v.write(&v)?;
    if let (Some(kept), Some(average)) = (&mut learner.average, average) {
        kept.parameters.write(&average)?;
    }
    Ok(())
}

/// The learning rates of the stage that a step belongs to: the optimizer is reset at every stage.
fn rate_at(plan: &Plan, schedule: &Schedule, step: usize) -> LearningRate {
    plan.learning_rate(schedule.stage(step).steps())
}

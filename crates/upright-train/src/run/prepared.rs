//! The second stage of a run: everything that its steps need is there.

use upright_base::{Error, ErrorKind, Result, files::Lock, progress::Progress};
use upright_core::{optimizer::AdamW, train::Method};
use upright_data::Dataset;
use upright_model::adapter::{Adapter, LoraConfig};
use upright_ranks::World;
use upright_runs::{
    plan::{GRADIENT_EXPONENT, Plan, Schedule},
    plan_record::PlanRecord,
    records::EvalRecord,
    run_dir::RunDir,
    trackers::Trackers,
};

use super::{
    Purpose, Work, extend,
    opened::Begun,
    rank_report,
    record::Clock,
    steps::{Run, evaluation, rate_at},
    tasks::tasks,
    training::Training,
};
use crate::{
    checkpoint::{Checkpoints, Identity, Snapshot, State},
    learner::{ModelLearner, Optimization},
    ranks::{decided, on_first, share_vector},
    reference::Reference,
};

/// A run whose adapter, reference and optima are there.
pub(super) struct Prepared<'w> {
    pub(super) work: Work<'w>,
    /// The plan, with the optima that were found.
    pub(super) plan: Plan,
    pub(super) schedule: Schedule,
    /// What `plan.toml` records.
    pub(super) written: PlanRecord,
    pub(super) begun: Begun,
    /// Of a begun run, on rank 0.
    pub(super) lock: Option<Lock>,
    pub(super) datasets: Vec<Dataset>,
    /// The reference model's log-probabilities, if a loss needs them. Rows get a copy, so it goes when the learner has its rows.
    pub(super) reference: Option<Reference>,
    /// The initial adapter.
    pub(super) adapter: Adapter,
    /// Rank, alpha and targets of the adapter.
    pub(super) lora: LoraConfig,
}

impl<'w> Prepared<'w> {
    /// Loads the learner, restores the newest checkpoint of a begun run, evaluates a new one, and opens the folder for records.
    ///
    /// # Errors
    /// The device fails, the first evaluation fails or is stopped, or the folder cannot be read or written.
    pub(super) fn start<'r>(
        self,
        trackers: &'r mut Trackers,
        observer: &'r mut dyn Progress,
    ) -> Result<Training<'r>>
    where
        'w: 'r,
    {
        let Self {
            work,
            plan,
            schedule,
            written,
            begun,
            lock,
            datasets,
            reference,
            adapter,
            lora,
        } = self;
        let model = work.model;
        let world = &*model.world;
        let mut method = plan.method(&schedule);
        let mut learner = ModelLearner::new(
            &model.decoder,
            adapter,
            optimization(&plan, &schedule),
            plan.token_budget,
            tasks(&plan, datasets, reference.as_ref()),
        )?
        .among(&model.world);
        drop(reference);
        if work.purpose == Purpose::Run {
            rank_report::note_idle(&learner, observer);
        }

        let identity = Identity {
            lora,
            base: model.base(),
        };
        let place = RunDir::checkpoints(&plan.out);
        let checkpoints = Checkpoints::new(place, identity.clone(), plan.keep);
        let mut found = None;
        if begun != Begun::No {
            found = restore_newest(world, &checkpoints, &mut learner, observer)?;
        }
        if let Some(state) = &found {
            learner.learning_rate = rate_at(&plan, &schedule, state.step);
            continue_from(state, world, &mut learner, &mut *method)?;
        }
        let first = found.as_ref().map_or(0, |state| state.step);
        if let Begun::Shorter(before) = begun {
            on_first(world, || {
                extend::extend(&plan, work.config, &written, (before, first))
            })?;
            note_extension(&plan, before, schedule.steps, observer);
        }
        if found.is_some() {
            observer.note(&format!("continuing at step {first} of {}", schedule.steps));
        }

        // A new run is evaluated before it writes anything.
        let mut start = None;
        if begun == Begun::No {
            start = Some(first_evaluation(&learner, &plan, observer)?);
        }
        let dir = on_first(world, || {
            let lock = lock.map_or_else(|| RunDir::take(&plan.out, true), Ok)?;
            RunDir::open(
                &plan.out,
                lock,
                work.config,
                &written.to_toml()?,
                first,
                schedule.steps,
                plan.eval_every,
            )
        })?;
        let mut run = Run {
            plan,
            schedule,
            dir,
            checkpoints,
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
        Ok(Training {
            purpose: work.purpose,
            learner,
            method,
            run,
            identity,
            first,
        })
    }
}

/// The settings of the optimizer at the first step.
fn optimization(plan: &Plan, schedule: &Schedule) -> Optimization {
    Optimization {
        optimizer: AdamW::new(plan.optimizer.adamw),
        learning_rate: rate_at(plan, schedule, 0),
        clip: plan.optimizer.clip,
        gradient_exponent: plan
            .optimizer
            .gradient_exponent
            .unwrap_or(GRADIENT_EXPONENT),
        average: plan.average,
    }
}

/// Puts the tensors of the newest checkpoint back into the learner of rank 0. Returns its state on every rank; `None` if there is no
/// checkpoint.
fn restore_newest(
    world: &World,
    checkpoints: &Checkpoints,
    learner: &mut ModelLearner<'_>,
    observer: &mut dyn Progress,
) -> Result<Option<State>> {
    let config = learner.decoder.config();
    decided(world, || {
        let newest = checkpoints.newest(config, |skipped| observer.note(&skipped));
        let Some(snapshot) = newest else {
            return Ok(None);
        };
        let state = snapshot.state.clone();
        restore(learner, snapshot)?;
        Ok(Some(state))
    })
}

/// Continues from the state of a checkpoint, whose tensors rank 0 has.
fn continue_from(
    state: &State,
    world: &World,
    learner: &mut ModelLearner<'_>,
    method: &mut dyn Method,
) -> Result<()> {
    learner.optimizer.updates = state.updates;
    for (task, order) in learner.tasks.iter_mut().zip(&state.orders) {
        task.order.restore(order)?;
    }
    method.restore(&state.method);
    share_parameters(world, learner)
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

/// Notes that a run gets more steps than it was started with.
fn note_extension(plan: &Plan, before: usize, steps: usize, observer: &mut dyn Progress) {
    observer.note(&format!("extending the run from {before} to {steps} steps"));
    if plan.finds_optima {
        observer
            .note("the optima stay as the run recorded them, although a longer run may go lower");
    }
}

/// The evaluation before the first step.
fn first_evaluation(
    learner: &ModelLearner<'_>,
    plan: &Plan,
    observer: &mut dyn Progress,
) -> Result<EvalRecord> {
    evaluation(learner, 0, plan, observer).map_err(|error| {
        if learner.world().is_broken() {
            error
        } else {
            before_training(error)
        }
    })
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

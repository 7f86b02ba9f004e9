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
pub mod tasks;
mod warnings;

use std::{ops::ControlFlow, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use upright_base::{Error, ErrorKind, Result, files, memory, observer::Observer};
use upright_core::{
    metrics::stopping::reached,
    optimizer::{AdamW, Iterate, LearningRate},
    train::{Method, Step, train},
};
use upright_data::Dataset;
use upright_model::peft;
use upright_ranks::World;
use upright_runs::{
    Summary,
    plan::{GRADIENT_EXPONENT, Plan, Schedule},
    plan_record::{self, PlanRecord},
    records::{SETS, mixed},
    run_dir::{self, RunDir, adapter_dir, average_dir, is_finished, last_dir},
    settings,
};

pub use model::Model;
pub use outline::Outline;
pub use preflight::Preflight;
pub use reference_policy::{first_batches, has_reference, reference_adapter, train_reference};

use self::{record::Clock, reference_policy::ToTrain, tasks::tasks};
use crate::{
    checkpoint::{Checkpoints, Identity, Snapshot, State},
    evaluation::evaluate,
    learner::{ModelLearner, Optimization},
    ranks::{Follower, decided, on_first, share_vector},
};

/// Runs a plan to its end in `plan.out`, or resumes it. `config` is the config as written, which is
/// saved beside the plan.
pub fn run(
    plan: &Plan,
    config: &str,
    resume: bool,
    observer: &mut dyn Observer,
) -> Result<Summary> {
    let alone = Arc::new(World::alone());
    run_among(plan, config, resume, &alone, observer)?;
    Summary::read(&plan.out)
}

/// The same on several ranks, which share the packs. Rank 0 alone writes to `plan.out` and to the cache, and tells its observer; it
/// returns `true`. All ranks read the model and the rows. The folder has the bytes of a run on one rank, except for times.
///
/// # Errors
/// Those of [`run`]. An error of one rank is an error of all ranks, and names the rank and its host.
pub fn run_among(
    plan: &Plan,
    config: &str,
    resume: bool,
    world: &Arc<World>,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let mut follower;
    let observer: &mut dyn Observer = if world.is_first() {
        observer
    } else {
        follower = Follower(observer);
        &mut follower
    };
    let done = started(plan, config, resume, world, observer);
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
    observer: &mut dyn Observer,
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
    open_and_run(&plan, config, is_resumed, world, observer).map_err(|error| match error.kind {
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
    observer: &mut dyn Observer,
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
    run_with(&work, datasets, observer)?;
    rank_report::note(&model, observer)
}

/// What a run of this plan would do, and about how long it would take here. Writes nothing.
///
/// # Errors
/// Whatever would prevent the run from starting, except for its output folder.
pub fn outline(plan: &Plan, observer: &mut dyn Observer) -> Result<Outline> {
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
fn run_with(work: &Work<'_>, datasets: Vec<Dataset>, observer: &mut dyn Observer) -> Result<()> {
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
        purpose,
        observer,
        last: Clock::now(&model.decoder),
        evaluated: None,
        reached: false,
    };
    match start {
        Some(start) => run.record_evaluation(0, start)?,
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

/// A line of `evals.jsonl`. All ranks have to hold the same adapter.
fn evaluation(
    learner: &ModelLearner<'_>,
    step: usize,
    plan: &Plan,
    observer: &mut dyn Observer,
) -> Result<Map<String, Value>> {
    rank_report::check_adapter(learner, step)?;
    Ok(evaluate(learner, step, observer)?
        .line(&learner.tasks, [&plan.optima_eval(), &plan.optima()]))
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

/// What happens after every step.
struct Run<'r> {
    plan: &'r Plan,
    schedule: &'r Schedule,
    /// On rank 0.
    dir: Option<RunDir>,
    checkpoints: &'r mut Checkpoints,
    /// The records of a run in the cache are not those of the run that needs it: the observer gets
    /// none.
    purpose: Purpose<'r>,
    observer: &'r mut dyn Observer,
    /// Start of the step in progress.
    last: Clock,
    /// Step and weighted held-out loss of the newest evaluation.
    evaluated: Option<(usize, Option<f64>)>,
    /// Whether the newest evaluation met the stopping rule of the plan.
    reached: bool,
}

impl Run<'_> {
    fn evaluation_is_due(&self, done: usize) -> bool {
        done == self.schedule.steps
            || (self.plan.eval_every > 0 && done.is_multiple_of(self.plan.eval_every))
    }

    fn checkpoint_is_due(&self, done: usize) -> bool {
        done == self.schedule.steps
            || (self.plan.checkpoint_every > 0 && done.is_multiple_of(self.plan.checkpoint_every))
    }

    fn after(
        &mut self,
        step: &Step,
        learner: &mut ModelLearner<'_>,
        method: &dyn Method,
    ) -> Result<ControlFlow<()>> {
        let took = self.last.elapsed(learner.decoder);
        let done = step.index + 1;
        let line = record::step_line(step, learner, self.plan, took);
        if let Some(dir) = &mut self.dir {
            dir.step(&line)?;
        }
        if self.purpose == Purpose::Run {
            self.observer.step(&line);
        }
        self.observer
            .advance(done, &record::step_note(step, learner, took.wall));
        if done < self.schedule.steps && self.schedule.stage(done).start == done {
            learner.reset_optimizer(rate_at(self.plan, self.schedule, done))?;
        }
        let mut stop = self.voted(learner.world())?;
        if self.evaluation_is_due(done) && !stop {
            match evaluation(learner, done, self.plan, self.observer) {
                Ok(line) => self.record_evaluation(done, line)?,
                Err(error) if error.kind == ErrorKind::Interrupted => stop = true,
                Err(error) => return Err(error),
            }
        }
        // `catch_up` makes up for what a stop leaves undone here.
        let due = (self.checkpoint_is_due(done) || self.reached) && !stop;
        if let Some(dir) = &self.dir
            && (due || stop || self.checkpoints.rolling_is_due())
        {
            let held_out = self.held_out(done);
            let average = match &learner.average {
                Some(average) => Some(average.parameters.read()?.into_owned()),
                None => None,
            };
            dir.sync()?;
            self.checkpoints.write(&Snapshot {
                state: State {
                    step: done,
                    updates: learner.optimizer.updates,
                    method: method.state(),
                    orders: learner
                        .tasks
                        .iter()
                        .map(|task| task.order.state())
                        .collect(),
                    held_out,
                    rolling: !due,
                },
                adapter: learner.adapter.to_host()?,
                m: learner.moments.m.read()?.into_owned(),
                v: learner.moments.v.read()?.into_owned(),
                average,
            })?;
        }
        self.last = Clock::now(learner.decoder);
        Ok(if stop || self.reached {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Whether any rank was asked to stop.
    fn voted(&self, world: &World) -> Result<bool> {
        let stop = self.observer.stop_requested();
        if world.size() == 1 {
            return Ok(stop);
        }
        let votes = world.agree(Ok(vec![u8::from(stop)]))?;
        Ok(votes.iter().any(|vote| vote == &[1]))
    }

    /// Does what was due at the step that a run resumes from: a stop or a kill may have come
    /// before.
    fn catch_up(
        &mut self,
        learner: &ModelLearner<'_>,
        first: usize,
        found: Option<State>,
    ) -> Result<()> {
        let world = learner.world();
        let recorded = decided(world, || {
            self.checkpoints.prune();
            run_dir::evaluation(&self.plan.out, first)
        })?;
        match recorded {
            Some(line) => self.note_evaluation(first, &line),
            None if first == 0 || self.evaluation_is_due(first) => {
                let line = evaluation(learner, first, self.plan, self.observer)?;
                self.record_evaluation(first, line)?;
            }
            None => {}
        }
        let Some(state) = found else {
            return Ok(());
        };
        let settled = State {
            held_out: self.held_out(first),
            rolling: !self.checkpoint_is_due(first) && !self.reached,
            ..state.clone()
        };
        if settled == state || self.dir.is_none() {
            return Ok(());
        }
        self.checkpoints.settle(&settled)
    }

    fn record_evaluation(&mut self, step: usize, line: Map<String, Value>) -> Result<()> {
        if let Some(dir) = &mut self.dir {
            dir.evaluation(&line)?;
        }
        if self.purpose == Purpose::Run {
            self.observer.evaluation(&line);
        }
        self.note_evaluation(step, &line);
        Ok(())
    }

    fn note_evaluation(&mut self, step: usize, line: &Map<String, Value>) {
        self.evaluated = Some((step, mixed(line, &self.plan.objectives)));
        let loss = |name: &str| {
            line.get(&format!("{}/loss/{name}", SETS[1]))
                .and_then(Value::as_f64)
        };
        let losses = self
            .plan
            .objectives
            .iter()
            .map(|objective| loss(&objective.name).unwrap_or(f64::INFINITY));
        let losses: Vec<f64> = losses.collect();
        self.reached = self
            .plan
            .stop
            .as_ref()
            .is_some_and(|stop| reached(&losses, &stop.points, stop.within));
    }

    /// Weighted held-out loss after `step` steps, if it was measured.
    fn held_out(&self, step: usize) -> Option<f64> {
        self.evaluated
            .filter(|(at, _)| *at == step)
            .and_then(|(_, loss)| loss)
    }
}

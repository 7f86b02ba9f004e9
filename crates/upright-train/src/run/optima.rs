//! `--optimum auto`: each objective is trained alone before the run, and its lowest loss is its
//! optimum. These runs are kept in the cache for every later run that differs only in method, weights,
//! seed and what the method needs.

use std::fmt;

use serde::{Deserialize, Serialize};
use upright_base::{Error, ErrorKind, Result, files, progress::Progress};
use upright_core::{
    methods::MIX,
    optimizer::{Average, Iterate},
};
use upright_data::Dataset;
use upright_runs::{
    plan::{Length, Plan, Schedule, plain_mix},
    plan_record,
    records::lowest_loss,
    run_dir::read_evaluations,
};

use super::{Model, Purpose, cached};
use crate::ranks::{decided, on_first};

/// Seed of the runs that train an objective alone, so that the optima do not depend on the seed of the
/// run that needed them first.
const SEED: u64 = 0;

/// Folder of these runs in the cache, each under its hash.
const OPTIMA: &str = "optima";

/// The lowest losses of an objective in any evaluation of the run that trains it alone. The last
/// evaluation may have a larger loss: SFT overfits its held-out rows, and a constant learning rate
/// leaves noise at the end. A study takes the lowest for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Optimum {
    /// On training rows (`fit`).
    pub(super) fit: f64,
    /// On held-out rows (`eval`); `None` if there are none.
    pub(super) held_out: Option<f64>,
}

impl fmt::Display for Optimum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} on training rows", self.fit)?;
        if let Some(held_out) = self.held_out {
            write!(f, ", {held_out:.4} on held-out rows")?;
        }
        Ok(())
    }
}

/// A run in the cache that trains one objective alone.
pub(super) struct Alone {
    /// Index of the objective.
    pub(super) objective: usize,
    /// The plan of the run; `out` is its folder in the cache.
    pub(super) plan: Plan,
    /// Whether the cache has it, with nothing left to train.
    pub(super) finished: bool,
}

impl Alone {
    /// The optimum, read from the records of the finished run.
    ///
    /// # Errors
    /// The records are damaged.
    pub(super) fn optimum(&self) -> Result<Optimum> {
        let evaluations = read_evaluations(&self.plan.out)?;
        let name = &self.plan.objectives[self.objective].name;
        let lowest = lowest_loss(&evaluations, name);
        let Some(fit) = lowest.training else {
            let out = self.plan.out.display();
            return Err(Error::input(format!(
                "{out}: evals.jsonl has no loss of {name} on training rows"
            ))
            .hint("remove this folder of the cache; the next run trains it again"));
        };
        Ok(Optimum {
            fit,
            held_out: lowest.held_out,
        })
    }
}

/// Objectives whose optimum is to be found and is not known. An objective that the run does not train
/// on counts too, because its gap is reported. An objective without training rows cannot be trained.
fn missing(plan: &Plan, rows: &[usize]) -> Vec<usize> {
    let mut missing = Vec::new();
    for (index, objective) in plan.objectives.iter().enumerate() {
        if plan.finds_optima && objective.optimum.is_none() && rows[index] > 0 {
            missing.push(index);
        }
    }
    missing
}

/// Checks that a resumed run has no optimum to find: they are found before a run starts and stand in
/// its record.
///
/// # Errors
/// The run was started without optima.
pub(super) fn check_recorded(plan: &Plan, rows: &[usize]) -> Result<()> {
    let mut differences = Vec::new();
    for index in missing(plan, rows) {
        let name = &plan.objectives[index].name;
        differences.push(format!("{name}.optimum: not set -> auto"));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(plan_record::other_settings(&plan.out, &differences))
}

/// The runs that find the missing optima of a plan; none unless its optima are to be found. Writes
/// nothing.
pub(super) fn runs(
    model: &Model,
    plan: &Plan,
    schedule: &Schedule,
    datasets: &[Dataset],
) -> Result<Vec<Alone>> {
    let rows: Vec<usize> = datasets.iter().map(|data| data.train.len()).collect();
    let mut runs = Vec::new();
    for objective in missing(plan, &rows) {
        let mut plan = plan_of(plan, objective, schedule.steps);
        let finished = cached::place(model, &mut plan, datasets, OPTIMA)?;
        runs.push(Alone {
            objective,
            plan,
            finished,
        });
    }
    Ok(runs)
}

/// The plan that trains one objective alone, as long as the run that needs its optimum. The other
/// objectives are evaluated only.
fn plan_of(plan: &Plan, objective: usize, steps: usize) -> Plan {
    let mut alone = Plan {
        method: &MIX,
        length: Some(Length::Steps(steps)),
        method_settings: plain_mix(),
        finds_optima: false,
        average: Average::None,
        export_iterate: Iterate::Last,
        checkpoint_every: 0,
        keep: 1,
        seed: SEED,
        stages: Vec::new(),
        stop: None,
        ..plan.clone()
    };
    for (index, planned) in alone.objectives.iter_mut().enumerate() {
        planned.weight = if index == objective { 1.0 } else { 0.0 };
        planned.optimum = None;
        planned.optimum_eval = None;
    }
    alone
}

/// Trains the runs that the cache does not have. Returns the plan with all optima. An optimum on
/// held-out rows that the plan has is kept.
///
/// # Errors
/// Those of a run, and damaged records in the cache.
pub(super) fn find(
    model: &Model,
    plan: &Plan,
    runs: &[Alone],
    datasets: &[Dataset],
    observer: &mut dyn Progress,
) -> Result<Plan> {
    let mut found = plan.clone();
    for run in runs {
        on_first(&model.world, || files::cache(OPTIMA))?;
        let objective = &mut found.objectives[run.objective];
        let name = &objective.name;
        let purpose = Purpose::Optimum(name);
        let what = format!("optimum of {name}: training it alone");
        let trained = cached::train(
            model,
            &run.plan,
            datasets.to_vec(),
            (purpose, &what),
            observer,
        )
        .map_err(|error| match error.kind {
            ErrorKind::Interrupted => error,
            ErrorKind::Input | ErrorKind::Failure => error.at(purpose.steps()),
        })?;
        let optimum = decided(&model.world, || run.optimum())?;
        let mut note = format!("optimum of {name}: {optimum}");
        if !trained {
            note += &format!("; trained before, {}", run.plan.out.display());
        }
        observer.note(&note);
        objective.optimum = Some(optimum.fit);
        objective.optimum_eval = objective.optimum_eval.or(optimum.held_out);
    }
    Ok(found)
}

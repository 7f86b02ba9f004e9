//! The first stage of a run: its rows are open, and it is known what its folder holds.

use serde::{Deserialize, Serialize};
use upright_base::{Result, files::Lock, progress::Progress};
use upright_data::Dataset;
use upright_runs::{
    plan::Schedule,
    plan_record::{self, PlanRecord},
    run_dir::{self, RunDir, is_finished},
};

use super::{
    Outline, Purpose, Work, extend, optima, prepared::Prepared, rank_report, reference_policy,
    reference_policy::ToTrain,
};
use crate::ranks::decided;

/// Whether the run of a plan was begun before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Begun {
    No,
    Yes,
    /// With fewer steps, which are given.
    Shorter(usize),
    /// It is finished, with as many steps.
    Finished,
}

/// A run whose rows are open. The folder of a begun run is locked.
pub(super) struct Opened<'w> {
    work: Work<'w>,
    datasets: Vec<Dataset>,
    schedule: Schedule,
    /// What `plan.toml` records.
    written: PlanRecord,
    begun: Begun,
    /// Of a begun run, on rank 0.
    lock: Option<Lock>,
}

impl<'w> Opened<'w> {
    /// Compares the run with what its folder holds. Writes nothing.
    ///
    /// # Errors
    /// Ranks differ, or the folder holds a run that this run cannot continue.
    pub(super) fn new(work: Work<'w>, datasets: Vec<Dataset>) -> Result<Self> {
        let plan = work.plan;
        let world = &*work.model.world;
        let written = work.model.describe(plan, &datasets)?;
        rank_report::check_equal(world, &written)?;
        let rows: Vec<usize> = datasets.iter().map(|data| data.train.len()).collect();
        let schedule = Schedule::new(plan, &rows)?;
        let mut lock = None;
        let begun = decided(world, || {
            if !work.resume || !run_dir::holds_run(&plan.out) {
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
        Ok(Self {
            work,
            datasets,
            schedule,
            written,
            begun,
            lock,
        })
    }

    /// Whether the folder holds the finished run.
    pub(super) fn is_finished(&self) -> bool {
        self.begun == Begun::Finished
    }

    /// Notes that the run is finished already, if it is the run that was asked for.
    pub(super) fn note_finished(&self, observer: &mut dyn Progress) -> Result<()> {
        let Work {
            model,
            plan,
            purpose,
            ..
        } = self.work;
        if purpose == Purpose::Run && model.world.is_first() {
            observer.note(&extend::finished(plan, self.schedule.steps)?);
        }
        Ok(())
    }

    /// Reads the adapter, and prepares the reference and the optima.
    ///
    /// # Errors
    /// The adapter cannot be read, or a run that this run needs fails or is stopped.
    pub(super) fn prepare(self, observer: &mut dyn Progress) -> Result<Prepared<'w>> {
        let Self {
            work,
            datasets,
            schedule,
            written,
            begun,
            lock,
        } = self;
        let Work {
            model,
            plan,
            purpose,
            ..
        } = work;
        note_warmup(&work, &schedule, observer);
        let (adapter, lora) = model.adapter(plan, observer)?;
        model.check_finite(&datasets, &adapter)?;
        let to_train = ToTrain::new(model, plan, observer)?;
        let alone = optima::runs(model, plan, &schedule, &datasets)?;
        if purpose == Purpose::Run && begun == Begun::No && model.world.is_first() {
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
            let ranks = model.world.size();
            if ranks > 1 {
                observer.note(&format!(
                    "  times are of one rank; {ranks} ranks share the packs"
                ));
            }
        }
        let reference =
            reference_policy::prepare(model, plan, &schedule, &datasets, to_train, observer)?;
        let plan = optima::find(model, plan, &alone, &datasets, observer)?;
        let written = PlanRecord {
            plan: plan.clone(),
            ..written
        };
        Ok(Prepared {
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
        })
    }
}

/// Warns of stages that consist of warm-up steps alone.
fn note_warmup(work: &Work<'_>, schedule: &Schedule, observer: &mut dyn Progress) {
    let warmup = work.plan.optimizer.warmup;
    for stage in &schedule.stages {
        let steps = stage.steps();
        if (1..=warmup).contains(&steps) {
            observer.note(&format!(
                "warning: the warm-up (--warmup {warmup}) covers a whole stage (number of steps: {steps})"
            ));
        }
    }
}

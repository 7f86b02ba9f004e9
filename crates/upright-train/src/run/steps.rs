//! What happens after every step of a run: records, evaluations, checkpoints, and whether it stops.

use std::ops::ControlFlow;

use upright_base::{ErrorKind, Result, progress::Progress};
use upright_core::{
    metrics::stopping::reached,
    optimizer::LearningRate,
    train::{Method, Step},
};
use upright_ranks::World;
use upright_runs::{
    plan::{Plan, Schedule},
    records::{EvalRecord, PerSet},
    run_dir::{self, RunDir},
    trackers::Trackers,
};

use super::{
    rank_report,
    record::{self, Clock},
};
use crate::{
    checkpoint::{Checkpoints, Snapshot, State},
    evaluation::evaluate,
    learner::ModelLearner,
    ranks::decided,
};

/// What happens after every step.
pub(super) struct Run<'r> {
    pub(super) plan: Plan,
    pub(super) schedule: Schedule,
    /// On rank 0.
    pub(super) dir: Option<RunDir>,
    pub(super) checkpoints: Checkpoints,
    pub(super) trackers: &'r mut Trackers,
    pub(super) observer: &'r mut dyn Progress,
    /// Start of the step in progress.
    pub(super) last: Clock,
    /// Step and weighted held-out loss of the newest evaluation.
    pub(super) evaluated: Option<(usize, Option<f64>)>,
    /// Whether the newest evaluation met the stopping rule of the plan.
    pub(super) reached: bool,
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

    pub(super) fn after(
        &mut self,
        step: &Step,
        learner: &mut ModelLearner<'_>,
        method: &dyn Method,
    ) -> Result<ControlFlow<()>> {
        let took = self.last.elapsed(learner.decoder);
        let done = step.index + 1;
        let record = record::step_record(step, learner, &self.plan, took);
        if let Some(dir) = &mut self.dir {
            dir.step(&record)?;
        }
        self.trackers.step(&record, self.observer);
        self.observer
            .advance(done, &record::step_note(step, learner, took.wall));
        if done < self.schedule.steps && self.schedule.stage(done).start == done {
            learner.reset_optimizer(rate_at(&self.plan, &self.schedule, done))?;
        }
        let mut stop = self.voted(learner.world())?;
        if self.evaluation_is_due(done) && !stop {
            match evaluation(learner, done, &self.plan, self.observer) {
                Ok(record) => self.record_evaluation(&record)?,
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
        let stop = self.observer.stop().is_requested();
        if world.size() == 1 {
            return Ok(stop);
        }
        let votes = world.agree(Ok(vec![u8::from(stop)]))?;
        Ok(votes.iter().any(|vote| vote == &[1]))
    }

    /// Does what was due at the step that a run resumes from: a stop or a kill may have come
    /// before.
    pub(super) fn catch_up(
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
            Some(record) => self.note_evaluation(&record),
            None if first == 0 || self.evaluation_is_due(first) => {
                let record = evaluation(learner, first, &self.plan, self.observer)?;
                self.record_evaluation(&record)?;
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

    pub(super) fn record_evaluation(&mut self, record: &EvalRecord) -> Result<()> {
        if let Some(dir) = &mut self.dir {
            dir.evaluation(record)?;
        }
        self.trackers.evaluation(record, self.observer);
        self.note_evaluation(record);
        Ok(())
    }

    /// Keeps what checkpoints and the stopping rule need of an evaluation.
    fn note_evaluation(&mut self, record: &EvalRecord) {
        let objectives = &self.plan.objectives;
        let weights = objectives.iter().map(|own| (&own.name[..], own.weight));
        self.evaluated = Some((record.step, record.weighted_loss(weights)));
        let mut losses = Vec::with_capacity(objectives.len());
        for objective in objectives {
            let loss = record.last.training.loss(&objective.name);
            losses.push(loss.unwrap_or(f64::INFINITY));
        }
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

/// The record of an evaluation. All ranks have to hold the same adapter.
pub(super) fn evaluation(
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

/// The learning rates of the stage that a step belongs to: the optimizer is reset at every stage.
pub(super) fn rate_at(plan: &Plan, schedule: &Schedule, step: usize) -> LearningRate {
    plan.learning_rate(schedule.stage(step).steps())
}

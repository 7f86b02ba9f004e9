//! Estimates how long a study takes on this machine, from a few measured steps.

use super::{Experiment, Job, JobKind};
use crate::bench::{Base, Bench, StepCost};
use upright_base::Result;
use upright_base::progress::{Progress, Quiet};
use upright_runs::plan::{ReferencePlan, ReferenceRows, Schedule};
use upright_train::run::outline::{SCORING, seconds_of_steps};

/// Measured steps of each objective, after one warm-up step.
const STEPS: usize = 2;

/// The estimate for one job.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Its name.
    pub part: String,
    /// Names of the jobs that it needs.
    pub needs: Vec<String>,
    /// Whether it is finished.
    pub finished: bool,
    /// Planned steps; joint methods may stop earlier, at the front.
    pub steps: usize,
    /// Estimated time in seconds; 0 if it is finished.
    pub seconds: f64,
}

/// Costs of one setup; all 0 if nothing is left to do.
struct Costs {
    /// Seconds per step of each objective.
    steps: Vec<f64>,
    /// Seconds per row in a step of each objective.
    rows: Vec<f64>,
    /// Seconds per evaluation.
    evaluation: f64,
}

impl Experiment {
    /// Estimates the time of every job on this machine, from a short measurement. Measures nothing
    /// if nothing is left to do.
    pub fn estimate(&self, only: &[String], observer: &mut dyn Progress) -> Result<Vec<Estimate>> {
        let wanted = self.graph.only(only)?;
        let mut finished = vec![true; self.graph.parts.len()];
        for &index in &wanted {
            finished[index] = self.is_there(&self.graph.parts[index], observer)?;
        }
        let is_left = |ground: usize| {
            wanted
                .iter()
                .any(|&i| !finished[i] && self.graph.parts[i].ground == ground)
        };
        let costs = (0..self.graph.grounds.len())
            .map(|ground| self.measure(ground, is_left(ground), observer));
        let costs = costs.collect::<Result<Vec<Costs>>>()?;
        let name = |index: &usize| self.graph.parts[*index].name.clone();
        let estimate = |&index: &usize| {
            let part = &self.graph.parts[index];
            let (steps, seconds) = self.expected(part, &costs[part.ground])?;
            let needs = part.needs.iter().map(name).collect();
            let seconds = if finished[index] { 0.0 } else { seconds };
            Ok(Estimate {
                part: part.name.clone(),
                needs,
                finished: finished[index],
                steps,
                seconds,
            })
        };
        wanted.iter().map(estimate).collect()
    }

    fn measure(&self, ground: usize, is_left: bool, observer: &mut dyn Progress) -> Result<Costs> {
        let ground = &self.graph.grounds[ground];
        if !is_left {
            let none = vec![0.0; ground.plan.objectives.len()];
            return Ok(Costs {
                steps: none.clone(),
                rows: none,
                evaluation: 0.0,
            });
        }
        let bench = Bench::open(
            &ground.settings,
            Base::Files,
            STEPS + 1,
            &mut Quiet(observer),
        )?;
        let timed = bench.steps(STEPS, &mut Quiet(observer))?;
        let steps: Vec<f64> = timed
            .iter()
            .map(|steps| StepCost::of(steps).median_seconds_per_step)
            .collect();
        let rows: Vec<f64> = steps
            .iter()
            .zip(&ground.plan.objectives)
            .map(|(step, objective)| step / objective.batch as f64)
            .collect();
        // Held-out rows and as many training rows.
        let scored = |(index, cost): (usize, &f64)| {
            2.0 * ground.plan.eval_rows.min(ground.met.rows[index]) as f64 * cost * SCORING
        };
        let evaluation = rows.iter().enumerate().map(scored).sum();
        Ok(Costs {
            steps,
            rows,
            evaluation,
        })
    }

    /// Steps and seconds of a job that takes all its steps.
    fn expected(&self, part: &Job, costs: &Costs) -> Result<(usize, f64)> {
        let ground = &self.graph.grounds[part.ground];
        if let (
            JobKind::Reference,
            ReferencePlan::Train {
                on,
                epochs,
                batch,
                rows,
                ..
            },
        ) = (&part.kind, &part.plan.reference)
        {
            let index = ground
                .plan
                .objectives
                .iter()
                .position(|objective| on.are_of(objective))
                .unwrap_or(0);
            let steps = upright_runs::plan::Length::Epochs(*epochs)
                .steps(rows.unwrap_or(ground.met.rows[index]).div_ceil(*batch));
            // The responses of a pair share the prompt, and the chosen one is about half of the
            // rest.
            let share = if *on == ReferenceRows::Chosen {
                0.75
            } else {
                1.0
            };
            return Ok((
                steps,
                steps as f64 * *batch as f64 * costs.rows[index] * share,
            ));
        }
        if matches!(part.kind, JobKind::Sum(_)) {
            return Ok((0, costs.evaluation));
        }
        let plan = &part.plan;
        let same = |i: usize| {
            ground
                .plan
                .objectives
                .iter()
                .position(|o| o.same_rows(&plan.objectives[i]))
                .unwrap_or(0)
        };
        let rows: Vec<usize> = (0..plan.objectives.len())
            .map(|i| ground.met.rows[same(i)])
            .collect();
        let schedule = Schedule::new(plan, &rows)?;
        let step_seconds: Vec<f64> = (0..plan.objectives.len())
            .map(|i| {
                let share = plan.batch(i) as f64 / plan.objectives[i].batch as f64;
                share * costs.steps[same(i)]
            })
            .collect();
        let seconds = seconds_of_steps(plan, &schedule, &step_seconds);
        let every = if plan.eval_every > 0 {
            schedule.steps.div_ceil(plan.eval_every)
        } else {
            1
        };
        Ok((
            schedule.steps,
            seconds + (1 + every) as f64 * costs.evaluation,
        ))
    }
}

//! Paths of arms: the means over their runs at every evaluation that these share.

use super::{arm::Arm, report::Report};
use crate::read::run::{Point, Run};
use upright_core::metrics::{Spread, gap};
use upright_runs::records::{EvalSet, PerSet};

/// The means of an arm's runs after some steps.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// Number of steps taken.
    pub(crate) step: usize,
    /// Tokens trained on so far.
    pub(crate) tokens: Spread,
    /// Seconds of all training steps so far.
    pub(crate) seconds: Spread,
    /// One loss per compared objective.
    pub(crate) losses: PerSet<Vec<Option<Spread>>>,
    /// Distance to the ideal point.
    pub(crate) ideal_distance: PerSet<Option<Spread>>,
}

impl Report {
    /// The path of an arm.
    pub(crate) fn path(&self, arm: &Arm) -> Vec<Stop> {
        let mut path = Vec::new();
        for point in &self.runs[arm.runs[0]].points {
            path.extend(self.stop(arm, point.step));
        }
        path
    }

    /// The means after a step; none if a run of the arm was not evaluated there.
    fn stop(&self, arm: &Arm, step: usize) -> Option<Stop> {
        let mut points: Vec<(&Run, &Point)> = Vec::new();
        for index in &arm.runs {
            let run = &self.runs[*index];
            let point = run.points.iter().find(|point| point.step == step)?;
            points.push((run, point));
        }
        let mean = |value: &dyn Fn(&Run, &Point) -> Option<f64>| {
            let mut values = Vec::new();
            for (run, point) in &points {
                values.push(value(run, point)?);
            }
            Some(Spread::of(&values))
        };
        let mut losses = PerSet::<Vec<Option<Spread>>>::default();
        let mut ideal_distance = PerSet::<Option<Spread>>::default();
        for set in EvalSet::ALL {
            for name in &self.objectives {
                let loss = mean(&|run, point| run.loss(point, arm.iterate, set, name));
                losses[set].push(loss);
            }
            ideal_distance[set] = mean(&|run, point| self.distance(arm, run, point, set));
        }
        Some(Stop {
            step,
            tokens: mean(&|run, _| run.tokens_before.get(step).copied())?,
            seconds: mean(&|run, _| run.seconds_before.get(step).copied())?,
            losses,
            ideal_distance,
        })
    }

    /// Distance to the ideal point of a run of an arm at one evaluation.
    fn distance(&self, arm: &Arm, run: &Run, point: &Point, set: EvalSet) -> Option<f64> {
        let ideal = self.settings[arm.setting].ideal_point(set)?;
        let mut gaps = Vec::new();
        for (name, optimum) in self.objectives.iter().zip(ideal) {
            let loss = run.loss(point, arm.iterate, set, name)?;
            gaps.push(gap::gap(loss, optimum));
        }
        Some(gap::ideal_distance(&gaps))
    }
}

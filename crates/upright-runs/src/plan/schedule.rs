//! The schedule of a run: its steps and stages, for a given number of training rows.

use super::{Length, Plan};
use upright_base::{Error, Result};

/// The steps of a run, divided into consecutive stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Number of updates; 0 for a run that only evaluates its initial adapter.
    pub steps: usize,
    /// The stages; at least one.
    pub stages: Vec<Stage>,
}

/// Steps that share one optimizer state and one learning-rate schedule. A joint method has one
/// stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// First step.
    pub start: usize,
    /// Step after the last.
    pub end: usize,
    /// The objective of a stage of a method that has stages; `None` if the method decides at every step.
    pub objective: Option<usize>,
}

/// Upper limit of the number of steps. More would take years and is a mistake.
const MOST_STEPS: usize = 100_000_000;

impl Length {
    /// Number of updates if an epoch has `epoch` steps. A fraction of an epoch has at least one.
    pub fn steps(self, epoch: usize) -> usize {
        match self {
            Self::Steps(steps) => steps,
            // Rounding: a product like 1.1 * 10 is slightly above the intended whole number.
            Self::Epochs(epochs) => {
                ((epochs * epoch as f64 - 1e-9).ceil() as usize).max(epoch.min(1))
            }
        }
    }
}

impl Stage {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.end - self.start
    }
}

impl Schedule {
    /// The schedule for the given number of training rows per objective.
    ///
    /// An epoch of an objective is ceil(rows / batch) steps. An epoch of a run is the longest of
    /// these, whatever the weights, so that runs that differ only in lambda have the same length.
    ///
    /// # Errors
    /// An objective that is trained on has no rows, or the run has no step or too many.
    pub fn new(plan: &Plan, rows: &[usize]) -> Result<Self> {
        let epoch = |i: usize| rows[i].div_ceil(plan.objectives[i].batch);
        let longest = (0..rows.len()).map(epoch).max().unwrap_or(0);
        let total = plan.length.map_or(0, |length| length.steps(longest));
        let lengths = match plan.method.has_stages {
            true if plan.stages.is_empty() => split(plan, total)?,
            true => {
                let of = |objective: usize, length: Length| {
                    (Some(objective), length.steps(epoch(objective)))
                };
                plan.stages
                    .iter()
                    .map(|stage| of(stage.objective, stage.length))
                    .collect()
            }
            false => vec![(None, total)],
        };
        if plan.length == Some(Length::Steps(0)) {
            return Ok(Self {
                steps: 0,
                stages: vec![Stage {
                    start: 0,
                    end: 0,
                    objective: None,
                }],
            });
        }
        let mut stages = vec![];
        let mut start = 0usize;
        for (objective, steps) in lengths.into_iter().filter(|(_, steps)| *steps > 0) {
            let end = start.saturating_add(steps);
            stages.push(Stage {
                start,
                end,
                objective,
            });
            start = end;
        }
        let used = |i: usize| {
            if plan.method.has_stages && !plan.stages.is_empty() {
                plan.stages.iter().any(|stage| stage.objective == i)
            } else {
                plan.objectives[i].weight > 0.0
            }
        };
        if let Some(i) = (0..rows.len()).find(|i| rows[*i] == 0 && used(*i)) {
            return Err(Error::input(format!(
                "objective {} has no training rows",
                plan.objectives[i].name
            )));
        }
        if stages.is_empty() || start > MOST_STEPS {
            return Err(Error::input(format!("the run has {start} steps"))
                .hint(format!("give --steps from 1 to {MOST_STEPS}")));
        }
        Ok(Self {
            steps: start,
            stages,
        })
    }

    /// The stage of a step; past the end, the last stage.
    pub fn stage(&self, step: usize) -> &Stage {
        self.stages
            .iter()
            .find(|stage| step < stage.end)
            .unwrap_or(&self.stages[self.stages.len() - 1])
    }
}

/// Default stages of Sequential: preference objectives first, then the others, with steps in
/// proportion to the weights. Boundaries are rounded instead of lengths, so that the lengths sum to
/// the total. An objective with a weight above 0 must get at least one step.
fn split(plan: &Plan, total: usize) -> Result<Vec<(Option<usize>, usize)>> {
    let mut order: Vec<usize> = (0..plan.objectives.len()).collect();
    order.sort_by_key(|i| plan.objectives[*i].tie_rank);
    let (mut weight, mut done) = (0.0, 0);
    let lengths = order.iter().map(|i| {
        weight += plan.objectives[*i].weight;
        let boundary = (total as f64 * weight).round() as usize;
        let steps = boundary - done;
        done = boundary;
        let objective = &plan.objectives[*i];
        if steps == 0 && total > 0 && objective.weight > 0.0 {
            return Err(Error::input(format!(
                "sequential: objective {} gets 0 of {total} steps",
                objective.name
            ))
            .hint("give more --steps, or set the length of each stage with --stages"));
        }
        Ok((Some(*i), steps))
    });
    lengths.collect()
}

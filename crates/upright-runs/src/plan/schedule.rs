//! Which steps there are, once the rows are counted.

use super::{Length, Plan};
use upright_base::{Error, Result};
use upright_core::methods::MethodKind;

/// The steps of a run, cut into stages that follow each other without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Updates in all; 0 for a run that measures the adapter it begins with.
    pub steps: usize,
    /// At least one.
    pub stages: Vec<Stage>,
}

/// Steps with one optimizer state and one course of the learning rate. A joint method has a single stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// First step.
    pub start: usize,
    /// Step after the last.
    pub end: usize,
    /// The objective of a stage of Sequential; none: the method decides.
    pub objective: Option<usize>,
}

/// Years of steps: more is a mistake, and would be counted one by one.
const MOST_STEPS: usize = 100_000_000;

impl Length {
    /// Updates, where an epoch has so many: at least one, however short a part of an epoch is meant.
    pub fn steps(self, epoch: usize) -> usize {
        match self {
            Self::Steps(steps) => steps,
            // A product like 1.1 * 10 lies a hair above the whole number that is meant.
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
    /// The schedule for so many training rows of each objective.
    ///
    /// An epoch of an objective is ceil(rows / batch) steps; the epochs of a run are those of the objective with the most,
    /// whatever the weights, so that runs that differ in lambda alone are equally long.
    pub fn new(plan: &Plan, rows: &[usize]) -> Result<Self> {
        let epoch = |i: usize| rows[i].div_ceil(plan.objectives[i].batch);
        let longest = (0..rows.len()).map(epoch).max().unwrap_or(0);
        let total = plan.length.map_or(0, |length| length.steps(longest));
        let lengths = match plan.method {
            MethodKind::Sequential if plan.stages.is_empty() => split(plan, total)?,
            MethodKind::Sequential => {
                let of = |objective: usize, length: Length| {
                    (Some(objective), length.steps(epoch(objective)))
                };
                plan.stages
                    .iter()
                    .map(|stage| of(stage.objective, stage.length))
                    .collect()
            }
            _ => vec![(None, total)],
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
        let used = |i: usize| match plan.method {
            MethodKind::Sequential if !plan.stages.is_empty() => {
                plan.stages.iter().any(|stage| stage.objective == i)
            }
            _ => plan.objectives[i].weight > 0.0,
        };
        if let Some(i) = (0..rows.len()).find(|i| rows[*i] == 0 && used(*i)) {
            return Err(Error::input(format!(
                "objective {} has no training row",
                plan.objectives[i].name
            )));
        }
        if stages.is_empty() || start > MOST_STEPS {
            return Err(Error::input(format!("the run has {start} steps"))
                .hint(format!("give --steps 1 to {MOST_STEPS}")));
        }
        Ok(Self {
            steps: start,
            stages,
        })
    }

    /// The stage that a step lies in; past the end the last one.
    pub fn stage(&self, step: usize) -> &Stage {
        self.stages
            .iter()
            .find(|stage| step < stage.end)
            .unwrap_or(&self.stages[self.stages.len() - 1])
    }
}

/// Sequential without stages: preference objectives first, then the others, with steps by weight. Boundaries are rounded,
/// not lengths, so that the lengths sum to the total. An objective that has a weight must have a step.
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
                "sequential: objective {} gets no step of {total}",
                objective.name
            ))
            .hint("give more --steps, or say how long each stage is: --stages"));
        }
        Ok((Some(*i), steps))
    });
    lengths.collect()
}

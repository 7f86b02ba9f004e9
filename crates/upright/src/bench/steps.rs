//! What a step of each objective costs.

use std::time::Instant;

use serde::Serialize;

use super::{Bench, Meter, report};
use upright_base::{Result, observer::Observer};
use upright_core::{methods::Sequential, train::train};

/// One step, as it was timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimedStep {
    /// Wall-clock time.
    pub seconds: f64,
    /// Tokens of its rows, the prompt of a pair once, no padding.
    pub tokens: usize,
    /// Operations of matrix products and attention that the engine counted; a multiply-add is two.
    pub operations: f64,
}

/// What a step of one objective costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepCost {
    /// Mean time of a step.
    pub seconds_per_step: f64,
    /// Median time of a step.
    pub median_seconds_per_step: f64,
    /// Tokens of all steps by their time; the prompt of a pair counts once, there is no padding.
    pub unique_tokens_per_second: f64,
    /// Mean tokens of a step, counted in the same way.
    pub unique_tokens_per_step: f64,
    /// Operations that the engine counted (products and attention; a multiply-add is two) by those tokens.
    pub operations_per_token: f64,
    /// The same by time.
    pub operations_per_second: f64,
}

impl StepCost {
    /// Sums up at least one step.
    pub fn of(steps: &[TimedStep]) -> Self {
        let sum = |value: fn(&TimedStep) -> f64| steps.iter().map(value).sum::<f64>();
        let (seconds, tokens) = (sum(|step| step.seconds), sum(|step| step.tokens as f64));
        let operations = sum(|step| step.operations);
        Self {
            seconds_per_step: seconds / steps.len() as f64,
            median_seconds_per_step: median(steps.iter().map(|step| step.seconds).collect()),
            unique_tokens_per_second: tokens / seconds,
            unique_tokens_per_step: tokens / steps.len() as f64,
            operations_per_token: operations / tokens,
            operations_per_second: operations / seconds,
        }
    }
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}

impl Bench {
    /// Takes `steps` steps of every objective in turn, after one of each that is not counted: what disturbs the machine
    /// meanwhile disturbs all of them. One list an objective.
    pub fn steps(&self, steps: usize, observer: &mut dyn Observer) -> Result<Vec<Vec<TimedStep>>> {
        let objectives = self.plan().objectives.len();
        let total = objectives * (steps + 1);
        let mut method = Sequential {
            objectives,
            stages: (0..total)
                .map(|step| (step % objectives, step + 1))
                .collect(),
        };
        let mut meter = Meter::new(self.learner()?);
        let mut timed = vec![Vec::new(); objectives];
        observer.begin("steps", total);
        let mut began = Instant::now();
        let trained = train(&mut meter, &mut method, 0..total, |step, meter, _| {
            let seconds = began.elapsed().as_secs_f64();
            let operations = 2.0 * meter.take().total().multiply_adds() as f64;
            if step.index >= objectives {
                timed[step.index % objectives].push(TimedStep {
                    seconds,
                    tokens: meter.learner.report.tokens,
                    operations,
                });
            }
            let flow = report(observer, step.index + 1);
            began = Instant::now();
            flow
        });
        observer.end();
        trained.map(|()| timed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_summed_up() {
        let step = |seconds, tokens, operations| TimedStep {
            seconds,
            tokens,
            operations,
        };
        let cost = StepCost::of(&[
            step(1.0, 100, 4e3),
            step(4.0, 300, 8e3),
            step(2.5, 200, 6e3),
        ]);
        assert_eq!(
            cost,
            StepCost {
                seconds_per_step: 2.5,
                median_seconds_per_step: 2.5,
                unique_tokens_per_second: 80.0,
                unique_tokens_per_step: 200.0,
                operations_per_token: 30.0,
                operations_per_second: 2400.0,
            }
        );
        assert_eq!(median(vec![9.0, 1.0, 3.0, 2.0]), 2.5);
    }
}

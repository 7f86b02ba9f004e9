//! Cost of a step of each objective.

use std::time::Instant;

use serde::Serialize;

use super::{Bench, Meter, report};
use upright_base::{Result, progress::Progress};
use upright_core::{methods::Sequential, train::train};
use upright_engine::times::GroupTime;

/// Measurement of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimedStep {
    /// Wall-clock time in seconds.
    pub seconds: f64,
    /// Tokens of the rows. The prompt of a pair counts once; there is no padding.
    pub tokens: usize,
    /// FLOP of matrix products and attention, counted by the engine. A multiply-add is two.
    pub operations: f64,
}

/// Cost of a step of one objective.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepCost {
    /// Mean time per step, in seconds.
    pub seconds_per_step: f64,
    /// Median time per step, in seconds.
    pub median_seconds_per_step: f64,
    /// Throughput in tokens/s. The prompt of a pair counts once; there is no padding.
    pub unique_tokens_per_second: f64,
    /// Mean tokens per step. The prompt of a pair counts once; there is no padding.
    pub unique_tokens_per_step: f64,
    /// FLOP per token, in matrix products and attention. A multiply-add is two.
    pub operations_per_token: f64,
    /// FLOP/s, in matrix products and attention.
    pub operations_per_second: f64,
}

impl StepCost {
    /// Summarizes at least one step.
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

/// The median; for an even number of values, the mean of the two in the middle.
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
    /// Takes `steps` steps of every objective, after one warm-up step of each. The objectives
    /// alternate, so that a disturbance of the machine affects all of them. Returns one list per
    /// objective.
    pub fn steps(&self, steps: usize, observer: &mut dyn Progress) -> Result<Vec<Vec<TimedStep>>> {
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

impl Bench {
    /// Takes two steps of every objective and measures the kernels of the second one. Returns one list per objective: where its step
    /// spends its time on a GPU. Lists are empty where the device does not measure kernels.
    pub fn kernel_times(&self, observer: &mut dyn Progress) -> Result<Vec<Vec<GroupTime>>> {
        let objectives = self.plan().objectives.len();
        let total = 2 * objectives;
        let mut method = Sequential {
            objectives,
            stages: (0..total)
                .map(|step| (step % objectives, step + 1))
                .collect(),
        };
        let mut learner = self.learner()?;
        let mut times = Vec::with_capacity(objectives);
        observer.begin("steps with timed kernels", total);
        let trained = train(&mut learner, &mut method, 0..total, |step, learner, _| {
            if step.index >= objectives {
                times.push(learner.decoder.take_times()?);
            }
            if step.index + 1 >= objectives {
                learner.decoder.start_times();
            }
            report(observer, step.index + 1)
        });
        observer.end();
        self.decoder().take_times()?;
        trained.map(|()| times)
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

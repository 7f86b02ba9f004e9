//! Evaluations: every objective on two fixed sets, `eval` (held-out rows) and `fit` (a sample of
//! its training rows). A run with an average evaluates two adapters.

use upright_base::{Error, Result, progress::Progress};
use upright_core::metrics::gap::{gap, ideal_distance};
use upright_engine::DeviceAdapter;
use upright_runs::records::{EvalRecord, ObjectiveRecord, PerSet, SetRecord, metric_name};

use crate::learner::{Measured, ModelLearner, Place, Task, TaskRow};

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Steps done.
    pub step: usize,
    /// Of the adapter after these steps.
    pub last: Losses,
    /// Of the averaged adapter, if the run keeps one.
    pub average: Option<Losses>,
}

/// Losses of one adapter: on each set one entry per objective, `None` if the set has no rows of it.
pub type Losses = PerSet<Vec<Option<Measured>>>;

/// Measures every objective on both sets. If a stop is requested meanwhile, returns an error.
pub fn evaluate(
    learner: &ModelLearner<'_>,
    step: usize,
    observer: &mut dyn Progress,
) -> Result<Evaluation> {
    // Before the first step, the average is the initial adapter too.
    let average = learner.average.as_ref().filter(|_| step > 0);
    let mut rows = 0;
    for task in &learner.tasks {
        rows += task.held_out.len() + task.fit.len();
    }
    let adapters = 1 + usize::from(average.is_some());
    observer.begin("evaluation", adapters * rows);
    let measured = measure(learner, &learner.adapter, 0, observer).and_then(|last| {
        let average = match average {
            Some(adapter) => Some(measure(learner, adapter, rows, observer)?),
            None if learner.average.is_some() => Some(last.clone()),
            None => None,
        };
        Ok(Evaluation {
            step,
            last,
            average,
        })
    });
    observer.end();
    measured
}

/// Measures one adapter. `done` is the number of rows that were measured before.
fn measure(
    learner: &ModelLearner<'_>,
    adapter: &DeviceAdapter,
    mut done: usize,
    observer: &mut dyn Progress,
) -> Result<Losses> {
    let stop = observer.stop();
    let mut losses = Losses::default();
    for task in &learner.tasks {
        for (rows, measured) in [
            (&task.held_out, &mut losses.held_out),
            (&task.fit, &mut losses.training),
        ] {
            if rows.is_empty() {
                measured.push(None);
                continue;
            }
            let rows: Vec<&TaskRow> = rows.iter().collect();
            let place = Place {
                decoder: learner.decoder,
                adapter,
                token_budget: learner.token_budget,
                world: learner.world(),
            };
            let loss = task.measure(&place, &rows, &mut |scored| {
                observer.advance(done + scored, &task.name);
                if stop.is_requested() {
                    Err(Error::interrupted("during an evaluation"))
                } else {
                    Ok(())
                }
            })?;
            measured.push(Some(loss));
            done += rows.len();
        }
    }
    Ok(losses)
}

/// The metrics of an objective, under their names in records.
pub(crate) fn named_metrics(tasks: &[Task], index: usize, values: &[f64]) -> Vec<(String, f64)> {
    let task = &tasks[index];
    let mut named = Vec::new();
    for (metric, value) in task.objective.loss.metrics.iter().zip(values) {
        let losses = tasks.iter().map(|task| task.objective.loss);
        named.push((metric_name(metric, &task.name, losses), *value));
    }
    named
}

impl Evaluation {
    /// The record of the evaluation. `optima` has one entry per objective; gaps appear where the
    /// optimum is known.
    pub fn record(&self, tasks: &[Task], optima: &PerSet<Vec<Option<f64>>>) -> EvalRecord {
        let of =
            |losses: &Losses| PerSet::each(|set| set_record(&losses[set], tasks, &optima[set]));
        EvalRecord {
            step: self.step,
            last: of(&self.last),
            average: self.average.as_ref().map(of),
            ..EvalRecord::default()
        }
    }
}

/// The record of one adapter on one set.
fn set_record(measured: &[Option<Measured>], tasks: &[Task], optima: &[Option<f64>]) -> SetRecord {
    let mut record = SetRecord::default();
    let mut gaps = Vec::new();
    for (index, measured) in measured.iter().enumerate() {
        let Some(measured) = measured else { continue };
        let gap = optima[index].map(|optimum| gap(measured.loss, optimum));
        gaps.extend(gap);
        record.objectives.push(ObjectiveRecord {
            name: tasks[index].name.clone(),
            probe: None,
            loss: Some(measured.loss),
            gap,
            metrics: named_metrics(tasks, index, &measured.metrics),
        });
    }
    if gaps.len() == tasks.len() {
        record.ideal_distance = Some(ideal_distance(&gaps));
    }
    record
}

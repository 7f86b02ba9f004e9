//! Evaluations: every objective on two fixed sets, `eval` (held-out rows) and `fit` (a sample of
//! its training rows). A run with an average evaluates two adapters.

use serde_json::{Map, Value, json};

use upright_base::{Error, Result, observer::Observer};
use upright_core::metrics::gap::{gap, ideal_distance};
use upright_engine::DeviceAdapter;
use upright_runs::records::{AVERAGE, SETS, metric_name};

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

/// Losses of one adapter. Lists have one entry per objective, `None` if a set has no rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// On held-out rows.
    pub held_out: Vec<Option<Measured>>,
    /// On training rows.
    pub fit: Vec<Option<Measured>>,
}

/// Measures every objective on both sets. If a stop is requested meanwhile, returns an error.
pub fn evaluate(
    learner: &ModelLearner<'_>,
    step: usize,
    observer: &mut dyn Observer,
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
    observer: &mut dyn Observer,
) -> Result<Losses> {
    let mut losses = Losses::default();
    for task in &learner.tasks {
        for (rows, measured) in [
            (&task.held_out, &mut losses.held_out),
            (&task.fit, &mut losses.fit),
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
                if observer.stop_requested() {
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

/// Names under which the metrics of an objective appear in records.
pub fn metric_names(tasks: &[Task], index: usize) -> Vec<String> {
    let name = |metric: &&str| {
        metric_name(
            metric,
            &tasks[index].name,
            tasks.iter().map(|task| task.objective.kind),
        )
    };
    tasks[index]
        .objective
        .kind
        .spec()
        .metrics
        .iter()
        .map(name)
        .collect()
}

impl Evaluation {
    /// A line of `evals.jsonl`. `optima` has one entry per objective for each of [`SETS`]; gaps
    /// appear where it is given.
    pub fn line(&self, tasks: &[Task], optima: [&[Option<f64>]; 2]) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("step".into(), json!(self.step));
        self.last.write_to(&mut line, "", tasks, optima);
        if let Some(average) = &self.average {
            average.write_to(&mut line, AVERAGE, tasks, optima);
        }
        line
    }
}

impl Losses {
    /// Adds the values to a line, under keys with this prefix.
    fn write_to(
        &self,
        line: &mut Map<String, Value>,
        prefix: &str,
        tasks: &[Task],
        optima: [&[Option<f64>]; 2],
    ) {
        for ((set, measured), optima) in SETS.iter().zip([&self.held_out, &self.fit]).zip(optima) {
            let set = format!("{prefix}{set}");
            let mut gaps = Vec::new();
            for (index, measured) in measured.iter().enumerate() {
                let Some(measured) = measured else { continue };
                let name = &tasks[index].name;
                line.insert(format!("{set}/loss/{name}"), json!(measured.loss));
                if let Some(optimum) = optima[index] {
                    let gap = gap(measured.loss, optimum);
                    line.insert(format!("{set}/gap/{name}"), json!(gap));
                    gaps.push(gap);
                }
                for (name, value) in metric_names(tasks, index).iter().zip(&measured.metrics) {
                    line.insert(format!("{set}/{name}"), json!(value));
                }
            }
            if gaps.len() == tasks.len() {
                line.insert(
                    format!("{set}/ideal_distance"),
                    json!(ideal_distance(&gaps)),
                );
            }
        }
    }
}

//! Evaluations: every objective on two fixed sets, `eval` (held-out rows) and `fit` (a sample of
//! its training rows).

use serde_json::{Map, Value, json};

use upright_base::{Error, Result, observer::Observer};
use upright_core::metrics::gap::{gap, ideal_distance};
use upright_data::Example;
use upright_runs::records::{SETS, metric_name};

use crate::learner::{Measured, ModelLearner, Task};

/// The result of an evaluation. Lists have one entry per objective, `None` if a set has no rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Steps done.
    pub step: usize,
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
    let sets = |task: &'_ Task<'_>| task.held_out.len() + task.fit.len();
    observer.begin("evaluation", learner.tasks.iter().map(sets).sum());
    let mut before = 0;
    let mut measure = |task: &Task<'_>, examples: Vec<&Example>| -> Result<Option<Measured>> {
        if examples.is_empty() {
            return Ok(None);
        }
        let (decoder, adapter, budget) = (learner.decoder, &learner.adapter, learner.token_budget);
        let measured = task.measure(decoder, adapter, &examples, budget, &mut |done| {
            observer.advance(before + done, &task.name);
            if observer.stop_requested() {
                Err(Error::interrupted("during an evaluation"))
            } else {
                Ok(())
            }
        })?;
        before += examples.len();
        Ok(Some(measured))
    };
    let mut evaluation = Evaluation {
        step,
        held_out: Vec::new(),
        fit: Vec::new(),
    };
    let mut found = Ok(());
    for task in &learner.tasks {
        let both = measure(task, task.held_out.iter().collect())
            .and_then(|held_out| Ok((held_out, measure(task, task.fit.iter().collect())?)));
        match both {
            Ok((held_out, fit)) => {
                evaluation.held_out.push(held_out);
                evaluation.fit.push(fit);
            }
            Err(error) => {
                found = Err(error);
                break;
            }
        }
    }
    observer.end();
    found.map(|()| evaluation)
}

/// Names under which the metrics of an objective appear in records.
pub fn metric_names(tasks: &[Task<'_>], index: usize) -> Vec<String> {
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
    pub fn line(&self, tasks: &[Task<'_>], optima: [&[Option<f64>]; 2]) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("step".into(), json!(self.step));
        for ((set, measured), optima) in SETS.iter().zip([&self.held_out, &self.fit]).zip(optima) {
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
        line
    }
}

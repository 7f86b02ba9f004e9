//! What a step costs on this machine: real steps (forward, objective, backward, clip, AdamW) of the loop that trains, on
//! rows in the order of a run, timed and counted. Nothing is evaluated or saved, and the reference's log-probabilities are
//! computed before the first step, as in a run that finds them in its cache.

mod meter;
mod methods;
mod steps;

use std::ops::ControlFlow;

use upright_engine::decoder::Decoder;

pub use meter::{Meter, StepCounts};
pub use methods::{Compared, MethodCost};
pub use steps::{StepCost, TimedStep};

use crate::{
    Error, Result,
    config::Config,
    data::{Dataset, Example},
    files::Scratch,
    learner::ModelLearner,
    observer::Observer,
    optim::adamw::AdamW,
    plan::Plan,
    reference::Reference,
    run::{self, Engine},
};

/// Where the frozen base comes from. A step takes as long on either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The model's files.
    Files,
    /// Made in memory; the model's folder needs `config.json` and a tokenizer only.
    Random,
}

/// A model and rows, ready to be trained on and thrown away.
pub struct Bench {
    plan: Plan,
    engine: Engine,
    datasets: Vec<Dataset>,
    reference: Option<Reference>,
}

impl Bench {
    /// Opens what the settings name and computes the reference's log-probabilities of every row that `batches` batches of
    /// each objective draw; the reference is the base. Of the settings, those of records, evaluations and checkpoints
    /// have no bearing.
    ///
    /// # Errors
    /// What [`Plan::from_config`] refuses, and files that cannot be read or used.
    pub fn open(
        config: &Config,
        base: Base,
        batches: usize,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        // A plan has a folder. Reference values of random weights, or of one measurement, are not worth keeping in the cache.
        let scratch = Scratch::new("upright-bench")?;
        let plan = Plan::from_config(&Config {
            out: Some(scratch.path().to_owned()),
            ..config.clone()
        })?;
        let recompute = plan.recompute.into();
        let engine = match base {
            Base::Files => Engine::open(&plan.model, plan.threads, recompute, observer)?,
            Base::Random => Engine::random(&plan.model, plan.seed, plan.threads, recompute)?,
        };
        let datasets = engine.datasets(&plan, observer)?;
        let mut reference = None;
        if plan.needs_reference() {
            let needs = |index: &usize| plan.objectives[*index].loss.form().reference;
            let drawn = |index| run::first_batches(&plan, index, &datasets[index], batches);
            let rows: Vec<&Example> = (0..datasets.len()).filter(needs).flat_map(drawn).collect();
            let mut values =
                Reference::open(scratch.path(), &engine.decoder, &engine.fingerprint, None)?;
            values.prepare(&engine.decoder, None, &rows, plan.token_budget, observer)?;
            reference = Some(values);
        }
        Ok(Self {
            plan,
            engine,
            datasets,
            reference,
        })
    }

    /// What the settings mean.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The frozen base.
    pub fn decoder(&self) -> &Decoder {
        &self.engine.decoder
    }

    /// A learner at the start of a run.
    pub fn learner(&self) -> Result<ModelLearner<'_>> {
        let (adapter, _) = self
            .engine
            .adapter(&self.plan, &mut crate::observer::Silent)?;
        let optimiser = AdamW::new(self.plan.optimiser.adamw, adapter.parameters.len());
        let tasks = run::tasks(&self.plan, self.datasets.clone(), self.reference.as_ref());
        let (rate, clip) = (self.plan.learning_rate(1), self.plan.optimiser.clip);
        Ok(ModelLearner::new(
            &self.engine.decoder,
            adapter,
            optimiser,
            rate,
            clip,
            self.plan.token_budget,
            tasks,
        ))
    }
}

/// Reports a step to whoever watches; an error where it is to be the last.
fn report(observer: &mut dyn Observer, done: usize) -> Result<ControlFlow<()>> {
    observer.advance(done, "");
    match observer.stop_requested() {
        true => Err(Error::interrupted(&format!("after step {done}"))),
        false => Ok(ControlFlow::Continue(())),
    }
}

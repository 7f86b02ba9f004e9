//! Cost of a training step on this machine: real steps of the training loop (forward, objective,
//! backward, clip, AdamW), on rows in the order of a run, timed and counted. Nothing is evaluated
//! or saved. The reference log-probabilities are computed before the first step, as in a run that
//! finds them in its cache.

mod meter;
mod methods;
mod steps;

use std::ops::ControlFlow;

use upright_engine::Decoder;

pub use meter::{Meter, StepCounts};
pub use methods::{Compared, MethodCost};
pub use steps::{StepCost, TimedStep};

use upright_base::{Error, Result, files::Scratch, progress::Progress};
use upright_core::optimizer::AdamW;
use upright_data::{Dataset, Example};
use upright_runs::{
    plan::{GRADIENT_EXPONENT, Plan},
    settings::Config,
};
use upright_train::{
    learner::{ModelLearner, Optimization},
    reference::{Policy, Reference},
    run::{self, Model, model, tasks},
};

/// Source of the frozen base weights. The time of a step does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The model files.
    Files,
    /// Random weights generated in memory. The model folder needs only `config.json` and a
    /// tokenizer.
    Random,
}

/// A model and datasets for measured steps whose result is discarded.
pub struct Bench {
    plan: Plan,
    model: Model,
    datasets: Vec<Dataset>,
    reference: Option<Reference>,
}

impl Bench {
    /// Opens the model and the datasets, and computes the reference log-probabilities of every row
    /// in the first `batches` batches of each objective. The reference model is the base model.
    /// Settings of records, evaluations and checkpoints are ignored.
    ///
    /// # Errors
    /// The errors of [`Plan::from_config`], and files that cannot be read or used.
    pub fn open(
        config: &Config,
        base: Base,
        batches: usize,
        observer: &mut dyn Progress,
    ) -> Result<Self> {
        // A plan needs a run folder. Reference values of random weights, or of one measurement, are
        // not worth caching.
        let scratch = Scratch::new("upright-bench")?;
        let plan = Plan::from_config(&Config {
            out: Some(scratch.path().to_owned()),
            ..config.clone()
        })?;
        let options = model::options(&plan);
        let model = match base {
            Base::Files => Model::open(&plan.model, &options, observer)?,
            Base::Random => Model::random(&plan.model, plan.seed, &options)?,
        };
        let datasets = model.datasets(&plan, observer)?;
        let mut reference = None;
        if plan.needs_reference() {
            let needs = |index: &usize| plan.objectives[*index].loss.reference;
            let drawn = |index| run::first_batches(&plan, index, &datasets[index], batches);
            let rows: Vec<&Example> = (0..datasets.len()).filter(needs).flat_map(drawn).collect();
            let mut values =
                Reference::open(scratch.path(), &model.decoder, &model.fingerprint, None)?;
            let policy = Policy {
                decoder: &model.decoder,
                adapter: None,
                token_budget: plan.token_budget,
                world: &model.world,
            };
            values.prepare(&policy, &rows, observer)?;
            reference = Some(values);
        }
        Ok(Self {
            plan,
            model,
            datasets,
            reference,
        })
    }

    /// The plan of the settings.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The frozen base model.
    pub fn decoder(&self) -> &Decoder {
        &self.model.decoder
    }

    /// A learner in the state of a new run.
    pub fn learner(&self) -> Result<ModelLearner<'_>> {
        let (adapter, _) = self
            .model
            .adapter(&self.plan, &mut upright_base::progress::Silent)?;
        let optimization = Optimization {
            optimizer: AdamW::new(self.plan.optimizer.adamw),
            learning_rate: self.plan.learning_rate(1),
            clip: self.plan.optimizer.clip,
            gradient_exponent: GRADIENT_EXPONENT,
            average: self.plan.average,
        };
        ModelLearner::new(
            &self.model.decoder,
            adapter,
            optimization,
            self.plan.token_budget,
            tasks::tasks(&self.plan, self.datasets.clone(), self.reference.as_ref()),
        )
    }
}

/// Reports a step to the observer. Returns an error if a stop is requested.
fn report(observer: &mut dyn Progress, done: usize) -> Result<ControlFlow<()>> {
    observer.advance(done, "");
    match observer.stop().is_requested() {
        true => Err(Error::interrupted(&format!("after step {done}"))),
        false => Ok(ControlFlow::Continue(())),
    }
}

//! The third stage of a run: its steps.

use upright_base::{Error, ErrorKind, Result};
use upright_core::train::{Method, train};

use super::{Purpose, finished::Finished, record::Clock, steps::Run};
use crate::{checkpoint::Identity, learner::ModelLearner};

/// A run that is about to take its next step.
pub(super) struct Training<'r> {
    pub(super) purpose: Purpose<'r>,
    pub(super) learner: ModelLearner<'r>,
    pub(super) method: Box<dyn Method>,
    /// What happens after every step.
    pub(super) run: Run<'r>,
    pub(super) identity: Identity,
    /// The next step.
    pub(super) first: usize,
}

impl<'r> Training<'r> {
    /// Takes the steps that are left.
    ///
    /// # Errors
    /// A step failed, or a stop was requested; the run can be resumed then.
    pub(super) fn take_steps(self) -> Result<Finished<'r>> {
        let Self {
            purpose,
            mut learner,
            mut method,
            mut run,
            identity,
            first,
        } = self;
        let steps = run.schedule.steps;
        run.observer.begin(&purpose.steps(), steps);
        run.observer.resume(first);
        run.last = Clock::now(learner.decoder);
        let mut stopped = None;
        let mut current = first;
        // A run that was killed between its last evaluation and its adapter has no step left to take.
        let last = if run.reached { first } else { steps };
        let trained = train(
            &mut learner,
            &mut *method,
            first..last,
            |step, learner, method| {
                let flow = run.after(step, learner, method)?;
                current = step.index + 1;
                if flow.is_break() && !run.reached {
                    stopped = Some(step.index + 1);
                }
                Ok(flow)
            },
        );
        run.observer.end();
        trained.map_err(|error| at_step(error, current))?;
        if run.reached {
            run.observer.note(&format!(
                "stopped at step {current}: an evaluation reached --stop-at"
            ));
        }
        if let Some(step) = stopped {
            let whose = match purpose {
                Purpose::Run => String::new(),
                Purpose::Reference | Purpose::Optimum(_) => format!(" of {}", purpose.steps()),
            };
            return Err(Error::interrupted(&format!(
                "after step {step} of {steps}{whose}"
            )));
        }
        Ok(Finished {
            plan: run.plan,
            dir: run.dir,
            learner,
            identity,
        })
    }
}

/// Names the step in the error of a failure.
fn at_step(error: Error, step: usize) -> Error {
    let place = format!("step {step}");
    // Another rank may have named the step.
    let is_named = error.message.contains(&format!("{place}: "));
    if error.kind == ErrorKind::Failure && !is_named {
        error.at(place)
    } else {
        error
    }
}

//! The last stage of a run: its adapters.

use upright_base::{Result, files};
use upright_core::optimizer::Iterate;
use upright_model::peft;
use upright_runs::{
    plan::Plan,
    run_dir::{RunDir, adapter_dir, average_dir, last_dir},
};

use crate::{checkpoint::Identity, learner::ModelLearner, ranks::on_first};

/// A run that has taken its steps.
pub(super) struct Finished<'r> {
    pub(super) plan: Plan,
    /// On rank 0. Its lock is held until the adapters are written.
    pub(super) dir: Option<RunDir>,
    pub(super) learner: ModelLearner<'r>,
    pub(super) identity: Identity,
}

impl Finished<'_> {
    /// Writes the run's adapters, on rank 0. The one that the plan exports goes last, because it marks the run as finished.
    ///
    /// # Errors
    /// A file cannot be written, or the device failed.
    pub(super) fn export(self) -> Result<()> {
        on_first(self.learner.world(), || self.write_adapters())?;
        drop(self.dir);
        Ok(())
    }

    fn write_adapters(&self) -> Result<()> {
        let Self {
            plan,
            learner,
            identity,
            ..
        } = self;
        let mut adapters = vec![(adapter_dir(&plan.out), &learner.adapter)];
        if let Some(average) = &learner.average {
            match plan.export_iterate {
                Iterate::Last => adapters.push((average_dir(&plan.out), average)),
                Iterate::Average => {
                    adapters = vec![
                        (adapter_dir(&plan.out), average),
                        (last_dir(&plan.out), &learner.adapter),
                    ];
                }
            }
        }
        let Identity { lora, base } = identity;
        for (folder, adapter) in adapters.into_iter().rev() {
            files::create_dir(&folder)?;
            peft::write(&folder, &adapter.to_host()?, lora, base)?;
        }
        Ok(())
    }
}

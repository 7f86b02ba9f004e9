//! The run that an adapter came from: how its rows were read, worded and cut, for commands that use the adapter later.

use std::path::{Path, PathBuf};

use crate::plan_record::{DataProvenance, PlanRecord};
use crate::{
    plan::{ObjectivePlan, Plan},
    run_dir,
};
use upright_base::Result;
use upright_data::{DataFile, TemplateName};

/// A run whose folder can be read.
pub struct Origin {
    /// Its folder.
    pub run: PathBuf,
    written: PlanRecord,
}

/// One objective of an [`Origin`].
pub struct OriginRows<'o> {
    /// The run's plan.
    pub plan: &'o Plan,
    /// The objective.
    pub objective: &'o ObjectivePlan,
    /// What its rows were.
    pub data: &'o DataProvenance,
}

impl Origin {
    /// The run that a folder is, or lies in as an adapter or a checkpoint does; `None` where there is none to read.
    pub fn of(folder: &Path) -> Option<Self> {
        // RUN/adapter and RUN/checkpoints/step-N.
        let folder = folder.canonicalize().ok()?;
        let run = folder
            .ancestors()
            .take(3)
            .find(|above| run_dir::holds_run(above))?;
        let written = PlanRecord::read(run).ok()?;
        Some(Self {
            run: run.to_owned(),
            written,
        })
    }

    /// The rows of an objective.
    fn rows(&self, index: usize) -> Option<OriginRows<'_>> {
        let PlanRecord { plan, facts } = &self.written;
        Some(OriginRows {
            plan,
            objective: &plan.objectives[index],
            data: facts.data.get(index)?,
        })
    }

    /// The instruction rows, or those of the first objective where there are none.
    pub fn instruction_rows(&self) -> Option<OriginRows<'_>> {
        let objectives = &self.written.plan.objectives;
        self.rows(
            objectives
                .iter()
                .position(|objective| !objective.is_preference())
                .unwrap_or(0),
        )
    }

    /// The rows of a kind: those of `file` where an objective has them, else those of the first objective of the kind.
    pub fn rows_of(&self, preference: bool, file: &DataFile) -> Option<OriginRows<'_>> {
        let objectives = &self.written.plan.objectives;
        let is_of_kind = |objective: &ObjectivePlan| objective.is_preference() == preference;
        let place = |path: &PathBuf| path.canonicalize().ok();
        let places = |file: &DataFile| file.shards.iter().map(place).collect::<Option<Vec<_>>>();
        let wanted = places(file);
        let has_file = |objective: &ObjectivePlan| {
            wanted.is_some() && objective.data.iter().any(|data| places(data) == wanted)
        };
        let same = objectives
            .iter()
            .position(|objective| is_of_kind(objective) && has_file(objective));
        self.rows(same.or_else(|| objectives.iter().position(is_of_kind))?)
    }
}

impl OriginRows<'_> {
    /// The template of the rows.
    ///
    /// # Errors
    /// The run's plan names no template.
    pub fn template(&self) -> Result<TemplateName> {
        self.data.template.parse()
    }
}

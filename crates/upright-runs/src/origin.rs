//! The run that an adapter came from. Commands that use the adapter later reuse the run's column
//! map, template and truncation.

use std::path::{Path, PathBuf};

use crate::plan_record::{DataProvenance, PlanRecord};
use crate::{
    plan::{ObjectivePlan, Plan},
    run_dir,
};
use upright_base::Result;
use upright_core::objectives::Objective;
use upright_data::{DataFile, TemplateName};

/// The run that an adapter came from.
pub struct Origin {
    /// The run folder.
    pub run: PathBuf,
    written: PlanRecord,
}

/// One objective of an [`Origin`].
pub struct OriginRows<'o> {
    /// The run's plan.
    pub plan: &'o Plan,
    /// The objective.
    pub objective: &'o ObjectivePlan,
    /// Provenance of its rows.
    pub data: &'o DataProvenance,
}

impl Origin {
    /// Finds the run of a run folder, of an adapter folder or of a checkpoint folder. `None` if
    /// there is no run, or its plan cannot be read.
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

    /// Digest of the reference adapter that the run recorded; empty if it used none, or trained it first.
    pub fn reference_digest(&self) -> &str {
        &self.written.facts.reference
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

    /// The instruction rows; without an instruction objective, the rows of the first objective.
    pub fn instruction_rows(&self) -> Option<OriginRows<'_>> {
        let objectives = &self.written.plan.objectives;
        self.rows(
            objectives
                .iter()
                .position(|objective| !objective.is_preference())
                .unwrap_or(0),
        )
    }

    /// The rows of the objective of this kind that trained on `file` or held it out, else the rows of the first
    /// objective of this kind.
    pub fn rows_of(&self, preference: bool, file: &DataFile) -> Option<OriginRows<'_>> {
        let objectives = &self.written.plan.objectives;
        let is_of_kind = |objective: &ObjectivePlan| objective.is_preference() == preference;
        let place = |path: &PathBuf| path.canonicalize().ok();
        let places = |file: &DataFile| file.shards.iter().map(place).collect::<Option<Vec<_>>>();
        let wanted = places(file);
        let has_file = |objective: &ObjectivePlan| {
            let mut files = objective.data.iter().chain(&objective.eval_data);
            wanted.is_some() && files.any(|data| places(data) == wanted)
        };
        let same = objectives
            .iter()
            .position(|objective| is_of_kind(objective) && has_file(objective));
        self.rows(same.or_else(|| objectives.iter().position(is_of_kind))?)
    }
}

impl OriginRows<'_> {
    /// The loss of the objective.
    pub fn loss(&self) -> Objective {
        let index = self
            .plan
            .objectives
            .iter()
            .position(|objective| std::ptr::eq(objective, self.objective))
            .expect("the objective is one of the plan");
        self.plan.objective(index)
    }

    /// The template of the rows.
    ///
    /// # Errors
    /// The run's plan names no template.
    pub fn template(&self) -> Result<TemplateName> {
        self.data.template.parse()
    }
}

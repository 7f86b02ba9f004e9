//! The preflight of a plan: opens its model, reads its rows and hashes both, before anything is
//! trained. A study uses it to plan its runs.

use std::path::Path;

use sha2::{Digest, Sha256};

use upright_base::{Result, files, progress::Progress};
use upright_runs::{
    plan::Plan,
    plan_record::{self, DataProvenance, PlanRecord, Provenance},
};

use super::{Model, warnings};
use crate::packing;

/// A plan that a run could start from now, with the hashes of everything it depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Preflight {
    written: PlanRecord,
    /// Training rows of every objective.
    pub rows: Vec<usize>,
    /// Tokens of these rows; empty if the preflight was read from a file. A prompt that responses
    /// share counts once.
    pub tokens: Vec<usize>,
}

impl Preflight {
    /// Opens the plan's model and reads its rows.
    ///
    /// # Errors
    /// Every error with which a run of the plan would be rejected.
    pub fn of(plan: &Plan, observer: &mut dyn Progress) -> Result<Self> {
        let model = Model::of_plan(plan, observer)?;
        let datasets = model.datasets(plan, observer)?;
        warnings::note(plan, &datasets, observer);
        let (adapter, _) = model.adapter(plan, observer)?;
        model.check_finite(&datasets, &adapter)?;
        let mut tokens = Vec::with_capacity(datasets.len());
        for data in &datasets {
            tokens.push(packing::tokens(&data.train));
        }
        Ok(Self {
            tokens,
            written: model.describe(plan, &datasets)?,
            rows: datasets.iter().map(|data| data.train.len()).collect(),
        })
    }

    /// Identifies a plan with the same files, by everything that determines its result.
    pub fn hash(&self, plan: &Plan) -> Result<String> {
        PlanRecord {
            plan: plan.clone(),
            facts: self.written.facts.clone(),
        }
        .hash()
    }

    /// Differences of another preflight, as `what: here -> there`; empty if both would do the same
    /// work.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        plan_record::differences(&self.written, &other.written)
    }

    /// Name of the template of an objective's prompts.
    pub fn template(&self, objective: usize) -> &str {
        &self.written.facts.data[objective].template
    }

    /// Identifies the untrained base model with the prompt template of an objective.
    pub fn base(&self, objective: usize) -> String {
        let Provenance {
            base,
            arithmetic,
            tokenizer,
            data,
            ..
        } = &self.written.facts;
        let DataProvenance {
            template,
            template_sha256,
            ..
        } = &data[objective];
        let known = [base, arithmetic, tokenizer, template, template_sha256]
            .map(String::as_str)
            .join("\n");
        files::hex(&Sha256::digest(known.as_bytes())[..8])
    }

    /// The preflight as a TOML file.
    pub fn to_toml(&self) -> Result<String> {
        self.written.to_toml()
    }

    /// Reads a file that [`Preflight::to_toml`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let written = PlanRecord::read_file(path)?;
        let rows = written
            .facts
            .data
            .iter()
            .map(|data| data.train_rows)
            .collect();
        Ok(Self {
            written,
            rows,
            tokens: Vec::new(),
        })
    }
}

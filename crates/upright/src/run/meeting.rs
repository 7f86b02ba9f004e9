//! A plan and what it meets, before anything is trained: for those who plan several runs at once.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{
    Engine,
    open::{self, DataFacts, Facts, Written},
};
use crate::{Result, files, observer::Observer, plan::Plan};

/// What a plan met.
#[derive(Clone, Debug, PartialEq)]
pub struct Met {
    written: Written,
    /// Training rows of every objective.
    pub rows: Vec<usize>,
}

impl Met {
    /// Opens the plan's model and reads its rows.
    ///
    /// # Errors
    /// Whatever a run of the plan would be refused for.
    pub fn of(plan: &Plan, observer: &mut dyn Observer) -> Result<Self> {
        let engine = Engine::open(&plan.model, plan.threads, plan.recompute.into(), observer)?;
        let datasets = engine.datasets(plan, observer)?;
        let (adapter, _) = engine.adapter(plan, observer)?;
        engine.check_finite(&datasets, &adapter)?;
        Ok(Self {
            written: engine.describe(plan, &datasets)?,
            rows: datasets.iter().map(|data| data.train.len()).collect(),
        })
    }

    /// Names a plan that would meet the same, by everything that decides its result.
    pub fn hash(&self, plan: &Plan) -> Result<String> {
        Written {
            plan: plan.clone(),
            facts: self.written.facts.clone(),
        }
        .hash()
    }

    /// Where another meeting differs, as `what: here -> there`; empty where the same work would be done.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        open::differences(&self.written, &other.written)
    }

    /// Name of the template of an objective's prompts.
    pub fn template(&self, objective: usize) -> &str {
        &self.written.facts.data[objective].template
    }

    /// Names the model that nothing was trained into, asked in the wording of an objective's prompts.
    pub fn base(&self, objective: usize) -> String {
        let Facts {
            base,
            tier,
            tokenizer,
            data,
            ..
        } = &self.written.facts;
        let DataFacts {
            template,
            template_sha256,
            ..
        } = &data[objective];
        let known = [base, tier, tokenizer, template, template_sha256]
            .map(String::as_str)
            .join("\n");
        files::hex(&Sha256::digest(known.as_bytes())[..8])
    }

    /// As a TOML file.
    pub fn to_toml(&self) -> Result<String> {
        self.written.to_toml()
    }

    /// Reads what [`Met::to_toml`] wrote, from a file.
    pub fn read(path: &Path) -> Result<Self> {
        let written = Written::read_file(path)?;
        let rows = written
            .facts
            .data
            .iter()
            .map(|data| data.train_rows)
            .collect();
        Ok(Self { written, rows })
    }
}

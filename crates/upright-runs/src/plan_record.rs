//! `plan.toml`: a run's plan, and the hashes of everything it depends on. A resumed run must match both.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use upright_base::{Error, Result, files};
use upright_model::weights::Fingerprint;

use crate::{plan::Plan, settings::located};

/// Hashes of everything a run depends on. Recorded when a run starts; a resumed run must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provenance {
    /// Fingerprint of the base's weights.
    pub base: String,
    /// What the base was merged from: a model, then the adapters, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_lineage: Vec<String>,
    /// Names what decides the bits of every result: the device's products and vectors, and their revision.
    #[serde(alias = "tier")]
    pub arithmetic: String,
    /// SHA-256 of the tokenizer: its file, and the special tokens that it is configured with.
    pub tokenizer: String,
    /// SHA-256 of what the adapter computes that the run starts from; empty where it starts afresh.
    pub init_adapter: String,
    /// The same of the reference adapter; empty where it is the base, or trained by the run itself.
    pub reference: String,
    /// One entry per objective.
    pub data: Vec<DataProvenance>,
}

/// What one objective's data turned out to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataProvenance {
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the file of held-out rows; empty where they are carved off.
    pub eval_sha256: String,
    /// The dialect found.
    pub dialect: String,
    /// The template used.
    pub template: String,
    /// SHA-256 of a template that comes from a file, the model's own or another; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template_sha256: String,
    /// Training rows.
    pub train_rows: usize,
    /// Held-out rows.
    pub eval_rows: usize,
    /// SHA-256 of the encoded rows; empty in the plans of older builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub encoded_sha256: String,
}

/// `plan.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// What was asked.
    pub plan: Plan,
    /// The hashes of everything it depends on.
    pub facts: Provenance,
}

impl PlanRecord {
    /// Reads a run's `plan.toml`.
    pub fn read(run: &Path) -> Result<Self> {
        Self::read_file(&run.join("plan.toml"))
    }

    /// Reads a file of the same form.
    ///
    /// # Errors
    /// It cannot be read, or another version of upright wrote it.
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let edited = "was it written by another version of upright, or edited?";
        let written: Self = toml::from_str(&text)
            .map_err(|error| located(&error, &text, &path.display().to_string()).hint(edited))?;
        written
            .plan
            .check_read()
            .map_err(|error| error.at(path.display()).hint(edited))?;
        Ok(written)
    }

    /// As TOML.
    ///
    /// # Errors
    /// A value that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::failure(format!("plan.toml: {error}")))
    }

    /// Names a run by everything that decides its result.
    pub fn hash(&self) -> Result<String> {
        // The fingerprint says which base it is; its lineage names places.
        let facts = Provenance {
            base_lineage: Vec::new(),
            ..self.facts.clone()
        };
        let text = Self {
            plan: self.plan.anywhere(),
            facts,
        }
        .to_toml()?;
        Ok(Sha256::digest(text.as_bytes())[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}

/// Refuses to continue a run whose settings or surroundings are not those it began with.
pub fn check_unchanged(run: &Path, now: &PlanRecord) -> Result<()> {
    let then = PlanRecord::read(run)?;
    if !Fingerprint::is_complete(&then.facts.base) {
        let problem = "cannot continue: an older build began this run and recorded samples of the base's weights only, so \
                       nothing proves that the base is still the same";
        return Err(Error::input(format!("{}: {problem}", run.display())).hint(
            "start it again with another --out; its adapter and its report can still be used",
        ));
    }
    if then.plan.optimizer.gradient_exponent.is_none() {
        let problem = "cannot continue: an older build began this run and added the gradients of packs in another way, so its \
                       steps would have other bits";
        return Err(Error::input(format!("{}: {problem}", run.display())).hint(
            "start it again with another --out; its adapter and its report can still be used",
        ));
    }
    let differences = differences(&then, now);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{}: cannot continue with other settings: {}",
        run.display(),
        differences.join("; ")
    ))
    .hint("give the settings it was started with (they are in its config.toml), or another --out"))
}

/// What makes another run of a plan, as `what: then -> now`.
pub fn differences(then: &PlanRecord, now: &PlanRecord) -> Vec<String> {
    let mut differences = then.plan.differences(&now.plan);
    let facts = [
        (
            "the base model's weights",
            &then.facts.base,
            &now.facts.base,
        ),
        (
            "the arithmetic (the device, or the instruction tier that UPRIGHT_CPU sets)",
            &then.facts.arithmetic,
            &now.facts.arithmetic,
        ),
        ("the tokenizer", &then.facts.tokenizer, &now.facts.tokenizer),
        (
            "the adapter it started from",
            &then.facts.init_adapter,
            &now.facts.init_adapter,
        ),
        (
            "the reference adapter",
            &then.facts.reference,
            &now.facts.reference,
        ),
    ];
    for (what, then, now) in facts {
        if then != now {
            differences.push(format!("{what}: {} -> {}", short(then), short(now)));
        }
    }
    for (index, (a, b)) in then.facts.data.iter().zip(&now.facts.data).enumerate() {
        let name = &now.plan.objectives[index].name;
        if a.template_sha256 != b.template_sha256 {
            let (then, now) = (short(&a.template_sha256), short(&b.template_sha256));
            differences.push(format!("the template of {name}: {then} -> {now}"));
        } else if a.sha256 == b.sha256
            && a.eval_sha256 == b.eval_sha256
            && a.encoded_sha256 != b.encoded_sha256
        {
            let (then, now) = (short(&a.encoded_sha256), short(&b.encoded_sha256));
            differences.push(format!(
                "the tokens of {name}, from the same file: {then} -> {now}"
            ));
        } else if a != b {
            differences.push(format!(
                "the data of {name}: {} rows, {} -> {} rows, {}",
                a.train_rows,
                short(&a.sha256),
                b.train_rows,
                short(&b.sha256)
            ));
        }
    }
    differences
}

/// The start of a hash, for messages.
pub fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

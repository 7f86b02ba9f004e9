//! `plan.toml`: the plan of a run, and the hashes of everything it depends on. A resumed run must
//! match both.

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
    /// Fingerprint of the base weights.
    pub base: String,
    /// What the base model was merged from: a model, then the adapters, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_lineage: Vec<String>,
    /// Identifies the arithmetic that decides the bits of every result: matrix products and vector
    /// width of the device, and their revision.
    #[serde(alias = "tier")]
    pub arithmetic: String,
    /// SHA-256 of the tokenizer file and the configured special tokens.
    pub tokenizer: String,
    /// SHA-256 of the values and scales of the initial adapter; empty for a new adapter.
    pub init_adapter: String,
    /// SHA-256 of the values and scales of the reference adapter; empty if the reference is the
    /// base model or is trained by the run.
    pub reference: String,
    /// One entry per objective.
    pub data: Vec<DataProvenance>,
}

/// Provenance of the data of one objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataProvenance {
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the file of held-out rows; empty if they are split off the training file.
    pub eval_sha256: String,
    /// The detected dialect.
    pub dialect: String,
    /// The template used.
    pub template: String,
    /// SHA-256 of a template that comes from a file (the chat template of the model, or a `.jinja`
    /// file); empty for built-in templates.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template_sha256: String,
    /// Training rows.
    pub train_rows: usize,
    /// Held-out rows.
    pub eval_rows: usize,
    /// SHA-256 of the encoded rows; empty in plans of older builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub encoded_sha256: String,
}

/// Name of the file in a run folder that holds the plan.
pub const PLAN: &str = "plan.toml";

/// The contents of [`PLAN`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The plan.
    pub plan: Plan,
    /// Hashes of everything it depends on.
    pub facts: Provenance,
}

impl PlanRecord {
    /// Reads a run's `plan.toml`.
    pub fn read(run: &Path) -> Result<Self> {
        Self::read_file(&run.join(PLAN))
    }

    /// Reads a file in the format of `plan.toml`.
    ///
    /// # Errors
    /// The file cannot be read, or another version of upright wrote it.
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let edited = "was it written by another version of upright, or edited?";
        let mut written: Self = toml::from_str(&text)
            .map_err(|error| located(&error, &text, &path.display().to_string()).hint(edited))?;
        written
            .plan
            .check_read()
            .map_err(|error| error.at(path.display()).hint(edited))?;
        for (objective, data) in written.plan.objectives.iter_mut().zip(&written.facts.data) {
            if objective.template.is_none() {
                objective.recorded_template = Some(data.template.clone());
            }
        }
        Ok(written)
    }

    /// Serializes the record as TOML.
    ///
    /// # Errors
    /// TOML cannot represent a value.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::failure(format!("plan.toml: {error}")))
    }

    /// Hash of everything that decides the result of the run.
    pub fn hash(&self) -> Result<String> {
        // The fingerprint identifies the base; its lineage contains paths.
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

/// The plan with what the run in its folder recorded and the settings leave open, so that the run is
/// resumed as it was started: default templates, which may differ between builds, and optima that were
/// found. The same plan if the folder holds no run that can be read.
pub fn with_recorded(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    if let Ok(then) = PlanRecord::read(&plan.out) {
        for (objective, recorded) in plan.objectives.iter_mut().zip(then.plan.objectives) {
            if objective.template.is_none() {
                objective.recorded_template = recorded.recorded_template;
            }
            if plan.finds_optima && objective.name == recorded.name {
                objective.optimum = objective.optimum.or(recorded.optimum);
                objective.optimum_eval = objective.optimum_eval.or(recorded.optimum_eval);
            }
        }
    }
    plan
}

/// Checks that a run can be resumed with the settings and dependencies of `now`. Returns the recorded
/// plan if only the length differs, `None` if nothing differs.
///
/// # Errors
/// Other settings or dependencies have changed.
pub fn check_unchanged(run: &Path, now: &PlanRecord) -> Result<Option<PlanRecord>> {
    let then = PlanRecord::read(run)?;
    if !Fingerprint::is_complete(&then.facts.base) {
        let problem = "cannot resume: an older build started this run and hashed only samples of the \
                       base weights, so the base cannot be verified";
        return Err(Error::input(format!("{}: {problem}", run.display())).hint(
            "start a new run with another --out; this run's adapter and report remain usable",
        ));
    }
    if then.plan.optimizer.gradient_exponent.is_none() {
        let problem = "cannot resume: an older build started this run and summed the gradients of packs \
                       differently, so the result would not be bit-identical";
        return Err(Error::input(format!("{}: {problem}", run.display())).hint(
            "start a new run with another --out; this run's adapter and report remain usable",
        ));
    }
    let differences = differences(&then, now);
    if differences.is_empty() {
        return Ok(None);
    }
    let mut longer = now.clone();
    longer.plan.length = then.plan.length;
    if self::differences(&then, &longer).is_empty() {
        return Ok(Some(then));
    }
    Err(other_settings(run, &differences))
}

/// The error of a resume with settings that differ from those of the run.
pub fn other_settings(run: &Path, differences: &[String]) -> Error {
    Error::input(format!(
        "{}: cannot resume with different settings: {}",
        run.display(),
        differences.join("; ")
    ))
    .hint("give the settings the run was started with (see its config.toml), or another --out")
}

/// Differences that prevent a resume, as `what: then -> now`.
pub fn differences(then: &PlanRecord, now: &PlanRecord) -> Vec<String> {
    let mut differences = then.plan.differences(&now.plan);
    let facts = [
        (
            "the base model's weights",
            &then.facts.base,
            &now.facts.base,
        ),
        (
            "the arithmetic (device, or instruction tier set by UPRIGHT_CPU)",
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
                "the token ids of {name}, from the same file: {then} -> {now}"
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

/// The first 12 characters of a hash, for messages.
pub fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

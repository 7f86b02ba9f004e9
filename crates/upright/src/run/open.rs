//! What a plan names, opened and checked before anything is trained or written.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use upright_engine::{
    adapter::{Adapter, AdapterLayout, LoraConfig, LoraTarget},
    decoder::{Decoder, Options, Recompute},
    pack::Pack,
    peft::{self, BaseModel, PeftFolder},
    weights::Fingerprint,
};

use crate::{
    Error, Result, config,
    data::{DataSpec, Dataset, Example, Held, Kind, Tokenizer, order::Order},
    files, hub, identity,
    learner::Task,
    lineage::Lineage,
    observer::Observer,
    plan::{Plan, ReferencePlan},
    reference::{self, Reference},
    run_dir,
};

/// A model folder, opened.
pub struct Engine {
    /// Its folder.
    pub model: PathBuf,
    /// The frozen base.
    pub decoder: Decoder,
    /// The identity of its weights.
    pub fingerprint: Fingerprint,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What it was merged from, if it was.
    pub lineage: Option<Lineage>,
}

/// What a plan met: found out when a run starts, written beside the plan, and the same whenever it continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Facts {
    /// Fingerprint of the base's weights.
    pub base: String,
    /// What the base was merged from: a model, then the adapters, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_lineage: Vec<String>,
    /// Instruction tier of the products, and width of the other vectors.
    pub tier: String,
    /// SHA-256 of the tokenizer: its file, and the special tokens that it is configured with.
    pub tokenizer: String,
    /// SHA-256 of what the adapter computes that the run starts from; empty where it starts afresh.
    pub init_adapter: String,
    /// The same of the reference adapter; empty where it is the base, or trained by the run itself.
    pub reference: String,
    /// One entry an objective.
    pub data: Vec<DataFacts>,
}

/// What one objective's data turned out to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataFacts {
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
    /// [`Dataset::encoded_sha256`]; empty in the plans of older builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub encoded_sha256: String,
}

/// `plan.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// What was asked.
    pub plan: Plan,
    /// What it met.
    pub facts: Facts,
}

impl Written {
    /// Reads a run's `plan.toml`.
    pub(crate) fn read(run: &Path) -> Result<Self> {
        Self::read_file(&run.join("plan.toml"))
    }

    pub(super) fn read_file(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let edited = "was it written by another version of upright, or edited?";
        let written: Self = toml::from_str(&text).map_err(|error| {
            config::located(&error, &text, &path.display().to_string()).hint(edited)
        })?;
        written
            .plan
            .check_read()
            .map_err(|error| error.at(path.display()).hint(edited))?;
        Ok(written)
    }

    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::failure(format!("plan.toml: {error}")))
    }

    /// Names a run by everything that decides its result.
    pub(super) fn hash(&self) -> Result<String> {
        // The fingerprint says which base it is; its lineage names places.
        let facts = Facts {
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
pub(super) fn check_unchanged(run: &Path, now: &Written) -> Result<()> {
    let then = Written::read(run)?;
    if !Fingerprint::is_complete(&then.facts.base) {
        let problem = "cannot continue: an older build began this run and recorded samples of the base's weights only, so \
                       nothing proves that the base is still the same";
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
pub(super) fn differences(then: &Written, now: &Written) -> Vec<String> {
    let mut differences = then.plan.differences(&now.plan);
    let facts = [
        (
            "the base model's weights",
            &then.facts.base,
            &now.facts.base,
        ),
        (
            "the instruction tier (UPRIGHT_CPU)",
            &then.facts.tier,
            &now.facts.tier,
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

/// Whether a model's folder, or its id on the hub, ends as a name that an adapter has for it.
pub(crate) fn is_called(model: &Path, name: &str) -> bool {
    let called = hub::named(model).map(|(id, _)| PathBuf::from(id));
    let folder = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    [Some(folder), called]
        .iter()
        .flatten()
        .any(|own| own.file_name() == Path::new(name).file_name())
}

/// The folder of an adapter: itself, or the one in the folder of a run.
///
/// # Errors
/// The run is not finished.
pub(crate) fn adapter_in(folder: &Path) -> Result<PathBuf> {
    if !run_dir::holds_run(folder) || folder.join(peft::CONFIG_FILE).is_file() {
        return Ok(folder.to_owned());
    }
    let adapter = super::adapter_dir(folder);
    if adapter.join(peft::CONFIG_FILE).is_file() {
        return Ok(adapter);
    }
    let checkpoints = run_dir::RunDir::checkpoints(folder);
    let steps = std::fs::read_dir(&checkpoints)
        .into_iter()
        .flatten()
        .flatten();
    let step = |name: String| name.strip_prefix("step-")?.parse::<usize>().ok();
    let newest = steps
        .filter_map(|entry| step(entry.file_name().to_string_lossy().into_owned()))
        .max();
    let error = Error::input(format!(
        "{}: this run is not finished, so it has no adapter yet",
        folder.display()
    ));
    Err(match newest {
        Some(step) => {
            let folder = checkpoints.join(format!("step-{step}"));
            error.hint(format!(
                "finish it with --resume, or give its newest checkpoint, {}",
                files::quoted(&folder)
            ))
        }
        None => error.hint("finish it with --resume"),
    })
}

/// Whether a folder holds an adapter and no model.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(peft::CONFIG_FILE).is_file() && !folder.join("config.json").is_file()
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// The order of an objective's training rows; the start of it, whatever a checkpoint says later.
pub(super) fn order(plan: &Plan, index: usize, rows: usize) -> Order {
    let objective = &plan.objectives[index];
    Order::new(plan.seed, &objective.name, rows, objective.batch)
}

/// The objectives with their data.
pub(crate) fn tasks<'r>(
    plan: &Plan,
    datasets: Vec<Dataset>,
    reference: Option<&'r Reference>,
) -> Vec<Task<'r>> {
    let task = |(index, data): (usize, Dataset)| {
        let objective = &plan.objectives[index];
        Task {
            name: objective.name.clone(),
            objective: plan.objective(index),
            held_out: data.eval(plan.eval_rows).into_iter().cloned().collect(),
            fit: data.fit(plan.eval_rows).into_iter().cloned().collect(),
            order: order(plan, index, data.train.len()),
            reference: reference.filter(|_| objective.loss.form().reference),
            train: data.train,
        }
    };
    datasets.into_iter().enumerate().map(task).collect()
}

impl Engine {
    /// Opens a model folder. Weights that are new here are hashed, which the observer is shown.
    pub fn open(
        model: &Path,
        threads: usize,
        recompute: Recompute,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let decoder = Decoder::open(
            model,
            &Options {
                threads,
                tier: None,
                recompute,
            },
        )?;
        let fingerprint =
            decoder.install(|| identity::of_model(model, decoder.config(), observer))?;
        Self::with_decoder(model, decoder, fingerprint)
    }

    /// A model of the folder's `config.json` and tokenizer with random weights: for measurements of speed.
    pub fn random(model: &Path, seed: u64, threads: usize, recompute: Recompute) -> Result<Self> {
        let decoder = Decoder::random(
            model,
            seed,
            &Options {
                threads,
                tier: None,
                recompute,
            },
        )?;
        let fingerprint = Fingerprint::of_random(decoder.config(), seed);
        Self::with_decoder(model, decoder, fingerprint)
    }

    fn with_decoder(model: &Path, decoder: Decoder, fingerprint: Fingerprint) -> Result<Self> {
        let config = decoder.config();
        let tokenizer =
            Tokenizer::open(model, config.eos, config.bos)?.for_vocabulary(config.vocab)?;
        let lineage = Lineage::read(model)?;
        if let Some(lineage) = &lineage {
            lineage.check(model, &fingerprint)?;
        }
        Ok(Self {
            model: model.to_owned(),
            decoder,
            fingerprint,
            tokenizer,
            lineage,
        })
    }

    /// The base, as the folder of an adapter on it names it.
    pub(super) fn base(&self) -> BaseModel {
        let (name, revision) = match hub::named(&self.model) {
            Some((name, commit)) => (name, Some(commit)),
            None => (self.model.display().to_string(), None),
        };
        BaseModel {
            name: Some(name),
            revision,
            fingerprint: Some(self.fingerprint.as_str().to_owned()),
            lineage: self.lineage.as_ref().map(Lineage::to_json),
        }
    }

    /// The rows of every objective.
    pub(crate) fn datasets(
        &self,
        plan: &Plan,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Dataset>> {
        let kind = |index: usize| {
            if plan.objectives[index].is_preference() {
                Kind::Preference
            } else {
                Kind::Instruction
            }
        };
        (0..plan.objectives.len())
            .map(|index| self.dataset(plan, index, kind(index), observer))
            .collect()
    }

    /// The rows of one objective; what was dropped or cut is noted.
    pub(super) fn dataset(
        &self,
        plan: &Plan,
        index: usize,
        kind: Kind,
        observer: &mut dyn Observer,
    ) -> Result<Dataset> {
        let objective = &plan.objectives[index];
        let spec = DataSpec {
            files: objective.data.clone(),
            kind,
            map: objective.map.clone(),
            template: objective.template.as_deref().map(str::parse).transpose()?,
            turns: objective.turns,
            rows: objective.rows,
            max_length: plan.max_length,
            min_prompt: plan.min_prompt,
            too_long: plan.too_long,
            eval: objective
                .eval_data
                .clone()
                .map_or(Held::Fraction(plan.held_out), Held::File),
            threads: plan.threads,
        };
        observer.begin(&format!("reading {}", objective.name), 0);
        let data = Dataset::load(&spec, &self.tokenizer, &mut |done, _| {
            observer.advance(done, "");
            !observer.stop_requested()
        });
        observer.end();
        let data = data?;
        observer.note(&data.describe(&objective.name));
        if let Some(note) = data.positions_note(self.decoder.config().max_positions) {
            observer.note(&format!("warning: {}: {note}", objective.name));
        }
        Ok(data)
    }

    /// The adapter a run starts from, and how it is written down.
    pub(crate) fn adapter(
        &self,
        plan: &Plan,
        observer: &mut dyn Observer,
    ) -> Result<(Adapter, LoraConfig)> {
        let config = self.decoder.config();
        for (key, share) in &config.dropout {
            observer.note(&format!(
                "note: {key} {share} of config.json is not applied: training here has no dropout"
            ));
        }
        if let Some(folder) = &plan.init_adapter {
            let found = self.read_peft(folder, observer)?;
            if found.dropout > 0.0 {
                let (folder, dropout) = (folder.display(), found.dropout);
                observer.note(&format!(
                    "note: {folder}: its lora_dropout {dropout} is not applied: training here has no dropout"
                ));
            }
            return Ok((found.adapter, found.lora));
        }
        let targets = if plan.lora.targets.is_empty() {
            AdapterLayout::default_targets(config.family)
        } else {
            plan.lora.targets.clone()
        };
        let lora = LoraConfig::new(plan.lora.rank, plan.lora.alpha, targets);
        let layout = AdapterLayout::new(config, &lora)?;
        let side = |target: &LoraTarget| target.inputs.min(target.outputs);
        if let Some(target) = layout
            .targets
            .iter()
            .find(|target| target.rank > side(target))
        {
            observer.note(&format!(
                "warning: rank {} of {} is above {}, its smaller side, with which an adapter can say all there is to say",
                target.rank,
                target.module,
                side(target)
            ));
        }
        Ok((Adapter::init(layout.into(), plan.seed), lora))
    }

    /// An adapter used as it is.
    pub(crate) fn read_adapter(
        &self,
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Adapter> {
        Ok(self.read_peft(folder, observer)?.adapter)
    }

    /// Reads a PEFT folder. One of another base is refused by its fingerprint; where it has none, another name is noted.
    fn read_peft(&self, folder: &Path, observer: &mut dyn Observer) -> Result<PeftFolder> {
        let folder = &adapter_in(folder)?;
        let found = peft::read(folder, self.decoder.config())?;
        let theirs = found.base.fingerprint.as_ref();
        let (folder, name) = (
            folder.display(),
            found
                .base
                .name
                .as_deref()
                .unwrap_or("a model without a name"),
        );
        if let Some(theirs) = theirs.filter(|theirs| !self.fingerprint.matches(theirs)) {
            let (theirs, ours) = (short(theirs), short(self.fingerprint.as_str()));
            return Err(Error::input(format!(
                "{folder}: was trained on another base, {name}: its fingerprint is {theirs}, that of {} is {ours}",
                self.model.display()
            ))
            .hint("give --model the base it was trained on"));
        }
        if theirs.is_none() && is_adapter(Path::new(name)) {
            return Err(Error::input(format!(
                "{folder}: sits on another adapter, {name}, not on a model alone"
            ))
            .hint(format!(
                "upright export --merge {} --out MERGED, then give MERGED as --model",
                files::quoted(Path::new(name))
            )));
        }
        if theirs.is_none() && found.base.name.is_some() && !is_called(&self.model, name) {
            observer.note(&format!(
                "warning: {folder}: says it was trained on {name}, not on {}; it has no fingerprint to tell by",
                self.model.display()
            ));
        }
        Ok(found)
    }

    /// One row of every objective through the model: a broken model is named before an hour is spent on a reference.
    pub(super) fn check_finite(&self, datasets: &[Dataset], adapter: &Adapter) -> Result<()> {
        for example in datasets.iter().filter_map(|data| data.train.first()) {
            let Example {
                prompt, responses, ..
            } = example;
            let mut pack = Pack::default();
            pack.tree(
                prompt,
                &responses
                    .iter()
                    .map(|response| &response[..])
                    .collect::<Vec<_>>(),
            );
            let scores = self.decoder.score(&pack, Some(adapter))?;
            if scores.logp.iter().any(|logp| !logp.is_finite()) {
                let error =
                    Error::not_finite("the first evaluation", &self.decoder, &pack, Some(adapter));
                return Err(error.at(self.model.display()));
            }
        }
        Ok(())
    }

    /// The plan with what it met.
    pub(super) fn describe(&self, plan: &Plan, datasets: &[Dataset]) -> Result<Written> {
        let adapter = |folder: Option<&PathBuf>| -> Result<String> {
            let Some(folder) = folder else {
                return Ok(String::new());
            };
            let found = peft::read(&adapter_in(folder)?, self.decoder.config())?;
            Ok(files::hex(&reference::digest(&found.adapter)))
        };
        let reference = match &plan.reference {
            ReferencePlan::Folder(folder) => Some(folder),
            ReferencePlan::Base | ReferencePlan::Train { .. } => None,
        };
        let data = datasets.iter().map(|data| DataFacts {
            sha256: data.sha256.clone(),
            eval_sha256: data.eval_sha256.clone().unwrap_or_default(),
            dialect: data.dialect.to_string(),
            template: data.template.to_string(),
            template_sha256: data.template.sha256().unwrap_or_default().to_owned(),
            train_rows: data.train.len(),
            eval_rows: data.eval.len(),
            encoded_sha256: data.encoded_sha256.clone(),
        });
        let facts = Facts {
            base: self.fingerprint.as_str().to_owned(),
            base_lineage: self.lineage.as_ref().map_or_else(Vec::new, Lineage::lines),
            tier: self.decoder.tier().arithmetic(),
            tokenizer: self.tokenizer.sha256().to_owned(),
            init_adapter: adapter(plan.init_adapter.as_ref())?,
            reference: adapter(reference)?,
            data: data.collect(),
        };
        Ok(Written {
            plan: plan.clone(),
            facts,
        })
    }
}

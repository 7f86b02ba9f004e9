//! A model folder with its tokenizer, opened and checked before anything is trained or written.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use upright_base::{Error, Result, files, processor, progress::Progress};
use upright_data::{DataSpec, Dataset, HeldOut, RowKind, Tokenizer};
use upright_engine::{Decoder, DeviceAdapter, Options, cards};
use upright_model::{
    Device,
    adapter::{Adapter, AdapterLayout, LoraConfig, LoraTarget},
    identity,
    lineage::Lineage,
    pack::Pack,
    peft::{self, BaseModel, PeftFolder},
    weights::Fingerprint,
};
use upright_ranks::World;
use upright_runs::{
    plan::{Plan, ReferencePlan},
    plan_record::{DataProvenance, PlanRecord, Provenance, short},
};

use super::adapters::{adapter_in, is_adapter, is_called};
use crate::{not_finite::not_finite, packing, reference};

/// A model folder, opened.
pub struct Model {
    /// The model folder.
    pub model: PathBuf,
    /// The frozen base.
    pub decoder: Decoder,
    /// Fingerprint of the weights.
    pub fingerprint: Fingerprint,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Lineage of the weights, if they are the result of a merge.
    pub lineage: Option<Lineage>,
    /// The ranks that use the model together; each has its own copy.
    pub world: Arc<World>,
}

/// The decoder options of a plan.
pub fn options(plan: &Plan) -> Options {
    Options {
        device: plan.device.unwrap_or_default(),
        threads: plan.threads,
        recompute: plan.recompute,
        ..Options::default()
    }
}

impl Model {
    /// Opens a model folder. Weights without cached digests are hashed; the observer gets the
    /// progress.
    pub fn open(model: &Path, options: &Options, observer: &mut dyn Progress) -> Result<Self> {
        let decoder = Decoder::open(model, options)?;
        if let Some(note) = decoder.device_note() {
            observer.note(&note);
        }
        let fingerprint =
            decoder.install(|| identity::of_model(model, decoder.config(), observer))?;
        Self::with_decoder(model, decoder, fingerprint)
    }

    /// Opens the model of a plan.
    pub fn of_plan(plan: &Plan, observer: &mut dyn Progress) -> Result<Self> {
        Self::open(&plan.model, &options(plan), observer)
    }

    /// A model with the folder's `config.json` and tokenizer, and with random weights, for speed
    /// measurements.
    pub fn random(model: &Path, seed: u64, options: &Options) -> Result<Self> {
        let decoder = Decoder::random(model, seed, options)?;
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
            world: Arc::new(World::alone()),
        })
    }

    /// Opens the model of a plan on every rank.
    pub fn of_plan_among(
        plan: &Plan,
        world: &Arc<World>,
        observer: &mut dyn Progress,
    ) -> Result<Self> {
        Self::open_among(&plan.model, options(plan), world, observer)
    }

    /// Opens a model folder on every rank. Ranks of one machine divide its cores, unless the options say how many threads each has, and
    /// take a GPU each, unless the launcher shows each of them a single one.
    ///
    /// # Errors
    /// Those of [`Model::open`], or ranks have different models or devices.
    pub fn open_among(
        model: &Path,
        mut options: Options,
        world: &Arc<World>,
        observer: &mut dyn Progress,
    ) -> Result<Self> {
        options.processes = world.ranks_here();
        if options.threads == 0 && world.ranks_here() > 1 {
            options.threads = processor::share_of_cores(world.ranks_here());
        }
        if options.device == Device::Cuda(0) && world.ranks_here() > 1 {
            let index = world.index_here() % cards().len().max(1);
            options.device = Device::Cuda(index);
        }
        let model = world.slowly(|_| Self::open(model, &options, observer))?;
        world.same(
            "device or arithmetic",
            model.decoder.arithmetic().as_bytes(),
        )?;
        world.same("base model", model.fingerprint.as_str().as_bytes())?;
        world.same("tokenizer", model.tokenizer.sha256().as_bytes())?;
        Ok(Self {
            world: Arc::clone(world),
            ..model
        })
    }

    /// The base model, for the folder of an adapter on it.
    pub fn base(&self) -> BaseModel {
        let (name, revision) = match upright_model::model_files::hub_name(&self.model) {
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
    pub fn datasets(&self, plan: &Plan, observer: &mut dyn Progress) -> Result<Vec<Dataset>> {
        let kind = |index: usize| {
            if plan.objectives[index].is_preference() {
                RowKind::Preference
            } else {
                RowKind::Instruction
            }
        };
        (0..plan.objectives.len())
            .map(|index| self.dataset(plan, index, kind(index), observer))
            .collect()
    }

    /// The rows of one objective. Notes which rows were dropped or truncated.
    pub fn dataset(
        &self,
        plan: &Plan,
        index: usize,
        kind: RowKind,
        observer: &mut dyn Progress,
    ) -> Result<Dataset> {
        let objective = &plan.objectives[index];
        let template = objective
            .template
            .as_ref()
            .or(objective.recorded_template.as_ref());
        let spec = DataSpec {
            files: objective.data.clone(),
            kind,
            map: objective.map.clone(),
            template: template.map(|name| name.parse()).transpose()?,
            template_setting: objective.setting("template"),
            turns: objective.turns,
            rows: objective.rows,
            max_length: plan.max_length,
            min_prompt: plan.min_prompt,
            too_long: plan.too_long,
            eval: objective
                .eval_data
                .clone()
                .map_or(HeldOut::Fraction(plan.held_out), HeldOut::File),
            threads: plan.threads,
        };
        let stop = observer.stop();
        observer.begin(&format!("reading {}", objective.name), 0);
        let data = Dataset::load(&spec, &self.tokenizer, &mut |done, _| {
            observer.advance(done, "");
            !stop.is_requested()
        });
        observer.end();
        let data = data?;
        observer.note(&data.describe(&objective.name));
        if let Some(note) = data.positions_note(self.decoder.config().max_positions) {
            observer.note(&format!("warning: {}: {note}", objective.name));
        }
        Ok(data)
    }

    /// The adapter that a run starts from, and its settings.
    pub fn adapter(
        &self,
        plan: &Plan,
        observer: &mut dyn Progress,
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
        let lora = LoraConfig::new(plan.lora.rank, plan.lora.alpha, plan.lora.targets.clone());
        let layout = AdapterLayout::new(config, &lora)?;
        let side = |target: &LoraTarget| target.inputs.min(target.outputs);
        if let Some(target) = layout
            .targets
            .iter()
            .find(|target| target.rank > side(target))
        {
            observer.note(&format!(
                "warning: LoRA rank {} on {} exceeds the layer's full rank, {}; the extra rank has no effect",
                target.rank,
                target.module,
                side(target)
            ));
        }
        Ok((Adapter::init(layout.into(), plan.seed), lora))
    }

    /// Reads an adapter that is used without training.
    pub fn read_adapter(&self, folder: &Path, observer: &mut dyn Progress) -> Result<Adapter> {
        Ok(self.read_peft(folder, observer)?.adapter)
    }

    /// Reads an adapter and moves it to the decoder's device. All ranks have to read the same one.
    pub fn load_adapter(
        &self,
        folder: &Path,
        observer: &mut dyn Progress,
    ) -> Result<DeviceAdapter> {
        let adapter = self.world.settle(self.read_adapter(folder, observer))?;
        if self.world.size() > 1 {
            let what = format!("adapter in {}", folder.display());
            self.world.same(&what, &reference::digest(&adapter))?;
        }
        self.decoder.load(adapter)
    }

    /// Reads a PEFT folder. Rejects an adapter with the fingerprint of another base. Notes an
    /// adapter that has no fingerprint but another base name.
    fn read_peft(&self, folder: &Path, observer: &mut dyn Progress) -> Result<PeftFolder> {
        let folder = &adapter_in(folder)?;
        let found = peft::read(folder, self.decoder.config())?;
        let theirs = found.base.fingerprint.as_ref();
        let (folder, name) = (
            folder.display(),
            found.base.name.as_deref().unwrap_or("an unnamed model"),
        );
        if let Some(theirs) = theirs.filter(|theirs| !self.fingerprint.matches(theirs)) {
            let (theirs, ours) = (short(theirs), short(self.fingerprint.as_str()));
            return Err(Error::input(format!(
                "{folder}: was trained on another base, {name}: its fingerprint is {theirs}, the fingerprint of {} is {ours}",
                self.model.display()
            ))
            .hint("set --model to the base that it was trained on"));
        }
        if theirs.is_none() && is_adapter(Path::new(name)) {
            return Err(Error::input(format!(
                "{folder}: was trained on another adapter, {name}, not on a model alone"
            ))
            .hint(format!(
                "run upright export --merge {} --out MERGED, then use --model MERGED",
                files::quoted(Path::new(name))
            )));
        }
        if theirs.is_none() && found.base.name.is_some() && !is_called(&self.model, name) {
            observer.note(&format!(
                "warning: {folder}: says it was trained on {name}, not on {}; it has no fingerprint to verify this",
                self.model.display()
            ));
        }
        Ok(found)
    }

    /// Scores one row of every objective, so that a damaged model is reported before an hour is
    /// spent on a reference.
    pub fn check_finite(&self, datasets: &[Dataset], adapter: &Adapter) -> Result<()> {
        let adapter = self.decoder.load(adapter.clone())?;
        for example in datasets.iter().filter_map(|data| data.train.first()) {
            let mut pack = Pack::default();
            packing::add(&mut pack, example);
            let scores = self.decoder.score(&pack, Some(&adapter))?;
            if scores.logp.iter().any(|logp| !logp.is_finite()) {
                let error =
                    not_finite("the first evaluation", &self.decoder, &pack, Some(&adapter));
                return Err(error.at(self.model.display()));
            }
        }
        Ok(())
    }

    /// The plan with the hashes of everything that it depends on.
    pub fn describe(&self, plan: &Plan, datasets: &[Dataset]) -> Result<PlanRecord> {
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
        let data = datasets.iter().map(|data| DataProvenance {
            sha256: data.sha256.clone(),
            eval_sha256: data.eval_sha256.clone().unwrap_or_default(),
            dialect: data.dialect.to_string(),
            template: data.template.to_string(),
            template_sha256: data.template.sha256().unwrap_or_default().to_owned(),
            train_rows: data.train.len(),
            eval_rows: data.eval.len(),
            encoded_sha256: data.encoded_sha256.clone(),
        });
        let facts = Provenance {
            base: self.fingerprint.as_str().to_owned(),
            base_lineage: self.lineage.as_ref().map_or_else(Vec::new, Lineage::lines),
            arithmetic: self.decoder.arithmetic(),
            tokenizer: self.tokenizer.sha256().to_owned(),
            init_adapter: adapter(plan.init_adapter.as_ref())?,
            reference: adapter(reference)?,
            data: data.collect(),
        };
        Ok(PlanRecord {
            plan: plan.clone(),
            facts,
        })
    }
}

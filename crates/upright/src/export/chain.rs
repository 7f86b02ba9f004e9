//! The chain below an adapter: its base is a model, or adapters on a model, down to the folder with
//! weights.

use std::path::{Path, PathBuf};

use upright_model::{
    adapter::Adapter,
    config::DecoderConfig,
    merge::Merge,
    peft::{self, BaseModel, PeftFolder},
    weights::Fingerprint,
};

use upright_base::{Error, Result, files, progress::Progress};
use upright_hub::{self, Hub, Id};
use upright_model::{
    identity,
    lineage::{Base, Lineage, MergedAdapter, Step},
    model_files::hub_name,
};
use upright_runs::{run_dir, settings::checks::folder};
use upright_train::run::adapters;

/// Maximum length of a chain.
const MOST: usize = 16;

/// The adapter folder: the given folder itself, or the adapter in a run folder.
pub(super) fn adapter_folder(given: &Path) -> Result<PathBuf> {
    if !given.is_dir() {
        return Err(
            Error::input(format!("there is no folder `{}`", given.display()))
                .hint("give the folder of a run, a checkpoint or an adapter"),
        );
    }
    adapters::adapter_in(given)
}

/// An adapter in a chain.
pub(super) struct Link {
    /// Its folder.
    pub(super) folder: PathBuf,
    /// Its content.
    pub(super) peft: PeftFolder,
    /// SHA-256 of its tensors.
    pub(super) sha256: String,
}

/// A model folder and the stack of adapters above it.
pub(super) struct Chain {
    /// The model.
    pub(super) model: PathBuf,
    /// Its architecture.
    pub(super) config: DecoderConfig,
    /// The adapters, from bottom to top; the last one is the requested adapter.
    pub(super) links: Vec<Link>,
}

impl Chain {
    /// Follows an adapter down to a model: the base that it names, or `model` instead.
    pub(super) fn follow(
        adapter: &Path,
        model: Option<&Path>,
        hub: &Hub,
        observer: &mut dyn Progress,
    ) -> Result<Self> {
        let mut folders = vec![adapter_folder(
            &hub.adapter_and_tokenizer("adapter", adapter, observer)?,
        )?];
        let model = loop {
            let top = folders.last().expect("at least one").clone();
            let base = match model.filter(|_| folders.len() == 1) {
                Some(model) => folder(
                    "model",
                    &hub.model("model", model, observer)?,
                    "give the folder of the base model",
                )?,
                None => base_folder(&top, &peft::read_base(&top)?, hub, observer)?,
            };
            if !run_dir::holds_run(&base) && !adapters::is_adapter(&base) {
                break base;
            }
            folders.push(adapter_folder(&base)?);
            if folders.len() > MOST {
                return Err(Error::input(format!(
                    "{}: more than {MOST} stacked adapters",
                    adapter.display()
                ))
                .hint("does one of them name itself as its base?"));
            }
        };
        let config = DecoderConfig::read(&model)?;
        let link = |folder: PathBuf| {
            let peft = peft::read(&folder, &config)?;
            let sha256 = files::sha256(&folder.join(peft::TENSOR_FILE))?;
            Ok(Link {
                folder,
                peft,
                sha256,
            })
        };
        let links = folders
            .into_iter()
            .rev()
            .map(link)
            .collect::<Result<Vec<_>>>()?;
        let chain = Self {
            model,
            config,
            links,
        };
        chain.check(observer)?;
        Ok(chain)
    }

    /// The adapters, from bottom to top.
    pub(super) fn adapters(&self) -> Vec<&Adapter> {
        self.links.iter().map(|link| &link.peft.adapter).collect()
    }

    /// The requested adapter, at the top.
    pub(super) fn top(&self) -> &Link {
        self.links
            .last()
            .expect("a chain ends in the requested adapter")
    }

    /// Rejects a chain in which an adapter was trained on a different base than the one below it.
    fn check(&self, observer: &mut dyn Progress) -> Result<()> {
        let adapters = self.adapters();
        let merge = Merge::open(&self.model, &self.config, &adapters)?;
        for (below, link) in self.links.iter().enumerate() {
            let folder = link.folder.display();
            let found = identity::of_merge(&merge, below, None, observer)?;
            let name = link
                .peft
                .base
                .name
                .as_deref()
                .unwrap_or("a model without a name");
            let under = match below {
                0 => self.model.display().to_string(),
                _ => format!(
                    "{} on {}",
                    self.links[below - 1].folder.display(),
                    self.model.display()
                ),
            };
            match &link.peft.base.fingerprint {
                Some(theirs) if !found.matches(theirs) => {
                    let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
                    let (theirs, ours) = (short(theirs), short(found.as_str()));
                    let problem = format!(
                        "{folder}: was trained on another base, {name}: its fingerprint is {theirs}, the fingerprint of {under} is {ours}"
                    );
                    return Err(Error::input(problem).hint("give the base it was trained on: --model DIR"));
                }
                Some(_) => {}
                None if below == 0 && !adapters::is_called(&self.model, name) => observer.note(&format!(
                    "warning: {folder}: says it was trained on {name}, not on {under}; it has no fingerprint to verify this"
                )),
                None => {}
            }
        }
        Ok(())
    }

    /// Describes the base of the top adapter, the model with all lower adapters merged, for an
    /// adapter folder.
    pub(super) fn base(&self, observer: &mut dyn Progress) -> Result<BaseModel> {
        let adapters = self.adapters();
        let below = self.links.len() - 1;
        let merge = Merge::open(&self.model, &self.config, &adapters)?;
        let fingerprint = identity::of_merge(&merge, below, None, observer)?;
        let lineage = self.lineage(below, &[], &fingerprint, observer)?;
        let BaseModel { name, revision, .. } = self.top().peft.base.clone();
        Ok(BaseModel {
            name: name.or_else(|| Some(self.model.display().to_string())),
            revision,
            fingerprint: Some(fingerprint.as_str().to_owned()),
            lineage: (!lineage.merged.is_empty()).then(|| lineage.to_json()),
        })
    }

    /// The lineage of the model after merging its first `count` adapters and then the sum of
    /// `parts`, if there are any.
    pub(super) fn lineage(
        &self,
        count: usize,
        parts: &[MergedAdapter],
        fingerprint: &Fingerprint,
        observer: &mut dyn Progress,
    ) -> Result<Lineage> {
        let known = Lineage::read(&self.model)?;
        let own = identity::of_model(&self.model, &self.config, observer)?;
        if let Some(known) = &known {
            known.check(&self.model, &own)?;
        }
        let (name, revision) = match hub_name(&self.model) {
            Some((name, commit)) => (name, Some(commit)),
            None => (self.model.display().to_string(), None),
        };
        let begun = known.unwrap_or_else(|| Lineage {
            fingerprint: own.as_str().to_owned(),
            base: Base {
                name,
                revision,
                fingerprint: own.as_str().to_owned(),
            },
            merged: Vec::new(),
        });
        let link = |link: &Link| {
            let name = link.folder.display().to_string();
            Step {
                adapters: vec![MergedAdapter {
                    name,
                    sha256: link.sha256.clone(),
                    weight: 1.0,
                }],
            }
        };
        let last = (!parts.is_empty()).then(|| Step {
            adapters: parts.to_vec(),
        });
        let merged = begun
            .merged
            .into_iter()
            .chain(self.links[..count].iter().map(link))
            .chain(last)
            .collect();
        Ok(Lineage {
            fingerprint: fingerprint.as_str().to_owned(),
            merged,
            ..begun
        })
    }
}

/// Finds the base that an adapter names: a folder, a folder relative to the adapter, or a Hub id.
fn base_folder(
    adapter: &Path,
    base: &BaseModel,
    hub: &Hub,
    observer: &mut dyn Progress,
) -> Result<PathBuf> {
    let hint = "give the model that it was trained on: --model DIR";
    let Some(name) = base.name.as_deref().filter(|name| !name.is_empty()) else {
        return Err(Error::input(format!("{}: names no base model", adapter.display())).hint(hint));
    };
    let candidates = [PathBuf::from(name), adapter.join(name)];
    if let Some(folder) = candidates.into_iter().find(|folder| folder.is_dir()) {
        return Ok(folder);
    }
    let problem = format!(
        "{}: was trained on {name}, which is not a folder here",
        adapter.display()
    );
    let Some(id) = Id::parse(name).filter(|id| id.revision.is_none() && id.part.is_none()) else {
        return Err(Error::input(problem).hint(hint));
    };
    let revision = base
        .revision
        .as_ref()
        .map_or_else(String::new, |revision| format!("@{revision}"));
    let given = PathBuf::from(format!("{}{revision}", id.repo));
    hub.model("base model", &given, observer)
        .map_err(|error| Error {
            hint: format!("{hint}; {}", error.hint),
            ..error.at(problem)
        })
}

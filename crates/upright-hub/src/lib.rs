//! Models, adapters and datasets of the Hugging Face Hub, by id. They are kept where the Hugging Face tools keep them, resumed
//! after a broken download, and checked. An existing local path takes precedence over an id.
//!
//! | module | what it is for |
//! |---|---|
//! | `id` | ids: `ORG/NAME[@REVISION][:SPLIT]` |
//! | `cache` | the layout of the Hugging Face cache |
//! | `download` | listings and files: resumed, checked, with a token for its own origin only |
//! | `splits` | which files of a dataset are a split |
//!
//! ```
//! use upright_hub::Id;
//!
//! let id = Id::parse("org/name@main:train").unwrap();
//! assert_eq!(id.repo, "org/name");
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

mod cache;
mod download;
mod id;
mod splits;

use std::path::{Path, PathBuf};

pub use download::parse_listing;
pub use id::Id;

use cache::{RepoCache, RepoKind};
use download::{Answer, Connection, Repo};
use splits::Unclear;
use upright_base::{
    Error, Result,
    files::{self, Lock},
    observer::Observer,
};
use upright_model::model_files::{OF_AN_ADAPTER, is_companion};

/// The revision of an id without one.
const MAIN: &str = "main";

/// What is asked of a repository: from the names of its files, those that are wanted.
type Choice<'c> = &'c dyn Fn(&[String]) -> Result<Vec<String>>;

/// The hub as the environment describes it.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    certificates: Option<PathBuf>,
    offline: bool,
}

impl std::fmt::Debug for Hub {
    /// Without the token, which belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// A folder that a variable names; `~` is the user's own, also where no shell has put it in.
fn folder(name: &str) -> Option<PathBuf> {
    let text = variable(name)?;
    Some(match (text.strip_prefix("~/"), variable("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => text.into(),
    })
}

fn is_set(name: &str) -> bool {
    variable(name)
        .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&&value.to_uppercase()[..]))
}

impl Hub {
    /// Reads the variables of the Hugging Face tools: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`; and `SSL_CERT_FILE`.
    pub fn from_environment() -> Self {
        let home = folder("HF_HOME").unwrap_or_else(|| {
            let caches = folder("XDG_CACHE_HOME");
            let own = || variable("HOME").map(|home| Path::new(&home).join(".cache"));
            caches
                .or_else(own)
                .unwrap_or_else(files::own_temporary)
                .join("huggingface")
        });
        let cache = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
            .iter()
            .find_map(|name| folder(name));
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
            .iter()
            .find_map(|name| variable(name));
        let kept = || {
            let path = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            files::read_text(&path)
                .ok()
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let certificates = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]
            .iter()
            .find_map(|name| variable(name));
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token: if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                None
            } else {
                token.or_else(kept)
            },
            certificates: certificates.map(PathBuf::from),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        }
    }

    /// The folder of a model: `given` itself where it is no id, or is there.
    pub fn model(&self, given: &Path, observer: &mut dyn Observer) -> Result<PathBuf> {
        let Some(id) = Id::not_local(given) else {
            return Ok(given.to_owned());
        };
        no_part(&id)?;
        self.fetch(
            RepoKind::Model,
            &id,
            &|names| of_model(&id.repo, names),
            observer,
        )
        .map(|(folder, _)| folder)
    }

    /// The folder of a model of which only the config and the tokenizer are needed: `given` itself where it is no id.
    pub fn tokenizer(&self, given: &Path, observer: &mut dyn Observer) -> Result<PathBuf> {
        let Some(id) = Id::not_local(given) else {
            return Ok(given.to_owned());
        };
        no_part(&id)?;
        let choose = |names: &[String]| {
            let wanted = of_model(&id.repo, names)?.into_iter();
            Ok(wanted
                .filter(|name| ![WEIGHTS, INDEX].contains(&&name[..]))
                .collect())
        };
        self.fetch(RepoKind::Model, &id, &choose, observer)
            .map(|(folder, _)| folder)
    }

    /// The folder of an adapter: `given` itself where it is no id, or is there.
    pub fn adapter(&self, given: &Path, observer: &mut dyn Observer) -> Result<PathBuf> {
        self.adapter_with(&[], given, observer)
    }

    /// The same with what trainers put beside an adapter, which shows whether it was trained with another tokenizer than its
    /// base.
    pub fn adapter_and_tokenizer(
        &self,
        given: &Path,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf> {
        self.adapter_with(&OF_AN_ADAPTER, given, observer)
    }

    /// The same with files of these names, as far as they are there.
    fn adapter_with(
        &self,
        beside: &[&str],
        given: &Path,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf> {
        let Some(id) = Id::not_local(given) else {
            return Ok(given.to_owned());
        };
        no_part(&id)?;
        let files = |names: &[String]| {
            let beside = beside
                .iter()
                .map(|name| (*name).to_owned())
                .filter(|name| names.contains(name));
            Ok(of_adapter(&id.repo, names)?
                .into_iter()
                .chain(beside)
                .collect())
        };
        self.fetch(RepoKind::Model, &id, &files, observer)
            .map(|(folder, _)| folder)
    }

    /// The files of a dataset's split, in order: `given` itself where it is no id, or is there.
    pub fn data(&self, given: &Path, observer: &mut dyn Observer) -> Result<Vec<PathBuf>> {
        let Some(id) = Id::not_local(given) else {
            return Ok(vec![given.to_owned()]);
        };
        let (folder, names) = self.fetch(
            RepoKind::Dataset,
            &id,
            &|names| of_data(&id, names),
            observer,
        )?;
        observer.note(&format!("{}: {}", given.display(), names.join(", ")));
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    /// The snapshot's folder and the chosen files, all of which are there. What was fetched before does where the hub cannot
    /// be asked, or does not answer for now.
    fn fetch(
        &self,
        kind: RepoKind,
        id: &Id,
        choose: Choice<'_>,
        observer: &mut dyn Observer,
    ) -> Result<(PathBuf, Vec<String>)> {
        files::check_own(&self.cache)?;
        let revision = id.revision.as_deref().unwrap_or(MAIN);
        let cache = RepoCache::new(&self.cache, kind, &id.repo);
        let cached = || {
            let commit = cache.commit(revision)?;
            let names = cache.names(&commit);
            (!names.is_empty()).then_some((commit, names))
        };
        if self.offline {
            let Some((commit, names)) = cached() else {
                let problem = format!(
                    "{}@{revision}: is not in {}, and HF_HUB_OFFLINE is set",
                    id.repo,
                    self.cache.display()
                );
                return Err(Error::input(problem)
                    .hint("unset HF_HUB_OFFLINE to download it, or give a local path"));
            };
            let chosen = choose(&names).map_err(|error| {
                error.hint("only what was downloaded before is here: HF_HUB_OFFLINE is set")
            })?;
            return Ok((cache.snapshot(&commit), chosen));
        }
        let connection = Connection::new(
            &self.endpoint,
            self.token.clone(),
            self.certificates.as_deref(),
        )?;
        let refusal = match self.ask(
            &connection,
            Repo {
                kind,
                name: &id.repo,
                revision,
            },
            &cache,
            choose,
            observer,
        ) {
            Ok(found) => return Ok(found),
            Err(refusal) => refusal,
        };
        let Some(why) = refusal.for_now() else {
            return Err(refusal.into());
        };
        // What the cache lacks is no news of the repository: why it was not asked is.
        let Some((commit, Ok(chosen))) = cached().map(|(commit, names)| (commit, choose(&names)))
        else {
            return Err(refusal.into());
        };
        observer.note(&format!(
            "warning: {why}; taking {}@{} from the cache",
            id.repo,
            &commit[..12]
        ));
        Ok((cache.snapshot(&commit), chosen))
    }

    /// The snapshot's folder and the chosen files, as the hub has them now.
    fn ask(
        &self,
        connection: &Connection,
        asked: Repo<'_>,
        cache: &RepoCache,
        choose: Choice<'_>,
        observer: &mut dyn Observer,
    ) -> Answer<(PathBuf, Vec<String>)> {
        let (commit, names) = connection.listing(asked)?;
        let mut chosen = choose(&names)?;
        let repo = Repo {
            revision: &commit,
            ..asked
        };
        let mut fetched = 0;
        // An index comes first: it says which files it is of.
        chosen.sort_by_key(|name| !name.ends_with(INDEX));
        let mut at = 0;
        while at < chosen.len() {
            fetched +=
                u64::from(self.fetch_file(connection, repo, cache, &chosen[at], observer)?);
            if chosen[at] == INDEX {
                let index = files::read_text(&cache.snapshot(&commit).join(INDEX))?;
                chosen.extend(shards(repo.name, &index, &names)?);
            }
            at += 1;
        }
        match cache.set_commit(asked.revision, &commit) {
            // A cache that others fill, and that need not be written: all that was wanted is there.
            Err(_) if fetched == 0 => {}
            remembered => remembered?,
        }
        if fetched > 0 {
            let (folder, short) = (cache.snapshot(&commit), &commit[..12]);
            observer.note(&format!(
                "{}@{short}: {fetched} files downloaded into {}",
                repo.name,
                folder.display()
            ));
        }
        Ok((cache.snapshot(&commit), chosen))
    }

    /// Makes one file of a commit be there; returns whether it had to be downloaded.
    fn fetch_file(
        &self,
        connection: &Connection,
        repo: Repo<'_>,
        cache: &RepoCache,
        name: &str,
        observer: &mut dyn Observer,
    ) -> Answer<bool> {
        // Bytes get a name when they are whole and checked, so what has a name is.
        if cache.snapshot(repo.revision).join(name).is_file() {
            return Ok(false);
        }
        let file = connection.describe(repo, name)?;
        let (blob, lock) = (cache.blob(&file.etag), cache.lock(&file.etag));
        for path in [&blob, &lock] {
            let folder = path.parent().unwrap_or(path);
            std::fs::create_dir_all(folder).map_err(|error| {
                Error::input(format!(
                    "{}: the cache of downloads cannot be written: {error}",
                    folder.display()
                ))
                .hint("set HF_HOME or HF_HUB_CACHE to a folder that can be")
            })?;
        }
        let _lock = Lock::wait(&lock, observer)?;
        let is_there = blob
            .metadata()
            .is_ok_and(|metadata| metadata.len() == file.size);
        if !is_there {
            connection.fetch(repo, name, &file, &blob, observer)?;
        }
        cache.link(&file.etag, repo.revision, name)?;
        Ok(!is_there)
    }
}

fn no_part(id: &Id) -> Result<()> {
    match &id.part {
        Some(part) => Err(Error::input(format!(
            "{}:{part}: a part is named, but this is no dataset",
            id.repo
        ))
        .hint(format!(
            "give {}, with @REVISION behind it if need be",
            id.repo
        ))),
        None => Ok(()),
    }
}

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files of a model among those of a repository: config, weights or their index, and what belongs to them.
///
/// # Errors
/// The repository holds no model that can be read; what it holds instead.
pub fn of_model(repo: &str, names: &[String]) -> Result<Vec<String>> {
    let has = |name: &str| names.iter().any(|other| other == name);
    if !has("config.json") {
        let (problem, hint) = match has("adapter_config.json") {
            true => (
                "holds an adapter, not a model",
                "give the model it was trained on, and this as the adapter",
            ),
            false => (
                "holds no config.json, so it is no model that transformers could load",
                "look at its page",
            ),
        };
        return Err(Error::input(format!("{repo}: {problem}")).hint(hint));
    }
    let weights = [WEIGHTS, INDEX].into_iter().find(|name| has(name)).ok_or_else(|| {
        let weights = |name: &&String| [".bin", ".gguf", ".pth", ".safetensors"].iter().any(|end| name.ends_with(end));
        let others: Vec<&str> = names.iter().filter(weights).take(5).map(String::as_str).collect();
        let found = if others.is_empty() { String::new() } else { format!(", only {}", others.join(", ")) };
        Error::input(format!("{repo}: has no {WEIGHTS}{found}"))
            .hint("look for a revision or a copy with safetensors, or convert it with transformers' save_pretrained")
    })?;
    let template =
        |name: &str| name.starts_with("additional_chat_templates/") && name.ends_with(".jinja");
    let companions = names
        .iter()
        .filter(|name| is_companion(name) || template(name))
        .cloned();
    Ok(companions
        .chain(["config.json".to_owned(), weights.to_owned()])
        .collect())
}

/// Files of an adapter among those of a repository.
///
/// # Errors
/// The repository holds no adapter that can be read; what it holds instead.
pub fn of_adapter(repo: &str, names: &[String]) -> Result<Vec<String>> {
    let has = |name: &str| names.iter().any(|other| other == name);
    let (config, tensors) = ("adapter_config.json", "adapter_model.safetensors");
    let (problem, hint) = match (has(config), has(tensors)) {
        (true, true) => return Ok(vec![config.to_owned(), tensors.to_owned()]),
        (true, false) if has("adapter_model.bin") => (
            "has only adapter_model.bin",
            "load it with PEFT and save it again: PEFT writes safetensors",
        ),
        (true, false) if has("adapters.safetensors") => (
            "is an adapter of mlx-lm",
            "merge it with `mlx_lm.fuse` and give the merged folder as the model",
        ),
        (true, false) => ("has no adapter_model.safetensors", "look at its page"),
        (false, _) => (
            "holds no adapter_config.json, so it is no adapter of PEFT",
            "a model is given with --model",
        ),
    };
    Err(Error::input(format!("{repo}: {problem}")).hint(hint))
}

/// The files that an index of weights, given as its text, names among those of a repository.
///
/// # Errors
/// The index is damaged, or names a file that is not there.
pub fn shards(repo: &str, index: &str, names: &[String]) -> Result<Vec<String>> {
    let broken =
        |what: &str| Error::failure(format!("{repo}: {INDEX}: {what}")).hint("tell its owner");
    let value: serde_json::Value =
        serde_json::from_str(index).map_err(|error| broken(&error.to_string()))?;
    let map = value
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| broken("has no weight_map"))?;
    let files: std::collections::BTreeSet<&str> =
        map.values().filter_map(|file| file.as_str()).collect();
    if let Some(missing) = files
        .iter()
        .find(|file| !names.iter().any(|name| name == *file))
    {
        return Err(broken(&format!("names {missing}, which is not there")));
    }
    Ok(files.into_iter().map(str::to_owned).collect())
}

/// Files of a dataset's part, which `id` names, among those of a repository.
///
/// # Errors
/// The repository holds no such part, or several that could be meant.
pub fn of_data(id: &Id, names: &[String]) -> Result<Vec<String>> {
    let repo = &id.repo;
    splits::choose(names, id.part.as_deref()).map_err(|unclear| match unclear {
        Unclear::NoRows => Error::input(format!("{repo}: has no .json, .jsonl or .parquet file"))
            .hint("datasets that a script makes cannot be read; look for revision refs/convert/parquet"),
        Unclear::NoSuch(there) => Error::input(format!("{repo}: has no `{}`", id.part.as_deref().unwrap_or_default()))
            .hint(format!("there are {}; a file can be named in full, too", there.join(", "))),
        Unclear::Several(all) => {
            let shown: Vec<String> = all.iter().take(12).map(|part| format!("{repo}:{part}")).collect();
            let more = if all.len() > 12 { format!(" and {} more", all.len() - 12) } else { String::new() };
            Error::input(format!("{repo}: it is not clear which rows are meant"))
                .hint(format!("choose one: {}{more}", shown.join(", ")))
        }
        Unclear::Incomplete { there, of } => {
            let shown: Vec<&str> = there.iter().take(3).map(String::as_str).collect();
            Error::input(format!("{repo}: only {} of the {of} files of this split are there", there.len()))
                .hint(format!("a file can be named by itself, as {repo}:{}", shown.join(&format!(" or {repo}:"))))
        }
    })
}

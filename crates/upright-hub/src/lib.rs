//! Models, adapters and datasets of the Hugging Face Hub, by id. Files are kept in the Hugging Face
//! cache, resumed after a broken download, and checked. An existing local path takes precedence
//! over an id. Errors name the argument: the flag, key or value name that held the path or the id.
//!
//! | module | purpose |
//! |---|---|
//! | `id` | ids: `ORG/NAME[@REVISION][:SPLIT]` |
//! | `cache` | the layout of the Hugging Face cache |
//! | `download` | listings and files: resumed, checked, with a token for its own origin only |
//! | `splits` | which files of a dataset belong to a split |
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
pub use id::{Id, Wanted, id_of};

use cache::{RepoCache, RepoKind};
use download::{Answer, Connection, Refusal, Repo};
use splits::Unclear;
use upright_base::{
    Error, Result,
    files::{self, Lock},
    missing::nearest_path,
    progress::Progress,
};
use upright_model::model_files::{OF_AN_ADAPTER, is_companion};

/// Default revision.
const MAIN: &str = "main";

/// Selects the wanted files from the file names of a repository.
pub type Choice<'c> = &'c dyn Fn(&[String]) -> Result<Vec<String>>;

/// The Hub, as configured by the environment.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    certificates: Option<PathBuf>,
    offline: bool,
}

/// An argument that is an id, for messages.
#[derive(Clone, Copy)]
struct Argument<'a> {
    /// The flag, key or value name that it was given as.
    name: &'a str,
    wanted: Wanted,
    given: &'a Path,
}

impl Argument<'_> {
    /// Adds to an error of the Hub that the argument is no path either, and the nearest path.
    fn with_missing_path(self, error: Error) -> Error {
        let kind = self.wanted.kind();
        let given = self.given.display();
        let path = match nearest_path(self.given) {
            Some(close) => format!("for a local {kind}, did you mean `{}`?", close.display()),
            None => format!("for a local {kind}, check its path"),
        };
        Error {
            message: format!("there is no {kind} `{given}` here, and {}", error.message),
            hint: format!("{path}; for a Hub id, {}", error.hint),
            ..error
        }
    }
}

impl std::fmt::Debug for Hub {
    /// Omits the token, which must not appear in a log.
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

/// A folder from an environment variable. Expands `~` to the user's home, even if no shell has.
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
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token: if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                None
            } else {
                token.or_else(kept)
            },
            certificates: upright_http::certificates_in_environment(),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        }
    }

    /// The folder of the model in the argument `name`. `given` itself if it exists.
    pub fn model(&self, name: &str, given: &Path, observer: &mut dyn Progress) -> Result<PathBuf> {
        let Some(id) = id_of(name, Wanted::Model, given)? else {
            return Ok(given.to_owned());
        };
        no_part(name, &id)?;
        let argument = Argument {
            name,
            wanted: Wanted::Model,
            given,
        };
        self.fetch(argument, &id, &|names| of_model(&id.repo, names), observer)
            .map(|(folder, _)| folder)
    }

    /// The folder of the model in the argument `name`, if only the config and the tokenizer are
    /// needed. `given` itself if it exists.
    pub fn tokenizer(
        &self,
        name: &str,
        given: &Path,
        observer: &mut dyn Progress,
    ) -> Result<PathBuf> {
        let Some(id) = id_of(name, Wanted::Model, given)? else {
            return Ok(given.to_owned());
        };
        no_part(name, &id)?;
        let choose = |names: &[String]| {
            let wanted = of_model(&id.repo, names)?.into_iter();
            Ok(wanted
                .filter(|name| ![WEIGHTS, INDEX].contains(&&name[..]))
                .collect())
        };
        let argument = Argument {
            name,
            wanted: Wanted::Model,
            given,
        };
        self.fetch(argument, &id, &choose, observer)
            .map(|(folder, _)| folder)
    }

    /// The folder of the adapter in the argument `name`. `given` itself if it exists.
    pub fn adapter(
        &self,
        name: &str,
        given: &Path,
        observer: &mut dyn Progress,
    ) -> Result<PathBuf> {
        self.adapter_with(&[], name, given, observer)
    }

    /// Like [`Hub::adapter`], with the files that trainers save next to an adapter. They show
    /// whether it was trained with another tokenizer than its base model's.
    pub fn adapter_and_tokenizer(
        &self,
        name: &str,
        given: &Path,
        observer: &mut dyn Progress,
    ) -> Result<PathBuf> {
        self.adapter_with(&OF_AN_ADAPTER, name, given, observer)
    }

    /// Like [`Hub::adapter`], with the files of these names that exist.
    fn adapter_with(
        &self,
        beside: &[&str],
        name: &str,
        given: &Path,
        observer: &mut dyn Progress,
    ) -> Result<PathBuf> {
        let Some(id) = id_of(name, Wanted::Adapter, given)? else {
            return Ok(given.to_owned());
        };
        no_part(name, &id)?;
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
        let argument = Argument {
            name,
            wanted: Wanted::Adapter,
            given,
        };
        self.fetch(argument, &id, &files, observer)
            .map(|(folder, _)| folder)
    }

    /// The files of the dataset's split in the argument `name`, in order. `given` itself if it
    /// exists.
    pub fn data(
        &self,
        name: &str,
        given: &Path,
        observer: &mut dyn Progress,
    ) -> Result<Vec<PathBuf>> {
        let Some(id) = id_of(name, Wanted::Rows, given)? else {
            return Ok(vec![given.to_owned()]);
        };
        let argument = Argument {
            name,
            wanted: Wanted::Rows,
            given,
        };
        let (folder, names) = self.fetch(argument, &id, &|names| of_data(&id, names), observer)?;
        observer.note(&format!("{}: {}", given.display(), names.join(", ")));
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    /// The folder of a dataset with the files that `choose` selects from all names. `given`
    /// itself if it exists.
    pub fn dataset_folder(
        &self,
        name: &str,
        given: &Path,
        choose: Choice<'_>,
        observer: &mut dyn Progress,
    ) -> Result<PathBuf> {
        let Some(id) = id_of(name, Wanted::DatasetFolder, given)? else {
            return Ok(given.to_owned());
        };
        if let Some(part) = &id.part {
            return Err(Error::input(format!(
                "{name}: {}:{part}: the dataset is used as a whole, without a part after the colon",
                id.repo
            ))
            .hint(format!("use {0}, or {0}@REVISION", id.repo)));
        }
        let argument = Argument {
            name,
            wanted: Wanted::DatasetFolder,
            given,
        };
        self.fetch(argument, &id, choose, observer)
            .map(|(folder, _)| folder)
    }

    /// The snapshot folder and the chosen files, all of which are present. Uses cached files if the
    /// Hub cannot be reached, or does not serve the files for now. Errors begin with the argument.
    fn fetch(
        &self,
        argument: Argument<'_>,
        id: &Id,
        choose: Choice<'_>,
        observer: &mut dyn Progress,
    ) -> Result<(PathBuf, Vec<String>)> {
        self.found(argument, id, choose, observer)
            .map_err(|error| error.at(argument.name))
    }

    fn found(
        &self,
        argument: Argument<'_>,
        id: &Id,
        choose: Choice<'_>,
        observer: &mut dyn Progress,
    ) -> Result<(PathBuf, Vec<String>)> {
        files::check_own(&self.cache)?;
        let kind = match argument.wanted {
            Wanted::Model | Wanted::Adapter => RepoKind::Model,
            Wanted::Rows | Wanted::DatasetFolder => RepoKind::Dataset,
        };
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
                    "{}@{revision}: not in {}, and HF_HUB_OFFLINE is set",
                    id.repo,
                    self.cache.display()
                );
                return Err(argument.with_missing_path(
                    Error::input(problem).hint("unset HF_HUB_OFFLINE to download it"),
                ));
            };
            let chosen = choose(&names).map_err(|error| {
                error.hint("only downloaded files are available: HF_HUB_OFFLINE is set")
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
        let why = match &refusal {
            Refusal::Answered(_) => return Err(refusal.into()),
            Refusal::Unreachable(why) | Refusal::Withheld(why, _) => why.clone(),
        };
        // A missing cached file says nothing about the repository, so report why the Hub did not
        // serve it.
        let Some((commit, Ok(chosen))) = cached().map(|(commit, names)| (commit, choose(&names)))
        else {
            return Err(match refusal {
                Refusal::Unreachable(_) => argument.with_missing_path(refusal.into()),
                _ => refusal.into(),
            });
        };
        observer.note(&format!(
            "warning: {why}; using {}@{} from the cache",
            id.repo,
            &commit[..12]
        ));
        Ok((cache.snapshot(&commit), chosen))
    }

    /// The snapshot folder and the chosen files, as they are on the Hub now.
    fn ask(
        &self,
        connection: &Connection,
        asked: Repo<'_>,
        cache: &RepoCache,
        choose: Choice<'_>,
        observer: &mut dyn Progress,
    ) -> Answer<(PathBuf, Vec<String>)> {
        let (commit, names) = connection.listing(asked)?;
        let mut chosen = choose(&names)?;
        let repo = Repo {
            revision: &commit,
            ..asked
        };
        let mut fetched = 0;
        // An index comes first: it names the weight files.
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
            // The cache may be read-only and filled by others: all wanted files are present.
            Err(_) if fetched == 0 => {}
            remembered => remembered?,
        }
        if fetched > 0 {
            let (folder, short) = (cache.snapshot(&commit), &commit[..12]);
            let files = if fetched == 1 { "file" } else { "files" };
            observer.note(&format!(
                "{}@{short}: downloaded {fetched} {files} to {}",
                repo.name,
                folder.display()
            ));
        }
        Ok((cache.snapshot(&commit), chosen))
    }

    /// Ensures that one file of a commit is cached; returns whether it was downloaded.
    fn fetch_file(
        &self,
        connection: &Connection,
        repo: Repo<'_>,
        cache: &RepoCache,
        name: &str,
        observer: &mut dyn Progress,
    ) -> Answer<bool> {
        // A file gets its name once it is complete and checked, so a named file is both.
        if cache.snapshot(repo.revision).join(name).is_file() {
            return Ok(false);
        }
        let file = connection.describe(repo, name)?;
        let (blob, lock) = (cache.blob(&file.etag), cache.lock(&file.etag));
        for path in [&blob, &lock] {
            let folder = path.parent().unwrap_or(path);
            std::fs::create_dir_all(folder).map_err(|error| {
                Error::input(format!(
                    "{}: the download cache cannot be written: {error}",
                    folder.display()
                ))
                .hint("set HF_HOME or HF_HUB_CACHE to a writable folder")
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

fn no_part(name: &str, id: &Id) -> Result<()> {
    match &id.part {
        Some(part) => Err(Error::input(format!(
            "{name}: {}:{part}: only the id of a dataset takes a part after the colon",
            id.repo
        ))
        .hint(format!("use {0}, or {0}@REVISION", id.repo))),
        None => Ok(()),
    }
}

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Selects the files of a model from a repository: config, weights or their index, and companion
/// files.
///
/// # Errors
/// The repository has no supported model; the message says what it has instead.
pub fn of_model(repo: &str, names: &[String]) -> Result<Vec<String>> {
    let has = |name: &str| names.iter().any(|other| other == name);
    if !has("config.json") {
        let (problem, hint) = match has("adapter_config.json") {
            true => (
                "has an adapter, not a model",
                "give its base model as the model, and this repository as the adapter",
            ),
            false => (
                "has no config.json, so it is not a transformers model",
                "check its page on the Hub",
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

/// Selects the files of an adapter from a repository.
///
/// # Errors
/// The repository has no supported adapter; the message says what it has instead.
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
            "is an mlx-lm adapter",
            "merge it with `mlx_lm.fuse` and give the merged folder as the model",
        ),
        (true, false) => (
            "has no adapter_model.safetensors",
            "check its page on the Hub",
        ),
        (false, _) => (
            "has no adapter_config.json, so it is not a PEFT adapter",
            "use --model for a model",
        ),
    };
    Err(Error::input(format!("{repo}: {problem}")).hint(hint))
}

/// The files that an index of weights names. `index` is its text, `names` are the files of the
/// repository.
///
/// # Errors
/// The index is damaged, or names a missing file.
pub fn shards(repo: &str, index: &str, names: &[String]) -> Result<Vec<String>> {
    let broken = |what: &str| {
        Error::failure(format!("{repo}: {INDEX}: {what}"))
            .hint("report this to the owner of the repository")
    };
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
        return Err(broken(&format!("names {missing}, which is missing")));
    }
    Ok(files.into_iter().map(str::to_owned).collect())
}

/// Selects the files of the split or part that `id` names from a repository.
///
/// # Errors
/// The repository has no such part, or several match.
pub fn of_data(id: &Id, names: &[String]) -> Result<Vec<String>> {
    let repo = &id.repo;
    splits::choose(names, id.part.as_deref()).map_err(|unclear| match unclear {
        Unclear::NoRows => Error::input(format!("{repo}: has no .json, .jsonl or .parquet file"))
            .hint("datasets that are built by a script are not supported; try the revision refs/convert/parquet"),
        Unclear::NoSuch(there) => Error::input(format!("{repo}: no split or file `{}`", id.part.as_deref().unwrap_or_default()))
            .hint(format!("available: {}; or give the full name of a file", there.join(", "))),
        Unclear::Several(all) => {
            let shown: Vec<String> = all.iter().take(12).map(|part| format!("{repo}:{part}")).collect();
            let more = if all.len() > 12 { format!(" and {} more", all.len() - 12) } else { String::new() };
            Error::input(format!("{repo}: more than one split or file matches"))
                .hint(format!("choose one: {}{more}", shown.join(", ")))
        }
        Unclear::Incomplete { there, of } => {
            let shown: Vec<&str> = there.iter().take(3).map(String::as_str).collect();
            Error::input(format!("{repo}: incomplete split: {} of {of} files are present", there.len()))
                .hint(format!("to use a single file, name it: {repo}:{}", shown.join(&format!(" or {repo}:"))))
        }
    })
}

//! Hub ids in a config: downloads what they name, and puts the local files beside them or in their
//! place.

use std::path::{Path, PathBuf};

use upright_base::{Error, Result, progress::Progress};
use upright_data::DataFile;
use upright_hub::{Hub, Wanted, id_of};
use upright_runs::settings::{Config, ObjectiveConfig};

/// The same settings, with local folders for Hub ids of models and adapters, and [`Config::files`]
/// for Hub ids of datasets.
///
/// # Errors
/// A path that does not exist, by the name of its setting, before anything is downloaded; whatever
/// the Hub answers.
pub fn fetched(config: &Config, hub: &Hub, observer: &mut dyn Progress) -> Result<Config> {
    check_paths(config)?;
    let written = config;
    let mut config = written.clone();
    if let Some(model) = &mut config.model {
        *model = hub.model("model", model, observer)?;
    }
    if let Some(adapter) = &mut config.init_adapter {
        *adapter = hub.adapter("init-adapter", adapter, observer)?;
    }
    if let Some(reference) = reference_adapter(written) {
        let folder = hub.adapter("reference", reference, observer)?;
        let folder = folder.into_os_string().into_string().map_err(|name| {
            Error::input(format!(
                "{}: the name of the cache folder is not valid UTF-8",
                name.display()
            ))
        })?;
        config.reference = Some(folder);
    }
    for (name, given) in rows_named(written) {
        let files = hub.data(&name, &given, observer)?;
        if files != [given.clone()] {
            config.files.insert(given, files);
        }
    }
    Ok(config)
}

/// Rejects every path that does not exist and is no Hub id.
fn check_paths(config: &Config) -> Result<()> {
    if let Some(model) = &config.model {
        id_of("model", Wanted::Model, model)?;
    }
    if let Some(adapter) = &config.init_adapter {
        id_of("init-adapter", Wanted::Adapter, adapter)?;
    }
    if let Some(reference) = reference_adapter(config) {
        id_of("reference", Wanted::Adapter, reference).map_err(|error| {
            if error.hint.starts_with("did you mean") {
                return error;
            }
            let hint = format!("{}; or none, train:chosen, train:sft", error.hint);
            error.hint(hint)
        })?;
    }
    for (name, given) in rows_named(config) {
        id_of(&name, Wanted::Rows, &given)?;
    }
    Ok(())
}

/// The reference model, if the config names an adapter.
fn reference_adapter(config: &Config) -> Option<&Path> {
    let word = config.reference.as_deref()?;
    (word != "none" && !word.starts_with("train:")).then(|| Path::new(word))
}

/// Every path and id of rows in the config, as written, without shares; each with the name of its
/// setting.
fn rows_named(config: &Config) -> Vec<(String, PathBuf)> {
    let mut named = Vec::new();
    for (name, path) in [
        ("sft-eval", &config.sft_eval),
        ("dpo-eval", &config.dpo_eval),
    ] {
        named.extend(path.iter().map(|path| (name.to_owned(), path.clone())));
    }
    for (name, data) in [("sft", &config.sft), ("dpo", &config.dpo)] {
        named.extend(
            data.iter()
                .map(|text| (name.to_owned(), without_share(text))),
        );
    }
    for (index, objective) in config.objective.iter().enumerate() {
        let ObjectiveConfig {
            name, data, eval, ..
        } = objective;
        let number = (index + 1).to_string();
        let name = name.as_deref().unwrap_or(&number);
        named.extend(
            eval.iter()
                .map(|path| (format!("objective {name}: eval"), path.clone())),
        );
        for text in data {
            named.push((format!("objective {name}: data"), without_share(text)));
        }
    }
    named
}

/// The path or id before a share. The name of an existing file may look as if it had a share.
fn without_share(text: &str) -> PathBuf {
    let DataFile { mut shards, .. } = DataFile::from(text);
    if Path::new(text).exists() {
        text.into()
    } else {
        shards.remove(0)
    }
}

/// The rows of the path or Hub id in the argument `name`.
pub fn data_file(
    hub: &Hub,
    name: &str,
    given: &Path,
    observer: &mut dyn Progress,
) -> Result<DataFile> {
    Ok(hub.data(name, given, observer)?.into())
}

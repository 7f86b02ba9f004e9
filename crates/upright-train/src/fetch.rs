//! Hub ids in a config: downloads what they name, and puts the local files beside them or in their
//! place.

use std::path::{Path, PathBuf};

use upright_base::{Error, Result, observer::Observer};
use upright_data::DataFile;
use upright_hub::Hub;
use upright_runs::settings::Config;

/// The same settings, with local folders for Hub ids of models and adapters, and [`Config::files`]
/// for Hub ids of datasets.
pub fn fetched(config: &Config, hub: &Hub, observer: &mut dyn Observer) -> Result<Config> {
    let written = config;
    let mut config = written.clone();
    if let Some(model) = &mut config.model {
        *model = hub.model(model, observer)?;
    }
    if let Some(adapter) = &mut config.init_adapter {
        *adapter = hub.adapter(adapter, observer)?;
    }
    if let Some(reference) = config
        .reference
        .as_mut()
        .filter(|word| !word.starts_with("train:"))
    {
        let folder = hub.adapter(Path::new(&reference[..]), observer)?;
        *reference = folder.into_os_string().into_string().map_err(|name| {
            Error::input(format!(
                "{}: the name of the cache folder is not valid UTF-8",
                name.display()
            ))
        })?;
    }
    for given in rows_named(written) {
        let files = hub.data(&given, observer)?;
        if files != [given.clone()] {
            config.files.insert(given, files);
        }
    }
    Ok(config)
}

/// Every path and id of rows in the config, as written, without shares.
fn rows_named(config: &Config) -> Vec<PathBuf> {
    let evals = config.objective.iter().map(|objective| &objective.eval);
    let evals = [&config.sft_eval, &config.dpo_eval]
        .into_iter()
        .chain(evals)
        .flatten()
        .cloned();
    let data = config.objective.iter().map(|objective| &objective.data);
    let data = [&config.sft, &config.dpo]
        .into_iter()
        .chain(data)
        .flatten()
        .map(|text| without_share(text));
    evals.chain(data).collect()
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

/// The rows of a path or a Hub id.
pub fn data_file(hub: &Hub, given: &Path, observer: &mut dyn Observer) -> Result<DataFile> {
    Ok(hub.data(given, observer)?.into())
}

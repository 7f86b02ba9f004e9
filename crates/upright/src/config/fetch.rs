//! Ids of the hub in a config: what they name is brought here, and where it lies is written beside or in place of them.

use std::path::{Path, PathBuf};

use super::Config;
use crate::data::DataFile;
use crate::hub::Hub;
use crate::observer::Observer;
use crate::{Error, Result};

impl Config {
    /// The same settings, with local folders for ids of models and adapters, and [`Config::files`] for those of rows.
    pub fn fetched(&self, hub: &Hub, observer: &mut dyn Observer) -> Result<Self> {
        let mut config = self.clone();
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
                    "{}: the cache's folder has a name that is no UTF-8",
                    name.display()
                ))
            })?;
        }
        for given in self.rows_named() {
            let files = hub.data(&given, observer)?;
            if files != [given.clone()] {
                config.files.insert(given, files);
            }
        }
        Ok(config)
    }

    /// Everything that names rows, as it was written, without shares.
    fn rows_named(&self) -> Vec<PathBuf> {
        let evals = self.objective.iter().map(|objective| &objective.eval);
        let evals = [&self.sft_eval, &self.dpo_eval]
            .into_iter()
            .chain(evals)
            .flatten()
            .cloned();
        let data = self.objective.iter().map(|objective| &objective.data);
        let data = [&self.sft, &self.dpo]
            .into_iter()
            .chain(data)
            .flatten()
            .map(|text| without_share(text));
        evals.chain(data).collect()
    }
}

/// What stands before a share. A file may have a name that looks like one with a share.
fn without_share(text: &str) -> PathBuf {
    let DataFile { mut shards, .. } = text
        .parse()
        .unwrap_or_else(|never: std::convert::Infallible| match never {});
    if Path::new(text).exists() {
        text.into()
    } else {
        shards.remove(0)
    }
}

/// The rows that a path or an id means.
pub(crate) fn data_file(hub: &Hub, given: &Path, observer: &mut dyn Observer) -> Result<DataFile> {
    Ok(hub.data(given, observer)?.into())
}

//! Ids of the hub in a config: what they name is brought here, and local paths take their place.

use std::path::{Path, PathBuf};

use super::Config;
use crate::data::DataFile;
use crate::hub::Hub;
use crate::observer::Observer;
use crate::{Error, Result};

impl Config {
    /// The same settings, with local paths for everything that is an id of the hub.
    pub fn fetched(&self, hub: &Hub, observer: &mut dyn Observer) -> Result<Self> {
        let mut config = self.clone();
        if let Some(model) = &mut config.model {
            *model = hub.model(model, observer)?;
        }
        if let Some(adapter) = &mut config.init_adapter {
            *adapter = hub.adapter(adapter, observer)?;
        }
        if let Some(reference) = config.reference.as_mut().filter(|word| !word.starts_with("train:")) {
            let folder = hub.adapter(Path::new(&reference[..]), observer)?;
            *reference = folder.into_os_string().into_string().map_err(|name| {
                Error::input(format!("{}: the cache's folder has a name that is no UTF-8", name.display()))
            })?;
        }
        let listed = config.objective.iter_mut().map(|objective| &mut objective.eval);
        for path in [&mut config.sft_eval, &mut config.dpo_eval].into_iter().chain(listed).flatten() {
            *path = data_file(hub, path, observer)?;
        }
        let listed = config.objective.iter_mut().map(|objective| &mut objective.data);
        for files in [&mut config.sft, &mut config.dpo].into_iter().chain(listed) {
            for file in files {
                let DataFile { path, share } =
                    file.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
                // What is on the disk already keeps its spelling.
                if !Path::new(file.as_str()).exists() && !path.exists() {
                    *file = DataFile { path: data_file(hub, &path, observer)?, share }.to_string();
                }
            }
        }
        Ok(config)
    }
}

/// The one file of rows that a path or an id means.
pub(crate) fn data_file(hub: &Hub, given: &Path, observer: &mut dyn Observer) -> Result<PathBuf> {
    let mut files = hub.data(given, observer)?;
    if files.len() > 1 {
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        return Err(Error::input(format!("{}: these rows are in {} files", given.display(), files.len()))
            .hint(format!("one file is read for each objective; name it after a colon: {}", names.join(", "))));
    }
    Ok(files.remove(0))
}

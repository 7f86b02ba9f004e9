//! Adapter folders: a PEFT folder, or the adapter of a run or a checkpoint.

use std::path::{Path, PathBuf};

use upright_base::{Error, Result, files};
use upright_model::peft;
use upright_runs::run_dir::{self, RunDir, adapter_dir};

/// The folder of an adapter: the given folder, or the adapter folder of the given run.
///
/// # Errors
/// The run is not finished.
pub fn adapter_in(folder: &Path) -> Result<PathBuf> {
    if !run_dir::holds_run(folder) || folder.join(peft::CONFIG_FILE).is_file() {
        return Ok(folder.to_owned());
    }
    let adapter = adapter_dir(folder);
    if adapter.join(peft::CONFIG_FILE).is_file() {
        return Ok(adapter);
    }
    let checkpoints = RunDir::checkpoints(folder);
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
                "finish the run with --resume, or give its newest checkpoint, {}",
                files::quoted(&folder)
            ))
        }
        None => error.hint("finish the run with --resume"),
    })
}

/// Whether a folder contains an adapter and no model.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(peft::CONFIG_FILE).is_file() && !folder.join("config.json").is_file()
}

/// Whether a model's folder or Hub id has the same last part as the base name in an adapter.
pub fn is_called(model: &Path, name: &str) -> bool {
    let called = upright_model::model_files::hub_name(model).map(|(id, _)| PathBuf::from(id));
    let folder = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    [Some(folder), called]
        .iter()
        .flatten()
        .any(|own| own.file_name() == Path::new(name).file_name())
}

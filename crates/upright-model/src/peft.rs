//! PEFT adapter folders: `adapter_config.json` beside `adapter_model.safetensors`, as every program of the Hugging Face
//! world reads and writes them.

mod read;
mod select;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use crate::adapter::{Adapter, LoraConfig};
use crate::config::DecoderConfig;
use upright_base::Result;

/// The config's file name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The tensors' file name.
pub const TENSOR_FILE: &str = "adapter_model.safetensors";

/// In front of every module name in the tensors' keys.
const KEY_PREFIX: &str = "base_model.model.";

/// Where the base model's fingerprint and lineage stand in the safetensors metadata. PEFT reads none of that, while older
/// versions of it refuse an `adapter_config.json` with keys they do not know.
const FINGERPRINT_KEY: &str = "upright.base_fingerprint";
const LINEAGE_KEY: &str = "upright.base_lineage";

/// What an adapter's folder says of the model that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseModel {
    /// `base_model_name_or_path`: a folder, or an id of the Hugging Face hub.
    pub name: Option<String>,
    /// `revision` of the id: a branch, a tag or a commit.
    pub revision: Option<String>,
    /// Fingerprint of the weights, where this program wrote the folder.
    pub fingerprint: Option<String>,
    /// How the weights were made, where they are themselves the result of a merge; the text is the caller's.
    pub lineage: Option<String>,
}

/// What a PEFT folder holds.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftFolder {
    /// The parameters, laid out for the model that the folder was read for.
    pub adapter: Adapter,
    /// Rank, alpha and targets. Targets are module names in full where the file selects them in another way: by a regular
    /// expression, or by layer.
    pub lora: LoraConfig,
    /// The model it belongs to.
    pub base: BaseModel,
    /// LoRA dropout that the adapter was trained with; scoring and our own training have none.
    pub dropout: f64,
}

/// Reads a PEFT folder for a model. The linears that the tensors adapt must be those that the config selects, by names,
/// a regular expression, `all-linear`, layers or exclusions; values may be f32, f16 or bf16.
///
/// # Errors
/// The system refuses. Bad input, where a file is missing or damaged, a tensor has the wrong shape
/// or no partner, rank, targets and tensors disagree, or the adapter is of a kind that the engine does not compute: another PEFT
/// method, DoRA, trained biases, whole modules saved beside it, an adapted head, or mlx-lm's format.
pub fn read(dir: &Path, config: &DecoderConfig) -> Result<PeftFolder> {
    read::read(dir, config)
}

/// What a PEFT folder says of its base, before that is there to read the folder for.
///
/// # Errors
/// As [`read()`], for the files alone.
pub fn read_base(dir: &Path) -> Result<BaseModel> {
    read::read_base(dir)
}

/// Refuses an adapter with an infinite or undefined value, by its tensor's name in PEFT.
///
/// # Errors
/// There is such a value.
pub fn check_finite(adapter: &Adapter) -> Result<()> {
    write::check_finite(adapter)
}

/// Writes a PEFT folder, creating it where needed. Each file is written under another name, flushed to the disk and then
/// renamed, so that a reader finds the old one or the new one. Equal adapters give equal bytes.
///
/// # Errors
/// The system refuses; a value is not finite, as [`check_finite`] says; `lora` does not describe the adapter's layout.
pub fn write(dir: &Path, adapter: &Adapter, lora: &LoraConfig, base: &BaseModel) -> Result<()> {
    write::write(dir, adapter, lora, base)
}

//! PEFT adapter folders: `adapter_config.json` beside `adapter_model.safetensors`, as in the
//! Hugging Face ecosystem.

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

/// Prefix of every module name in the tensors' keys.
const KEY_PREFIX: &str = "base_model.model.";

/// Keys of the base model's fingerprint and lineage in the safetensors metadata. PEFT ignores this
/// metadata, but its older versions reject an `adapter_config.json` with unknown keys.
const FINGERPRINT_KEY: &str = "upright.base_fingerprint";
const LINEAGE_KEY: &str = "upright.base_lineage";

/// The base model that an adapter's folder names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseModel {
    /// `base_model_name_or_path`: a folder or a Hub id.
    pub name: Option<String>,
    /// `revision` of the id: a branch, a tag or a commit.
    pub revision: Option<String>,
    /// Fingerprint of the weights, if this program wrote the folder.
    pub fingerprint: Option<String>,
    /// Lineage of the weights, if they are the result of a merge; the caller provides the text.
    pub lineage: Option<String>,
}

/// The contents of a PEFT folder.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftFolder {
    /// The parameters, laid out for the model that the folder was read for.
    pub adapter: Adapter,
    /// Rank, alpha and targets. Targets are full module names if the file selects them in another
    /// way: by a regular expression, or by layer.
    pub lora: LoraConfig,
    /// The base model.
    pub base: BaseModel,
    /// LoRA dropout that the adapter was trained with; scoring and training here apply none.
    pub dropout: f64,
}

/// Reads a PEFT folder for a model. The adapted linears must be those that the config selects by
/// names, a regular expression, `all-linear`, layers or exclusions. Values may be f32, f16 or bf16.
///
/// # Errors
/// A system error, or bad input: a file is missing or damaged, a tensor has the wrong shape or no
/// partner, rank, targets and tensors disagree, or the kind of adapter is not supported: another
/// PEFT method, DoRA, trained biases, whole modules saved beside the adapter, an adapted head, or
/// mlx-lm's format.
pub fn read(dir: &Path, config: &DecoderConfig) -> Result<PeftFolder> {
    read::read(dir, config)
}

/// Reads only the base model that a PEFT folder names, for a caller that has not opened that model
/// yet.
///
/// # Errors
/// As [`read()`], for the files alone.
pub fn read_base(dir: &Path) -> Result<BaseModel> {
    read::read_base(dir)
}

/// Rejects an adapter with a value that is infinite or NaN.
///
/// # Errors
/// Names the tensor with such a value, as PEFT names it.
pub fn check_finite(adapter: &Adapter) -> Result<()> {
    write::check_finite(adapter)
}

/// Writes a PEFT folder, and creates it if needed. Each file is written under another name, flushed
/// to disk and renamed, so that a reader finds either the old file or the new one. Equal adapters
/// give equal bytes.
///
/// # Errors
/// A system error; a value is not finite ([`check_finite`]); `lora` does not describe the adapter's
/// layout.
pub fn write(dir: &Path, adapter: &Adapter, lora: &LoraConfig, base: &BaseModel) -> Result<()> {
    write::write(dir, adapter, lora, base)
}

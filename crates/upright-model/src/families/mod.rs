//! The table of model families. An entry says how a `config.json` is read and how the tensors are named. A new family whose
//! arithmetic the decoder has is one file here, with its module and its line in `FAMILIES`.

mod family;
pub mod gpt_neox;
pub mod llama;
pub mod mistral;
pub mod qwen2;
pub mod qwen3;
#[cfg(test)]
mod tests;

pub use family::{
    Activation, ActivationNames, Family, HeadSize, KvHeads, NormKind, NumberKey, OLD_BUFFERS,
    QkvNames, RotaryKeys, SlidingWindow, Switch, TensorNames,
};
use upright_math::registry::Registry;

static FAMILIES: Registry<Family> = Registry::new(&[
    &gpt_neox::GPT_NEOX,
    &llama::LLAMA,
    &mistral::MISTRAL,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
]);

/// The families that the program supports: the built-in ones, or those that [`install`] put in their place. Errors list model types
/// in this order.
pub fn families() -> &'static [&'static Family] {
    FAMILIES.all()
}

/// The built-in families, whatever was installed.
pub fn builtin() -> &'static [&'static Family] {
    FAMILIES.builtin()
}

/// Makes these the families of the whole process. If two of them have a model type in common, the first one is used.
///
/// # Panics
/// If the table was used or installed before. A program installs its families first of all.
///
/// ```standalone_crate
/// use upright_model::families::{self, Family, TensorNames, llama::LLAMA};
///
/// // Llama's arithmetic under other names.
/// static SMALL: Family = Family {
///     name: "small",
///     model_types: &["small"],
///     tensors: TensorNames {
///         final_norm: "model.final_norm",
///         ..LLAMA.tensors
///     },
///     ..LLAMA
/// };
///
/// let mut all = families::builtin().to_vec();
/// all.push(&SMALL);
/// families::install(all);
/// assert!(families::families().contains(&&SMALL));
/// ```
pub fn install(families: Vec<&'static Family>) {
    FAMILIES.install(families);
}

/// The first of some families that has a model type.
pub(crate) fn find(families: &[&'static Family], model_type: &str) -> Option<&'static Family> {
    families
        .iter()
        .find(|family| family.model_types.contains(&model_type))
        .copied()
}

/// The model types of some families, for messages.
pub(crate) fn model_types<'f>(families: impl IntoIterator<Item = &'f &'static Family>) -> String {
    let mut types: Vec<&str> = Vec::new();
    for family in families {
        types.extend_from_slice(family.model_types);
    }
    types.join(", ")
}

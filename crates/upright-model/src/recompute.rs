//! Gradient checkpointing.

use serde::{Deserialize, Serialize};

/// When blocks are recomputed in the backward pass instead of saving their activations. The results
/// are bit-identical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// If the activations would not fit into half of the available memory.
    #[default]
    Auto,
    /// Always: a step keeps one residual row per block and token.
    On,
    /// Never.
    Off,
}

impl Recompute {
    /// All values, in the order of help texts.
    pub const ALL: &'static [Self] = &[Self::Auto, Self::On, Self::Off];

    /// Name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

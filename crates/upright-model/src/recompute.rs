//! Gradient checkpointing.

use serde::{Deserialize, Serialize};

/// When blocks are recomputed in the backward pass instead of keeping their activations. The results have the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Where the activations would not fit into half of the memory that is available.
    #[default]
    Auto,
    /// Always: a step keeps one residual row per block and token.
    On,
    /// Never.
    Off,
}

impl Recompute {
    /// All of them, in the order of help texts.
    pub const ALL: &'static [Self] = &[Self::Auto, Self::On, Self::Off];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

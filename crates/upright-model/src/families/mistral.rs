//! Mistral: Llama without biases and with a sliding window.

use super::{Family, KvHeads, SlidingWindow, Switch, llama::LLAMA};

/// Mistral 7B and its successors of the same `model_type`.
pub const MISTRAL: Family = Family {
    name: "mistral",
    model_types: &["mistral"],
    kv_heads: KvHeads::Key { default: Some(8) },
    max_positions: 4096 * 32,
    window: SlidingWindow::EveryBlock { default: 4096 },
    qkv_bias: Switch::Off,
    output_bias: Switch::Off,
    mlp_bias: Switch::Off,
    ..LLAMA
};

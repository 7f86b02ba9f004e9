//! Qwen2: Llama with biases on q, k and v, and a sliding window that is off by default.

use super::{Family, KvHeads, SlidingWindow, Switch, llama::LLAMA};

/// Qwen2 and Qwen2.5.
pub const QWEN2: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    kv_heads: KvHeads::Key { default: Some(32) },
    max_positions: 32_768,
    window: SlidingWindow::UpperBlocks {
        default: 4096,
        first: 28,
    },
    qkv_bias: Switch::On,
    output_bias: Switch::Off,
    mlp_bias: Switch::Off,
    bos: None,
    eos: None,
    ..LLAMA
};

//! Model folders and adapters as files and shapes. Nothing here computes a forward pass, so every
//! device can use it. Each module uses only modules above it in this table.
//!
//! | module | purpose |
//! |---|---|
//! | [`families`] | the table of model families: defaults of `config.json`, names of tensors |
//! | [`config`] | the decoder's architecture, from `config.json` in the dialect of transformers 4 or 5 |
//! | [`pack`] | tokens, spans (a tree: start, length, parent) and targets of one forward pass |
//! | [`weights`] | safetensors, memory-mapped; digests and the fingerprint of a base |
//! | [`adapter`] | the LoRA layout over one flat f32 vector, and exact sums of adapters |
//! | [`peft`] | reading and writing PEFT folders |
//! | [`merge`] | merging adapters into a model's weights |
//! | [`identity`], [`lineage`], [`model_files`] | which base a folder holds, what it was merged from, and its other files |
//!
//! ```
//! use upright_model::pack::Pack;
//!
//! // A prompt of three tokens with two responses: the prompt is computed once.
//! let mut pack = Pack::default();
//! pack.tree(&[1, 2, 3], &[&[4, 5], &[6]]);
//! assert_eq!(pack.targets.len(), 3);
//! assert!(pack.tokens.len() < 3 + 2 + 3 + 1);
//! ```

#![allow(unsafe_code, reason = "memory-mapped files")]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write files directly")
)]

pub mod adapter;
pub mod config;
mod device;
pub mod families;
pub mod identity;
pub mod lineage;
pub mod merge;
pub mod model_files;
pub mod pack;
pub mod peft;
mod recompute;
pub mod weights;

pub use device::Device;
pub use recompute::Recompute;

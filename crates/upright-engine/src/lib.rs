//! The decoder on a device: turns tokens into log-probabilities, and the derivative of a loss with
//! respect to each log-probability into the gradient of a LoRA adapter. The engine knows tokens,
//! not SFT or DPO.
//!
//! | module | purpose |
//! |---|---|
//! | [`decoder`] | [`Decoder`]: open, score, forward, backward |
//! | [`vector`] | [`Vector`]: an adapter's parameters, gradient and moments, on the decoder's device |
//! | [`sum`] | [`Sum`]: the exact sum of the packs' gradients, in any order |
//! | [`generation`] | [`Generation`]: token-by-token generation with key-value caches |
//! | [`usage`] | [`Usage`]: memory, busy time and operation counts of the device |
//! | [`times`] | time of every group of kernels on a card |
//! | [`work`] | what a step on a card takes, counted without a card |
//! | [`microbench`] | throughput of the CPU kernels beside the limits of the hardware |
//! | `scores`, `next`, `prefill`, `adapter` | inputs and outputs of a pass |
//! | `backend` | the trait that a device implements |
//! | `gpu/` | the decoder on a card, above the trait of a card |
//! | `cpu/` | the CPU: decoder, block, head, linear, generation, and `kernels/` |
//!
//! ```
//! use upright_engine::{Decoder, Options};
//! use upright_model::pack::Pack;
//!
//! # fn main() -> upright_base::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama");
//! let decoder = Decoder::open(&folder, &Options::default())?;
//! let mut pack = Pack::default();
//! pack.tree(&[1, 2, 3], &[&[4, 5]]);
//! let scores = decoder.score(&pack, None)?;
//! assert_eq!(scores.logp.len(), 2);
//! # Ok(())
//! # }
//! ```

#![allow(unsafe_code, reason = "kernels")]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write files directly")
)]

mod adapter;
mod backend;
mod cpu;
pub mod decoder;
pub mod generation;
mod gpu;
pub mod microbench;
mod next;
mod prefill;
mod scores;
pub mod sum;
pub mod times;
pub mod usage;
pub mod vector;
pub mod work;

pub use cpu::tier::Tier;
pub use decoder::{
    Activations, Card, Decoder, DeviceAdapter, Libraries, Options, Scores, Slopes, cards, devices,
};
pub use generation::Generation;
#[cfg(feature = "host-device")]
pub use gpu::compare::{KernelComparison, compare_kernels};
pub use sum::{OutOfRange, Sum};
pub use usage::{Counts, Usage};
pub use vector::Vector;

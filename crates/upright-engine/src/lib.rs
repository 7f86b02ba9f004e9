//! The engine of `upright`: tokens become log-probabilities, and slopes on those log-probabilities become gradients of a
//! LoRA adapter. It has never heard of SFT or DPO. Read [`decoder`] first; each module uses only those listed above it.

pub mod error;
pub mod place;
pub mod config;
pub mod pack;
pub mod weights;
pub mod adapter;
pub mod peft;
mod buffer;
mod rows;
pub mod merge;
pub mod cpu;
pub mod memory;
pub mod processor;
mod linear;
mod block;
mod head;
pub mod decoder;
pub mod generation;

pub use error::{Error, Result};

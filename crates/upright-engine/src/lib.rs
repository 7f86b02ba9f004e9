//! The engine of `upright`: tokens become log-probabilities, and slopes on those log-probabilities become gradients of a
//! LoRA adapter. It has never heard of SFT or DPO. Read [`decoder`] first; each module uses only those listed above it.

pub mod adapter;
mod block;
pub mod config;
pub mod cpu;
pub mod decoder;
pub mod generation;
pub mod error;
mod head;
mod linear;
pub mod memory;
pub mod pack;
pub mod peft;
pub mod weights;

pub use error::{Error, Result};

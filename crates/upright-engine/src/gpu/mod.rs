//! The decoder on a card. Files mirror those of `cpu/`: a block, a head and a linear do the same there and here.
//!
//! | module | purpose |
//! |---|---|
//! | `device` | the trait that a card implements: memory, copies, launches, products |
//! | `array` | typed memory on a device |
//! | `checks` | what a device has to prove when a model is opened |
//! | `cuda/` | NVIDIA cards |
//! | `compare/` | every kernel of a device beside the emulator |
//! | `host` | a device for tests: the kernels in the emulator, products on the CPU |
//! | `meter`, `traffic` | a device that only counts: memory, launches, products and bytes |
//! | `decoder`, `passes`, `generation` | the decoder, its forward and backward passes, and generation |
//! | `weights`, `linear` | frozen weights, each linear beside the LoRA pairs that extend it |
//! | `block`, `head` | one block and the head, forward and backward |
//! | `tables` | what kernels read about a pack: positions, tiles, paths, targets |
//! | `memory` | bytes that a step takes |
//! | `kernels/` | launches of the kernels of `upright-kernels`, one file per family |

mod array;
mod block;
mod checks;
#[cfg(feature = "host-device")]
pub(crate) mod compare;
pub(crate) mod cuda;
pub(crate) mod decoder;
mod device;
pub(crate) mod generation;
mod head;
#[cfg(feature = "host-device")]
pub(crate) mod host;
pub(crate) mod kernels;
mod linear;
mod memory;
pub(crate) mod meter;
pub(crate) mod passes;
mod tables;
#[cfg(all(test, feature = "host-device"))]
mod tests;
mod traffic;
mod weights;

pub(crate) use array::Array;
pub(crate) use device::Device;

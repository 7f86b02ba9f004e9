//! The CPU backend: everything specific to the CPU, and nothing that a GPU would share.

mod best;
mod block;
mod buffer;
pub(crate) mod decoder;
pub(crate) mod generation;
pub(crate) mod head;
pub(crate) mod kernels;
mod linear;
pub(crate) mod passes;
pub(crate) mod tier;

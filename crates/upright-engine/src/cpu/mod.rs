//! The CPU: everything that belongs to it, and nothing that a GPU would share.

mod block;
mod buffer;
pub(crate) mod decoder;
pub(crate) mod generation;
mod head;
pub(crate) mod kernels;
mod linear;
pub(crate) mod passes;
pub(crate) mod tier;

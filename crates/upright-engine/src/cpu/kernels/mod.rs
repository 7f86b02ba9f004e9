//! Kernels on the CPU.

pub(crate) mod activation;
pub(crate) mod attention;
mod convert;
pub(crate) mod counters;
mod elementwise;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod norm;
pub(crate) mod rope;
mod saved;
mod simd;

pub(crate) use saved::Saved;
pub(crate) use simd::{Lanes, Work, dispatch, exp, width as vector_width};

use super::tier::Tier;

/// The revision of the arithmetic. It goes up by one with every change to the bits of any result: what an older build began or kept is then not mixed with
/// what this one computes.
pub(crate) const REVISION: u32 = 4;

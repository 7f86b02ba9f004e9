//! CPU kernels.

pub(crate) mod activation;
pub(crate) mod attention;
mod convert;
pub(crate) mod counters;
#[cfg(test)]
mod cuda_tests;
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

/// Revision of the arithmetic. Increment it with every change to the bits of any result: runs and
/// cached values of older builds are then not mixed with results of this build.
pub(crate) const REVISION: u32 = 4;

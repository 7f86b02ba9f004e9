//! Kernels on the CPU.

pub mod activation;
pub mod attention;
pub mod gemm;
pub mod math;
pub mod norm;
pub mod rope;

/// Instruction set that the matrix products run on. Within a tier every result has the same bits for any number of
/// threads and any neighbours in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// f32 products of unrounded operands, on whatever vectors the processor has.
    Portable,
    /// bf16 products with `vdpbf16ps` (AVX512-BF16).
    Avx512,
    /// bf16 products with `tdpbf16ps` (AMX).
    Amx,
}

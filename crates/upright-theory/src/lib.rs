//! The paper's toy problem and its two theorems, run by the same loop that trains models.
//!
//! | module | purpose |
//! |---|---|
//! | [`softmax`] | the policy that all of them share; read it first |
//! | [`mod@toy`] | Figure 2 |
//! | [`mod@theorem_3_3`] | Sequential keeps a gap |
//! | [`mod@theorem_4_1`] | the gap of ALRIGHT vanishes |
//! | [`figures`] | their figures |
//!
//! Where the paper's text contradicts its own numbers, the `slips` of a result say so, with the
//! numbers computed here.
//!
//! ```
//! use upright_theory::softmax::minimizer;
//!
//! // The minimum of (x - 2)^2, where its derivative changes sign.
//! assert_eq!(minimizer(|x| 2.0 * (x - 2.0), 0.0, 5.0), 2.0);
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

pub mod figures;
pub mod softmax;
#[cfg(test)]
mod tests;
pub mod theorem_3_3;
pub mod theorem_4_1;
pub mod toy;

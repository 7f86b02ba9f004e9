//! The paper's toy and its two theorems, run by the loop that trains models: nothing here is computed another way.
//!
//! | module | what it is for |
//! |---|---|
//! | [`softmax`] | the policy that all of them share; read it first |
//! | [`mod@toy`] | Figure 2 |
//! | [`mod@theorem_3_3`] | Sequential keeps a gap |
//! | [`mod@theorem_4_1`] | ALRIGHT's gap vanishes |
//! | [`figures`] | their pictures |
//!
//! Where the paper's text does not fit its own numbers, the result has a line in `slips` that says so with the numbers
//! found here.
//!
//! ```
//! use upright_theory::softmax::minimizer;
//!
//! // The minimum of (x - 2)^2, where its slope changes sign.
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

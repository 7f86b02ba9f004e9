//! The paper's toy and its two theorems, run by the loop that trains models: nothing here is computed another way.
//! Read [`softmax`] first, the policy that all of them share; then [`toy`] (Figure 2), [`theorem_3_3`] (Sequential keeps a
//! gap) and [`theorem_4_1`] (ALRIGHT's vanishes).
//!
//! Where the paper's text does not fit its own numbers, the result has a line in `slips` that says so with the numbers
//! found here.

pub mod softmax;
pub mod toy;
pub mod theorem_3_3;
pub mod theorem_4_1;
pub mod figures;
#[cfg(test)]
mod tests;

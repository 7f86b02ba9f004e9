//! What the other crates share below everything else: arithmetic on plain slices, and tables of entries. Nothing here prints or has
//! dependencies.
//!
//! | module | purpose |
//! |---|---|
//! | [`random`] | random numbers as functions of a seed and a position |
//! | [`adamw`] | one AdamW update of a slice |
//! | [`norm`] | the Euclidean norm of a long vector, bit-identical on any number of threads |
//! | [`mean`] | means with standard errors |
//! | [`registry`] | tables of entries, such as methods, that a program may extend |
//!
//! ```
//! use upright_math::{norm::norm, random::uniform};
//!
//! assert_eq!(norm(&[3.0, 0.0, -4.0]), 5.0);
//! assert_eq!(uniform(42, 7), uniform(42, 7));
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

pub mod adamw;
pub mod mean;
pub mod norm;
pub mod random;
pub mod registry;

//! From a plan to an adapter: the one crate where engine, data and objectives meet.
//!
//! | module | purpose |
//! |---|---|
//! | [`packing`] | examples packed end to end |
//! | [`choices`] | multiple-choice questions: their packs and the log-probabilities of their answers |
//! | [`learner`] | the language model as a [`Learner`](upright_core::Learner) |
//! | [`mod@reference`] | the frozen policy's log-probabilities, cached |
//! | [`evaluation`] | every objective on held-out rows and on a sample of its training rows |
//! | [`ranks`] | work that several ranks share |
//! | [`checkpoint`] | everything a run needs to resume bit-identically |
//! | [`run`] | opens what a plan names, prepares the reference, and takes the steps |
//! | [`fetch`] | downloads the Hub ids of a config |
//! | [`generate`] | greedy and sampled continuations |
//!
//! ```
//! use upright_data::Example;
//! use upright_train::packing::pack;
//!
//! let example = Example { prompt: vec![1, 2, 3], responses: vec![vec![4, 5].into()], ..Example::default() };
//! let packs = pack(&[&example, &example], 2048);
//! assert_eq!(packs.len(), 1);
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write files directly")
)]

pub mod checkpoint;
pub mod choices;
pub mod evaluation;
pub mod fetch;
pub mod generate;
pub mod learner;
pub mod not_finite;
pub mod packing;
pub mod ranks;
pub mod reference;
pub mod run;

pub use run::{Model, Preflight};

//! Win rates. A language model, the judge, says which of two answers to an instruction is better, as
//! in AlpacaEval.
//!
//! | module | purpose |
//! |---|---|
//! | [`outputs`] | pairs of answers, and AlpacaEval's files of answers |
//! | [`protocol`] | what the judge is asked, and what its reply means |
//! | `python_random` | Python's random numbers, which decide the order of a pair |
//! | `client` | one request, with retries |
//! | `replies` | replies of earlier runs |
//! | [`judging`] | all pairs of a model, within a budget |
//! | [`cost`] | tokens and prices |
//! | [`statistics`] | win rates with their errors |
//! | [`files`] | AlpacaEval's `annotations.json` and `leaderboard.csv` |
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

mod client;
pub mod cost;
pub mod files;
pub mod judging;
pub mod outputs;
pub mod protocol;
mod python_random;
mod replies;
pub mod statistics;

pub use client::Key;
pub use judging::{Judge, Judged, Verdict};
pub use outputs::Pair;
pub use protocol::Protocol;
pub use statistics::WinRate;

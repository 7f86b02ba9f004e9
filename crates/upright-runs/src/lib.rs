//! What a run was asked and what it recorded: settings, the plan they mean, and the folder of a run. Nothing here computes:
//! a report or a study needs no engine.
//!
//! | module | what it is for |
//! |---|---|
//! | [`settings`] | every setting of a run as a flag and a TOML key, as it was written |
//! | [`plan`] | what the settings mean: every default applied, every value checked |
//! | [`plan_record`] | `plan.toml`: the plan, and hashes of everything the run depends on |
//! | [`run_dir`] | the folder of a run, its records and its lock |
//! | [`records`] | the names of numbers in `steps.jsonl` and `evals.jsonl` |
//! | [`summary`] | the result of a run, read from its folder |
//! | [`origin`] | the run that an adapter came from |
//!
//! ```
//! use upright_runs::run_dir::{holds_run, is_finished};
//!
//! let folder = std::env::temp_dir();
//! assert!(!holds_run(&folder) && !is_finished(&folder));
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

pub mod origin;
pub mod plan;
pub mod plan_record;
pub mod records;
pub mod run_dir;
pub mod settings;
pub mod summary;

pub use summary::Summary;

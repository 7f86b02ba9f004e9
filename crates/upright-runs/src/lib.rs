//! The settings and the records of a run: its settings, the plan they resolve to, and its folder.
//! This crate does not depend on the engine, so a report needs no engine either.
//!
//! | module | purpose |
//! |---|---|
//! | [`settings`] | every setting of a run as a flag and a TOML key, as the user wrote it |
//! | [`plan`] | the settings with every default applied and every value checked |
//! | [`plan_record`] | `plan.toml`: the plan, and hashes of everything the run depends on |
//! | [`run_dir`] | the folder of a run, its records and its lock |
//! | [`records`] | the records of steps and evaluations, and their keys in `steps.jsonl` and `evals.jsonl` |
//! | [`summary`] | the result of a run, read from the run folder |
//! | [`trackers`] | tools beside the run folder that receive every record |
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
pub mod trackers;

pub use summary::Summary;

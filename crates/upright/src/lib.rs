//! The command line of `upright`, and the modules that only the command line uses: studies, the
//! demo, benchmarks, export, similarity.
//!
//! | module | purpose |
//! |---|---|
//! | [`cli`] | the commands; the only place that prints or exits |
//! | [`Tables`], [`main_with`] | programs with methods, losses, model families and dialects of their own |
//! | [`experiment`] | a study: its file, the graph of its runs, and how they are executed |
//! | [`demo`] | the embedded model and rows, and the comparison of the methods on them |
//! | [`mod@bench`] | training steps, timed and counted |
//! | [`export`] | runs and adapters as folders that other tools load |
//! | [`mmlu`] | MMLU of a model and its adapters, as lm-eval measures it |
//! | [`win_rate`] | answers of a model and its adapters, for a judge |
//! | [`similarity`] | compares the rows of two files by token counts |
//!
//! To use `upright` as a library, start with `upright-core` for methods and objectives on any
//! model, or with `upright-train` for runs.
//!
//! ```
//! use upright_runs::settings::Config;
//!
//! let config = Config::parse("steps = 100\nmethod = 'mix'", "example.toml").unwrap();
//! assert_eq!(config.method.as_deref(), Some("mix"));
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

pub mod bench;
pub mod cli;
pub mod demo;
pub mod experiment;
pub mod export;
pub mod mmlu;
pub mod similarity;
mod tables;
pub mod win_rate;

pub use tables::Tables;

use std::process::ExitCode;

/// Runs the command line with these tables, and returns the exit code. Call it first in `main`: the tables are those of the process.
///
/// # Panics
/// If two entries of a table have one name, or a table was used before.
pub fn main_with(tables: &Tables) -> ExitCode {
    tables.install();
    cli::main()
}

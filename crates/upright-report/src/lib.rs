//! Reports of runs: a self-explanatory HTML page with figures and tables, made from run folders
//! alone.
//!
//! [`Report::read`] turns folders into numbers; [`Report::write`] turns numbers into files. Runs
//! whose plans differ only in the seed form one [`Arm`]. A copied folder gives the same report.
//!
//! The crate has floors. A floor uses only floors below it, and `tests/it/tidy.rs` of the program
//! checks that.
//!
//! | floor | purpose |
//! |---|---|
//! | `folders`, `page` | Sentences, tables and figures become an HTML page in a report folder. |
//! | `draw/` | Comparisons become figures with captions. |
//! | `say/` | Comparisons become sentences, tables and a glossary. Claims get their words. |
//! | `compare/` | Runs become arms. Arms are compared, and verdicts are reached. |
//! | `read/` | Folders become runs. |
//!
//! ```
//! use upright_report::Report;
//!
//! let error = Report::read(&["no/such/folder".into()]).unwrap_err();
//! assert!(error.message.contains("no/such/folder"));
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

mod compare;
mod draw;
mod folders;
mod page;
mod read;
mod say;

pub use compare::{
    Arm, ArmScore, Best, Claim, Comparable, Front, Level, ModelScore, NoError, Optimum,
    ReferenceScore, Report, Role, Scores, Small, Source, Verdict,
};
pub use folders::PAGE;
pub use read::{
    ANSWERS, Answer, Answers, BENCHMARKS, Benchmark, Damaged, Difference, Point, Run, STUDY, Score,
    Study,
};

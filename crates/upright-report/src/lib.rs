//! Reports of runs: a self-explanatory HTML page with figures and tables, made from run folders
//! alone.
//!
//! [`Report::read`] turns folders into numbers; [`Report::write`] turns numbers into files. Runs
//! whose plans differ only in the seed form one [`Arm`]. A copied folder gives the same report.
//!
//! The crate is a house of floors. A floor uses only the floors above it in this table.
//!
//! | floor | purpose |
//! |---|---|
//! | `read/` | Folders become runs. |
//! | `compare/` | Runs become arms; arms are compared, and claims about them are decided. |
//! | `say/` | Comparisons become sentences, tables and a glossary. |
//! | `draw/` | Comparisons become figures with captions. |
//! | `page`, `folders` | Words and figures become an HTML page in a report folder. |
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

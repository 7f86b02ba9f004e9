//! The lowest floor: folders become runs. No file here compares runs.

pub(crate) mod benchmarks;
mod discover;
pub(crate) mod run;
pub(crate) mod study;
pub(crate) mod sums;

use std::path::PathBuf;

use serde::Serialize;

pub use benchmarks::{BENCHMARKS, Benchmark, Difference, Score};
pub use run::{Point, Run};
pub use study::{ANSWERS, Answer, Answers, STUDY, Study};

use upright_base::{Error, Result};

/// A run folder that cannot be read, or whose content no run could have written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Its path, relative to the given folder.
    pub place: String,
    /// The error.
    pub why: String,
}

/// Reads every run in or below the folders, and lists those that cannot be read.
///
/// # Errors
/// A folder contains no run, or none that can be read.
pub(crate) fn runs(folders: &[PathBuf]) -> Result<(Vec<Run>, Vec<Damaged>)> {
    let (mut runs, mut damaged) = (Vec::new(), Vec::new());
    for found in discover::runs(folders)? {
        match Run::read(&found) {
            Ok(run) => runs.push(run),
            Err(error) => {
                // The page names paths relative to the given folder.
                let why = error
                    .message
                    .replace(&found.path.display().to_string(), &found.place);
                damaged.push(Damaged {
                    place: found.place,
                    why,
                });
            }
        }
    }
    if let (true, Some(first)) = (runs.is_empty(), damaged.first()) {
        return Err(Error::input(format!("no run can be read: {}", first.why))
            .hint("restore the file from a copy of the run, or train again to a new --out"));
    }
    Ok((runs, damaged))
}

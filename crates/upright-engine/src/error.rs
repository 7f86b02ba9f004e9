//! What can go wrong between a folder and a gradient, said so that a person can act on it.

use std::path::{Path, PathBuf};

/// Result of every fallible call of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file a person gave is not what it should be: names the file, what was found, and what would work.
    #[error("{}: {problem}", path.display())]
    Input {
        /// The file or folder at fault.
        path: PathBuf,
        /// What was found there.
        problem: String,
        /// What would work instead; printed on a line of its own.
        hint: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The verb: "read", "write", "create".
        action: &'static str,
        /// The system's own word.
        source: std::io::Error,
    },
    /// A number left the finite range.
    #[error("not a finite number: {what}")]
    NotFinite {
        /// The tensor or quantity.
        what: String,
    },
    /// A setting that cannot be (for example `UPRIGHT_CPU=amx` on a machine without AMX).
    #[error("{problem}")]
    Setting {
        /// The setting, its value and why it cannot be.
        problem: String,
        /// What would work instead.
        hint: String,
    },
}

impl Error {
    /// A file that a person should mend.
    pub fn input(
        path: impl AsRef<Path>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Input {
            path: path.as_ref().to_owned(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// An operating-system error with the path it happened to.
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_owned(),
            action,
            source,
        }
    }
}

//! Errors as a person meets them: what is wrong, and the way out.

use std::{fmt::Display, path::Path};

/// Result of every fallible call of the program.
pub type Result<T> = std::result::Result<T, Error>;

/// Who can fix the error; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Bad usage or input: exit code 2; nothing was written.
    Input,
    /// The run failed: exit code 1.
    Failure,
    /// The run was asked to stop and has saved itself: exit code 130, as shells expect.
    Interrupted,
}

/// A message that names the file, row, key or value, and a hint that says what would work.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What is wrong, in one line.
    pub message: String,
    /// The way out; empty where the message says it all.
    pub hint: String,
}

impl Error {
    /// Bad usage or input.
    pub fn input(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Input,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// A failure of the run itself.
    pub fn failure(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Failure,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// The work was asked to stop. Where it can go on later, a hint says how.
    pub fn interrupted(when: &str) -> Self {
        Self {
            kind: ErrorKind::Interrupted,
            message: format!("stopped {when}"),
            hint: String::new(),
        }
    }

    /// A file that a person can fix: what is wrong with it, and the way out.
    pub fn file(path: impl AsRef<Path>, problem: impl Display, hint: impl Into<String>) -> Self {
        Self::input(format!("{}: {problem}", path.as_ref().display())).hint(hint)
    }

    /// A number left the finite range; `what` names the tensor or the quantity.
    pub fn not_finite(what: impl Display) -> Self {
        Self::failure(format!("not a finite number: {what}"))
    }

    /// An operating-system error on an input file, with the verb that failed ("read", "map"): bad input.
    pub fn unreadable(path: impl AsRef<Path>, action: &str, source: std::io::Error) -> Self {
        Self::input(format!(
            "{}: cannot {action}: {source}",
            path.as_ref().display()
        ))
    }

    /// An operating-system error with the path it happened to: a failure of the run.
    pub fn io(path: impl AsRef<Path>, action: &str, source: std::io::Error) -> Self {
        Self::failure(format!(
            "{}: cannot {action}: {source}",
            path.as_ref().display()
        ))
        .hint(way_out(&source))
    }

    /// The same error with the place it happened at in front.
    #[must_use]
    pub fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The same error with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// The way out of an error of the system, where there is one that always fits.
fn way_out(error: &std::io::Error) -> &'static str {
    // The number that Unix has for too many open files.
    const EMFILE: i32 = 24;
    match error.kind() {
        _ if error.raw_os_error() == Some(EMFILE) => {
            "allow more open files, as with `ulimit -n 1024`"
        }
        std::io::ErrorKind::PermissionDenied => "allow this user to do so, or give another folder",
        std::io::ErrorKind::ReadOnlyFilesystem => "give a folder that can be written",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_has_the_hint_that_fits() {
        let hint =
            |number: i32| Error::io("x", "write", std::io::Error::from_raw_os_error(number)).hint;
        assert!(hint(24).contains("ulimit -n"));
        assert!(hint(30).contains("can be written"));
        assert_eq!(hint(28), "", "whoever writes knows what room is needed for");
    }
}

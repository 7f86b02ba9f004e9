//! Errors: a message that says what is wrong, and a hint that says what to do.

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
    /// A stop was requested and the run has saved its state: exit code 130, as shells expect.
    Interrupted,
}

/// A message that names the file, row, key or value, and a hint that says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it; empty if the message is enough.
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

    /// A stop was requested. If the work can be resumed, add a hint that says how.
    pub fn interrupted(when: &str) -> Self {
        Self {
            kind: ErrorKind::Interrupted,
            message: format!("stopped {when}"),
            hint: String::new(),
        }
    }

    /// A problem with a file that the user can fix, and a hint that says how.
    pub fn file(path: impl AsRef<Path>, problem: impl Display, hint: impl Into<String>) -> Self {
        Self::input(format!("{}: {problem}", path.as_ref().display())).hint(hint)
    }

    /// A value is not finite; `what` names the tensor or the quantity.
    pub fn not_finite(what: impl Display) -> Self {
        Self::failure(format!("not a finite number: {what}"))
    }

    /// An operating-system error on an input file: bad input. `action` is the verb that failed
    /// ("read", "map").
    pub fn unreadable(path: impl AsRef<Path>, action: &str, source: std::io::Error) -> Self {
        Self::input(format!(
            "{}: cannot {action}: {source}",
            path.as_ref().display()
        ))
    }

    /// An operating-system error on a path: a failure of the run. `action` is the verb that failed.
    pub fn io(path: impl AsRef<Path>, action: &str, source: std::io::Error) -> Self {
        Self::failure(format!(
            "{}: cannot {action}: {source}",
            path.as_ref().display()
        ))
        .hint(way_out(&source))
    }

    /// Puts the place where the error happened in front of the message.
    #[must_use]
    pub fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// The hint for an operating-system error; empty if no hint always fits.
fn way_out(error: &std::io::Error) -> &'static str {
    // Too many open files, on Unix.
    const EMFILE: i32 = 24;
    match error.kind() {
        _ if error.raw_os_error() == Some(EMFILE) => {
            "raise the limit on open files, e.g. with `ulimit -n 1024`"
        }
        std::io::ErrorKind::PermissionDenied => "check the permissions, or choose another folder",
        std::io::ErrorKind::ReadOnlyFilesystem => "choose a writable folder",
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
        assert!(hint(30).contains("writable"));
        assert_eq!(
            hint(28),
            "",
            "the caller knows what the space is needed for"
        );
    }
}

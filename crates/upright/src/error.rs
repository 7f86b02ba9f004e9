//! Errors as a person meets them: what is wrong, and the way out.

use std::{fmt::Display, path::Path};

use upright_engine::{adapter::Adapter, decoder::Decoder, pack::Pack};

/// Result of every fallible call of the program.
pub type Result<T> = std::result::Result<T, Error>;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
    pub kind: Kind,
    /// What is wrong, in one line.
    pub message: String,
    /// The way out; empty where the message says it all.
    pub hint: String,
}

impl Error {
    /// Bad usage or input.
    pub fn input(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Input,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// A failure of the run itself.
    pub fn failure(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Failure,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// The work was asked to stop. Where it can go on later, a hint says how.
    pub fn interrupted(when: &str) -> Self {
        Self {
            kind: Kind::Interrupted,
            message: format!("stopped {when}"),
            hint: String::new(),
        }
    }

    /// An operating-system error with the path it happened to: a failure of the run.
    pub fn io(path: impl AsRef<Path>, action: &str, source: std::io::Error) -> Self {
        Self::failure(format!(
            "{}: cannot {action}: {source}",
            path.as_ref().display()
        ))
        .hint(way_out(&source))
    }

    /// A value that is not finite before anything was trained: the model or an adapter is at fault, by its tensor.
    pub fn not_finite(
        value: impl Display,
        decoder: &Decoder,
        pack: &Pack,
        adapter: Option<&Adapter>,
    ) -> Self {
        let cause = decoder
            .find_non_finite(pack, adapter)
            .map_or_else(String::new, |what| format!(": {what}"));
        Self::input(format!("{value} is not finite{cause}"))
            .hint("a file is damaged; download it again")
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

impl From<upright_engine::Error> for Error {
    fn from(error: upright_engine::Error) -> Self {
        let message = error.to_string();
        match error {
            upright_engine::Error::Input { hint, .. }
            | upright_engine::Error::Setting { hint, .. } => Self::input(message).hint(hint),
            upright_engine::Error::Io {
                action: "read" | "map",
                ..
            } => Self::input(message),
            upright_engine::Error::Io { source, .. } => {
                Self::failure(message).hint(way_out(&source))
            }
            upright_engine::Error::NotFinite { .. } => Self::failure(message),
        }
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

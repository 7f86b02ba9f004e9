//! The foundation of every `upright` crate: errors with hints, progress, atomic file writes, and
//! the memory and processor time of this process. Nothing here knows about models or training.
//!
//! | module | purpose |
//! |---|---|
//! | [`error`] | [`Error`]: a message, a hint, and who can fix it |
//! | [`progress`] | [`Progress`](progress::Progress): who is told of work, and how it is asked to stop |
//! | [`files`] | atomic writes, locks, append-only lines, the cache |
//! | [`file_kind`] | rejects pipes, devices and folders where a file is expected |
//! | [`parallel`] | a parallel map whose results do not depend on the number of threads |
//! | [`suggest`] | "did you mean" |
//! | [`missing`] | errors for paths that do not exist, with the nearest path that does |
//! | [`counted`](fn@counted) | counts with their nouns |
//! | [`quiet`] | turns panics of libraries into errors |
//! | [`memory`], [`processor`] | memory and processor time of this process |
//! | [`python`] | packages of the Python environments that are active |
//!
//! ```
//! use upright_base::{Error, ErrorKind};
//!
//! let error = Error::file("rows.jsonl", "row 3 has no prompt", "add a column `prompt`");
//! assert_eq!(error.to_string(), "rows.jsonl: row 3 has no prompt");
//! assert_eq!(error.hint, "add a column `prompt`");
//! assert_eq!(error.kind, ErrorKind::Input);
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

mod counted;
pub mod error;
pub mod file_kind;
pub mod files;
pub mod memory;
pub mod missing;
pub mod parallel;
pub mod processor;
pub mod progress;
pub mod python;
pub mod quiet;
pub mod suggest;

pub use counted::counted;
pub use error::{Error, ErrorKind, Result};

//! Runs and studies that are killed, stopped and squeezed end in the bytes of those that were not.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print as they like"
)]

mod runs;
#[path = "../it/runs_fixture/mod.rs"]
mod runs_fixture;
mod studies;

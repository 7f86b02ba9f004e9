//! Rows and templates as users have them.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print as they like"
)]

mod mmlu;
mod rows;
mod templates;
mod tokenizer;

//! The engine against transformers + peft, against finite differences, and against itself, on every device of the machine.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print"
)]

mod finite_differences;
mod generation;
mod golden;
mod goldens;
mod machine;
mod oracle;

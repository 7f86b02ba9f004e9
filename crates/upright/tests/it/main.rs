//! The program as its users run it, on tiny models: one binary, so that the engine is linked once.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print as they like"
)]

mod average;
mod bad_input;
mod commands;
mod costs;
mod demo;
mod documents;
mod equal_compute;
mod eval;
mod experiment;
mod export;
mod fixture;
mod hostile_files;
mod hostile_templates;
mod hub;
mod identity;
mod inspect;
mod mmlu;
mod objectives;
mod optima;
mod peers;
mod reference;
mod report;
mod rows;
mod runs_fixture;
mod serve;
mod similarity;
mod snapshots;
mod start;
mod templates;
mod theory;
mod tidy;
mod trackers;
mod win_rate;

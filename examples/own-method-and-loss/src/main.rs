//! `upright` with a method and a loss of its own. Every command knows both: try `train --help`.

#![forbid(unsafe_code)]

mod hinge;
mod turns;

use std::process::ExitCode;

use upright::Tables;

fn main() -> ExitCode {
    let mut tables = Tables::default();
    tables.methods.push(&turns::TURNS);
    tables.losses.push(&hinge::HINGE);
    upright::main_with(&tables)
}

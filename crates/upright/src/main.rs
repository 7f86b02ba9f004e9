//! The `upright` binary; see `upright::cli`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    upright::main_with(&upright::Tables::default())
}

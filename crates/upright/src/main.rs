//! The binary of `upright`; see `crate::cli`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    upright::cli::main()
}

//! The binary of `upright`; see `upright::cli`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    upright::cli::main()
}

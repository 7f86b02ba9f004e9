//! `upright completions`: shell completions.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, print};
use upright_base::{Error, Result};

/// Prints completions of every command and flag for a shell.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Shell: bash, zsh, fish, elvish, powershell.
    #[arg(value_name = "SHELL")]
    shell: String,
}

/// Runs the command.
pub(super) fn run(arguments: &Completions) -> Result<()> {
    let shell = Shell::from_str(&arguments.shell, false).map_err(|_| {
        Error::input(format!(
            "no completions for the shell `{}`",
            arguments.shell
        ))
        .hint("supported shells: bash, zsh, fish, elvish, powershell")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "upright", &mut script);
    print(&String::from_utf8_lossy(&script))
}

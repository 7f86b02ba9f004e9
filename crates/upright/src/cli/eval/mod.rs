//! `upright eval`: numbers of a model or an adapter, on rows or on a benchmark.

mod loss;

use clap::Subcommand;
use upright_base::Result;

/// Evaluates a model or an adapter.
#[derive(Debug, Subcommand)]
pub(super) enum Eval {
    /// Compute the loss and the log-probabilities on a dataset.
    #[command(after_help = loss::EXAMPLES)]
    Loss(Box<loss::Loss>),
}

/// Runs the command.
pub(super) fn run(eval: &Eval) -> Result<()> {
    match eval {
        Eval::Loss(arguments) => loss::run(arguments),
    }
}

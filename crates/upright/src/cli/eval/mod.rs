//! `upright eval`: numbers of a model or an adapter, on rows or on a benchmark.

mod loss;
mod mmlu;
mod win_rate;

use clap::Subcommand;
use upright_base::Result;

/// Evaluates a model or an adapter.
#[derive(Debug, Subcommand)]
pub(super) enum Eval {
    /// Compute the loss and the log-probabilities on a dataset.
    #[command(after_help = loss::EXAMPLES)]
    Loss(Box<loss::Loss>),
    /// Measure MMLU as lm-eval does, and what adapters forgot.
    #[command(after_help = mmlu::EXAMPLES)]
    Mmlu(Box<mmlu::Arguments>),
    /// Measure how often a judge prefers a model's answers, as AlpacaEval does.
    #[command(after_help = win_rate::EXAMPLES)]
    WinRate(Box<win_rate::Arguments>),
}

/// Runs the command.
pub(super) fn run(eval: &Eval) -> Result<()> {
    match eval {
        Eval::Loss(arguments) => loss::run(arguments),
        Eval::Mmlu(arguments) => mmlu::run(arguments),
        Eval::WinRate(arguments) => win_rate::run(arguments),
    }
}

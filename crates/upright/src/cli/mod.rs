//! The command line: the only place that prints or exits. Results go to stdout, everything else to stderr.

#![allow(clippy::disallowed_methods, reason = "the only place that prints")]

mod bench;
#[cfg(feature = "host-device")]
mod compare;
mod completions;
mod demo;
mod doctor;
mod eval;
mod experiment;
mod export;
mod generate;
mod inspect;
mod machine;
mod ranks;
mod reference;
mod report;
mod serve;
mod similarity;
mod template;
mod terminal;
mod theory;
mod train;

use std::{
    borrow::Cow,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind as ClapErrorKind},
};
use serde::Serialize;

use upright_base::{Error, ErrorKind, Result, files};
use upright_data::template::sandbox;
use upright_runs::settings::peers;

/// The exit codes of [`main`], as `--help` shows them.
const EXIT_CODES: &str =
    "Exit codes: 0 success, 1 failure, 2 bad usage or input, 130 stopped by a signal";

/// Fine-tunes a language model on instructions and preferences in one run.
#[derive(Debug, Parser)]
#[command(name = "upright", version, about, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare how much each method forgets, on an embedded model, in a few minutes.
    Demo(demo::Arguments),
    /// Train a LoRA adapter on instruction and preference data.
    #[command(after_help = train::after_help())]
    Train(Box<train::Train>),
    /// Run a study from a TOML file: compare methods over weights and seeds, and write a report.
    #[command(after_help = experiment::EXAMPLES)]
    Experiment(experiment::Arguments),
    /// Summarize runs as one HTML page with figures and tables.
    #[command(after_help = report::EXAMPLES)]
    Report(report::Arguments),
    /// Evaluate a model or an adapter.
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Show how a run would read, render, truncate and mask a dataset.
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(Box<inspect::Inspect>),
    /// Generate responses to prompts with a model or an adapter.
    #[command(after_help = generate::EXAMPLES)]
    Generate(generate::Generate),
    /// Chat with a model or an adapter.
    Chat(generate::Chat),
    /// Serve a model and its adapters over HTTP, for OpenAI's clients and lm-eval.
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Serve),
    /// Measure the speed of training steps, methods or kernels on this machine.
    Bench(Box<bench::Arguments>),
    /// Compute the paper's toy example and theorems with the training loop.
    Theory(theory::Theory),
    /// Export adapters as a PEFT folder, a weighted sum, or a merged model.
    #[command(after_help = export::EXAMPLES)]
    Export(export::Arguments),
    /// Show the resources of this machine, and check whether a model fits.
    Doctor(doctor::Doctor),
    /// Print shell completions, e.g. for bash, zsh or fish.
    Completions(completions::Completions),
    /// Print every command, flag and config key in Markdown.
    #[command(hide = true)]
    Reference,
    /// Render conversations with a template, for a parent process that enforces limits.
    #[command(hide = true, name = sandbox::COMMAND)]
    RenderTemplates,
}

/// Parses the arguments, runs the command, and returns one of `EXIT_CODES`.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Requested help and version go to stdout; help for a missing command goes to stderr.
        Err(error)
            if !error.use_stderr()
                || error.kind() == ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
        Err(error) => return failed(&usage(&error)),
    };
    sandbox::isolate(own_program());
    let _closing = ranks::Closing;
    let done = match &cli.command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Train(train) => train::run(train),
        Command::Experiment(arguments) => experiment::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Eval(eval) => eval::run(eval),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Chat(arguments) => generate::chat(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Theory(arguments) => theory::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Doctor(doctor) => doctor::run(doctor),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Reference => reference::run(),
        Command::RenderTemplates => {
            sandbox::serve(std::io::stdin(), std::io::stdout()).map_err(Error::failure)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Path of the running program, even if its file has been replaced since it started.
fn own_program() -> PathBuf {
    let this = PathBuf::from("/proc/self/exe");
    if this.exists() {
        this
    } else {
        std::env::current_exe().unwrap_or(this)
    }
}

/// Prints the error and its hint, unless another rank prints it. Returns the exit code.
fn failed(error: &Error) -> ExitCode {
    if !ranks::is_told_elsewhere() {
        print_error(error);
    }
    ExitCode::from(match error.kind {
        ErrorKind::Input => 2,
        ErrorKind::Failure => 1,
        ErrorKind::Interrupted => 130,
    })
}

fn print_error(error: &Error) {
    let mut stderr = std::io::stderr().lock();
    let what = if error.kind == ErrorKind::Interrupted {
        "interrupted"
    } else {
        "error"
    };
    let _ = writeln!(stderr, "{what}: {}", visible(&error.message));
    if !error.hint.is_empty() {
        let _ = writeln!(stderr, "hint: {}", visible(&error.hint));
    }
}

/// Converts a usage error from clap to an [`Error`].
fn usage(error: &clap::Error) -> Error {
    let text = error.to_string();
    let message: Vec<&str> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let message = message.join(" ");
    let tips: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "))
        .collect();
    let unknown = (error.kind() == ClapErrorKind::UnknownArgument)
        .then(|| error.get(ContextKind::InvalidArg))
        .flatten();
    let peer = match unknown {
        Some(ContextValue::String(flag)) => peers::answer(flag),
        _ => None,
    };
    let hint = if let Some(answer) = peer {
        answer.to_owned()
    } else if tips.is_empty() {
        "--help lists all commands and flags".to_owned()
    } else {
        tips.join("; ")
    };
    Error::input(message.strip_prefix("error: ").unwrap_or(&message)).hint(hint)
}

/// Escapes text for a terminal. Names and rows come from untrusted files, so control characters
/// that could move the cursor or change the window title are escaped; line breaks and tabs are
/// kept.
fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// Writes [`visible`] text to stdout. A closed pipe (`| head`) is not an error.
fn print(text: &str) -> Result<()> {
    print_as_is(&visible(text))
}

/// Writes text to stdout unescaped: for our own colors, around text that is already [`visible`].
/// A rank that is not the first writes nothing.
fn print_as_is(text: &str) -> Result<()> {
    if terminal::is_hushed() {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failure(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Creates the folder of `--out`.
fn make_out(path: &Path) -> Result<()> {
    if path.is_file() {
        let message = format!("out must be a folder, found the file `{}`", path.display());
        return Err(Error::input(message).hint("give a folder; it is created if it does not exist"));
    }
    files::create_dir(path)
}

/// Prints one JSON object on one line.
fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::failure(error.to_string()))?;
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // JSON does not escape U+007F to U+009F.
        if c.is_control() {
            line += &format!("\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    print_as_is(&line)
}

/// Formats bytes as MB or GB.
fn gigabytes(bytes: usize) -> String {
    if bytes < 1_000_000_000 {
        format!("{:.0} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.1} GB", bytes as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(visible("a\tb\nZoë"), "a\tb\nZoë");
        assert_eq!(
            visible("\x1b]0;x\x07\r\x7f\u{9b}2J"),
            "\\u{1b}]0;x\\u{7}\\r\\u{7f}\\u{9b}2J"
        );
    }
}

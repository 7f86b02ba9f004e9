//! The command line: the only place that prints or exits. Results go to stdout, everything else to stderr.

#![allow(clippy::disallowed_methods, reason = "the only place that prints")]

mod bench;
mod completions;
mod demo;
mod doctor;
mod eval;
mod experiment;
mod export;
mod generate;
mod inspect;
mod machine;
mod reference;
mod report;
mod similarity;
mod terminal;
mod theory;
mod train;

use std::{
    borrow::Cow,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, error::ErrorKind as ClapErrorKind};
use serde::Serialize;

use upright_base::{Error, ErrorKind, Result, files};
use upright_data::template::sandbox;

/// What [`main`] returns, for people.
const EXIT_CODES: &str =
    "Exit codes: 0 good, 1 failed, 2 bad usage or input, 130 stopped by a signal";

/// Post-trains a language model on instruction data and preference data at once.
#[derive(Debug, Parser)]
#[command(name = "upright", version, about, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See what forgetting is and what the joint methods do about it, on an embedded model, in minutes.
    Demo(demo::Arguments),
    /// Train an adapter by one of the methods.
    Train(Box<train::Train>),
    /// Compare methods over weights and seeds as a file says, with a report.
    Experiment(experiment::Arguments),
    /// Write a page about runs, with figures and tables: what they came to, and which method is best at what.
    Report(report::Arguments),
    /// Measure a model or an adapter.
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Show what a run would see of a file of rows.
    Inspect(inspect::Inspect),
    /// Answer prompts with a model or an adapter.
    Generate(generate::Generate),
    /// Talk to a model or an adapter.
    Chat(generate::Chat),
    /// Measure how fast this machine trains a model, and its kernels.
    Bench(Box<bench::Arguments>),
    /// Compute the paper's toy and theorems, by the loop that trains models.
    Theory(theory::Theory),
    /// Write adapters as a PEFT folder, their weighted sum, or a merged model.
    Export(export::Arguments),
    /// Say what this machine has, and what would not fit.
    Doctor(doctor::Doctor),
    /// Print completions for a shell: bash, zsh, fish.
    Completions(completions::Completions),
    /// Print every command, flag and config key in Markdown.
    #[command(hide = true)]
    Reference,
    /// Render conversations by a template, for a parent process that keeps to limits.
    #[command(hide = true, name = sandbox::COMMAND)]
    RenderTemplates,
}

/// Parses the arguments, runs the command, and says how it ended, by one of `EXIT_CODES`.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are results and go to stdout, but not the help that a missing command is answered with.
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
    let done = match &cli.command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Train(train) => train::run(train),
        Command::Experiment(arguments) => experiment::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Eval(eval::Eval::Loss(loss)) => eval::run(loss),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Chat(arguments) => generate::chat(arguments),
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

/// This very program, also where its file has been replaced since it began.
fn own_program() -> PathBuf {
    let this = PathBuf::from("/proc/self/exe");
    if this.exists() {
        this
    } else {
        std::env::current_exe().unwrap_or(this)
    }
}

/// Says what went wrong, and the way out.
fn failed(error: &Error) -> ExitCode {
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
    ExitCode::from(match error.kind {
        ErrorKind::Input => 2,
        ErrorKind::Failure => 1,
        ErrorKind::Interrupted => 130,
    })
}

/// Bad usage, worded by clap, in the form of every other error.
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
    let hint = if tips.is_empty() {
        "--help lists what there is".to_owned()
    } else {
        tips.join("; ")
    };
    Error::input(message.strip_prefix("error: ").unwrap_or(&message)).hint(hint)
}

/// Text for a terminal. Names and rows come from files of others: control characters that could move the cursor or change
/// the window's title are escaped, line breaks and tabs stay.
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

/// Writes text to stdout, as [`visible`] has it; a reader that has gone away (`| head`) ends the command quietly.
fn print(text: &str) -> Result<()> {
    print_as_is(&visible(text))
}

/// Writes text that has colors of ours, and of files nothing that is not [`visible`].
fn print_as_is(text: &str) -> Result<()> {
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

/// Makes the folder that `--out` names.
fn make_out(path: &Path) -> Result<()> {
    if path.is_file() {
        let message = format!("out must be a folder, found the file `{}`", path.display());
        return Err(Error::input(message).hint("name a folder; it is made where it is missing"));
    }
    files::create_dir(path)
}

/// Prints one JSON object on one line.
fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::failure(error.to_string()))?;
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // JSON itself leaves the upper half of the control characters as they are.
        if c.is_control() {
            line += &format!("\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    print_as_is(&line)
}

/// Bytes for a person.
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

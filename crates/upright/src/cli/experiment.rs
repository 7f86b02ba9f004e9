//! `upright experiment`: a study from one file, part by part, and its report.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{print, print_json, terminal};
use crate::experiment::{Estimate, Experiment, Outcome, Outcomes, State};
use upright_base::{Error, Result};

/// Compares methods as a TOML file says: references, optima, fronts, runs, and a report. What is finished is not repeated.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The study: a TOML file with title, seeds, settings as of `upright train`, and sweeps of methods, baselines and lambdas
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder of the study: runs, front, answers, report; given again, the study goes on
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the parts, what they need and how long they will take, from a few steps measured here; train nothing
    #[arg(long)]
    dry_run: bool,
    /// Do this part, and what it needs; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Print one command for each part, with the parts it needs, for a scheduler; train nothing
    #[arg(long, value_name = "FORMAT", conflicts_with = "dry_run")]
    emit: Option<Format>,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "emit")]
    json: bool,
}

/// How commands are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object a line.
    Jsonl,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.out.is_file() {
        let message = format!(
            "out must be a folder, found the file `{}`",
            arguments.out.display()
        );
        return Err(Error::input(message).hint("name a folder; it is made where it is missing"));
    }
    terminal::catch_signals()?;
    let mut terminal = terminal::Terminal::new();
    let experiment = Experiment::open(&arguments.file, &arguments.out, &mut terminal)?;
    if arguments.emit == Some(Format::Jsonl) {
        return experiment
            .jobs(&arguments.file, &arguments.only)?
            .iter()
            .try_for_each(print_json);
    }
    if arguments.dry_run {
        let parts = experiment.estimate(&arguments.only, &mut terminal)?;
        return if arguments.json {
            print_json(&parts)
        } else {
            print(&expected(&parts))
        };
    }
    let outcomes = experiment.run(&arguments.only, &mut terminal)?;
    if arguments.json {
        print_json(&outcomes)?;
    } else {
        print(&ended(&outcomes))?;
    }
    match outcomes
        .parts
        .iter()
        .filter(|outcome| !outcome.is_good())
        .count()
    {
        0 => Ok(()),
        failed => Err(Error::failure(format!(
            "{failed} of {} parts are not finished",
            outcomes.parts.len()
        ))
        .hint("the same command tries them again and repeats nothing that is finished")),
    }
}

/// A time for a person.
fn time(seconds: f64) -> String {
    match seconds.round() as u64 {
        0..120 => format!("{seconds:.1} s"),
        total @ 120..7200 => format!("{} min", (total + 30) / 60),
        total => format!("{} h {:02} min", total / 3600, total % 3600 / 60),
    }
}

/// The parts that are to be done.
fn expected(parts: &[Estimate]) -> String {
    let mut text = String::new();
    let width = parts
        .iter()
        .map(|part| part.part.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let _ = writeln!(
        text,
        "{:width$}  {:>6}  {:>11}  needs",
        "part", "steps", "about"
    );
    for part in parts {
        let state = if part.finished {
            "finished".to_owned()
        } else {
            time(part.seconds)
        };
        // What a need needs, too, is not said twice.
        let of = |name: &String| {
            parts
                .iter()
                .find(|other| other.part == *name)
                .map_or(&[][..], |other| &other.needs)
        };
        let direct = part
            .needs
            .iter()
            .filter(|need| !part.needs.iter().any(|other| of(other).contains(need)));
        let needs = direct.map(String::as_str).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "{:width$}  {:>6}  {state:>11}  {needs}",
            part.part, part.steps
        );
    }
    let left: f64 = parts
        .iter()
        .filter(|part| !part.finished)
        .map(|part| part.seconds)
        .sum();
    let open = parts.iter().filter(|part| !part.finished).count();
    let _ = match open {
        0 => writeln!(
            text,
            "\nnothing is left to do: {} parts are finished",
            parts.len()
        ),
        _ => writeln!(
            text,
            "\n{open} of {} parts to do, about {} on this machine",
            parts.len(),
            time(left)
        ),
    };
    text
}

/// How the parts ended.
fn ended(outcomes: &Outcomes) -> String {
    let mut text = String::new();
    let count = |wanted: &State| {
        outcomes
            .parts
            .iter()
            .filter(|outcome| outcome.state == *wanted)
            .count()
    };
    let _ = writeln!(
        text,
        "{} parts: {} done, {} finished before",
        outcomes.parts.len(),
        count(&State::Done),
        count(&State::Found)
    );
    for outcome in outcomes.parts.iter().filter(|outcome| !outcome.is_good()) {
        let _ = writeln!(text, "- {}", Outcome::describe(outcome));
    }
    if let Some(report) = &outcomes.report {
        let _ = writeln!(text, "report: {}", report.display());
    }
    text
}

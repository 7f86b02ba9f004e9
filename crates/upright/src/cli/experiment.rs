//! `upright experiment`: runs the jobs of a study from one file, and writes its report.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{print, print_json, terminal};
use crate::experiment::{
    Estimate, Experiment, Outcome, Outcomes, State, benchmarks::BenchmarkPlan,
};
use upright_base::{Error, Result, counted};

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright experiment experiments/embedded.toml --out study --dry-run
  upright experiment experiments/embedded.toml --out study
  upright experiment study.toml --out study --emit jsonl";

/// Runs a study from a TOML file: references, optima, fronts, runs, and a report. Finished jobs are
/// not repeated.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Study: a TOML file with title, seeds, settings of `upright train`, and sweeps over methods,
    /// baselines and lambdas
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Study folder, for the runs, the front, the answers and the report; a study already in it
    /// continues
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the jobs, their dependencies and their estimated time, from a few steps measured here;
    /// do not train
    #[arg(long)]
    dry_run: bool,
    /// Run only this job and the jobs it needs; repeat the flag for more jobs
    #[arg(long, value_name = "JOB")]
    only: Vec<String>,
    /// Print one command per job, with the jobs it needs, for a scheduler; do not train
    #[arg(long, value_name = "FORMAT", conflicts_with = "dry_run")]
    emit: Option<Format>,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "emit")]
    json: bool,
}

/// Output format of `--emit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object per line.
    Jsonl,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.out.is_file() {
        let message = format!(
            "out must be a folder, found the file `{}`",
            arguments.out.display()
        );
        return Err(Error::input(message).hint("give a folder; it is created if it does not exist"));
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
        let jobs = experiment.estimate(&arguments.only, &mut terminal)?;
        let benchmarks = experiment.benchmark_plans(&mut terminal)?;
        return if arguments.json {
            print_json(&json!({"jobs": jobs, "benchmarks": benchmarks}))
        } else {
            print(&(expected(&jobs) + &planned(&benchmarks)))
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
            "{failed} of {} jobs did not finish",
            outcomes.parts.len()
        ))
        .hint("run the same command to retry them; finished jobs are not repeated")),
    }
}

/// Formats a time.
fn time(seconds: f64) -> String {
    match seconds.round() as u64 {
        0..120 => format!("{seconds:.1} s"),
        total @ 120..7200 => format!("{} min", (total + 30) / 60),
        total => format!("{} h {:02} min", total / 3600, total % 3600 / 60),
    }
}

/// The table of `--dry-run`.
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
        "job", "steps", "estimate"
    );
    for part in parts {
        let state = if part.finished {
            "finished".to_owned()
        } else {
            time(part.seconds)
        };
        // List direct dependencies only.
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
            "\nnothing is left to do: {} finished",
            counted(parts.len(), "job")
        ),
        _ => writeln!(
            text,
            "\n{open} of {} to do, about {} on this machine",
            counted(parts.len(), "job"),
            time(left)
        ),
    };
    text
}

/// What the benchmarks need, in a line each.
fn planned(benchmarks: &[BenchmarkPlan]) -> String {
    let mut text = String::new();
    for plan in benchmarks {
        let left = plan.models - plan.finished;
        let _ = write!(text, "{}: {}", plan.benchmark, counted(left, "model"));
        if let Some(questions) = plan.questions {
            let _ = write!(text, ", {} each", counted(questions, "question"));
        }
        if let Some(judge) = &plan.judge {
            let _ = write!(
                text,
                "; {} to the judge, about {} prompt tokens and at most {} reply tokens, ",
                counted(judge.judge_calls, "request"),
                judge.prompt_tokens,
                judge.reply_tokens
            );
            let _ = match judge.cost_usd {
                Some(cost) => write!(text, "about {cost:.2} USD"),
                None => write!(text, "cost unknown without judge-price"),
            };
        }
        if plan.finished > 0 {
            let _ = write!(text, "; {} finished", counted(plan.finished, "model"));
        }
        text.push('\n');
    }
    text
}

/// Summary of the finished study.
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
        "{}: {} done, {} finished before",
        counted(outcomes.parts.len(), "job"),
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

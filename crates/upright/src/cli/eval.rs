//! `upright eval loss`: log-probabilities and losses of a model or an adapter on a file of rows.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use upright_engine::{
    adapter::Adapter,
    decoder::{Decoder, Recompute},
};

use super::{
    print, print_json,
    terminal::{self, Terminal},
};
use crate::{
    Error, Result,
    data::{DataSpec, Dataset, Example, Held, Kind, Template, TooLong, Truncation, pack::pack},
    objectives::{LossKind, Objective, Response, evaluate},
    observer::Observer,
    run::Engine,
};

/// Measures a model or an adapter.
#[derive(Debug, Subcommand)]
pub(super) enum Eval {
    /// Loss and log-probabilities on a file of rows.
    Loss(Loss),
}

/// Arguments of `eval loss`.
#[derive(Args, Debug)]
pub(super) struct Loss {
    /// Model folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// PEFT adapter on the model; without it the model itself is measured.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Instruction rows.
    #[arg(long, value_name = "FILE", conflicts_with = "dpo", required_unless_present = "dpo")]
    sft: Option<PathBuf>,
    /// Preference rows.
    #[arg(long, value_name = "FILE")]
    dpo: Option<PathBuf>,
    /// Template: alpaca, user-assistant or raw; found from the rows if absent.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Reference adapter: adds its log-probabilities and the DPO loss.
    #[arg(long, value_name = "DIR", requires = "dpo")]
    reference: Option<PathBuf>,
    /// Strength of the tie to the reference.
    #[arg(long, value_name = "X", default_value_t = 0.1, allow_negative_numbers = true)]
    beta: f64,
    /// Most tokens of prompt and response together.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_length: usize,
    /// Only the first N usable rows.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print a JSON line for every row instead of the totals.
    #[arg(long)]
    per_row: bool,
    /// Threads; one per core if absent.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Tokens of a pack.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    token_budget: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Names of a row's responses.
fn names(kind: Kind) -> &'static [&'static str] {
    if kind == Kind::Preference { &["chosen", "rejected"] } else { &["response"] }
}

/// Runs the command.
pub(super) fn run(arguments: &Loss) -> Result<()> {
    for (flag, value) in [("--max-length", arguments.max_length), ("--token-budget", arguments.token_budget)] {
        if value == 0 {
            return Err(Error::input(format!("{flag} must be at least 1: 0")));
        }
    }
    if arguments.limit == Some(0) {
        return Err(Error::input("--limit must be at least 1: 0"));
    }
    if !(arguments.beta.is_finite() && arguments.beta > 0.0) {
        return Err(Error::input(format!("--beta must be above 0: {}", arguments.beta)));
    }
    terminal::catch_signals()?;
    let mut terminal = Terminal::new();
    let engine = Engine::open(&arguments.model, arguments.threads, Recompute::Auto)?;
    let mut open =
        |folder: &Option<PathBuf>| folder.as_ref().map(|folder| engine.read_adapter(folder, &mut terminal)).transpose();
    let (adapter, reference) = (open(&arguments.adapter)?, open(&arguments.reference)?);
    let (path, kind) = match (&arguments.sft, &arguments.dpo) {
        (Some(path), _) => (path, Kind::Instruction),
        (None, Some(path)) => (path, Kind::Preference),
        (None, None) => return Err(Error::input("no rows").hint("give --sft FILE or --dpo FILE")),
    };
    let spec = DataSpec {
        path: path.clone(),
        kind,
        template: arguments.template.as_deref().map(str::parse::<Template>).transpose()?,
        rows: arguments.limit,
        max_length: arguments.max_length,
        min_prompt: Truncation::usual_min_prompt(arguments.max_length),
        too_long: TooLong::CutPrompt,
        eval: Held::Fraction(0.0),
    };
    let data = Dataset::load(&spec, &engine.tokenizer, &mut |_, _| {})?;
    terminal.note(&data.describe(names(kind)[0]));
    let examples: Vec<&Example> = data.train.iter().collect();
    let mut score = |what: &str, adapter: Option<&Adapter>| {
        sums(&engine.decoder, adapter, &examples, arguments.token_budget, what, &mut terminal)
    };
    let policy = score("scoring", adapter.as_ref())?;
    let reference = match &reference {
        Some(reference) => Some(score("scoring the reference", Some(reference))?),
        None => None,
    };
    if arguments.per_row {
        for (index, example) in examples.iter().enumerate() {
            let reference = reference.as_ref().map(|sums| &sums[index][..]);
            print_json(&row_line(example, kind, &policy[index], reference, arguments.beta))?;
        }
        return Ok(());
    }
    let line = totals(&examples, kind, &policy, reference.as_deref(), arguments.beta);
    if arguments.json {
        return print_json(&line);
    }
    let text: String = line.iter().map(|(key, value)| format!("{key:<20} {value}\n")).collect();
    print(&text)
}

/// Summed log-probability of every response of every example.
fn sums(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    examples: &[&Example],
    token_budget: usize,
    what: &str,
    terminal: &mut Terminal,
) -> Result<Vec<Vec<f64>>> {
    let mut sums: Vec<Vec<f64>> = examples.iter().map(|example| vec![0.0; example.responses.len()]).collect();
    terminal.begin(what, examples.len());
    let mut done = 0;
    for packed in &pack(examples, token_budget) {
        if terminal.stop_requested() {
            terminal.end();
            return Err(Error::interrupted("before every row was scored"));
        }
        let scores = decoder.score(&packed.pack, adapter)?;
        for segment in &packed.segments {
            sums[segment.example][segment.response] = scores.logp[segment.targets.clone()].iter().sum();
            done += usize::from(segment.response == 0);
        }
        terminal.advance(done, "");
    }
    terminal.end();
    Ok(sums)
}

fn objective(kind: Kind, beta: f64) -> Objective {
    let kind = if kind == Kind::Preference { LossKind::Dpo } else { LossKind::Sft };
    Objective { kind, beta, label_smoothing: 0.0 }
}

fn responses(example: &Example, policy: &[f64], reference: Option<&[f64]>) -> Vec<Response> {
    let response = |i: usize| Response {
        policy: policy[i],
        reference: reference.map(|sums| sums[i]),
        tokens: example.responses[i].len(),
    };
    (0..policy.len()).map(response).collect()
}

/// One line of `--per-row`.
fn row_line(example: &Example, kind: Kind, policy: &[f64], reference: Option<&[f64]>, beta: f64) -> Map<String, Value> {
    let named = |values: &[f64]| -> Map<String, Value> {
        names(kind).iter().zip(values).map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    };
    let mut tokens = Map::from_iter([("prompt".to_owned(), json!(example.prompt.len()))]);
    tokens.extend(names(kind).iter().zip(&example.responses).map(|(n, r)| ((*n).to_owned(), json!(r.len()))));
    let mut line = Map::new();
    line.insert("row".into(), json!(example.row));
    line.insert("tokens".into(), Value::Object(tokens));
    line.insert("logp".into(), Value::Object(named(policy)));
    if let Some(reference) = reference {
        line.insert("reference".into(), Value::Object(named(reference)));
    }
    if kind == Kind::Instruction || reference.is_some() {
        let (loss, _, _) = evaluate(&objective(kind, beta), &[responses(example, policy, reference)]);
        line.insert("loss".into(), json!(loss));
    }
    line
}

/// The totals of a file.
fn totals(
    examples: &[&Example],
    kind: Kind,
    policy: &[Vec<f64>],
    reference: Option<&[Vec<f64>]>,
    beta: f64,
) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("rows".into(), json!(examples.len()));
    line.insert("tokens".into(), json!(examples.iter().map(|example| example.tokens()).sum::<usize>()));
    for (index, name) in names(kind).iter().enumerate() {
        let mean = policy.iter().map(|sums| sums[index]).sum::<f64>() / examples.len() as f64;
        line.insert(format!("logps/{name}"), json!(mean));
    }
    if kind == Kind::Instruction || reference.is_some() {
        let rows: Vec<Vec<Response>> = examples
            .iter()
            .enumerate()
            .map(|(i, example)| responses(example, &policy[i], reference.map(|sums| &sums[i][..])))
            .collect();
        let objective = objective(kind, beta);
        let (loss, _, metrics) = evaluate(&objective, &rows);
        line.insert("loss".into(), json!(loss));
        for (name, value) in objective.kind.form().metrics.iter().zip(metrics) {
            line.insert((*name).to_owned(), json!(value));
        }
    }
    line
}

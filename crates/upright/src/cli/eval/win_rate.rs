//! `upright eval win-rate`: how often a judge prefers a model's answers to the chosen responses.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde_json::json;
use upright_base::{Error, Result, counted, files, progress::Progress};
use upright_data::source;
use upright_hub::Hub;
use upright_judge::{
    Judge, Pair, WinRate,
    cost::Tokens,
    files::Results,
    judging::{Plan, Session},
    outputs::Outputs,
    statistics,
};
use upright_runs::{plan::checks::folder, settings::help};
use upright_train::{fetch::data_file, generate::Sampling, run::Model};

use crate::{
    cli::{
        machine::Machine,
        make_out, print, print_json, template,
        terminal::{self, Terminal},
    },
    mmlu::harness::folder_name,
    win_rate::{
        AnswerSettings, Answerer, JudgeSettings, MOST_MISSING, Questions,
        summary::{self, Judgment},
    },
};

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright eval win-rate --model path/to/model --adapter runs/first \\
      --prompts pairs.jsonl --limit 100 --judge-url https://api.example.com/v1 \\
      --judge-model NAME --judge-key-env API_KEY --judge-price 0.15,0.6 --dry-run
  upright eval win-rate --outputs answers.json --reference other.json \\
      --judge-url http://127.0.0.1:8000/v1 --judge-model NAME --out judged";

/// Arguments of `eval win-rate`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("answers").required(true).args(["model", "outputs"]))]
pub(in crate::cli) struct Arguments {
    /// Base model: a folder in Hugging Face layout, or a Hub id. It is judged if there is no
    /// --adapter
    #[arg(long, value_name = "DIR|ID", requires = "prompts")]
    model: Option<PathBuf>,
    /// Adapter to judge: a PEFT folder, a run folder, or a Hub id; repeat the flag to compare
    /// adapters with the first
    #[arg(long, value_name = "DIR|ID", requires = "model")]
    adapter: Vec<PathBuf>,
    /// Judge the base model too, before the adapters.
    #[arg(long, requires = "adapter")]
    with_base: bool,
    /// Preference rows: the model answers their prompts, and its answers are compared with the
    /// chosen responses
    #[arg(long, value_name = "FILE|ID", requires = "model")]
    prompts: Option<PathBuf>,
    /// Answers to judge, in AlpacaEval's format: a JSON list of {instruction, output, generator};
    /// repeat the flag to compare models with the first
    #[arg(long, value_name = "FILE", requires = "reference")]
    outputs: Vec<PathBuf>,
    /// Answers to compare with, in AlpacaEval's format.
    #[arg(long, value_name = "FILE", requires = "outputs")]
    reference: Option<PathBuf>,
    #[command(flatten)]
    answers: AnswerSettings,
    #[arg(long, help = help("unpack-all"))]
    unpack_all: bool,
    #[command(flatten)]
    judge: JudgeSettings,
    /// Print the requests to the judge and their cost, and ask nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write AlpacaEval's files to this folder, in a folder per model: annotations.json,
    /// leaderboard.csv, model_outputs.json, reference_outputs.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A model's answers beside the reference's.
struct Candidate {
    name: String,
    pairs: Vec<Pair>,
}

/// Name of the reference that chosen responses are.
const CHOSEN: &str = "chosen";

impl Arguments {
    /// Names of the models to judge, in order.
    fn names(&self, model: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if self.adapter.is_empty() || self.with_base {
            names.push(model.display().to_string());
        }
        for adapter in &self.adapter {
            names.push(adapter.display().to_string());
        }
        check_distinct("adapter", &names)?;
        Ok(names)
    }
}

/// Rejects models whose results would have the same folder.
fn check_distinct(flag: &str, names: &[String]) -> Result<()> {
    for (index, name) in names.iter().enumerate() {
        let folder = folder_name(name);
        if names[..index]
            .iter()
            .any(|other| folder_name(other) == folder)
        {
            return Err(Error::input(format!("{flag}: `{name}` is given twice"))
                .hint("give every model once, each with its own name"));
        }
    }
    Ok(())
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.unpack_all {
        source::unpack_all();
    }
    let sampling = arguments.answers.sampling()?;
    let batch = arguments.answers.batch()?;
    let judge = arguments.judge.judge(arguments.answers.as_in_paper)?;
    terminal::catch_signals()?;
    let mut terminal = Terminal::new();
    match &arguments.model {
        None => {
            let (reference, candidates) = from_files(arguments, &mut terminal)?;
            let session = open(arguments, judge, &mut terminal)?;
            let plan = total_plan(
                &session,
                candidates.iter().map(|candidate| &candidate.pairs[..]),
            );
            if arguments.dry_run {
                return show_plan(arguments, &session, &plan, candidates.len());
            }
            announce(&session, &plan, &mut terminal)?;
            judge_all(arguments, &session, &reference, candidates, &mut terminal)
        }
        Some(model) => {
            let names = arguments.names(model)?;
            let questions = questions(arguments, &mut terminal)?;
            let session = open(arguments, judge, &mut terminal)?;
            // Before the models have answered, each answer counts as long as its reference.
            let expected = questions.expected_pairs();
            let plan = total_plan(&session, names.iter().map(|_| &expected[..]));
            if arguments.dry_run {
                return show_plan(arguments, &session, &plan, names.len());
            }
            session.check_cost(plan.tokens)?;
            let asked = Asked {
                names: &names,
                questions: &questions,
                sampling,
                batch,
            };
            let candidates = answered(arguments, model, &asked, &mut terminal)?;
            let plan = total_plan(
                &session,
                candidates.iter().map(|candidate| &candidate.pairs[..]),
            );
            announce(&session, &plan, &mut terminal)?;
            judge_all(arguments, &session, CHOSEN, candidates, &mut terminal)
        }
    }
}

/// Opens the judge; for a dry run only to plan.
fn open(arguments: &Arguments, judge: Judge, terminal: &mut Terminal) -> Result<Session> {
    if arguments.dry_run {
        judge.open_to_plan(terminal)
    } else {
        judge.open(terminal)
    }
}

/// Answers from AlpacaEval's files.
fn from_files(arguments: &Arguments, terminal: &mut Terminal) -> Result<(String, Vec<Candidate>)> {
    let reference = arguments.reference.as_deref().unwrap_or(Path::new(""));
    let mut reference = Outputs::read(reference)?;
    reference.rows.truncate(arguments.answers.limit()?);
    let mut candidates = Vec::new();
    for path in &arguments.outputs {
        let outputs = Outputs::read(path)?;
        let pairs = outputs.pairs(&reference)?;
        let unpaired = reference.rows.len() - pairs.len();
        if unpaired > 0 {
            terminal.note(&format!(
                "warning: {}: {} of the reference have no answer and are left out",
                path.display(),
                counted(unpaired, "instruction")
            ));
        }
        candidates.push(Candidate {
            name: outputs.generator,
            pairs,
        });
    }
    let names: Vec<String> = candidates
        .iter()
        .map(|candidate| candidate.name.clone())
        .collect();
    check_distinct("outputs", &names)?;
    // Differences are paired, so all models must answer the same instructions.
    for candidate in &candidates[1..] {
        let is_same = candidates[0].pairs.len() == candidate.pairs.len()
            && candidates[0]
                .pairs
                .iter()
                .zip(&candidate.pairs)
                .all(|(a, b)| a.instruction == b.instruction);
        if !is_same {
            return Err(Error::input(format!(
                "outputs: {} and {} answer different instructions",
                candidates[0].name, candidate.name
            ))
            .hint("judge them in two commands, or give files with the same instructions"));
        }
    }
    Ok((reference.generator, candidates))
}

fn questions(arguments: &Arguments, terminal: &mut Terminal) -> Result<Questions> {
    let answers = &arguments.answers;
    let prompts = arguments.prompts.as_deref().unwrap_or(Path::new(""));
    let file = data_file(&Hub::from_environment(), "prompts", prompts, terminal)?;
    let questions = Questions::read(&file, &answers.map()?, answers.limit()?, answers.style())?;
    for note in questions.notes() {
        terminal.note(&note);
    }
    Ok(questions)
}

/// What models are asked.
struct Asked<'a> {
    names: &'a [String],
    questions: &'a Questions,
    sampling: Sampling,
    batch: usize,
}

/// Answers of the base and the adapters.
fn answered(
    arguments: &Arguments,
    model: &Path,
    asked: &Asked<'_>,
    terminal: &mut Terminal,
) -> Result<Vec<Candidate>> {
    let requested = arguments.answers.template()?;
    let options = arguments.machine.options()?;
    let hub = Hub::from_environment();
    let mut folders = Vec::new();
    if arguments.adapter.is_empty() || arguments.with_base {
        folders.push(None);
    }
    for adapter in &arguments.adapter {
        folders.push(Some(hub.adapter("adapter", adapter, terminal)?));
    }
    let path = hub.model("model", model, terminal)?;
    let path = folder("model", &path, "give the folder of the base model")?;
    let model = Model::open(&path, &options, terminal)?;
    let rows: Vec<_> = asked
        .questions
        .all
        .iter()
        .map(|question| question.row.clone())
        .collect();
    let mut candidates = Vec::new();
    for (name, adapter) in asked.names.iter().zip(&folders) {
        let chosen = template::choose(
            requested.as_ref(),
            adapter.as_deref(),
            &rows,
            &model.tokenizer,
            terminal,
        )?;
        let adapter = match adapter {
            Some(folder) => Some(model.read_adapter(folder, terminal)?),
            None => None,
        };
        let answerer = Answerer {
            model: &model,
            adapter,
            template: &chosen.template,
            sampling: asked.sampling,
            batch: asked.batch,
        };
        let answers = answerer.answer(name, asked.questions, terminal)?;
        if answers.cut > 0 {
            terminal.note(&format!(
                "{name}: {} of {} reach --max-tokens {} and are cut",
                counted(answers.cut, "answer"),
                answers.texts.len(),
                asked.sampling.max_tokens
            ));
        }
        candidates.push(Candidate {
            name: name.clone(),
            pairs: asked.questions.pairs(&answers.texts),
        });
    }
    Ok(candidates)
}

/// The requests of all models together.
fn total_plan<'p>(session: &Session, all: impl Iterator<Item = &'p [Pair]>) -> Plan {
    let mut total = Plan::default();
    for pairs in all {
        let plan = session.plan(pairs);
        total.calls += plan.calls;
        total.known += plan.known;
        total.tokens = total.tokens.plus(plan.tokens);
    }
    total
}

/// `about 0.0123 USD`, or that the prices are unknown.
fn cost(session: &Session, tokens: Tokens) -> String {
    match session.judge().price {
        Some(price) => format!("about {:.4} USD", price.of(tokens)),
        None => "cost unknown without --judge-price".to_owned(),
    }
}

fn show_plan(arguments: &Arguments, session: &Session, plan: &Plan, models: usize) -> Result<()> {
    if arguments.json {
        return print_json(&json!({
            "models": models,
            "calls": plan.calls,
            "known": plan.known,
            "prompt_tokens": plan.tokens.prompt,
            "reply_tokens": plan.tokens.reply,
            "cost_usd": session.judge().price.map(|price| price.of(plan.tokens)),
        }));
    }
    print(&format!(
        "{}, {} to {} at {}, {} known; about {} prompt tokens and at most {} reply tokens, {}\n",
        counted(models, "model"),
        counted(plan.calls, "request"),
        session.judge().model,
        session.judge().url,
        plan.known,
        plan.tokens.prompt,
        plan.tokens.reply,
        cost(session, plan.tokens)
    ))
}

/// Says what will be asked, and refuses what costs too much.
fn announce(session: &Session, plan: &Plan, terminal: &mut Terminal) -> Result<()> {
    let judge = session.judge();
    terminal.note(&format!(
        "judge {} at {}, protocol {}: {}, {} known, {}",
        judge.model,
        judge.url,
        judge.protocol.name(),
        counted(plan.calls, "request"),
        plan.known,
        cost(session, plan.tokens)
    ));
    session.check_cost(plan.tokens)
}

/// Judges all models, writes their files, and prints the result.
fn judge_all(
    arguments: &Arguments,
    session: &Session,
    reference: &str,
    candidates: Vec<Candidate>,
    terminal: &mut Terminal,
) -> Result<()> {
    if let Some(out) = &arguments.out {
        make_out(out)?;
    }
    let mut judgments: Vec<Judgment> = Vec::new();
    for Candidate { name, pairs } in candidates {
        let judged = session.ask(&name, &pairs, terminal)?;
        let rate = WinRate::of(&pairs, &judged);
        if let Some(out) = &arguments.out {
            let folder = out.join(folder_name(&name));
            files::create_dir(&folder)?;
            let results = Results {
                judge: session.judge(),
                generator: &name,
                reference,
                pairs: &pairs,
                judged: &judged,
                rate: &rate,
            };
            upright_judge::files::write(&folder, &results)?;
            terminal.note(&format!(
                "result files of AlpacaEval in {}",
                folder.display()
            ));
        }
        let difference = judgments
            .first()
            .map(|first| statistics::difference(&first.judged, &judged));
        judgments.push(Judgment {
            name,
            rate,
            judged,
            difference,
        });
    }
    if arguments.json {
        let cost = session.judge().price.map(|_| session.spent());
        print_json(&summary::object(
            session.judge(),
            reference,
            &judgments,
            cost,
        ))?;
    } else {
        print(&summary::table(reference, &judgments))?;
    }
    for judgment in &judgments {
        if judgment.rate.missing_share() > MOST_MISSING {
            return Err(Error::failure(format!(
                "{}: {} of {} are missing, more than {:.0}%",
                judgment.name,
                counted(judgment.rate.missing, "verdict"),
                judgment.rate.pairs,
                100.0 * MOST_MISSING
            ))
            .hint(
                "run the same command to ask for them again, or take another judge or --protocol",
            ));
        }
    }
    Ok(())
}

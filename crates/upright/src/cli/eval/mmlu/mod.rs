//! `upright eval mmlu`: MMLU of a model and its adapters, as lm-eval measures it.

mod table;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use clap::Args;
use serde_json::{Map, Value, json};
use upright_base::{Error, Result, counted, progress::Progress};
use upright_data::{Template, mmlu::Wording};
use upright_engine::DeviceAdapter;
use upright_hub::Hub;
use upright_ranks::World;
use upright_runs::settings::{
    Number,
    checks::{Choice, count, folder},
    shared::threads,
};
use upright_train::run::Model;

use crate::{
    cli::{
        machine::Machine,
        make_out, print, print_json,
        ranks::{RankFlags, check_command},
        terminal::{self, Terminal},
    },
    mmlu::{
        MmluSettings, Sheet, harness,
        results::{FormScores, differences_json, groups_json, tasks_json},
        settings::Checked,
        sheet::{Limits, TOKEN_BUDGET},
    },
};

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright eval mmlu --model path/to/model --data cais/mmlu
  upright eval mmlu --model path/to/model --adapter runs/first \\
      --adapter runs/second --data path/to/mmlu --limit 20
  upright eval mmlu --model path/to/model --data path/to/mmlu \\
      --subjects stem,virology --form both --json";

/// Arguments of `eval mmlu`.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// Base model: a folder in Hugging Face layout, or a Hub id.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Adapter to compare with the base model: a PEFT folder, a run folder, or a Hub id; repeat the
    /// flag for more adapters
    #[arg(long, value_name = "DIR|ID")]
    adapter: Vec<PathBuf>,
    #[command(flatten)]
    questions: MmluSettings,
    /// Write lm-eval's result files to this folder, in a folder per model.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    ranks: RankFlags,
    /// Maximum tokens in a pack [default: 8192]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    token_budget: Option<Number>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Rejects models whose result files would have the same folder.
    fn check_distinct(&self) -> Result<()> {
        let mut seen = BTreeSet::from([harness::folder_name(&self.model.display().to_string())]);
        for adapter in &self.adapter {
            if !seen.insert(harness::folder_name(&adapter.display().to_string())) {
                return Err(Error::input(format!(
                    "adapter: `{}` is given twice",
                    adapter.display()
                ))
                .hint("give each adapter once"));
            }
        }
        Ok(())
    }
}

/// One model's scores.
struct Scored {
    forms: Vec<FormScores>,
    seconds: f64,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let world = arguments.ranks.open(arguments.machine.options()?.device)?;
    check_command(&world)?;
    world.settle(evaluate(arguments, &world))
}

fn evaluate(arguments: &Arguments, world: &Arc<World>) -> Result<()> {
    let settings = arguments.questions.checked()?;
    let token_budget = count(
        "token-budget",
        arguments.token_budget.as_ref(),
        TOKEN_BUDGET,
    )?;
    arguments.check_distinct()?;
    let options = arguments.machine.options()?;
    let threads = threads(arguments.machine.threads.as_ref())?;
    terminal::catch_signals()?;
    let mut terminal = Terminal::new();
    let hub = Hub::from_environment();
    let subjects = arguments
        .questions
        .questions(&hub, &settings, &mut terminal)?;
    let out = arguments.out.as_ref().filter(|_| world.is_first());
    if let Some(out) = out {
        make_out(out)?;
    }
    let mut folders = Vec::new();
    for adapter in &arguments.adapter {
        folders.push(hub.adapter("adapter", adapter, &mut terminal)?);
    }
    let model = world.slowly(|_| hub.model("model", &arguments.model, &mut terminal))?;
    let model = folder("model", &model, "give the folder of the base model")?;
    let model = Model::open_among(&model, options, world, &mut terminal)?;
    let mut adapters = Vec::new();
    for path in &folders {
        let path = folder("adapter", path, "give a PEFT adapter folder")?;
        adapters.push(model.load_adapter(&path, &mut terminal)?);
    }
    let template = match &settings.template {
        Some(name) => Template::choose(Some(name), &[], &model.tokenizer)?,
        None => Template::Raw,
    };
    let limits = Limits {
        questions: settings.limit.unwrap_or(usize::MAX),
        positions: model.decoder.config().max_positions,
        token_budget,
        threads,
    };
    let mut sheets = Vec::new();
    for &form in settings.forms.list() {
        let wording = Wording {
            form,
            shots: settings.shots,
            template: &template,
        };
        let sheet = world
            .slowly(|_| Sheet::new(&subjects, wording, &model.tokenizer, &limits, &mut terminal))?;
        for note in sheet.notes(limits.positions) {
            terminal.note(&note);
        }
        sheets.push(sheet);
    }
    for sheet in &sheets {
        world.same("version of the questions", &sheet.key().to_le_bytes())?;
    }
    let has_bos = !model.tokenizer.bos().is_empty();
    terminal.note(&described(&sheets, &template, has_bos));
    let started = SystemTime::now();
    let base = score(&model, None, "base model", &sheets, &mut terminal)?;
    let mut scored = Vec::new();
    for (path, adapter) in arguments.adapter.iter().zip(&adapters) {
        let what = path.display().to_string();
        scored.push(score(&model, Some(adapter), &what, &sheets, &mut terminal)?);
    }
    if let Some(out) = out {
        let args = format!("pretrained={}", arguments.model.display());
        let mut write = |name: String, model_args: String, scored: &Scored| -> Result<()> {
            let folder = harness::write(
                out,
                &harness::Evaluated {
                    name: &name,
                    model_args,
                    device: options.device.to_string(),
                    sheets: &sheets,
                    forms: &scored.forms,
                    limit: settings.limit,
                    started,
                    seconds: scored.seconds,
                },
            )?;
            terminal.note(&format!("result files of lm-eval in {}", folder.display()));
            Ok(())
        };
        write(arguments.model.display().to_string(), args.clone(), &base)?;
        for (path, scored) in arguments.adapter.iter().zip(&scored) {
            let name = path.display().to_string();
            let args = format!("{args},peft={name}");
            write(name, args, scored)?;
        }
    }
    if arguments.json {
        let line = object(
            arguments, &settings, &template, has_bos, &sheets, &base, &scored,
        );
        return print_json(&line);
    }
    let mut text = String::new();
    for (index, scores) in base.forms.iter().enumerate() {
        let mut others: Vec<(&Path, &FormScores)> = Vec::new();
        for (path, scored) in arguments.adapter.iter().zip(&scored) {
            others.push((path, &scored.forms[index]));
        }
        if index > 0 {
            text.push('\n');
        }
        text += &table::table(scores, &others);
    }
    print(&text)
}

/// Scores all forms under one model.
fn score(
    model: &Model,
    adapter: Option<&DeviceAdapter>,
    what: &str,
    sheets: &[Sheet<'_>],
    terminal: &mut Terminal,
) -> Result<Scored> {
    let began = Instant::now();
    let mut forms = Vec::new();
    for sheet in sheets {
        forms.push(FormScores {
            form: sheet.wording.form,
            tasks: sheet.score(model, adapter, what, terminal)?,
        });
    }
    Ok(Scored {
        forms,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Forward tokens of all forms: those of this program, and those of lm-eval's `hf` backend.
fn forward_tokens(sheets: &[Sheet<'_>]) -> (usize, usize) {
    let mut tokens = (0, 0);
    for sheet in sheets {
        tokens.0 += sheet.forward_tokens;
        tokens.1 += sheet.harness_tokens;
    }
    tokens
}

/// What is asked, in one line.
fn described(sheets: &[Sheet<'_>], template: &Template, has_bos: bool) -> String {
    let questions: usize = sheets.iter().map(|sheet| sheet.questions).sum();
    let shots = sheets.first().map_or(0, |sheet| sheet.wording.shots);
    let (tokens, of_harness) = forward_tokens(sheets);
    let bos = if has_bos { "with BOS" } else { "without BOS" };
    format!(
        "{}, {}, template {template}, {bos}; {} forward tokens per model instead of {} in lm-eval's hf backend",
        counted(questions, "question"),
        counted(shots, "shot"),
        rounded(tokens),
        rounded(of_harness)
    )
}

/// A number of tokens with two or three digits: `1.57 M`.
fn rounded(tokens: usize) -> String {
    match tokens {
        0..10_000 => tokens.to_string(),
        10_000..1_000_000 => format!("{:.0} k", tokens as f64 / 1e3),
        _ => format!("{:.2} M", tokens as f64 / 1e6),
    }
}

/// The object of `--json`.
fn object(
    arguments: &Arguments,
    settings: &Checked,
    template: &Template,
    has_bos: bool,
    sheets: &[Sheet<'_>],
    base: &Scored,
    adapters: &[Scored],
) -> Value {
    let mut near_ties = 0;
    for scores in &base.forms {
        near_ties += scores.near_ties(None);
    }
    let truncated: usize = sheets.iter().map(|sheet| sheet.truncated).sum();
    let (tokens, of_harness) = forward_tokens(sheets);
    let mut line = Map::new();
    line.insert("model".into(), json!(arguments.model));
    line.insert("shots".into(), json!(settings.shots));
    line.insert("form".into(), json!(settings.forms.name()));
    line.insert("template".into(), json!(template.to_string()));
    line.insert("bos".into(), json!(has_bos));
    line.insert("limit".into(), json!(settings.limit));
    line.insert("tasks".into(), tasks_json(&base.forms));
    line.insert("groups".into(), groups_json(&base.forms));
    line.insert("near_ties".into(), json!(near_ties));
    line.insert("truncated_prompts".into(), json!(truncated));
    line.insert("forward_tokens".into(), json!(tokens));
    line.insert("lm_eval_forward_tokens".into(), json!(of_harness));
    line.insert("seconds".into(), json!(base.seconds));
    if !adapters.is_empty() {
        let mut list = Vec::new();
        for (path, scored) in arguments.adapter.iter().zip(adapters) {
            list.push(json!({
                "adapter": path, "tasks": tasks_json(&scored.forms), "groups": groups_json(&scored.forms),
                "difference": differences_json(&scored.forms, &base.forms), "seconds": scored.seconds,
            }));
        }
        line.insert("adapters".into(), list.into());
    }
    Value::Object(line)
}

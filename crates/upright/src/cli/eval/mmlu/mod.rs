//! `upright eval mmlu`: MMLU of a model and its adapters, as lm-eval measures it.

mod table;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use clap::Args;
use serde_json::{Map, Value, json};
use upright_base::{Error, Result, counted, observer::Observer};
use upright_data::{
    Template, TemplateName,
    mmlu::{self, Form, Subject, SubjectName, Wording},
};
use upright_engine::DeviceAdapter;
use upright_hub::Hub;
use upright_runs::{
    plan::{
        self,
        checks::{Choice, choice, count, count_from, folder, threads},
    },
    settings::Number,
};
use upright_train::run::Model;

use crate::{
    cli::{
        machine::Machine,
        make_out, print, print_json,
        terminal::{self, Terminal},
    },
    mmlu::{
        Sheet, harness,
        results::{FormScores, differences_json, groups_json, tasks_json},
        sheet::Limits,
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

/// Default number of shots, as in the MMLU paper; lm-eval's own default is 0.
const SHOTS: usize = 5;

/// Default tokens in a pack. Five shots take up to 2500 tokens, and each pack holds them once.
const TOKEN_BUDGET: usize = 8192;

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
    /// Questions: a folder with MMLU's CSV files (dev/NAME_dev.csv, test/NAME_test.csv), a folder in
    /// the layout of cais/mmlu, or a Hub id such as cais/mmlu
    #[arg(long, value_name = "DIR|ID")]
    data: PathBuf,
    /// Questions with answers before each question, 0 to 5 [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shots: Option<Number>,
    /// Subjects and groups (stem, other, social_sciences, humanities) to ask, separated by commas
    /// [default: all 57]
    #[arg(long, value_name = "NAME,...")]
    subjects: Option<String>,
    /// Ask only the first N questions of each subject [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    limit: Option<Number>,
    /// Form of the questions: letters (lm-eval's mmlu), cloze (lm-eval's mmlu_continuation: texts of
    /// the answers, for small models), both [default: letters]
    #[arg(long, value_name = "FORM")]
    form: Option<String>,
    /// Prompt template: chat (the model's chat template; also chat:NAME or chat@YYYY-MM-DD), alpaca,
    /// user-assistant, raw, or a .jinja file [default: raw, as in lm-eval]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Write lm-eval's result files to this folder, in a folder per model.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    /// Maximum tokens in a pack [default: 8192]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    token_budget: Option<Number>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Value of `--form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forms {
    Letters,
    Cloze,
    Both,
}

impl Choice for Forms {
    const ALL: &'static [Self] = &[Self::Letters, Self::Cloze, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::Letters => Form::Letters.name(),
            Self::Cloze => Form::Cloze.name(),
            Self::Both => "both",
        }
    }
}

impl Forms {
    fn list(self) -> &'static [Form] {
        match self {
            Self::Letters => &[Form::Letters],
            Self::Cloze => &[Form::Cloze],
            Self::Both => &[Form::Letters, Form::Cloze],
        }
    }
}

/// The settings, checked.
struct Settings {
    shots: usize,
    subjects: Vec<&'static SubjectName>,
    limit: Option<usize>,
    forms: Forms,
    template: Option<TemplateName>,
    token_budget: usize,
}

impl Arguments {
    fn settings(&self) -> Result<Settings> {
        let shots = count_from(0, "shots", self.shots.as_ref(), SHOTS)?;
        if shots > SHOTS {
            return Err(Error::input(format!(
                "shots must be at most {SHOTS}, the rows of dev, found `{shots}`"
            )));
        }
        let limit = match &self.limit {
            Some(limit) => Some(count("limit", Some(limit), 0)?),
            None => None,
        };
        let template = match &self.template {
            Some(name) => Some(plan::template("template", name)?),
            None => None,
        };
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
        Ok(Settings {
            shots,
            subjects: mmlu::choose(self.subjects.as_deref())?,
            limit,
            forms: choice("form", self.form.as_deref(), Forms::Letters)?,
            template,
            token_budget: count("token-budget", self.token_budget.as_ref(), TOKEN_BUDGET)?,
        })
    }
}

/// One model's scores.
struct Scored {
    forms: Vec<FormScores>,
    seconds: f64,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let settings = arguments.settings()?;
    let options = arguments.machine.options()?;
    let threads = threads(arguments.machine.threads.as_ref())?;
    terminal::catch_signals()?;
    let mut terminal = Terminal::new();
    let hub = Hub::from_environment();
    let subjects = questions(&hub, arguments, &settings, &mut terminal)?;
    if let Some(out) = &arguments.out {
        make_out(out)?;
    }
    let mut folders = Vec::new();
    for adapter in &arguments.adapter {
        folders.push(hub.adapter("adapter", adapter, &mut terminal)?);
    }
    let model = hub.model("model", &arguments.model, &mut terminal)?;
    let model = folder("model", &model, "give the folder of the base model")?;
    let model = Model::open(&model, &options, &mut terminal)?;
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
        token_budget: settings.token_budget,
        threads,
    };
    let mut sheets = Vec::new();
    for &form in settings.forms.list() {
        let wording = Wording {
            form,
            shots: settings.shots,
            template: &template,
        };
        let sheet = Sheet::new(&subjects, wording, &model.tokenizer, &limits, &mut terminal)?;
        for note in sheet.notes(limits.positions) {
            terminal.note(&note);
        }
        sheets.push(sheet);
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
    if let Some(out) = &arguments.out {
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

/// The questions of the requested subjects. Downloads a dataset of the Hub.
fn questions(
    hub: &Hub,
    arguments: &Arguments,
    settings: &Settings,
    terminal: &mut Terminal,
) -> Result<Vec<Subject>> {
    let names = &settings.subjects;
    let repo = arguments.data.display().to_string();
    let choose = |files: &[String]| mmlu::files_of(&repo, files, names);
    let data = hub.dataset_folder("data", &arguments.data, &choose, terminal)?;
    let data = folder(
        "data",
        &data,
        "give a folder with MMLU's CSV files, or cais/mmlu",
    )?;
    let subjects = mmlu::read(&data, names)?;
    for subject in &subjects {
        let (rows, name) = (subject.dev.len(), subject.about.name);
        if rows < settings.shots {
            return Err(Error::file(
                &data,
                format!(
                    "{name} has {} in dev, but shots is {}",
                    counted(rows, "row"),
                    settings.shots
                ),
                format!("use --shots {rows}, or leave the subject out with --subjects"),
            ));
        }
    }
    Ok(subjects)
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
            tasks: sheet.score(&model.decoder, adapter, what, terminal)?,
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
    settings: &Settings,
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

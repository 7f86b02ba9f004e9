//! `upright eval loss`: log-probabilities and loss of a model or an adapter on a dataset.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use upright_engine::DeviceAdapter;
use upright_engine::decoder::Decoder;

use super::{
    machine::Machine,
    print, print_json,
    terminal::{self, Terminal},
};
use upright_base::{
    Error, Result,
    observer::{Observer, Quiet},
};
use upright_core::objectives::{LossKind, Objective, Response, evaluate};
use upright_data::{
    ColumnMap, DataFile, DataSpec, Dataset, Example, HeldOut, RowKind, Truncation, Turns, source,
};
use upright_hub::Hub;
use upright_runs::{
    origin::{Origin, OriginRows},
    plan::{
        self,
        checks::{Choice, HELD_OUT, choice, count, folder, held_out, threads, truncation, wrong},
        loss::{LossSettings, dpo_loss},
    },
    settings::Number,
};
use upright_train::fetch::data_file;
use upright_train::{
    not_finite::not_finite,
    packing::pack,
    run::{Model, reference_adapter},
};

/// Examples in `--help` of `eval loss`.
const EXAMPLES: &str = "\
Examples:
  upright eval loss --model path/to/model --adapter runs/first \\
      --sft held-out.jsonl
  upright eval loss --model path/to/model --adapter runs/first \\
      --dpo preferences.jsonl --split held-out --reference none
  upright eval loss --model path/to/model --dpo preferences.jsonl --per-row";

/// Evaluates a model or an adapter.
#[derive(Debug, Subcommand)]
pub(super) enum Eval {
    /// Compute the loss and the log-probabilities on a dataset.
    #[command(after_help = EXAMPLES)]
    Loss(Loss),
}

/// Arguments of `eval loss`.
#[derive(Args, Debug)]
pub(super) struct Loss {
    /// Base model: a folder in Hugging Face layout, or a Hub id.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Adapter to evaluate: a PEFT folder, a run folder, or a Hub id; without it, the base model is
    /// evaluated.
    #[arg(long, value_name = "DIR|ID")]
    adapter: Option<PathBuf>,
    /// Instruction rows: a file or a Hub dataset.
    #[arg(long, value_name = "FILE|ID", required_unless_present = "dpo")]
    sft: Option<PathBuf>,
    /// Preference rows: a file or a Hub dataset.
    #[arg(long, value_name = "FILE|ID")]
    dpo: Option<PathBuf>,
    /// Prompt template: chat (the model's chat template; also chat:NAME or chat@YYYY-MM-DD),
    /// alpaca, user-assistant, raw, or a .jinja file [default: the template of the adapter's run,
    /// else the default of upright train]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Rename columns, e.g. prompt=question,chosen=good; tools= ignores the column tools
    /// [default: as in the adapter's run]
    #[arg(long, value_name = "NAME=COLUMN,...")]
    map: Option<String>,
    /// With --sft: assistant turns to score: last, all [default: as in the adapter's run, else
    /// last]
    #[arg(long, value_name = "TURNS")]
    turns: Option<String>,
    /// Reference model: an adapter (a PEFT folder, a run folder, or a Hub id), none for the base
    /// model, or run for the reference of the adapter's run. Adds the loss and the log-probabilities
    /// of the reference [default: run, if the adapter has one]
    #[arg(long, value_name = "DIR|ID|none|run")]
    reference: Option<PathBuf>,
    /// Preference loss, as in training: sigmoid, ipo, rpo with --reference; orpo, simpo without it
    /// [default: as in the adapter's run, else sigmoid]
    #[arg(long, value_name = "LOSS")]
    dpo_loss: Option<String>,
    /// KL strength for dpo, ipo, rpo; odds-ratio weight for orpo; reward scale for simpo
    /// [default: as in the adapter's run, else 0.1; 2 for simpo]
    #[arg(long, value_name = "B", allow_hyphen_values = true)]
    beta: Option<Number>,
    /// With --dpo-loss rpo: weight of the chosen response's negative log-likelihood per token
    /// [default: as in the adapter's run, else 1]
    #[arg(long, value_name = "A", allow_hyphen_values = true)]
    dpo_alpha: Option<Number>,
    /// With --dpo-loss simpo: target reward margin [default: as in the adapter's run, else 1]
    #[arg(long, value_name = "G", allow_hyphen_values = true)]
    dpo_gamma: Option<Number>,
    /// Maximum length in tokens of a prompt plus one response [default: as in the adapter's run, else 2048]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    max_length: Option<Number>,
    /// Minimum prompt tokens to keep when truncating; with cut-response, minimum response tokens
    /// [default: as in the adapter's run, else 64, at most a quarter of --max-length]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    min_prompt: Option<Number>,
    /// How to fit rows that exceed --max-length, as in training: cut-prompt, cut-response, drop
    /// [default: as in the adapter's run, else cut-prompt]
    #[arg(long, value_name = "RULE")]
    too_long: Option<String>,
    /// Rows to score: all, train (the training rows), held-out (the held-out rows) [default: all]
    #[arg(long, value_name = "ROWS")]
    split: Option<String>,
    /// With --split: share of the prompts to hold out [default: as in the adapter's run, else 0.05]
    #[arg(
        long,
        value_name = "SHARE",
        allow_hyphen_values = true,
        requires = "split"
    )]
    held_out: Option<Number>,
    /// Read compressed rows of any unpacked size [default: up to 64 MB, or 100 times the file size;
    /// for Parquet 1000 times]
    #[arg(long)]
    unpack_all: bool,
    /// Score only the first N usable rows.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    limit: Option<Number>,
    /// Print one JSON line per row instead of the totals.
    #[arg(long)]
    per_row: bool,
    /// With --per-row: also print the token ids of the prompt and the responses, as scored.
    #[arg(long, requires = "per_row")]
    ids: bool,
    #[command(flatten)]
    machine: Machine,
    /// Maximum tokens in a pack [default: 2048]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    token_budget: Option<Number>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Names of the responses of a row.
fn names(kind: RowKind) -> &'static [&'static str] {
    if kind == RowKind::Preference {
        &["chosen", "rejected"]
    } else {
        &["response"]
    }
}

impl Loss {
    /// Rejects two datasets, and flags of the other kind of rows.
    fn check_flags(&self) -> Result<()> {
        if self.sft.is_some() && self.dpo.is_some() {
            return Err(Error::input(
                "sft and dpo are both given, but one dataset is scored at a time",
            )
            .hint("run the command twice: once with --sft, once with --dpo"));
        }
        let (strays, kind, other) = if self.sft.is_some() {
            let reference = ("reference", self.reference.is_some());
            let loss = ("dpo-loss", self.dpo_loss.is_some());
            (vec![reference, loss], "instruction", "dpo")
        } else {
            (vec![("turns", self.turns.is_some())], "preference", "sft")
        };
        for (key, is_given) in strays {
            if is_given {
                let message = format!("{key} has no effect on {kind} rows");
                return Err(Error::input(message).hint(format!(
                    "leave --{key} out, or give the rows with --{other}"
                )));
            }
        }
        Ok(())
    }

    /// The loss to compute; `None` if it needs a reference model and there is none. Settings that are
    /// not given are those of the adapter's run.
    fn objective(
        &self,
        run: Option<&OriginRows<'_>>,
        has_reference: bool,
    ) -> Result<Option<Objective>> {
        let settings = [
            ("dpo-loss", self.dpo_loss.is_some()),
            ("beta", self.beta.is_some()),
            ("dpo-alpha", self.dpo_alpha.is_some()),
            ("dpo-gamma", self.dpo_gamma.is_some()),
        ];
        let given = settings.iter().find(|(_, given)| *given);
        let of_run = run.filter(|_| self.sft.is_none()).map(OriginRows::loss);
        let kind = match (&self.sft, &self.dpo_loss, of_run) {
            (Some(_), _, _) => LossKind::Sft,
            (None, None, Some(of_run)) => of_run.kind,
            (None, named, _) => dpo_loss(named.as_deref())?,
        };
        let key = |name: &str| {
            if name == "beta" {
                name.to_owned()
            } else {
                format!("dpo-{name}")
            }
        };
        let mut objective = LossSettings {
            beta: self.beta.as_ref(),
            alpha: self.dpo_alpha.as_ref(),
            gamma: self.dpo_gamma.as_ref(),
            ..LossSettings::default()
        }
        .of(kind, key)?;
        if let Some(of_run) = of_run.filter(|of_run| of_run.kind == kind) {
            objective = Objective {
                kind,
                beta: self.beta.as_ref().map_or(of_run.beta, |_| objective.beta),
                label_smoothing: of_run.label_smoothing,
                alpha: self
                    .dpo_alpha
                    .as_ref()
                    .map_or(of_run.alpha, |_| objective.alpha),
                gamma: self
                    .dpo_gamma
                    .as_ref()
                    .map_or(of_run.gamma, |_| objective.gamma),
            };
        }
        if !kind.spec().reference {
            return match &self.reference {
                Some(reference) => {
                    let must = format!("be left out: the loss {kind} uses no reference model");
                    Err(wrong("reference", &must, reference.display()))
                }
                None => Ok(Some(objective)),
            };
        }
        if has_reference {
            return Ok(Some(objective));
        }
        match given {
            Some((key, _)) => Err(Error::input(format!(
                "{key} has no effect without a reference model"
            ))
            .hint(format!(
                "give --reference DIR, or none for the base model, or leave --{key} out"
            ))),
            None => Ok(None),
        }
    }

    /// Whether the reference of the adapter's run is used.
    fn takes_run_reference(&self, run: Option<&OriginRows<'_>>) -> Result<bool> {
        match (&self.reference, run) {
            (Some(reference), None) if reference == Path::new(RUN) => Err(Error::input(
                "reference run: the adapter belongs to no run, or its run has no preference objective",
            )
            .hint("give --reference DIR, or none for the base model")),
            (Some(reference), Some(_)) => Ok(reference == Path::new(RUN)),
            (None, Some(run)) => Ok(self.dpo.is_some() && run.objective.is_preference()),
            (_, None) => Ok(false),
        }
    }
}

/// The value of `--reference` that names the reference of the adapter's run.
const RUN: &str = "run";

/// The frozen reference model.
enum Reference {
    /// The base model.
    Base,
    /// An adapter folder.
    Adapter(PathBuf),
}

/// Which rows of a dataset to score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    /// All rows.
    All,
    /// The rows that a run trains on.
    Train,
    /// The rows that a run holds out.
    HeldOut,
}

impl Choice for Split {
    const ALL: &'static [Self] = &[Self::All, Self::Train, Self::HeldOut];

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Train => "train",
            Self::HeldOut => "held-out",
        }
    }
}

/// How to read the rows. Each setting comes from the flags, else from the run of the adapter, else
/// from the default.
struct Reading {
    spec: DataSpec,
    split: Split,
    /// Score only this many rows, the first of the split.
    limit: Option<usize>,
    /// Settings taken from the run, with their values.
    from_run: Vec<String>,
}

impl Loss {
    /// The file to score and the kind of its rows. Downloads Hub datasets.
    fn rows(&self, hub: &Hub, terminal: &mut Terminal) -> Result<(DataFile, RowKind)> {
        match (&self.sft, &self.dpo) {
            (Some(path), _) => Ok((data_file(hub, "sft", path, terminal)?, RowKind::Instruction)),
            (None, Some(path)) => Ok((data_file(hub, "dpo", path, terminal)?, RowKind::Preference)),
            (None, None) => {
                Err(Error::input("no rows are given").hint("give --sft FILE or --dpo FILE"))
            }
        }
    }

    /// The truncation settings. The default of min-prompt depends on max-length, so the run's
    /// min-prompt is used only with the run's max-length.
    fn truncation(
        &self,
        run: Option<&OriginRows<'_>>,
        from_run: &mut Vec<String>,
    ) -> Result<Truncation> {
        let mut max_length = self.max_length.clone();
        let mut min_prompt = self.min_prompt.clone();
        let mut too_long = self.too_long.clone();
        if let Some(run) = run {
            let mut take = |key: &str, setting: &mut Option<Number>, value: usize| {
                if setting.is_none() {
                    from_run.push(format!("--{key} {value}"));
                    *setting = Some(Number::from(value));
                }
            };
            if max_length.is_none() {
                take("min-prompt", &mut min_prompt, run.plan.min_prompt);
            }
            take("max-length", &mut max_length, run.plan.max_length);
            if too_long.is_none() {
                let rule = run.plan.too_long.name().to_owned();
                from_run.push(format!("--too-long {rule}"));
                too_long = Some(rule);
            }
        }
        truncation(
            max_length.as_ref(),
            min_prompt.as_ref(),
            too_long.as_deref(),
        )
    }

    fn reading(
        &self,
        file: DataFile,
        kind: RowKind,
        run: Option<&OriginRows<'_>>,
    ) -> Result<Reading> {
        let mut from_run = Vec::new();
        let template = match (&self.template, run) {
            (Some(name), _) => Some(plan::template("template", name)?),
            (None, Some(run)) => {
                from_run.push(format!("--template {}", run.data.template));
                Some(run.template()?)
            }
            (None, None) => None,
        };
        let turns = match run {
            Some(run) if self.turns.is_none() && !run.objective.turns.is_last() => {
                from_run.push("--turns all".into());
                run.objective.turns
            }
            _ => choice("turns", self.turns.as_deref(), Turns::Last)?,
        };
        let map = match (&self.map, run) {
            (Some(map), _) => map.parse().map_err(|error: Error| error.at("map"))?,
            (None, Some(run)) if !run.objective.map.is_empty() => {
                from_run.push(format!("--map {}", run.objective.map));
                run.objective.map.clone()
            }
            (None, _) => ColumnMap::default(),
        };
        let cut = self.truncation(run, &mut from_run)?;
        let split = choice("split", self.split.as_deref(), Split::All)?;
        if let (Split::All, Some(share)) = (split, &self.held_out) {
            return Err(Error::input(format!(
                "held-out {share} has no effect: all rows are scored"
            ))
            .hint("give --split held-out or --split train, or leave --held-out out"));
        }
        let limit = self
            .limit
            .as_ref()
            .map(|limit| count("limit", Some(limit), 0))
            .transpose()?;
        let mut eval = HeldOut::Fraction(0.0);
        let mut rows = limit;
        if split != Split::All {
            let usual = run.map_or(HELD_OUT, |run| run.plan.held_out);
            let given = self.held_out.as_ref();
            let fraction = held_out(given, usual)?;
            let held_file = run
                .and_then(|run| run.objective.eval_data.clone())
                .filter(|_| given.is_none());
            // The rows of the run, before the held-out rows are split off.
            rows = run.and_then(|run| run.objective.rows);
            from_run.extend(rows.map(|rows| format!("the first {rows} rows")));
            eval = match held_file {
                Some(file) => {
                    from_run.push(format!("held-out rows in {}", file.name()));
                    HeldOut::File(file)
                }
                None => {
                    if run.is_some() && given.is_none() {
                        from_run.push(format!("--held-out {fraction}"));
                    }
                    HeldOut::Fraction(fraction)
                }
            };
        }
        let Truncation {
            max_length,
            min_prompt,
            rule: too_long,
        } = cut;
        let threads = threads(self.machine.threads.as_ref())?;
        let files = vec![file];
        let spec = DataSpec {
            files,
            kind,
            map,
            template,
            template_setting: "--template".into(),
            turns,
            rows,
            max_length,
            min_prompt,
            too_long,
            threads,
            eval,
        };
        Ok(Reading {
            spec,
            split,
            limit,
            from_run,
        })
    }
}

/// Notes which settings are taken from the run, and what may make the numbers differ from those of
/// the run.
fn note_origin(
    run: &OriginRows<'_>,
    folder: &Path,
    reading: &Reading,
    data: &Dataset,
    terminal: &mut Terminal,
) {
    let folder = folder.display();
    if !reading.from_run.is_empty() {
        terminal.note(&format!(
            "settings of {} in the run {folder}: {}",
            run.objective.name,
            reading.from_run.join(", ")
        ));
    }
    let facts = run.data;
    let is_same_file = data.sha256 == facts.sha256;
    let is_same_template = data.template.to_string() == facts.template;
    if is_same_template && data.template.sha256().unwrap_or_default() != facts.template_sha256 {
        terminal.note(&format!(
            "warning: the template {} has changed since the run {folder}",
            facts.template
        ));
    }
    if is_same_file
        && reading.split == Split::All
        && facts.eval_rows > 0
        && facts.eval_sha256.is_empty()
    {
        terminal.note(&format!(
            "the run trained on {} of these rows and held out {}; --split held-out scores only the \
             held-out rows",
            facts.train_rows, facts.eval_rows
        ));
    }
    if !is_same_file && reading.split != Split::All {
        terminal.note(
            "warning: these are not the rows of the run; --split divides them by the same rule",
        );
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Loss) -> Result<()> {
    arguments.check_flags()?;
    let token_budget = count("token-budget", arguments.token_budget.as_ref(), 2048)?;
    let options = arguments.machine.options()?;
    terminal::catch_signals()?;
    if arguments.unpack_all {
        source::unpack_all();
    }
    let mut terminal = Terminal::new();
    let hub = Hub::from_environment();
    let adapter = arguments
        .adapter
        .as_ref()
        .map(|path| hub.adapter("adapter", path, &mut terminal))
        .transpose()?;
    let origin = adapter.as_deref().and_then(Origin::of);
    // Bad settings are rejected before a model is downloaded.
    let (file, kind) = arguments.rows(&hub, &mut terminal)?;
    let run_rows = origin
        .as_ref()
        .and_then(|origin| origin.rows_of(kind == RowKind::Preference, &file));
    let takes_run_reference = arguments.takes_run_reference(run_rows.as_ref())?;
    let has_reference = arguments.reference.is_some() || takes_run_reference;
    let mut objective = arguments.objective(run_rows.as_ref(), has_reference)?;
    let reading = arguments.reading(file, kind, run_rows.as_ref())?;
    let model = hub.model("model", &arguments.model, &mut terminal)?;
    let model = folder("model", &model, "give the folder of the base model")?;
    let model = Model::open(&model, &options, &mut terminal)?;
    let uses_reference = objective
        .as_ref()
        .is_some_and(|objective| objective.kind.spec().reference);
    let mut reference = None;
    match (&arguments.reference, &run_rows) {
        _ if !uses_reference => {}
        (given, Some(run)) if takes_run_reference => {
            match reference_adapter(
                &model,
                run.plan,
                origin.as_ref().map_or("", Origin::reference_digest),
                &mut Quiet(&mut terminal),
            ) {
                Ok(folder) => reference = Some(folder.map_or(Reference::Base, Reference::Adapter)),
                Err(error) if given.is_some() => return Err(error),
                Err(error) => {
                    terminal.note(&format!(
                        "warning: log-probabilities only, without a loss: {error}"
                    ));
                    objective = None;
                }
            }
        }
        (Some(given), _) if given == Path::new("none") => reference = Some(Reference::Base),
        (Some(given), _) => {
            reference = Some(Reference::Adapter(hub.adapter(
                "reference",
                given,
                &mut terminal,
            )?));
        }
        (None, _) => {}
    }
    let mut open = |key: &str, path: Option<&PathBuf>| -> Result<Option<DeviceAdapter>> {
        let path = path
            .map(|path| folder(key, path, "give a PEFT adapter folder"))
            .transpose()?;
        path.map(|path| model.load_adapter(&path, &mut terminal))
            .transpose()
    };
    let adapter = open("adapter", adapter.as_ref())?;
    let reference_folder = match &reference {
        Some(Reference::Adapter(folder)) => Some(folder),
        Some(Reference::Base) | None => None,
    };
    let reference_policy = open("reference", reference_folder)?;
    let data = Dataset::load(&reading.spec, &model.tokenizer, &mut |_, _| {
        !terminal.stop_requested()
    })?;
    if let (Some(origin), Some(run)) = (&origin, &run_rows) {
        note_origin(run, &origin.run, &reading, &data, &mut terminal);
        if kind == RowKind::Preference
            && let Some(objective) = &objective
        {
            let of = match (&reference, &reference_folder) {
                (None, _) => "no reference model".to_owned(),
                (_, Some(folder)) => format!("reference {}", folder.display()),
                (_, None) => "reference: the base model".to_owned(),
            };
            terminal.note(&format!(
                "loss: {}, beta {}, {of}",
                objective.kind, objective.beta
            ));
        }
    }
    terminal.note(&data.describe(if kind == RowKind::Preference {
        "dpo"
    } else {
        "sft"
    }));
    if let Some(note) = data.positions_note(model.decoder.config().max_positions) {
        terminal.note(&format!("warning: {note}"));
    }
    let side = if reading.split == Split::HeldOut {
        &data.eval
    } else {
        &data.train
    };
    let examples: Vec<&Example> = side
        .iter()
        .take(reading.limit.unwrap_or(usize::MAX))
        .collect();
    if examples.is_empty() {
        return Err(
            Error::input("no rows are held out").hint("give a larger --held-out, or --split all")
        );
    }
    let mut score = |what: &str, adapter: Option<&DeviceAdapter>| {
        sums(
            &model.decoder,
            adapter,
            &examples,
            token_budget,
            what,
            &mut terminal,
        )
    };
    let policy = score("log-probabilities", adapter.as_ref())?;
    let reference = match &reference {
        Some(_) => Some(score(
            "reference log-probabilities",
            reference_policy.as_ref(),
        )?),
        None => None,
    };
    if arguments.per_row {
        for (index, example) in examples.iter().enumerate() {
            let reference = reference.as_ref().map(|sums| &sums[index][..]);
            let mut line = row_line(example, kind, &policy[index], reference, objective.as_ref());
            if arguments.ids {
                line.insert("ids".into(), ids(example, kind));
            }
            print_json(&line)?;
        }
        return Ok(());
    }
    let line = totals(
        &examples,
        kind,
        &policy,
        reference.as_deref(),
        objective.as_ref(),
    );
    if arguments.json {
        return print_json(&line);
    }
    let text: String = line
        .iter()
        .map(|(key, value)| format!("{key:<20} {value}\n"))
        .collect();
    print(&text)
}

/// Sum of the log-probabilities of every response of every example.
fn sums(
    decoder: &Decoder,
    adapter: Option<&DeviceAdapter>,
    examples: &[&Example],
    token_budget: usize,
    what: &str,
    terminal: &mut Terminal,
) -> Result<Vec<Vec<f64>>> {
    let mut sums: Vec<Vec<f64>> = examples
        .iter()
        .map(|example| vec![0.0; example.responses.len()])
        .collect();
    terminal.begin(what, examples.len());
    let mut done = 0;
    for packed in &pack(examples, token_budget) {
        if terminal.stop_requested() {
            terminal.end();
            return Err(Error::interrupted("before all rows were scored"));
        }
        let scores = decoder.score(&packed.pack, adapter)?;
        for segment in &packed.segments {
            let sum: f64 = scores.logp[segment.targets.clone()].iter().sum();
            if !sum.is_finite() {
                terminal.end();
                let value = format!(
                    "the log-probability of row {}",
                    examples[segment.example].row
                );
                return Err(not_finite(value, decoder, &packed.pack, adapter));
            }
            sums[segment.example][segment.response] = sum;
            done += usize::from(segment.response == 0);
        }
        terminal.advance(done, "");
    }
    terminal.end();
    Ok(sums)
}

fn responses(example: &Example, policy: &[f64], reference: Option<&[f64]>) -> Vec<Response> {
    let response = |i: usize| Response {
        policy: policy[i],
        reference: reference.map(|sums| sums[i]),
        tokens: example.scored(i),
    };
    (0..policy.len()).map(response).collect()
}

/// One line of `--per-row` output.
fn row_line(
    example: &Example,
    kind: RowKind,
    policy: &[f64],
    reference: Option<&[f64]>,
    objective: Option<&Objective>,
) -> Map<String, Value> {
    let named = |values: &[f64]| -> Map<String, Value> {
        names(kind)
            .iter()
            .zip(values)
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect()
    };
    let mut tokens = Map::from_iter([("prompt".to_owned(), json!(example.prompt.len()))]);
    tokens.extend(
        names(kind)
            .iter()
            .enumerate()
            .map(|(i, name)| ((*name).to_owned(), json!(example.scored(i)))),
    );
    let mut line = Map::new();
    line.insert("row".into(), json!(example.row));
    line.insert("tokens".into(), Value::Object(tokens));
    line.insert("logp".into(), Value::Object(named(policy)));
    if let Some(reference) = reference {
        line.insert("reference".into(), Value::Object(named(reference)));
    }
    if let Some(objective) = objective {
        let (loss, _, _) = evaluate(objective, &[responses(example, policy, reference)]);
        line.insert("loss".into(), json!(loss));
    }
    line
}

/// Token ids of the prompt and the responses, by name.
fn ids(example: &Example, kind: RowKind) -> Value {
    let mut ids = Map::from_iter([("prompt".to_owned(), json!(example.prompt))]);
    ids.extend(
        names(kind)
            .iter()
            .zip(&example.responses)
            .map(|(name, ids)| ((*name).to_owned(), json!(ids))),
    );
    Value::Object(ids)
}

/// Totals over all rows.
fn totals(
    examples: &[&Example],
    kind: RowKind,
    policy: &[Vec<f64>],
    reference: Option<&[Vec<f64>]>,
    objective: Option<&Objective>,
) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("rows".into(), json!(examples.len()));
    line.insert(
        "tokens".into(),
        json!(
            examples
                .iter()
                .map(|example| example.tokens())
                .sum::<usize>()
        ),
    );
    let scored = |example: &&Example| {
        (0..example.responses.len())
            .map(|i| example.scored(i))
            .sum::<usize>()
    };
    line.insert(
        "scored".into(),
        json!(examples.iter().map(scored).sum::<usize>()),
    );
    for (index, name) in names(kind).iter().enumerate() {
        let mean = policy.iter().map(|sums| sums[index]).sum::<f64>() / examples.len() as f64;
        line.insert(format!("logps/{name}"), json!(mean));
    }
    if let Some(objective) = objective {
        let rows: Vec<Vec<Response>> = examples
            .iter()
            .enumerate()
            .map(|(i, example)| responses(example, &policy[i], reference.map(|sums| &sums[i][..])))
            .collect();
        let (loss, _, metrics) = evaluate(objective, &rows);
        line.insert("loss".into(), json!(loss));
        for (name, value) in objective.kind.spec().metrics.iter().zip(metrics) {
            line.insert((*name).to_owned(), json!(value));
        }
    }
    line
}

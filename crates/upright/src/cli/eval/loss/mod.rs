//! `upright eval loss`: log-probabilities and loss of a model or an adapter on a dataset.

mod objective;
mod output;
mod reading;
mod score;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use upright_engine::DeviceAdapter;

use self::{
    objective::Reference,
    output::{ids, row_line, totals},
    reading::{Split, note_origin},
    score::sums,
};
use crate::cli::{
    machine::Machine,
    print, print_json,
    ranks::{RankFlags, check_command},
    terminal::{self, Terminal},
};
use upright_base::{
    Error, Result,
    progress::{Progress, Quiet},
};
use upright_data::{Dataset, Example, RowKind, source};
use upright_hub::Hub;
use upright_ranks::World;
use upright_runs::{
    origin::Origin,
    plan::checks::{count, folder},
    settings::{
        Number,
        declared::{Declared, Flag, Given, OfLosses},
        help, preferences,
    },
};
use upright_train::run::{Model, reference_adapter};

/// Examples in `--help` of `eval loss`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright eval loss --model path/to/model --adapter runs/first \\
      --sft held-out.jsonl
  upright eval loss --model path/to/model --adapter runs/first \\
      --dpo preferences.jsonl --split held-out --reference none
  upright eval loss --model path/to/model --dpo preferences.jsonl --per-row";

/// Arguments of `eval loss`.
#[derive(Args, Debug)]
pub(in crate::cli) struct Loss {
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
    /// Preference loss.
    #[arg(long, value_name = "LOSS", help = dpo_loss_help())]
    dpo_loss: Option<String>,
    /// Settings of the loss.
    #[command(flatten)]
    settings: Given<OfScoring>,
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
    #[arg(long, help = help("unpack-all"))]
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
    #[command(flatten)]
    ranks: RankFlags,
    /// Maximum tokens in a pack [default: 2048]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    token_budget: Option<Number>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Loss) -> Result<()> {
    let world = arguments.ranks.open(arguments.machine.options()?.device)?;
    check_command(&world)?;
    world.settle(evaluate(arguments, &world))
}

fn evaluate(arguments: &Loss, world: &Arc<World>) -> Result<()> {
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
    let model = world.slowly(|_| hub.model("model", &arguments.model, &mut terminal))?;
    let model = folder("model", &model, "give the folder of the base model")?;
    let model = Model::open_among(&model, options, world, &mut terminal)?;
    let uses_reference = objective
        .as_ref()
        .is_some_and(|objective| objective.loss.reference);
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
    let stop = terminal.stop();
    let data = world.slowly(|_| {
        Dataset::load(&reading.spec, &model.tokenizer, &mut |_, _| {
            !stop.is_requested()
        })
    })?;
    world.same("version of the rows", data.encoded_sha256.as_bytes())?;
    // They may come from the folder of a run.
    let scored = format!(
        "{objective:?} {:?}",
        reference.as_ref().map(std::mem::discriminant)
    );
    world.same("loss or reference", scored.as_bytes())?;
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
            let mut loss = objective.loss.to_string();
            for (name, value) in objective.settings.recorded() {
                loss += &format!(", {name} {value}");
            }
            terminal.note(&format!("loss: {loss}, {of}"));
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
            &model,
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

/// The settings of preference losses, as flags of this command.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct OfScoring;

impl Declared for OfScoring {
    fn flags() -> Vec<Flag> {
        let mut flags = OfLosses::flags();
        for flag in &mut flags {
            flag.help = flag
                .help
                .replace("[default: ", "[default: as in the adapter's run, else ");
            flag.heading = "";
        }
        flags
    }
}

fn dpo_loss_help() -> String {
    let tied = preferences(true, true);
    let free = preferences(false, true);
    format!(
        "Preference loss, as in training: {tied} with --reference; {free} without it [default: as in the adapter's run, else sigmoid]"
    )
}

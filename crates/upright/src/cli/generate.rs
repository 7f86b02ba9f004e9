//! `upright generate` and `upright chat`: responses of a model or an adapter.

use std::{
    io::{BufRead, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use upright_engine::DeviceAdapter;

use super::{
    machine::Machine,
    print, print_json,
    template::{self, Chosen},
    terminal::{self, Terminal},
};
use upright_base::{
    Error, Result, counted, files,
    progress::{Progress, Silent},
};
use upright_data::{
    ColumnMap, TemplateName, Tokenizer,
    conversation::{Message, Prompt, Role, Row},
    prompts, source,
};
use upright_hub::Hub;
use upright_runs::{
    plan::{
        self,
        checks::{count, count_from, folder, real},
    },
    settings::{Number, help},
};
use upright_train::fetch::data_file;
use upright_train::{
    generate::{Generated, Request, Sampling, TokenSink, ends, generate},
    run::Model,
};

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  echo \"What is a heron?\" | upright generate --model path/to/model
  upright generate --model path/to/model --adapter runs/first \\
      --prompts prompts.jsonl --temperature 0.7 --out responses.jsonl";

/// The model, the template and the sampling.
#[derive(Args, Debug)]
pub(super) struct Speaker {
    /// Base model: a folder in Hugging Face layout, or a Hub id.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Adapter to use: a PEFT folder, a run folder, or a Hub id; without it, the base model is
    /// used.
    #[arg(long, value_name = "DIR|ID")]
    adapter: Option<PathBuf>,
    /// Prompt template: chat (the model's chat template; also chat:NAME or chat@YYYY-MM-DD),
    /// alpaca, user-assistant, raw, or a .jinja file [default: the template of the adapter's run,
    /// else the default of upright train]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Maximum tokens of a response [default: 128]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_tokens: Option<Number>,
    /// Sampling temperature; 0 always takes the most likely token [default: 0]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    temperature: Option<Number>,
    /// Sample from the most likely tokens with this total probability [default: 1]
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    top_p: Option<Number>,
    /// Seed of the sampling [default: 42]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<Number>,
    #[command(flatten)]
    machine: Machine,
}

/// Generates responses to prompts, as JSON lines.
#[derive(Args, Debug)]
pub(super) struct Generate {
    #[command(flatten)]
    speaker: Speaker,
    /// Prompts: rows of any dialect (.json, .jsonl, .parquet, with or without responses), a JSON
    /// list of strings, plain text with one prompt per line, or a Hub dataset [default: stdin]
    #[arg(long, value_name = "FILE|ID")]
    prompts: Option<PathBuf>,
    /// Rename columns, e.g. prompt=question; tools= ignores the column tools [default: no renaming]
    #[arg(long, value_name = "NAME=COLUMN,...")]
    map: Option<String>,
    #[arg(long, help = help("unpack-all"))]
    unpack_all: bool,
    /// Number of prompts to process together [default: 8]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    batch: Option<Number>,
    /// Write the lines to this file instead of stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Chats in the terminal; an empty line, /exit or Ctrl-D ends the chat.
#[derive(Args, Debug)]
pub(super) struct Chat {
    #[command(flatten)]
    speaker: Speaker,
}

impl Speaker {
    fn sampling(&self) -> Result<Sampling> {
        let (temperature, top_p) = (self.temperature.as_ref(), self.top_p.as_ref());
        Ok(Sampling {
            max_tokens: count("max-tokens", self.max_tokens.as_ref(), 128)?,
            temperature: real("temperature", temperature, 0.0, "be at least 0", |t| {
                t >= 0.0
            })?,
            top_p: real("top-p", top_p, 1.0, "be above 0 and at most 1", |p| {
                p > 0.0 && p <= 1.0
            })?,
            seed: count_from(0, "seed", self.seed.as_ref(), 42)? as u64,
        })
    }

    fn asked(&self) -> Result<Option<TemplateName>> {
        self.template
            .as_deref()
            .map(|name| plan::template("template", name))
            .transpose()
    }

    /// The template for these rows.
    fn template(
        &self,
        rows: &[Row],
        tokenizer: &Tokenizer,
        observer: &mut dyn Progress,
    ) -> Result<Chosen> {
        let asked = self.asked()?;
        let adapter = self.adapter.as_deref();
        template::choose(asked.as_ref(), adapter, rows, tokenizer, observer)
    }

    fn open(&self, observer: &mut dyn Progress) -> Result<(Model, Option<DeviceAdapter>)> {
        // A bad name is rejected before a model is downloaded.
        self.asked()?;
        let options = self.machine.options()?;
        let hub = Hub::from_environment();
        let adapter = self
            .adapter
            .as_ref()
            .map(|adapter| hub.adapter("adapter", adapter, observer))
            .transpose()?;
        let model = folder(
            "model",
            &hub.model("model", &self.model, observer)?,
            "give a model folder",
        )?;
        let model = Model::open(&model, &options, observer)?;
        let adapter = adapter
            .map(|folder| model.load_adapter(&folder, observer))
            .transpose()?;
        Ok((model, adapter))
    }
}

/// Runs `upright generate`.
pub(super) fn run(arguments: &Generate) -> Result<()> {
    if arguments.unpack_all {
        source::unpack_all();
    }
    let sampling = arguments.speaker.sampling()?;
    let batch = count("batch", arguments.batch.as_ref(), 8)?;
    let mut terminal = Terminal::new();
    if let Some(out) = &arguments.out {
        let folder = out
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if out.is_dir() || out.file_name().is_none() || files::check_writable(folder).is_err() {
            return Err(
                Error::input(format!("{}: cannot be written", out.display()))
                    .hint("give --out the name of a file"),
            );
        }
        if out.symlink_metadata().is_ok() {
            return Err(Error::input(format!(
                "{}: already exists and is not overwritten",
                out.display()
            ))
            .hint("give --out another name, or remove the file"));
        }
    }
    let map = arguments
        .map
        .as_deref()
        .map_or(Ok(ColumnMap::default()), str::parse)
        .map_err(|error| error.at("map"))?;
    let (name, (rows, dropped)) = match &arguments.prompts {
        Some(given) => {
            let file = data_file(&Hub::from_environment(), "prompts", given, &mut terminal)?;
            (file.name(), prompts::read_files(&file.shards, &map)?)
        }
        None => {
            if std::io::stdin().is_terminal() {
                terminal.note("enter one prompt per line; Ctrl-D ends the input");
            }
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Error::input(format!("stdin: cannot read: {error}")))?;
            (
                "stdin".to_owned(),
                prompts::read(Path::new("stdin"), &bytes, &map)?,
            )
        }
    };
    // Earlier, a signal may end the process: there is no work to finish yet.
    terminal::catch_signals()?;
    let (model, adapter) = arguments.speaker.open(&mut terminal)?;
    let chosen = arguments
        .speaker
        .template(&rows, &model.tokenizer, &mut terminal)?;
    let template = &chosen.template;
    terminal.note(&format!(
        "{}, template {template}",
        counted(rows.len(), "prompt")
    ));
    for left_out in &dropped {
        terminal.note(&format!(
            "{} skipped, {}: {}",
            counted(left_out.rows.len(), "row"),
            left_out.reason,
            left_out.named()
        ));
    }
    let at_file = |error: Error| error.at(&name);
    let texts = rows
        .iter()
        .map(|row| chosen.prompt(row).map_err(at_file))
        .collect::<Result<Vec<String>>>()?;
    let ids = |text: &String| template.prompt_ids(text, &model.tokenizer);
    let ids = texts.iter().map(ids).collect::<Result<Vec<_>>>()?;
    if let Some(row) = ids.iter().position(Vec::is_empty) {
        return Err(Error::input(format!(
            "{name}: {}: the prompt has no tokens",
            rows[row].place()
        )));
    }
    let positions = model.decoder.config().max_positions;
    let longer = ids
        .iter()
        .filter(|ids| ids.len() + sampling.max_tokens - 1 > positions)
        .count();
    if longer > 0 {
        terminal.note(&format!(
            "warning: with --max-tokens {}, {longer} of {} prompts may exceed the {positions} positions of the model \
             (max_position_embeddings)",
            sampling.max_tokens,
            ids.len()
        ));
    }
    let (decoder, tokenizer) = (&model.decoder, &model.tokenizer);
    let mut lines = String::new();
    let mut answered = |index: usize, answer: &Generated| {
        let line = json!({
            "row": rows[index].index, "prompt": texts[index], "response": tokenizer.decode(&answer.tokens)?,
            "tokens": answer.tokens.len(), "finish": if answer.ended { "eos" } else { "length" },
        });
        match &arguments.out {
            Some(_) => lines += &format!("{line}\n"),
            None => print_json(&line)?,
        }
        Ok(())
    };
    let sink = TokenSink {
        heard: &mut |_, _| {},
        answered: &mut answered,
    };
    let ends = ends(&model.model, template, tokenizer)?;
    let request = Request {
        decoder,
        adapter: adapter.as_ref(),
        ends: &ends,
        prompts: &ids,
        first: 0,
        sampling: &sampling,
        batch,
    };
    let done = generate(&request, &mut terminal, sink);
    if let Some(path) = &arguments.out {
        // Responses from before a stop are kept.
        files::write_atomic(path, lines.as_bytes())?;
        print_json(&json!({ "responses": lines.lines().count(), "out": path }))?;
    }
    done
}

/// How to use a chat, in one line.
const CHAT_HELP: &str = "an empty line, /exit or Ctrl-D ends the chat; /reset starts a new conversation; /help shows this";

/// Runs `upright chat`.
pub(super) fn chat(arguments: &Chat) -> Result<()> {
    let sampling = arguments.speaker.sampling()?;
    let mut terminal = Terminal::new();
    let (model, adapter) = arguments.speaker.open(&mut terminal)?;
    let chosen = arguments
        .speaker
        .template(&[], &model.tokenizer, &mut terminal)?;
    let template = &chosen.template;
    let ends = ends(&model.model, template, &model.tokenizer)?;
    let memory = if template.has_turns() {
        ""
    } else {
        "which has no turns: every message is answered on its own; "
    };
    terminal.note(&format!("template {template}, {memory}{CHAT_HELP}"));
    let mut messages: Vec<Message> = Vec::new();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if std::io::stdin().is_terminal() {
            let _ = write!(std::io::stderr(), "> ");
        }
        let Some(line) = lines.next() else {
            return Ok(());
        };
        let line = line.map_err(|error| Error::input(format!("stdin: cannot read: {error}")))?;
        match line.trim() {
            "" | "/exit" => return Ok(()),
            "/reset" => {
                messages.clear();
                terminal.note("the conversation starts anew");
                continue;
            }
            "/help" => {
                terminal.note(CHAT_HELP);
                continue;
            }
            _ => {}
        }
        // A template without turns gets only the latest message.
        let prompt = if template.has_turns() {
            messages.push(Message::new(Role::User, line));
            Prompt::Messages(messages.clone())
        } else {
            Prompt::Text(line)
        };
        let row = Row::unanswered(0, None, prompt);
        let ids = [template.prompt_ids(&chosen.prompt(&row)?, &model.tokenizer)?];
        let (mut heard, mut said, mut failed) = (Vec::new(), String::new(), None);
        let mut speak = |_: usize, token: u32| {
            heard.push(token);
            match model.tokenizer.decode(&heard) {
                // A character of several tokens is held back until it is complete.
                Ok(text) if text.ends_with('\u{fffd}') => {}
                Ok(text) => {
                    failed = failed
                        .take()
                        .or(print(text.strip_prefix(&said).unwrap_or_default()).err());
                    said = text;
                }
                Err(error) => failed = Some(error),
            }
        };
        let sink = TokenSink {
            heard: &mut speak,
            answered: &mut |_, _| Ok(()),
        };
        let request = Request {
            decoder: &model.decoder,
            adapter: adapter.as_ref(),
            ends: &ends,
            prompts: &ids,
            first: 0,
            sampling: &sampling,
            batch: 1,
        };
        generate(&request, &mut Silent, sink)?;
        // Print what was held back and never became a complete character.
        let whole = model.tokenizer.decode(&heard)?;
        print(whole.strip_prefix(&said).unwrap_or_default())?;
        said = whole;
        if let Some(error) = failed {
            return Err(error);
        }
        print("\n")?;
        if template.has_turns() {
            messages.push(Message::said(said.trim()));
        }
    }
}

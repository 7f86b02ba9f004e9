//! `upright generate` and `upright chat`: what a model or an adapter says.

use std::{
    io::{BufRead, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};
use upright_engine::{adapter::Adapter, decoder::Recompute};

use super::{
    print, print_json,
    terminal::{self, Terminal},
};
use crate::{
    Error, Result,
    config::Number,
    data::{
        Template,
        rows::{Message, Prompt, Role, Row},
    },
    files,
    generate::{Ear, Generated, Sampling, generate},
    hub::Hub,
    observer::{Observer, Silent},
    plan::checks::{count, count_from, real, threads},
    run::Engine,
};

/// The model, and how it speaks.
#[derive(Args, Debug)]
pub(super) struct Speaker {
    /// Model folder, or an id on the hub.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// PEFT adapter on the model.
    #[arg(long, value_name = "DIR|ID")]
    adapter: Option<PathBuf>,
    /// Template: alpaca, user-assistant or raw.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Most tokens of a response [default: 128]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_tokens: Option<Number>,
    /// 0 takes the likeliest token every time [default: 0]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    temperature: Option<Number>,
    /// Draw from the likeliest tokens that together have this probability [default: 1]
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    top_p: Option<Number>,
    /// Seed of the draws [default: 42]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<Number>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    threads: Option<Number>,
}

/// Answers prompts: JSON lines out.
#[derive(Args, Debug)]
pub(super) struct Generate {
    #[command(flatten)]
    speaker: Speaker,
    /// Prompts: JSON lines with `prompt` or `instruction` (and `input`), or plain text with a prompt a line; stdin if
    /// absent.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Prompts answered together [default: 8]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    batch: Option<Number>,
    /// Write the lines here instead of to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A conversation in the terminal; an empty line or Ctrl-D ends it.
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
            temperature: real("temperature", temperature, 0.0, "be 0 or above", |t| t >= 0.0)?,
            top_p: real("top-p", top_p, 1.0, "lie above 0 and be at most 1", |p| p > 0.0 && p <= 1.0)?,
            seed: count_from(0, "seed", self.seed.as_ref(), 42)? as u64,
        })
    }

    fn open(&self, observer: &mut dyn Observer) -> Result<(Engine, Option<Adapter>)> {
        let threads = threads(self.threads.as_ref())?;
        let hub = Hub::from_environment();
        let adapter = self.adapter.as_ref().map(|adapter| hub.adapter(adapter, observer)).transpose()?;
        let engine = Engine::open(&hub.model(&self.model, observer)?, threads, Recompute::Auto)?;
        let adapter = adapter.map(|folder| engine.read_adapter(&folder, observer)).transpose()?;
        Ok((engine, adapter))
    }
}

/// The prompt of a line: a JSON object's, or the text itself.
fn prompt_of(name: &str, line: usize, text: &str) -> Result<Prompt> {
    if text.trim_start().starts_with('[') && serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_array()) {
        return Err(
            Error::input(format!("{name}: line {line}: is a JSON list")).hint("give one object, or one text, a line")
        );
    }
    if !text.trim_start().starts_with('{') {
        return Ok(Prompt::Text(text.to_owned()));
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Error::input(format!("{name}: line {line}: broken JSON: {error}")))?;
    let string = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    if let Some(prompt) = string("prompt") {
        return Ok(Prompt::Text(prompt));
    }
    if let Some(instruction) = string("instruction") {
        let (system, input) = (string("system").unwrap_or_default(), string("input").unwrap_or_default());
        return Ok(Prompt::Instruction { system, instruction, input });
    }
    if value.get("prompt").is_some() || value.get("messages").is_some() {
        return Err(Error::input(format!("{name}: line {line}: its prompt is not a string"))
            .hint("conversations are not read here yet: give the prompt as one text"));
    }
    let columns: Vec<&String> = value.as_object().map(|object| object.keys().collect()).unwrap_or_default();
    Err(Error::input(format!("{name}: line {line}: no prompt: its columns are {columns:?}"))
        .hint("give each object a string prompt, or instruction and input"))
}

/// Runs `upright generate`.
pub(super) fn run(arguments: &Generate) -> Result<()> {
    let sampling = arguments.speaker.sampling()?;
    let batch = count("batch", arguments.batch.as_ref(), 8)?;
    terminal::catch_signals()?;
    let mut terminal = Terminal::new();
    if let Some(out) = &arguments.out {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if out.is_dir() || out.file_name().is_none() || files::check_writable(folder).is_err() {
            return Err(Error::input(format!("{}: cannot be written", out.display())).hint("give --out a file's name"));
        }
    }
    let (name, text) = match &arguments.prompts {
        Some(path) => (path.display().to_string(), files::read_text(path)?),
        None => {
            let mut text = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| Error::input(format!("stdin: cannot read: {error}")))?;
            ("stdin".to_owned(), text)
        }
    };
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()).enumerate();
    let rows = lines.map(|(index, (line, number))| {
        let prompt = prompt_of(&name, number, line)?;
        Ok(Row { index, line: Some(number), prompt, responses: Vec::new() })
    });
    let rows = rows.collect::<Result<Vec<Row>>>()?;
    if rows.is_empty() {
        return Err(Error::input(format!("{name}: no prompts")).hint("give one a line"));
    }
    let template = arguments.speaker.template.as_deref().map(str::parse).transpose()?;
    let template = template.unwrap_or_else(|| Template::default_for(&rows));
    let (engine, adapter) = arguments.speaker.open(&mut terminal)?;
    terminal.note(&format!("{} prompts, template {template}", rows.len()));
    let texts = rows.iter().map(|row| Ok(template.render(row)?.prompt)).collect::<Result<Vec<String>>>()?;
    let ids = texts.iter().map(|text| engine.tokenizer.prompt(text)).collect::<Result<Vec<_>>>()?;
    if let Some(row) = ids.iter().position(Vec::is_empty) {
        return Err(Error::input(format!("{name}: prompt {} has no token", row + 1)));
    }
    let (decoder, tokenizer) = (&engine.decoder, &engine.tokenizer);
    let mut lines = String::new();
    let mut answered = |index: usize, answer: &Generated| {
        let line = json!({
            "row": index, "prompt": texts[index], "response": tokenizer.decode(&answer.tokens)?,
            "tokens": answer.tokens.len(), "finish": if answer.ended { "eos" } else { "length" },
        });
        match &arguments.out {
            Some(_) => lines += &format!("{line}\n"),
            None => print_json(&line)?,
        }
        Ok(())
    };
    let ear = Ear { heard: &mut |_, _| {}, answered: &mut answered };
    let done = generate(decoder, adapter.as_ref(), tokenizer, &ids, &sampling, batch, &mut terminal, ear);
    if let Some(path) = &arguments.out {
        // What was answered before a stop is kept.
        files::write_atomic(path, lines.as_bytes())?;
        print_json(&json!({ "responses": lines.lines().count(), "out": path }))?;
    }
    done
}

/// Runs `upright chat`.
pub(super) fn chat(arguments: &Chat) -> Result<()> {
    let sampling = arguments.speaker.sampling()?;
    let mut terminal = Terminal::new();
    let (engine, adapter) = arguments.speaker.open(&mut terminal)?;
    let template = arguments.speaker.template.as_deref().map_or(Ok(Template::UserAssistant), str::parse)?;
    let mut messages: Vec<Message> = Vec::new();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if std::io::stdin().is_terminal() {
            let _ = write!(std::io::stderr(), "> ");
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(|error| Error::input(format!("stdin: cannot read: {error}")))?;
        if line.trim().is_empty() {
            return Ok(());
        }
        // A template without turns sees only the newest question.
        let prompt = if template == Template::UserAssistant {
            messages.push(Message { role: Role::User, content: line });
            Prompt::Messages(messages.clone())
        } else {
            Prompt::Text(line)
        };
        let row = Row { index: 0, line: None, prompt, responses: Vec::new() };
        let ids = [engine.tokenizer.prompt(&template.render(&row)?.prompt)?];
        let (mut heard, mut said, mut failed) = (Vec::new(), String::new(), None);
        let mut speak = |_: usize, token: u32| {
            heard.push(token);
            match engine.tokenizer.decode(&heard) {
                // A character of several tokens is held back until it is whole.
                Ok(text) if text.ends_with('\u{fffd}') => {}
                Ok(text) => {
                    failed = failed.take().or(print(text.strip_prefix(&said).unwrap_or_default()).err());
                    said = text;
                }
                Err(error) => failed = Some(error),
            }
        };
        let adapter = adapter.as_ref();
        let ear = Ear { heard: &mut speak, answered: &mut |_, _| Ok(()) };
        generate(&engine.decoder, adapter, &engine.tokenizer, &ids, &sampling, 1, &mut Silent, ear)?;
        // What was held back for a whole character and never became one.
        let whole = engine.tokenizer.decode(&heard)?;
        print(whole.strip_prefix(&said).unwrap_or_default())?;
        said = whole;
        if let Some(error) = failed {
            return Err(error);
        }
        print("\n")?;
        if template == Template::UserAssistant {
            messages.push(Message { role: Role::Assistant, content: said.trim().to_owned() });
        }
    }
}

//! `upright inspect`: what a run would train on, without training.

use std::{fmt::Write, io::IsTerminal, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{print, print_as_is, print_json, similarity, terminal::Terminal, visible};
use upright_base::{Error, Result, counted};
use upright_data::{
    ColumnMap, DataFile, DataSpec, Dataset, Dropped, Example, HeldOut, RowKind, Template,
    Tokenizer, Truncation, Turns, bos_note, prefix_space_note, rows, source,
};
use upright_hub::Hub;
use upright_runs::{
    plan::{
        self,
        checks::{choice, count, count_from, folder, threads, truncation, usual_batch},
    },
    settings::{Number, help, number_of},
};
use upright_train::fetch::data_file;
use upright_train::packing;

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright inspect preferences.jsonl --model path/to/model
  upright inspect ORG/NAME:train --model ORG/MODEL --rows 1000 --template chat
  upright inspect --similarity --sft instructions.jsonl --dpo preferences.jsonl \\
      --model path/to/model --out figures";

/// Shows how a run would read, render, truncate and mask a dataset.
#[derive(Args, Clone, Debug)]
pub(super) struct Inspect {
    /// Instruction or preference rows: a file or a Hub dataset. The columns decide which kind it
    /// is.
    #[arg(value_name = "DATA", required_unless_present = "similarity")]
    data: Option<PathBuf>,
    /// Model whose tokenizer and chat template are used: a folder or a Hub id.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Prompt template: chat (the model's chat template; also chat:NAME or chat@YYYY-MM-DD),
    /// alpaca, user-assistant, raw, or a .jinja file [default: chat if the model has a chat
    /// template, else raw for HH-RLHF, else user-assistant]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Rename columns, e.g. prompt=question,chosen=good; tools= ignores the column tools
    /// [default: no renaming]
    #[arg(long, value_name = "NAME=COLUMN,...")]
    map: Option<String>,
    /// Assistant turns to train on: last, all [default: last]
    #[arg(long, value_name = "TURNS")]
    turns: Option<String>,
    #[arg(long, value_name = "N", allow_hyphen_values = true, help = help("max-length"))]
    max_length: Option<Number>,
    #[arg(long, value_name = "N", allow_hyphen_values = true, help = help("min-prompt"))]
    min_prompt: Option<Number>,
    /// How to fit rows that exceed --max-length, as in training: cut-prompt, cut-response, drop
    /// [default: cut-prompt]
    #[arg(long, value_name = "RULE")]
    too_long: Option<String>,
    #[arg(long, help = help("unpack-all"))]
    unpack_all: bool,
    /// Use the first N usable rows of the file or Hub split [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    rows: Option<Number>,
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true, help = help("held-out"))]
    held_out: Option<Number>,
    /// Rows per step, to count the steps of an epoch [default: 8, or 4 pairs]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    batch: Option<Number>,
    /// Maximum tokens in a pack [default: 2048]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    token_budget: Option<Number>,
    /// Number of rows to show as trained on [default: 2], or of conflicting pairs with --similarity
    /// [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    show: Option<Number>,
    /// Show this row of the file, counting from 0
    #[arg(long, value_name = "ROW", allow_hyphen_values = true)]
    row: Option<Number>,
    #[arg(long, value_name = "N", allow_hyphen_values = true, help = help("threads"))]
    threads: Option<Number>,
    /// Print one JSON object, without the shown rows.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    comparison: similarity::Similarity,
}

/// Statistics of a dataset.
#[derive(Debug, Serialize)]
struct Report {
    kind: &'static str,
    dialect: String,
    unread: Vec<String>,
    template: String,
    train_rows: usize,
    eval_rows: usize,
    dropped: Vec<Dropped>,
    truncated_rows: usize,
    truncated_prompts: usize,
    truncated_responses: usize,
    /// Whether prompts begin with BOS, if the tokenizer files disagree about it.
    contested_bos: Option<bool>,
    /// Whether texts begin with a space, if the tokenizer files disagree about it.
    contested_prefix_space: Option<bool>,
    /// Warnings on the rows: most are truncated, or few are held out.
    warnings: Vec<String>,
    /// Note on rows that are longer than the model's positions, if there are any.
    positions: Option<String>,
    /// Rows whose reasoning is dropped because the template cannot render it.
    reasoning_left_out: usize,
    prompt_tokens: Lengths,
    response_tokens: Lengths,
    /// Rows per step.
    batch: usize,
    /// Steps that train on every row once.
    steps_per_epoch: usize,
    /// Token positions that one epoch computes, packed and with shared prompts.
    packed_rows: usize,
    /// Token positions without shared prompts: every response has its own copy of the prompt.
    unshared_rows: usize,
    /// Token positions with padding to the longest of each 8 rows, in file order.
    padded_rows: usize,
    packs: usize,
    /// Filled share of the token budget of all packs.
    fill: f64,
    /// Maximum tokens in a pack.
    token_budget: usize,
}

/// Statistics of sequence lengths, in tokens.
#[derive(Debug, Serialize)]
struct Lengths {
    mean: f64,
    median: usize,
    p95: usize,
    longest: usize,
    /// Upper limit (16, 32, 64, ... tokens) and number of sequences of each bin.
    histogram: Vec<(usize, usize)>,
}

impl Lengths {
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let at = |share: f64| lengths[((lengths.len() - 1) as f64 * share).round() as usize];
        let longest = at(1.0);
        let mut histogram = Vec::new();
        let (mut from, mut limit) = (0, 16);
        loop {
            let upto = lengths.partition_point(|&length| length <= limit);
            histogram.push((limit, upto - from));
            from = upto;
            if limit >= longest {
                break;
            }
            limit *= 2;
        }
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        Self {
            mean,
            median: at(0.5),
            p95: at(0.95),
            longest,
            histogram,
        }
    }
}

impl Report {
    fn of(
        kind: RowKind,
        data: &Dataset,
        batch: usize,
        token_budget: usize,
        positions: usize,
    ) -> Self {
        let rows: Vec<&Example> = data.train.iter().collect();
        let whole = |row: &Example| {
            row.responses
                .iter()
                .map(|response| row.prompt.len() + response.tokens.len() - 1)
                .collect::<Vec<_>>()
        };
        let packs = packing::pack(&rows, token_budget);
        let mut warnings = Vec::new();
        warnings.extend(data.truncation_note());
        if let Some(note) = data.held_out_note() {
            warnings.push(format!("{note}; raise --held-out"));
        }
        let packed_rows = packs.iter().map(|packed| packed.pack.tokens.len()).sum();
        let padded = |chunk: &[&Example]| {
            let lengths: Vec<usize> = chunk.iter().flat_map(|row| whole(row)).collect();
            lengths.len() * lengths.iter().max().unwrap_or(&0)
        };
        Self {
            kind: if kind == RowKind::Preference {
                "preference"
            } else {
                "instruction"
            },
            dialect: data.dialect.clone(),
            unread: data.unread.clone(),
            template: data.template.to_string(),
            train_rows: data.train.len(),
            eval_rows: data.eval.len(),
            dropped: data.dropped.clone(),
            truncated_rows: data.truncated_rows,
            truncated_prompts: data.truncated_prompts,
            truncated_responses: data.truncated_responses,
            reasoning_left_out: data.reasoning_left_out,
            contested_bos: data.contested_bos,
            contested_prefix_space: data.contested_prefix_space,
            warnings,
            positions: data.positions_note(positions),
            prompt_tokens: Lengths::of(rows.iter().map(|row| row.prompt.len()).collect()),
            response_tokens: Lengths::of(
                rows.iter()
                    .flat_map(|row| &row.responses)
                    .map(|response| response.tokens.len())
                    .collect(),
            ),
            batch,
            steps_per_epoch: data.train.len().div_ceil(batch),
            packed_rows,
            unshared_rows: rows.iter().flat_map(|row| whole(row)).sum(),
            padded_rows: rows.chunks(8).map(padded).sum(),
            packs: packs.len(),
            fill: packed_rows as f64 / (packs.len() * token_budget) as f64,
            token_budget,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:12} {value}");
        };
        line(
            "rows",
            format!(
                "{}, dialect {}",
                counted(
                    self.train_rows + self.eval_rows,
                    &format!("{} row", self.kind)
                ),
                self.dialect
            ),
        );
        if !self.unread.is_empty() {
            line(
                "ignored",
                format!("columns {}", rows::listed(self.unread.iter())),
            );
        }
        line("template", self.template.clone());
        line(
            "split",
            format!(
                "{} to train on, {} held out",
                self.train_rows, self.eval_rows
            ),
        );
        for dropped in &self.dropped {
            line(
                "dropped",
                format!(
                    "{}, {}: {}",
                    dropped.rows.len(),
                    dropped.reason,
                    dropped.named()
                ),
            );
        }
        if self.truncated_prompts + self.truncated_responses > 0 {
            line(
                "truncated",
                format!(
                    "{}, {}",
                    counted(self.truncated_prompts, "prompt"),
                    counted(self.truncated_responses, "response")
                ),
            );
        }
        for warning in &self.warnings {
            line("warning", warning.clone());
        }
        if self.reasoning_left_out > 0 {
            line(
                "left out",
                format!(
                    "the reasoning of {}: the template cannot render it",
                    counted(self.reasoning_left_out, "row")
                ),
            );
        }
        if let Some(begin) = self.contested_bos {
            line("BOS", bos_note(begin));
        }
        if let Some(space) = self.contested_prefix_space {
            line("space", prefix_space_note(space));
        }
        if let Some(positions) = &self.positions {
            line("too long", positions.clone());
        }
        for (name, lengths) in [
            ("prompts", &self.prompt_tokens),
            ("responses", &self.response_tokens),
        ] {
            let Lengths {
                mean,
                median,
                p95,
                longest,
                histogram,
            } = lengths;
            line(
                name,
                format!(
                    "mean {mean:.1} tokens, median {median}, 95th percentile {p95}, maximum {longest}"
                ),
            );
            let most = histogram
                .iter()
                .map(|(_, count)| *count)
                .max()
                .unwrap_or(1)
                .max(1);
            for (limit, count) in histogram {
                line(
                    "",
                    format!(
                        "up to {limit:>6} {count:>7} {}",
                        "#".repeat((count * 40).div_ceil(most))
                    ),
                );
            }
        }
        line(
            "epoch",
            format!(
                "{} of {}",
                counted(self.steps_per_epoch, "step"),
                counted(self.batch, "row")
            ),
        );
        line(
            "work",
            format!(
                "{} token positions per epoch; {:.2}x if every response repeated its prompt, {:.2}x if 8 rows were \
                 padded to the longest",
                self.packed_rows,
                self.unshared_rows as f64 / self.packed_rows as f64,
                self.padded_rows as f64 / self.packed_rows as f64
            ),
        );
        line(
            "packs",
            format!(
                "an epoch fills {} of at most {} tokens to {:.1}%; a step is computed pack by pack",
                counted(self.packs, "pack"),
                self.token_budget,
                self.fill * 100.0
            ),
        );
        text
    }
}

/// Loads the file as instruction or preference rows, whichever its columns suggest.
fn load(
    file: &DataFile,
    arguments: &Inspect,
    threads: usize,
    tokenizer: &Tokenizer,
) -> Result<(RowKind, Dataset)> {
    let template = arguments
        .template
        .as_deref()
        .map(|name| plan::template("template", name))
        .transpose()?;
    let map = arguments
        .map
        .as_deref()
        .map_or(Ok(ColumnMap::default()), str::parse)
        .map_err(|error| error.at("map"))?;
    let turns = choice("turns", arguments.turns.as_deref(), Turns::Last)?;
    let Truncation {
        max_length,
        min_prompt,
        rule: too_long,
    } = truncation(
        arguments.max_length.as_ref(),
        arguments.min_prompt.as_ref(),
        arguments.too_long.as_deref(),
    )?;
    let wanted = arguments
        .rows
        .as_ref()
        .map(|rows| count("rows", Some(rows), 0))
        .transpose()?;
    let held_out = number_of("held-out", arguments.held_out.as_ref())?;
    let read = |kind: RowKind| {
        let spec = DataSpec {
            files: vec![file.clone()],
            kind,
            map: map.clone(),
            template: template.clone(),
            template_setting: "--template".into(),
            turns,
            rows: wanted,
            max_length,
            min_prompt,
            too_long,
            threads,
            eval: HeldOut::Fraction(held_out),
        };
        Dataset::load(&spec, tokenizer, &mut |_, _| true).map(|data| (kind, data))
    };
    // The columns of the first row decide the kind, so that errors in later rows refer to that
    // kind.
    let path = &file.shards[0];
    let mut source = source::read_first(path, 1)?;
    map.apply(path, &mut source.rows)?;
    let first = source.rows.first().is_some_and(|row| {
        row.columns.contains_key("chosen")
            || rows::read(path, std::slice::from_ref(row), RowKind::Preference).is_ok()
    });
    read(if first {
        RowKind::Preference
    } else {
        RowKind::Instruction
    })
}

/// Runs the command.
pub(super) fn run(arguments: &Inspect) -> Result<()> {
    if arguments.unpack_all {
        source::unpack_all();
    }
    let token_budget = count("token-budget", arguments.token_budget.as_ref(), 2048)?;
    let batch = arguments
        .batch
        .as_ref()
        .map(|batch| count("batch", Some(batch), 0))
        .transpose()?;
    let threads = threads(arguments.threads.as_ref())?;
    let show = count_from(0, "show", arguments.show.as_ref(), 2)?;
    let wanted = arguments
        .row
        .as_ref()
        .map(|row| count_from(0, "row", Some(row), 0))
        .transpose()?;
    let (hub, mut terminal) = (Hub::from_environment(), Terminal::new());
    let model = hub.tokenizer("model", &arguments.model, &mut terminal)?;
    let model = folder(
        "model",
        &model,
        "give a model folder with config.json and the tokenizer files",
    )?;
    let config = upright_model::config::DecoderConfig::read(&model)?;
    let tokenizer =
        Tokenizer::open(&model, config.eos, config.bos)?.for_vocabulary(config.vocab)?;
    let Some(given) = arguments.data.as_deref() else {
        let (files, show) = (&arguments.comparison, arguments.show.as_ref());
        return similarity::run(files, &hub, &tokenizer, threads, show, arguments.json);
    };
    let file = data_file(&hub, "DATA", given, &mut terminal)?;
    let (kind, data) = load(&file, arguments, threads, &tokenizer)?;
    let batch = batch.unwrap_or(usual_batch(kind == RowKind::Preference));
    let report = Report::of(kind, &data, batch, token_budget, config.max_positions);
    if arguments.json {
        return print_json(&report);
    }
    let mut text = report.text();
    let rows: Vec<&Example> = match wanted {
        Some(wanted) => {
            let row = data
                .train
                .iter()
                .chain(&data.eval)
                .find(|example| example.row == wanted);
            let dropped = data
                .dropped
                .iter()
                .find(|dropped| dropped.rows.contains(&wanted));
            vec![row.ok_or_else(|| {
                let name = file.name();
                match dropped {
                    Some(dropped) => Error::input(format!(
                        "{name}: row {wanted} is dropped: {}",
                        dropped.reason
                    )),
                    None => Error::input(format!("{name}: there is no row {wanted}"))
                        .hint("rows are counted from 0"),
                }
            })?]
        }
        None => data.train.iter().take(show).collect(),
    };
    let color = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    text = visible(&text).into_owned();
    for row in rows {
        text += &shown(row, kind, &data.template, &tokenizer, color)?;
    }
    if color {
        print_as_is(&text)
    } else {
        print(&text)
    }
}

/// Renders one row as it is trained on. Tokens in the loss are colored or in brackets; masked
/// tokens are dimmed or plain.
fn shown(
    row: &Example,
    kind: RowKind,
    template: &Template,
    tokenizer: &Tokenizer,
    color: bool,
) -> Result<String> {
    let mut text = format!(
        "\nrow {}: prompt, {}, masked\n",
        row.row,
        counted(row.prompt.len(), "token")
    );
    let painted = |part: &str, code: &str| {
        let part = visible(part);
        if color {
            format!("\x1b[{code}m{part}\x1b[0m")
        } else {
            part.into_owned()
        }
    };
    text += &painted(&tokenizer.decode(&row.prompt)?, "2");
    text.push('\n');
    let names: &[(&str, &str)] = if kind == RowKind::Preference {
        &[("chosen", "32"), ("rejected", "31")]
    } else {
        &[("response", "32")]
    };
    for (response, (name, code)) in row.responses.iter().zip(names) {
        let (said, closing) = match response.tokens.split_last() {
            Some((last, said)) if template.ends(tokenizer).contains(last) => {
                let closing = if *last == tokenizer.eos() {
                    "<EOS>".to_owned()
                } else {
                    tokenizer.decode(&[*last])?
                };
                (said, closing)
            }
            _ => (&response.tokens[..], "<CUT>".to_owned()),
        };
        let _ = writeln!(
            text,
            "{name}, {} in the loss",
            counted(response.loss_tokens(), "token")
        );
        let mut at = 0;
        let in_loss = |ids: &[u32], closing: &str, text: &mut String| -> Result<()> {
            let marks = if color { ["", ""] } else { ["[", "]"] };
            *text += &format!(
                "{}{}{}{}",
                marks[0],
                painted(&tokenizer.decode(ids)?, code),
                painted(closing, "1"),
                marks[1]
            );
            Ok(())
        };
        for masked in &response.masked {
            if at < masked.start {
                in_loss(&said[at..masked.start], "", &mut text)?;
            }
            text += &painted(&tokenizer.decode(&said[masked.clone()])?, "2");
            at = masked.end;
        }
        in_loss(&said[at..], &closing, &mut text)?;
        text.push('\n');
    }
    text += &special_tokens(row, tokenizer)?;
    Ok(text)
}

/// Lists what the text of a row does not show: the ids of its special tokens, and text that looks
/// like a special token but is split into several tokens.
fn special_tokens(row: &Example, tokenizer: &Tokenizer) -> Result<String> {
    let mut parts = vec![&row.prompt];
    for response in &row.responses {
        parts.push(&response.tokens);
    }
    let mut whole: Vec<String> = Vec::new();
    let mut split: Vec<String> = Vec::new();
    for ids in parts {
        for (index, &id) in ids.iter().enumerate() {
            if tokenizer.is_added(id) {
                let entry = format!("{id} {}", tokenizer.decode(&[id])?);
                if !whole.contains(&entry) {
                    whole.push(entry);
                }
            } else if let Some(length) = marked_length(&ids[index..], tokenizer)? {
                let pieces = &ids[index..index + length];
                let listed: Vec<String> = pieces.iter().map(u32::to_string).collect();
                let entry = format!(
                    "{} = {}",
                    tokenizer.decode(pieces)?.trim(),
                    listed.join(" ")
                );
                if !split.contains(&entry) {
                    split.push(entry);
                }
            }
        }
    }
    let mut text = String::new();
    if !whole.is_empty() {
        let _ = writeln!(text, "special tokens by id: {}", whole.join(", "));
    }
    if !split.is_empty() {
        let _ = writeln!(
            text,
            "looks like a special token, but the tokenizer splits it: {}",
            split.join(", ")
        );
    }
    Ok(text)
}

/// How many of the first ids spell something like `<|im_end|>`, the usual form of a special token.
/// `None` if they do not, or if it is a single token.
fn marked_length(ids: &[u32], tokenizer: &Tokenizer) -> Result<Option<usize>> {
    const MOST: usize = 24;
    let mut is_open = false;
    for length in 1..=ids.len().min(MOST) {
        let text = tokenizer.decode(&ids[..length])?;
        let text = text.trim_start();
        // White space before a mark is no part of it, and a special token after it is whole.
        if text.is_empty() || tokenizer.is_added(ids[length - 1]) {
            return Ok(None);
        }
        if !is_open && !"<|".starts_with(text.get(..2.min(text.len())).unwrap_or("x")) {
            return Ok(None);
        }
        is_open |= text.starts_with("<|");
        if is_open && text.len() > 4 && text.ends_with("|>") {
            return Ok((length > 1).then_some(length));
        }
        if text.contains(char::is_whitespace) {
            return Ok(None);
        }
    }
    Ok(None)
}

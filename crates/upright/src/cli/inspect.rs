//! `upright inspect`: what a run would train on, before an hour is spent on it.

use std::{fmt::Write, io::IsTerminal, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{print, print_as_is, print_json, similarity, terminal::Terminal, visible};
use upright_base::{Error, Result};
use upright_data::{
    ColumnMap, DataFile, DataSpec, Dataset, Dropped, Example, HeldOut, RowKind, Template,
    Tokenizer, Truncation, Turns, bos_note, prefix_space_note, rows, source,
};
use upright_hub::Hub;
use upright_runs::{
    plan::{
        self,
        checks::{HELD_OUT, choice, count, count_from, folder, held_out, threads, truncation},
    },
    settings::Number,
};
use upright_train::fetch::data_file;
use upright_train::packing;

/// Shows what a run would see of a file of rows.
#[derive(Args, Clone, Debug)]
pub(super) struct Inspect {
    /// Instruction or preference rows, a file or an id on the hub; which kind is found from the columns.
    #[arg(value_name = "DATA", required_unless_present = "similarity")]
    data: Option<PathBuf>,
    /// Model folder, or an id on the hub: its tokenizer is used.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Template: chat (the model's own; chat:NAME, chat@YYYY-MM-DD), alpaca, user-assistant, raw, or a .jinja file [default:
    /// by the rows]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Columns under other names, as prompt=question,chosen=good; tools= leaves one out
    #[arg(long, value_name = "NAME=COLUMN,...")]
    map: Option<String>,
    /// Turns of a conversation that are trained: last, all [default: last]
    #[arg(long, value_name = "TURNS")]
    turns: Option<String>,
    /// Most tokens of prompt and response together [default: 2048]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_length: Option<Number>,
    /// Tokens of a prompt that cutting leaves [default: 64, at most a quarter of --max-length]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    min_prompt: Option<Number>,
    /// What happens to a row that is too long, as in training: cut-prompt, cut-response, drop [default: cut-prompt]
    #[arg(long, value_name = "RULE")]
    too_long: Option<String>,
    /// Read compressed rows whatever they unpack to [default: up to 64 MB, or 100 times the file; Parquet 1000 times]
    #[arg(long)]
    unpack_all: bool,
    /// Use the first N rows of the file, or of the split on the hub [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    rows: Option<Number>,
    /// Share of prompts that is held out [default: 0.05]
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    held_out: Option<Number>,
    /// Tokens of a pack [default: 2048]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    token_budget: Option<Number>,
    /// Show this many rows as they are trained on [default: 2], or pairs that contradict each other [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    show: Option<Number>,
    /// Show this row of the file, counted from 0
    #[arg(long, value_name = "ROW", allow_hyphen_values = true)]
    row: Option<Number>,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    threads: Option<Number>,
    /// Print one JSON object, without the rows.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    comparison: similarity::Similarity,
}

/// What there is to know of a file.
#[derive(Debug, Serialize)]
struct Report {
    kind: &'static str,
    dialect: String,
    unread: Vec<String>,
    template: String,
    train_rows: usize,
    eval_rows: usize,
    dropped: Vec<Dropped>,
    truncated_prompts: usize,
    truncated_responses: usize,
    /// Whether prompts begin with BOS, where the tokenizer's files disagree.
    contested_bos: Option<bool>,
    /// Whether texts begin with a space, where the tokenizer's files disagree.
    contested_prefix_space: Option<bool>,
    /// Says how many rows are longer than the model's positions, where any is.
    positions: Option<String>,
    /// Rows that think before they answer, which the template has no words for.
    reasoning_left_out: usize,
    prompt_tokens: Lengths,
    response_tokens: Lengths,
    /// Rows of the model a pass over the training rows takes: packed, with prompts shared.
    packed_rows: usize,
    /// The same with every response after a prompt of its own.
    unshared_rows: usize,
    /// The same padded to the longest of each 8 rows in file order.
    padded_rows: usize,
    packs: usize,
    /// Share of the packs' budget that is filled.
    fill: f64,
}

/// Lengths of many sequences.
#[derive(Debug, Serialize)]
struct Lengths {
    mean: f64,
    median: usize,
    p95: usize,
    longest: usize,
    /// Sequences of up to 16, 32, 64, ... tokens; the last holds the rest.
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
    fn of(kind: RowKind, data: &Dataset, token_budget: usize, positions: usize) -> Self {
        let rows: Vec<&Example> = data.train.iter().collect();
        let whole = |row: &Example| {
            row.responses
                .iter()
                .map(|r| row.prompt.len() + r.len() - 1)
                .collect::<Vec<_>>()
        };
        let packs = packing::pack(&rows, token_budget);
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
            truncated_prompts: data.truncated_prompts,
            truncated_responses: data.truncated_responses,
            reasoning_left_out: data.reasoning_left_out,
            contested_bos: data.contested_bos,
            contested_prefix_space: data.contested_prefix_space,
            positions: data.positions_note(positions),
            prompt_tokens: Lengths::of(rows.iter().map(|row| row.prompt.len()).collect()),
            response_tokens: Lengths::of(
                rows.iter()
                    .flat_map(|row| row.responses.iter().map(Vec::len))
                    .collect(),
            ),
            packed_rows,
            unshared_rows: rows.iter().flat_map(|row| whole(row)).sum(),
            padded_rows: rows.chunks(8).map(padded).sum(),
            packs: packs.len(),
            fill: packed_rows as f64 / (packs.len() * token_budget) as f64,
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
                "{} {} rows, dialect {}",
                self.train_rows + self.eval_rows,
                self.kind,
                self.dialect
            ),
        );
        if !self.unread.is_empty() {
            line(
                "not read",
                format!("the columns {}", rows::listed(self.unread.iter())),
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
                "cut to fit",
                format!(
                    "{} prompts, {} responses",
                    self.truncated_prompts, self.truncated_responses
                ),
            );
        }
        if self.reasoning_left_out > 0 {
            line(
                "left out",
                format!(
                    "the reasoning of {} rows, for which the template has no words",
                    self.reasoning_left_out
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
                    "{mean:.1} tokens on average, median {median}, 95% up to {p95}, longest {longest}"
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
            "work",
            format!(
                "{} positions an epoch; {:.2} times as many without shared prompts, {:.2} times padded",
                self.packed_rows,
                self.unshared_rows as f64 / self.packed_rows as f64,
                self.padded_rows as f64 / self.packed_rows as f64
            ),
        );
        line(
            "packs",
            format!("{}, filled to {:.1}%", self.packs, self.fill * 100.0),
        );
        text
    }
}

/// Reads the file as what its columns say it is.
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
    let held_out = held_out(arguments.held_out.as_ref(), HELD_OUT)?;
    let read = |kind: RowKind| {
        let spec = DataSpec {
            files: vec![file.clone()],
            kind,
            map: map.clone(),
            template: template.clone(),
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
    // The first row's columns say which kind it is; only then is a row that does not fit an error worth hearing.
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
    let threads = threads(arguments.threads.as_ref())?;
    let show = count_from(0, "show", arguments.show.as_ref(), 2)?;
    let wanted = arguments
        .row
        .as_ref()
        .map(|row| count_from(0, "row", Some(row), 0))
        .transpose()?;
    let (hub, mut terminal) = (Hub::from_environment(), Terminal::new());
    let model = hub.tokenizer(&arguments.model, &mut terminal)?;
    let model = folder(
        "model",
        &model,
        "give the folder of a model, of which config.json and the tokenizer are read",
    )?;
    let config = upright_model::config::DecoderConfig::read(&model)?;
    let tokenizer =
        Tokenizer::open(&model, config.eos, config.bos)?.for_vocabulary(config.vocab)?;
    let Some(given) = arguments.data.as_deref() else {
        let (files, show) = (&arguments.comparison, arguments.show.as_ref());
        return similarity::run(files, &hub, &tokenizer, threads, show, arguments.json);
    };
    let file = data_file(&hub, given, &mut terminal)?;
    let (kind, data) = load(&file, arguments, threads, &tokenizer)?;
    let report = Report::of(kind, &data, token_budget, config.max_positions);
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
                        .hint("rows count from 0"),
                }
            })?]
        }
        None => data.train.iter().take(show).collect(),
    };
    let colour = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    text = visible(&text).into_owned();
    for row in rows {
        text += &shown(row, kind, &data.template, &tokenizer, colour)?;
    }
    if colour {
        print_as_is(&text)
    } else {
        print(&text)
    }
}

/// One row as it is trained on: what is read in plain, what is scored in colour or between marks.
fn shown(
    row: &Example,
    kind: RowKind,
    template: &Template,
    tokenizer: &Tokenizer,
    colour: bool,
) -> Result<String> {
    let mut text = format!(
        "\nrow {}: prompt, {} tokens, read only\n",
        row.row,
        row.prompt.len()
    );
    let painted = |part: &str, code: &str| {
        let part = visible(part);
        if colour {
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
    for (index, (name, code)) in names.iter().enumerate().take(row.responses.len()) {
        let response = &row.responses[index];
        let (said, closing) = match response.split_last() {
            Some((last, said)) if template.ends(tokenizer).contains(last) => {
                let closing = if *last == tokenizer.eos() {
                    "<EOS>".to_owned()
                } else {
                    tokenizer.decode(&[*last])?
                };
                (said, closing)
            }
            _ => (&response[..], "<CUT>".to_owned()),
        };
        let _ = writeln!(text, "{name}, {} tokens, scored", row.scored(index));
        let mut at = 0;
        let scored = |ids: &[u32], closing: &str, text: &mut String| -> Result<()> {
            let marks = if colour { ["", ""] } else { ["[", "]"] };
            *text += &format!(
                "{}{}{}{}",
                marks[0],
                painted(&tokenizer.decode(ids)?, code),
                painted(closing, "1"),
                marks[1]
            );
            Ok(())
        };
        for read in row.read_of(index) {
            if at < read.start {
                scored(&said[at..read.start], "", &mut text)?;
            }
            text += &painted(&tokenizer.decode(&said[read.clone()])?, "2");
            at = read.end;
        }
        scored(&said[at..], &closing, &mut text)?;
        text.push('\n');
    }
    text += &special_tokens(row, tokenizer)?;
    Ok(text)
}

/// Ids that the text of a row hides: those of its special tokens, and those of text that looks like a special token and is
/// split into several.
fn special_tokens(row: &Example, tokenizer: &Tokenizer) -> Result<String> {
    let parts: Vec<&[u32]> = std::iter::once(&row.prompt)
        .chain(&row.responses)
        .map(Vec::as_slice)
        .collect();
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

/// How many of the first ids spell something like `<|im_end|>`: a mark that a special token would be written as.
fn marked_length(ids: &[u32], tokenizer: &Tokenizer) -> Result<Option<usize>> {
    const MOST: usize = 24;
    let mut is_open = false;
    for length in 1..=ids.len().min(MOST) {
        let text = tokenizer.decode(&ids[..length])?;
        let text = text.trim_start();
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

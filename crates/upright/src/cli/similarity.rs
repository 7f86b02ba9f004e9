//! `upright inspect --similarity`: how similar an instruction file and a preference file are, and
//! where they conflict (Figure 6).

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{make_out, print, print_json, terminal::Terminal};
use crate::similarity::{Pair, Texts, conflicts, figure::figure, similarity, text};
use upright_base::{Error, Result, counted, files};
use upright_data::{ColumnMap, RowKind, Tokenizer, conversation::Row};
use upright_hub::Hub;
use upright_runs::settings::{
    Number,
    checks::{count, count_from},
};
use upright_train::fetch::data_file;

/// Flags of the comparison.
#[derive(Args, Clone, Debug)]
pub(super) struct Similarity {
    /// Compare an instruction file with a preference file, row by row (Figure 6 of the paper)
    #[arg(long, requires_all = ["sft", "dpo"], help_heading = "Comparison of two files",
          conflicts_with_all = ["data", "map", "template", "turns", "max_length", "min_prompt", "too_long", "rows",
          "held_out", "token_budget", "row"])]
    pub(super) similarity: bool,
    /// Instruction rows: a file or a Hub dataset
    #[arg(
        long,
        value_name = "DATA",
        requires = "similarity",
        help_heading = "Comparison of two files"
    )]
    sft: Option<PathBuf>,
    /// Preference rows: a file or a Hub dataset
    #[arg(
        long,
        value_name = "DATA",
        requires = "similarity",
        help_heading = "Comparison of two files"
    )]
    dpo: Option<PathBuf>,
    /// Rename columns of the instruction rows, e.g. prompt=question,completion=answer [default: no
    /// renaming]
    #[arg(
        long,
        value_name = "NAME=COLUMN,...",
        requires = "similarity",
        help_heading = "Comparison of two files"
    )]
    sft_map: Option<String>,
    /// Rename columns of the preference rows, e.g. prompt=question,chosen=good,rejected=bad
    /// [default: no renaming]
    #[arg(
        long,
        value_name = "NAME=COLUMN,...",
        requires = "similarity",
        help_heading = "Comparison of two files"
    )]
    dpo_map: Option<String>,
    /// Use the first N usable instruction rows [default: all]
    #[arg(
        long,
        value_name = "N",
        allow_hyphen_values = true,
        requires = "similarity",
        help_heading = "Comparison of two files"
    )]
    sft_rows: Option<Number>,
    /// Use the first N usable preference rows [default: all]
    #[arg(
        long,
        value_name = "N",
        allow_hyphen_values = true,
        requires = "similarity",
        help_heading = "Comparison of two files"
    )]
    dpo_rows: Option<Number>,
    /// Write the figure, and one JSON line per pair, to this folder
    #[arg(
        long,
        value_name = "DIR",
        requires = "similarity",
        help_heading = "Comparison of two files"
    )]
    out: Option<PathBuf>,
}

/// Quantiles of a similarity over the pairs.
#[derive(Debug, Serialize)]
struct Quantiles {
    p5: f64,
    p25: f64,
    median: f64,
    p75: f64,
    p95: f64,
}

impl Quantiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Self {
            p5: at(0.05),
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
        }
    }
}

/// A conflicting pair with its texts.
#[derive(Debug, Serialize)]
struct Conflict {
    #[serde(flatten)]
    pair: Pair,
    dpo_prompt: String,
    sft_prompt: String,
    chosen_answer: String,
    rejected_answer: String,
    sft_answer: String,
}

#[derive(Debug, Serialize)]
struct Report {
    sft_rows: usize,
    dpo_rows: usize,
    prompts: Quantiles,
    chosen: Quantiles,
    rejected: Quantiles,
    chosen_rejected: Quantiles,
    /// Pairs with similar prompts and different responses, the worst first.
    conflicts: Vec<Conflict>,
}

impl Report {
    fn of(pairs: &[Pair], sft: &Texts, dpo: &Texts, shown: usize) -> Self {
        let over = |value: fn(&Pair) -> f64| Quantiles::of(pairs.iter().map(value).collect());
        Self {
            sft_rows: sft.rows.len(),
            dpo_rows: dpo.rows.len(),
            prompts: over(|pair| pair.prompts),
            chosen: over(|pair| pair.chosen),
            rejected: over(|pair| pair.rejected),
            chosen_rejected: over(|pair| pair.chosen_rejected),
            conflicts: conflicts(pairs, shown)
                .into_iter()
                .map(|pair| Conflict::of(pair, sft, dpo))
                .collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}, each with the nearest of {}: cosine similarity of token counts\n\n",
            counted(self.dpo_rows, "preference row"),
            counted(self.sft_rows, "instruction row")
        );
        let _ = writeln!(
            text,
            "{:32} {:>7} {:>7} {:>7} {:>7} {:>7}",
            "", "5%", "25%", "median", "75%", "95%"
        );
        for (name, q) in [
            ("prompts", &self.prompts),
            ("chosen vs. SFT response", &self.chosen),
            ("rejected vs. SFT response", &self.rejected),
            ("chosen vs. rejected", &self.chosen_rejected),
        ] {
            let Quantiles {
                p5,
                p25,
                median,
                p75,
                p95,
            } = q;
            let _ = writeln!(
                text,
                "{name:32} {p5:>7.3} {p25:>7.3} {median:>7.3} {p75:>7.3} {p95:>7.3}"
            );
        }
        if !self.conflicts.is_empty() {
            text += "\nMost similar prompts with the most different responses, \
                     by prompts x (1 - chosen):\n";
        }
        for conflict in &self.conflicts {
            let Pair {
                dpo_row,
                sft_row,
                prompts,
                chosen,
                rejected,
                ..
            } = conflict.pair;
            let _ = writeln!(
                text,
                "\nprompts {prompts:.3}, chosen {chosen:.3}, rejected {rejected:.3}\n  dpo row {dpo_row:<7} {}\n  sft row \
                 {sft_row:<7} {}\n  chosen          {}\n  rejected        {}\n  sft response    {}",
                excerpt(&conflict.dpo_prompt),
                excerpt(&conflict.sft_prompt),
                excerpt(&conflict.chosen_answer),
                excerpt(&conflict.rejected_answer),
                excerpt(&conflict.sft_answer)
            );
        }
        text
    }
}

impl Conflict {
    fn of(pair: Pair, sft: &Texts, dpo: &Texts) -> Self {
        let row = |texts: &'_ Texts, index: usize| -> Row {
            let at = texts
                .rows
                .binary_search_by_key(&index, |row| row.index)
                .expect("a pair's rows are the files'");
            texts.rows[at].clone()
        };
        let (instruction, preference) = (row(sft, pair.sft_row), row(dpo, pair.dpo_row));
        let answer = |row: &Row, i: usize| row.responses[i].content.trim().to_owned();
        Self {
            pair,
            dpo_prompt: text(&preference.prompt),
            sft_prompt: text(&instruction.prompt),
            chosen_answer: answer(&preference, 0),
            rejected_answer: answer(&preference, 1),
            sft_answer: answer(&instruction, 0),
        }
    }
}

/// The beginning of a text, on one line and without control characters.
fn excerpt(text: &str) -> String {
    const MOST: usize = 90;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn map(key: &str, written: &Option<String>) -> Result<ColumnMap> {
    written
        .as_deref()
        .map_or(Ok(ColumnMap::default()), str::parse)
        .map_err(|error: Error| error.at(key))
}

/// Runs the comparison; `show` pairs are listed.
pub(super) fn run(
    arguments: &Similarity,
    hub: &Hub,
    tokenizer: &Tokenizer,
    threads: usize,
    show: Option<&Number>,
    json: bool,
) -> Result<()> {
    let (Some(sft), Some(dpo)) = (&arguments.sft, &arguments.dpo) else {
        return Err(
            Error::input("--similarity needs --sft and --dpo").hint("give one file of each")
        );
    };
    let show = count_from(0, "show", show, 5)?;
    let sft_rows = count("sft-rows", arguments.sft_rows.as_ref(), usize::MAX)?;
    let dpo_rows = count("dpo-rows", arguments.dpo_rows.as_ref(), usize::MAX)?;
    if let Some(out) = &arguments.out {
        make_out(out)?;
    }
    let mut terminal = Terminal::new();
    let sft = data_file(hub, "sft", sft, &mut terminal)?;
    let dpo = data_file(hub, "dpo", dpo, &mut terminal)?;
    let sft = Texts::read(
        &sft,
        &map("sft-map", &arguments.sft_map)?,
        RowKind::Instruction,
        sft_rows,
    )?;
    let dpo = Texts::read(
        &dpo,
        &map("dpo-map", &arguments.dpo_map)?,
        RowKind::Preference,
        dpo_rows,
    )?;
    let pairs = similarity(&sft, &dpo, tokenizer, threads, &mut terminal)?;
    let mut picture = None;
    if let Some(out) = &arguments.out {
        let line = |pair: &Pair| serde_json::to_string(pair).map(|line| line + "\n");
        let lines = pairs
            .iter()
            .map(line)
            .collect::<std::result::Result<String, _>>();
        let lines = lines.map_err(|error| Error::failure(error.to_string()))?;
        files::write_atomic(&out.join("similarity.jsonl"), lines.as_bytes())?;
        picture = Some(figure(&pairs).save(out, "similarity")?);
    }
    let report = Report::of(&pairs, &sft, &dpo, show);
    if json {
        return print_json(&report);
    }
    let mut text = report.text();
    if let Some(picture) = picture {
        let _ = writeln!(text, "\nfigure: {}", picture.display());
    }
    print(&text)
}

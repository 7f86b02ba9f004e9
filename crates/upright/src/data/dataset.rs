//! A file of rows as a training set, a held-out set, and the fixed samples of both that evaluations score.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::encode::{Encoded, encode};
use super::rows::{self, Dropped, Kind, Row, Rows};
use super::{Example, Template, Tokenizer, TooLong, Truncation, source};
use crate::{Error, Result};

/// Dropped rows that are named one by one.
const NAMED: usize = 5;

/// Where held-out rows come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    /// About this share of the prompts, picked by a hash of each prompt: rows that are added move no other row, and no
    /// prompt is on both sides. If there are two prompts or more, each side gets at least one. 0 holds nothing out.
    Fraction(f64),
    /// All rows of another file of the same kind; rows with one of its prompts are not trained on.
    File(PathBuf),
}

impl Default for Held {
    fn default() -> Self {
        Self::Fraction(0.05)
    }
}

/// What to load, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// The file of rows.
    pub path: PathBuf,
    /// What its rows are wanted for.
    pub kind: Kind,
    /// The template; `None` for [`Template::default_for`] the rows.
    pub template: Option<Template>,
    /// Use the first so many usable rows, before any are held out; `None` for all.
    pub rows: Option<usize>,
    /// Most tokens of prompt, response and EOS together.
    pub max_length: usize,
    /// See [`Truncation::min_prompt`].
    pub min_prompt: usize,
    /// What gives way in rows that are too long.
    pub too_long: TooLong,
    /// Where held-out rows come from.
    pub eval: Held,
}

/// Rows ready to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Rows to train on, in file order, at least one.
    pub train: Vec<Example>,
    /// Held-out rows, in file order; may be none.
    pub eval: Vec<Example>,
    /// The template used.
    pub template: Template,
    /// Name of the dialect that the file is in.
    pub dialect: &'static str,
    /// Rows of the file that are not used, by reason.
    pub dropped: Vec<Dropped>,
    /// The same of the file of held-out rows, where there is one.
    pub eval_dropped: Vec<Dropped>,
    /// Rows, of both sides, whose prompt was cut to fit.
    pub truncated_prompts: usize,
    /// Responses, of both sides, that were cut to fit and have no EOS.
    pub truncated_responses: usize,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the file of held-out rows, where there is one.
    pub eval_sha256: Option<String>,
    train_hashes: Vec<u64>,
    eval_hashes: Vec<u64>,
}

/// A usable row with the hash of its prompt.
type Hashed = (u64, Example);

/// One file, encoded.
#[derive(Default)]
struct Part {
    usable: Vec<Hashed>,
    dropped: Vec<Dropped>,
    prompts_cut: usize,
    responses_cut: usize,
}

impl Dataset {
    /// Reads, renders, tokenises, fits and divides a file's rows. `progress` is called with rows done and rows in all.
    ///
    /// # Errors
    /// The file cannot be read or understood, a setting is impossible, or no row is usable.
    pub fn load(spec: &DataSpec, tokenizer: &Tokenizer, progress: &mut dyn FnMut(usize, usize)) -> Result<Self> {
        check(spec)?;
        let (main, sha256) = read(&spec.path, spec.kind)?;
        let template = spec.template.unwrap_or_else(|| Template::default_for(&main.rows));
        let other = match &spec.eval {
            Held::File(path) => Some((path, read(path, spec.kind)?)),
            Held::Fraction(_) => None,
        };
        let wanted = spec.rows.unwrap_or(usize::MAX);
        let main_total = main.rows.len().min(wanted);
        let total = main_total + other.as_ref().map_or(0, |(_, (rows, _))| rows.rows.len());

        let dialect = main.dialect;
        let mut part = Part::encode(&spec.path, main, wanted, spec, template, tokenizer, &mut |done| {
            progress(done.min(main_total), total);
        })?;
        let (mut eval_dropped, mut eval_sha256) = (Vec::new(), None);
        let (train, eval) = match (&spec.eval, other) {
            (Held::File(_), Some((path, (rows, sha256)))) => {
                let held = Part::encode(path, rows, usize::MAX, spec, template, tokenizer, &mut |done| {
                    progress(main_total + done, total);
                })?;
                part.prompts_cut += held.prompts_cut;
                part.responses_cut += held.responses_cut;
                (eval_dropped, eval_sha256) = (held.dropped, Some(sha256));
                (part.without(&held.usable, path, &spec.path)?, held.usable)
            }
            (Held::Fraction(fraction), _) => carve(std::mem::take(&mut part.usable), *fraction),
            (Held::File(_), None) => unreachable!("the file was read above"),
        };
        let (train_hashes, train) = train.into_iter().unzip();
        let (eval_hashes, eval) = eval.into_iter().unzip();
        Ok(Self {
            train,
            eval,
            template,
            dialect,
            dropped: part.dropped,
            eval_dropped,
            truncated_prompts: part.prompts_cut,
            truncated_responses: part.responses_cut,
            sha256,
            eval_sha256,
            train_hashes,
            eval_hashes,
        })
    }

    /// What became of the file, in one line.
    pub fn describe(&self, name: &str) -> String {
        let held_out = match self.eval.len() {
            0 => String::new(),
            held_out => format!(" to train on, {held_out} held out"),
        };
        let (rows, dialect, template) = (self.train.len(), self.dialect, self.template);
        let mut text = format!("{name}: {rows} rows{held_out} (dialect {dialect}, template {template})");
        for dropped in self.dropped.iter().chain(&self.eval_dropped) {
            let named: Vec<String> = dropped.rows.iter().take(NAMED).map(usize::to_string).collect();
            let more = if dropped.rows.len() > NAMED { ", ..." } else { "" };
            text += &format!("; {} dropped, {}: row {}{more}", dropped.rows.len(), dropped.reason, named.join(", "));
        }
        if self.truncated_prompts + self.truncated_responses > 0 {
            text +=
                &format!("; cut to fit: {} prompts, {} responses", self.truncated_prompts, self.truncated_responses);
        }
        text
    }

    /// A fixed sample of at most `n` training rows, in file order: those whose prompts have the smallest hashes.
    pub fn fit(&self, n: usize) -> Vec<&Example> {
        sample(&self.train, &self.train_hashes, n)
    }

    /// At most `n` of the held-out rows, picked in the same way.
    pub fn eval(&self, n: usize) -> Vec<&Example> {
        sample(&self.eval, &self.eval_hashes, n)
    }
}

fn sample<'a>(examples: &'a [Example], hashes: &[u64], n: usize) -> Vec<&'a Example> {
    let mut picked: Vec<usize> = (0..examples.len()).collect();
    picked.sort_by_key(|&index| (hashes[index], index));
    picked.truncate(n);
    picked.sort_unstable();
    picked.into_iter().map(|index| &examples[index]).collect()
}

fn check(spec: &DataSpec) -> Result<()> {
    spec.truncation().check()?;
    if spec.rows == Some(0) {
        return Err(Error::input(format!("{}: 0 rows are asked for", spec.path.display()))
            .hint("ask for at least one, or leave the number out to use all"));
    }
    match spec.eval {
        Held::Fraction(fraction) if !(0.0..1.0).contains(&fraction) => {
            Err(Error::input(format!("{}: a share of {fraction} cannot be held out", spec.path.display()))
                .hint("give a number from 0 to below 1; 0.05 is usual"))
        }
        _ => Ok(()),
    }
}

impl DataSpec {
    fn truncation(&self) -> Truncation {
        Truncation { max_length: self.max_length, min_prompt: self.min_prompt, rule: self.too_long }
    }
}

fn read(path: &Path, kind: Kind) -> Result<(Rows, String)> {
    let source = source::read(path)?;
    Ok((rows::read(path, &source.rows, kind)?, source.sha256))
}

impl Part {
    fn encode(
        path: &Path,
        rows: Rows,
        wanted: usize,
        spec: &DataSpec,
        template: Template,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut part = Self { dropped: rows.dropped, ..Self::default() };
        let mut left: &[Row] = &rows.rows;
        let mut done = 0;
        // A row may turn out unusable only here, so the first `wanted` usable ones can take more than one round.
        while part.usable.len() < wanted && !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(wanted - part.usable.len()));
            let encoded = encode(now, template, tokenizer, &spec.truncation(), &mut |more| progress(done + more))
                .map_err(|mut error| {
                    error.message = format!("{}: {}", path.display(), error.message);
                    error
                })?;
            for (row, encoded) in now.iter().zip(encoded) {
                part.take(row, if spec.kind == Kind::Chosen { encoded.chosen_alone(tokenizer.eos()) } else { encoded });
            }
            done += now.len();
            left = later;
        }
        if part.usable.is_empty() {
            return Err(part.nothing_left(path));
        }
        // Rows beyond the last one used are not looked at, so they are not dropped either.
        if let Some(first_unused) = left.first() {
            for entry in &mut part.dropped {
                entry.rows.retain(|&row| row < first_unused.index);
            }
            part.dropped.retain(|entry| !entry.rows.is_empty());
        }
        part.dropped.iter_mut().for_each(|entry| entry.rows.sort_unstable());
        Ok(part)
    }

    fn take(&mut self, row: &Row, encoded: Encoded) {
        match encoded {
            Encoded::Usable { example, prompt_hash, prompt_cut, responses_cut } => {
                self.prompts_cut += usize::from(prompt_cut);
                self.responses_cut += responses_cut;
                self.usable.push((prompt_hash, example));
            }
            Encoded::Dropped(reason) => Dropped::add(&mut self.dropped, reason, row.index),
        }
    }

    fn nothing_left(&self, path: &Path) -> Error {
        let total: usize = self.dropped.iter().map(|entry| entry.rows.len()).sum();
        let reasons: Vec<String> =
            self.dropped.iter().map(|entry| format!("{} {}", entry.rows.len(), entry.reason)).collect();
        Error::input(format!("{}: none of {total} rows is usable: {}", path.display(), reasons.join("; ")))
            .hint("look at the first rows: are prompt and response where this dialect has them?")
    }

    /// The rows whose prompts are not held out; the others are dropped by name.
    fn without(&mut self, held: &[Hashed], held_path: &Path, path: &Path) -> Result<Vec<Hashed>> {
        let held: HashSet<u64> = held.iter().map(|(hash, _)| *hash).collect();
        let (out, train): (Vec<Hashed>, Vec<Hashed>) =
            std::mem::take(&mut self.usable).into_iter().partition(|(hash, _)| held.contains(hash));
        for (_, example) in out {
            Dropped::add(&mut self.dropped, &format!("prompt is held out in {}", held_path.display()), example.row);
        }
        if train.is_empty() { Err(self.nothing_left(path)) } else { Ok(train) }
    }
}

/// Divides rows into those to train on and those held out.
fn carve(rows: Vec<Hashed>, fraction: f64) -> (Vec<Hashed>, Vec<Hashed>) {
    let prompts: BTreeSet<u64> = rows.iter().map(|(hash, _)| *hash).collect();
    let (Some(&first), Some(&last)) = (prompts.first(), prompts.last()) else { return (rows, Vec::new()) };
    if fraction == 0.0 || first == last {
        return (rows, Vec::new());
    }
    // The top 53 bits are exact as a float. With few prompts the share could be none or all of them.
    let share = |hash: u64| (hash >> 11) as f64 / (1_u64 << 53) as f64;
    rows.into_iter().partition(|(hash, _)| *hash != first && (*hash == last || share(*hash) >= fraction))
}

#[cfg(test)]
mod tests;

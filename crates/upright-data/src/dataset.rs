//! Turns files of rows into a training set, a held-out set, and fixed samples of both for
//! evaluation.

mod notes;

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::conversation::Row;
use super::encode::{Encoded, Encoder, encode};
use super::rows::{ColumnMap, Dropped, RowKind, Rows};
use super::{
    DataFile, Example, Template, TemplateName, Tokenizer, TooLong, Truncation, Turns, sha256_hex,
    split,
};
use upright_base::{Error, Result, files};

pub use notes::{FEW_HELD_OUT, bos_note, prefix_space_note};

/// Where held-out rows come from.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldOut {
    /// About this fraction of the prompts, chosen by a hash of each prompt's opening words. New
    /// rows move no other row to the other side, and neither does a template. No prompt is on both
    /// sides. With two prompts or more, each side gets at least one. 0 holds nothing out.
    Fraction(f64),
    /// All rows of another file of the same kind. Rows with one of its prompts are not trained on.
    File(DataFile),
}

impl Default for HeldOut {
    fn default() -> Self {
        Self::Fraction(0.05)
    }
}

/// What to load, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// The files of rows, at least one, in one dialect or in several.
    pub files: Vec<DataFile>,
    /// What their rows are used for.
    pub kind: RowKind,
    /// Renamed columns.
    pub map: ColumnMap,
    /// The template; `None` for [`Template::default_for`] the rows.
    pub template: Option<TemplateName>,
    /// The setting that names a template, for errors: `--sft-template`.
    pub template_setting: String,
    /// Which turns of a conversation are trained on.
    pub turns: Turns,
    /// Use at most this many usable rows of each of `files`, the first ones, before any are held
    /// out; `None` for all.
    pub rows: Option<usize>,
    /// Maximum number of tokens of prompt, response and EOS together.
    pub max_length: usize,
    /// See [`Truncation::min_prompt`].
    pub min_prompt: usize,
    /// What to truncate in rows that are too long. If several turns are trained on,
    /// [`TooLong::CutPrompt`] truncates the end.
    pub too_long: TooLong,
    /// Where held-out rows come from.
    pub eval: HeldOut,
    /// Number of threads that encode rows; it does not change the result.
    pub threads: usize,
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
    /// Name of the file's dialect; of several dialects, each once.
    pub dialect: String,
    /// Columns that the dialects ignore.
    pub unread: Vec<String>,
    /// Rows of the files that are not used, by reason.
    pub dropped: Vec<Dropped>,
    /// Rows of the file of held-out rows that are not used, if there is such a file.
    pub eval_dropped: Vec<Dropped>,
    /// Rows, on both sides, whose prompt or a response is truncated.
    pub truncated_rows: usize,
    /// Rows, on both sides, whose prompt is truncated.
    pub truncated_prompts: usize,
    /// Responses, on both sides, that are truncated and have no EOS.
    pub truncated_responses: usize,
    /// Rows, on both sides, whose responses have reasoning that the template does not support.
    pub reasoning_left_out: usize,
    /// Whether prompts start with BOS, if the tokenizer's files disagree about it
    /// ([`Tokenizer::contested_bos`]).
    pub contested_bos: Option<bool>,
    /// SHA-256 of the file; for several files, of their hashes and shares.
    pub sha256: String,
    /// SHA-256 of the file of held-out rows, if there is one.
    pub eval_sha256: Option<String>,
    /// SHA-256 of the rows as they are trained on and evaluated: tokens, masked ranges, and the
    /// side of each row.
    pub encoded_sha256: String,
    /// Whether texts start with a space, if the tokenizer's files disagree about it
    /// ([`Tokenizer::contested_prefix_space`]).
    pub contested_prefix_space: Option<bool>,
    /// Whether nothing was held out although a fraction was requested, because all rows open with
    /// the same words.
    pub opens_alike: bool,
    /// Hashes of the prompts of the training rows, without the rows that are repeated for shares:
    /// these come last.
    train_hashes: Vec<u64>,
    eval_hashes: Vec<u64>,
    /// Usable rows and their responses, among which the truncated ones are counted.
    encoded_rows: usize,
    encoded_responses: usize,
}

/// A usable row with the hash of its prompt.
type Hashed = (u64, Example);

/// One file, encoded.
#[derive(Default)]
struct FileRows {
    usable: Vec<Hashed>,
    dropped: Vec<Dropped>,
    rows: usize,
    responses: usize,
    rows_cut: usize,
    prompts_cut: usize,
    responses_cut: usize,
    reasoning_left_out: usize,
}

impl Dataset {
    /// Reads, renders, tokenizes, truncates and splits a file's rows. `progress` receives the
    /// number of rows done and the total, and returns whether to continue.
    ///
    /// # Errors
    /// The file cannot be read or understood, a setting is impossible, no row is usable, or
    /// `progress` requested a stop.
    pub fn load(
        spec: &DataSpec,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Self> {
        check(spec)?;
        // Some rows turn out to be unusable. If the first rows do not hold enough usable rows, all
        // are read.
        if let Some(wanted) = spec.rows {
            let most = wanted.saturating_mul(2).saturating_add(64);
            match Self::of_first(most, spec, tokenizer, progress) {
                Ok(Some(data)) => return Ok(data),
                Err(stopped) if stopped.kind == upright_base::ErrorKind::Interrupted => {
                    return Err(stopped);
                }
                _ => {}
            }
        }
        let data = Self::of_first(usize::MAX, spec, tokenizer, progress)?;
        Ok(data.expect("all rows are enough"))
    }

    /// Like [`Dataset::load`], for the first `most` rows of every file; `None` if these are too
    /// few.
    fn of_first(
        most: usize,
        spec: &DataSpec,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Self>> {
        let mut files = Vec::with_capacity(spec.files.len());
        let mut mores = Vec::with_capacity(spec.files.len());
        for file in &spec.files {
            let (rows, sha256, more) = file.read_first(&spec.map, spec.kind, most)?;
            files.push((file, (rows, sha256)));
            mores.push(more);
        }
        let other = match &spec.eval {
            HeldOut::File(file) => Some((file, file.read(&spec.map, spec.kind)?)),
            HeldOut::Fraction(_) => None,
        };
        let template = choose(
            spec,
            &files,
            other.as_ref().map(|(_, (rows, _))| rows),
            tokenizer,
        )?;
        let is_default_chat = spec.template.is_none() && matches!(template, Template::Chat(_));
        let encoder = Encoder {
            template: &template,
            turns: spec.turns,
            tokenizer,
            truncation: spec.truncation(),
            default_setting: is_default_chat.then_some(&spec.template_setting[..]),
        };
        let wanted = spec.rows.unwrap_or(usize::MAX);
        let of_file = |rows: &Rows| rows.rows.len().min(wanted);
        let total = files
            .iter()
            .map(|(_, (rows, _))| of_file(rows))
            .sum::<usize>()
            + other.as_ref().map_or(0, |(_, (rows, _))| rows.rows.len());

        let (mut dialects, mut unread, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut parts, mut before) = (Vec::new(), 0);
        for (file, (rows, sha256)) in files {
            if !dialects.contains(&rows.dialect) {
                dialects.push(rows.dialect);
            }
            unread.extend(
                rows.unread
                    .iter()
                    .filter(|column| !unread.contains(*column))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            hashes.push((sha256, file.share));
            let own = of_file(&rows);
            parts.push(FileRows::encode(
                &file.name(),
                rows,
                wanted,
                spec,
                &encoder,
                &mut |done| progress(before + done.min(own), total),
            )?);
            before += own;
        }
        if parts
            .iter()
            .zip(mores)
            .any(|(part, more)| more && most < usize::MAX && part.usable.len() < wanted)
        {
            return Ok(None);
        }
        let mut held = None;
        if let Some((file, (rows, sha256))) = other {
            let part = FileRows::encode(
                &file.name(),
                rows,
                usize::MAX,
                spec,
                &encoder,
                &mut |done| progress(before + done, total),
            )?;
            held = Some((file, part, sha256));
        }

        let mut data = Self {
            train: Vec::new(),
            eval: Vec::new(),
            dialect: dialects.join(" and "),
            unread,
            dropped: Vec::new(),
            eval_dropped: Vec::new(),
            truncated_rows: 0,
            truncated_prompts: 0,
            truncated_responses: 0,
            reasoning_left_out: 0,
            contested_bos: (tokenizer.contested_bos() && !matches!(template, Template::Chat(_)))
                .then(|| !tokenizer.bos().is_empty()),
            sha256: identity(&hashes),
            eval_sha256: None,
            encoded_sha256: String::new(),
            contested_prefix_space: tokenizer.contested_prefix_space(),
            opens_alike: false,
            train_hashes: Vec::new(),
            eval_hashes: Vec::new(),
            encoded_rows: 0,
            encoded_responses: 0,
            template: template.clone(),
        };
        let mut trains = Vec::with_capacity(parts.len());
        for (mut part, file) in parts.into_iter().zip(&spec.files) {
            if let Some((held_file, held, _)) = &held {
                part.without(&held.usable, &held_file.name(), &file.name())?;
            }
            data.note_dropped(&part, (spec.files.len() > 1).then(|| file.name()));
            data.count(&part);
            trains.push(part.usable);
        }
        let held_rows = match held {
            Some((_, part, sha256)) => {
                data.count(&part);
                (data.eval_dropped, data.eval_sha256) = (part.dropped, Some(sha256));
                part.usable
            }
            None => {
                let HeldOut::Fraction(fraction) = spec.eval else {
                    unreachable!("a file of held-out rows was read")
                };
                let held = split::carve(&mut trains, fraction);
                data.opens_alike = fraction > 0.0
                    && held.is_empty()
                    && trains.iter().map(Vec::len).sum::<usize>() > 1;
                held
            }
        };
        (data.eval_hashes, data.eval) = held_rows.into_iter().unzip();
        let repeated = repeated(&spec.files, &trains)?;
        (data.train_hashes, data.train) = trains.into_iter().flatten().unzip();
        data.train.extend(repeated);
        data.encoded_sha256 = encoded_sha256([&data.train, &data.eval]);
        Ok(Some(data))
    }

    /// Records the dropped rows of a file; with several files, under its name.
    fn note_dropped(&mut self, part: &FileRows, name: Option<String>) {
        for Dropped { reason, rows } in &part.dropped {
            let reason = name
                .as_ref()
                .map_or_else(|| reason.clone(), |name| format!("{reason} in {name}"));
            self.dropped.push(Dropped {
                reason,
                rows: rows.clone(),
            });
        }
    }

    /// Counts the rows of a file and what was truncated in them.
    fn count(&mut self, part: &FileRows) {
        self.encoded_rows += part.rows;
        self.encoded_responses += part.responses;
        self.truncated_rows += part.rows_cut;
        self.truncated_prompts += part.prompts_cut;
        self.truncated_responses += part.responses_cut;
        self.reasoning_left_out += part.reasoning_left_out;
    }

    /// A fixed sample of at most `n` training rows, in file order: those whose prompts have the smallest hashes.
    pub fn fit(&self, n: usize) -> Vec<&Example> {
        sample(
            &self.train[..self.train_hashes.len()],
            &self.train_hashes,
            n,
        )
    }

    /// At most `n` of the held-out rows, chosen in the same way.
    pub fn eval(&self, n: usize) -> Vec<&Example> {
        sample(&self.eval, &self.eval_hashes, n)
    }
}

/// SHA-256 of examples: the training rows, then the held-out rows.
fn encoded_sha256(sides: [&Vec<Example>; 2]) -> String {
    let mut hash = Sha256::new();
    for examples in sides {
        hash.update((examples.len() as u64).to_le_bytes());
        for example in examples {
            let mut numbers = vec![example.prompt.len(), example.responses.len()];
            for response in &example.responses {
                numbers.extend([response.tokens.len(), response.masked.len()]);
                for range in &response.masked {
                    numbers.extend([range.start, range.end]);
                }
            }
            for number in numbers {
                hash.update((number as u64).to_le_bytes());
            }
            let responses = example.responses.iter();
            let responses = responses.flat_map(|response| &response.tokens);
            for token in example.prompt.iter().chain(responses) {
                hash.update(token.to_le_bytes());
            }
        }
    }
    files::hex(&hash.finalize())
}

fn sample<'a>(examples: &'a [Example], hashes: &[u64], n: usize) -> Vec<&'a Example> {
    picked(hashes, n)
        .into_iter()
        .map(|index| &examples[index])
        .collect()
}

/// Indices of the `n` smallest hashes, ascending.
fn picked(hashes: &[u64], n: usize) -> Vec<usize> {
    let mut picked: Vec<usize> = (0..hashes.len()).collect();
    picked.sort_by_key(|&index| (hashes[index], index));
    picked.truncate(n);
    picked.sort_unstable();
    picked
}

fn check(spec: &DataSpec) -> Result<()> {
    spec.truncation().check()?;
    let names: Vec<String> = spec.files.iter().map(DataFile::name).collect();
    let name = names.join(", ");
    let given = spec
        .files
        .iter()
        .filter(|file| file.share.is_some())
        .count();
    if spec.files.is_empty() || !(given == 0 || given == spec.files.len()) {
        return Err(Error::input(format!(
            "{name}: some files have a share and some have none"
        ))
        .hint("give every file a share, as FILE:0.7, or no file"));
    }
    if spec.rows == Some(0) {
        return Err(Error::input(format!("{name}: 0 rows are requested"))
            .hint("request at least 1 row, or omit the number to use all rows"));
    }
    match spec.eval {
        HeldOut::Fraction(fraction) if !(0.0..1.0).contains(&fraction) => Err(Error::input(
            format!("{name}: a fraction of {fraction} cannot be held out"),
        )
        .hint("use a number from 0 to below 1; 0.05 is common")),
        _ => Ok(()),
    }
}

impl DataSpec {
    fn truncation(&self) -> Truncation {
        Truncation {
            max_length: self.max_length,
            min_prompt: self.min_prompt,
            rule: self.too_long,
        }
    }
}

/// The template of all files: the requested one, or the default, if it is the same for all files.
/// Held-out rows from their own file use it too.
fn choose(
    spec: &DataSpec,
    files: &[(&DataFile, (Rows, String))],
    held_out: Option<&Rows>,
    tokenizer: &Tokenizer,
) -> Result<Template> {
    let usual = |rows: &Rows| Template::default_for(&rows.rows, tokenizer.folder());
    let (first, (first_rows, _)) = files.first().expect("checked");
    let different = files
        .iter()
        .find(|(_, (rows, _))| usual(rows) != usual(first_rows));
    if let (None, Some((file, (rows, _)))) = (&spec.template, different) {
        return Err(Error::input(format!(
            "{}: the default template is {}, but for {} it is {}",
            first.name(),
            usual(first_rows),
            file.name(),
            usual(rows)
        ))
        .hint("name one template for both, or use two objectives"));
    }
    // The first rows of every file show how they are written. Any row may have tools, which may
    // have their own template.
    let some = |rows: &Rows| {
        let with_tools = rows.rows.iter().find(|row| !row.tools.is_empty());
        rows.rows
            .iter()
            .take(16)
            .chain(with_tools)
            .cloned()
            .collect::<Vec<Row>>()
    };
    let all: Vec<Row> = files
        .iter()
        .map(|(_, (rows, _))| rows)
        .chain(held_out)
        .flat_map(some)
        .collect();
    match &spec.template {
        Some(name) => Template::choose(Some(name), &all, tokenizer),
        None => {
            let name = usual(first_rows);
            let chosen = Template::choose(Some(&name), &all, tokenizer);
            chosen.map_err(|error| Template::by_default(error, &spec.template_setting))
        }
    }
}

/// Identifies files by content: one file by its hash, several by the hash of their hashes and
/// shares.
fn identity(files: &[(String, Option<f64>)]) -> String {
    match files {
        [(sha256, _)] => sha256.clone(),
        _ => {
            let lines: String = files
                .iter()
                .map(|(sha256, share)| format!("{sha256} {share:?}\n"))
                .collect();
            sha256_hex(lines.as_bytes())
        }
    }
}

/// Repeated rows, so that every file has its share of an epoch and every row occurs at least once.
/// The file that is longest for its share occurs once, every other file as often as needed. A
/// partial repeat is chosen by prompt hashes, so that a sorted file is not biased to its start. It
/// takes the largest hashes, because evaluation samples take the smallest.
fn repeated(files: &[DataFile], rows: &[Vec<Hashed>]) -> Result<Vec<Example>> {
    const MOST: f64 = 1000.0;
    let share = |index: usize| files[index].share.filter(|_| files.len() > 1);
    let pace = |index: usize| share(index).map(|share| rows[index].len() as f64 / share);
    let Some(longest) = (0..files.len()).filter_map(pace).reduce(f64::max) else {
        return Ok(Vec::new());
    };
    let mut repeated = Vec::new();
    for (index, (file, rows)) in files.iter().zip(rows).enumerate() {
        let wanted = (share(index).unwrap_or(0.0) * longest).round();
        if wanted > MOST * rows.len() as f64 {
            return Err(Error::input(format!(
                "{}: to match its share, each of its {} rows would occur {:.0} times per epoch",
                file.name(),
                rows.len(),
                wanted / rows.len() as f64
            ))
            .hint("give the file a smaller share, or more rows"));
        }
        let more = (wanted as usize).saturating_sub(rows.len());
        let (examples, hashes): (Vec<&Example>, Vec<u64>) =
            rows.iter().map(|(hash, row)| (row, !hash)).unzip();
        for _ in 0..more / rows.len().max(1) {
            repeated.extend(examples.iter().copied().cloned());
        }
        repeated.extend(
            picked(&hashes, more % rows.len().max(1))
                .into_iter()
                .map(|index| examples[index].clone()),
        );
    }
    Ok(repeated)
}

impl FileRows {
    fn encode(
        name: &str,
        rows: Rows,
        wanted: usize,
        spec: &DataSpec,
        encoder: &Encoder<'_>,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Self> {
        let mut part = Self {
            dropped: rows.dropped,
            ..Self::default()
        };
        let mut left: &[Row] = &rows.rows;
        let mut done = 0;
        // A row may turn out to be unusable only here, so `wanted` usable rows can take more than
        // one round.
        while part.usable.len() < wanted && !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(wanted - part.usable.len()));
            let encoded = encode(now, encoder, spec.threads, &mut |more| {
                progress(done + more)
            });
            for (row, encoded) in now.iter().zip(encoded.map_err(|error| error.at(name))?) {
                let end = encoder.template.end_of(row, encoder.tokenizer);
                let encoded = if spec.kind == RowKind::Chosen {
                    encoded.chosen_alone(end)
                } else {
                    encoded
                };
                let is_usable = matches!(encoded, Encoded::Usable { .. });
                part.reasoning_left_out +=
                    usize::from(is_usable && encoder.template.leaves_reasoning_out(row));
                part.take(row, encoded);
            }
            done += now.len();
            left = later;
        }
        if part.usable.is_empty() {
            return Err(part.nothing_left(name));
        }
        // Rows beyond the last one used are not examined, so they are not dropped either.
        if let Some(first_unused) = left.first() {
            for entry in &mut part.dropped {
                entry.rows.retain(|&row| row < first_unused.index);
            }
            part.dropped.retain(|entry| !entry.rows.is_empty());
        }
        part.dropped
            .iter_mut()
            .for_each(|entry| entry.rows.sort_unstable());
        Ok(part)
    }

    fn take(&mut self, row: &Row, encoded: Encoded) {
        match encoded {
            Encoded::Usable {
                example,
                prompt_hash,
                prompt_cut,
                responses_cut,
            } => {
                self.rows += 1;
                self.responses += example.responses.len();
                self.rows_cut += usize::from(prompt_cut || responses_cut > 0);
                self.prompts_cut += usize::from(prompt_cut);
                self.responses_cut += responses_cut;
                self.usable.push((prompt_hash, example));
            }
            Encoded::Dropped(reason) => Dropped::add(&mut self.dropped, reason, row.index),
        }
    }

    fn nothing_left(&self, name: &str) -> Error {
        let total: usize = self.dropped.iter().map(|entry| entry.rows.len()).sum();
        let reasons: Vec<String> = self
            .dropped
            .iter()
            .map(|entry| format!("{} {}", entry.rows.len(), entry.reason))
            .collect();
        Error::input(format!(
            "{name}: none of {total} rows is usable: {}",
            reasons.join("; ")
        ))
        .hint("check that the first rows have prompt and response in the columns of this dialect")
    }

    /// Drops the rows whose prompts are held out, and names the file.
    fn without(&mut self, held: &[Hashed], held_name: &str, name: &str) -> Result<()> {
        let held: HashSet<u64> = held.iter().map(|(hash, _)| *hash).collect();
        let (out, train): (Vec<Hashed>, Vec<Hashed>) = std::mem::take(&mut self.usable)
            .into_iter()
            .partition(|(hash, _)| held.contains(hash));
        for (_, example) in out {
            Dropped::add(
                &mut self.dropped,
                &format!("prompt is held out in {held_name}"),
                example.row,
            );
        }
        self.usable = train;
        if self.usable.is_empty() {
            Err(self.nothing_left(name))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;

//! Rows of a file in their [dialect](super::dialects). The columns of the first row decide; every later
//! row must fit.

mod columns;
mod form;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use upright_base::{Error, Result};

use super::conversation::{Message, Prompt, Row};
use super::dialects::{Dialect, Fields, Reading, dialects};
use super::source::RawRow;
use form::{Form, forms};

pub use columns::ColumnMap;

/// What the rows of a file are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// One response per row, to train on.
    Instruction,
    /// Two responses per row, chosen and rejected.
    Preference,
    /// Preference rows of which only the chosen response is trained on, to train a reference. Rows
    /// are read, truncated and dropped as with [`RowKind::Preference`]; the rejected response is
    /// removed at the end.
    Chosen,
    /// Prompts to generate responses for; responses in the file are left out.
    Prompt,
}

/// Rows that cannot be trained on, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Why, as a phrase: `empty response`.
    pub reason: String,
    /// Their indices in the file, ascending.
    pub rows: Vec<usize>,
}

/// Maximum number of dropped rows to list in a message.
const NAMED: usize = 5;

impl Dropped {
    /// The first of the rows, for a message: `row 3`, `rows 3, 7`, and of more than five rows
    /// `rows 3, 7, 8, 12, 40, ...`.
    pub fn named(&self) -> String {
        let named: Vec<String> = self.rows.iter().take(NAMED).map(usize::to_string).collect();
        format!(
            "{} {}{}",
            if self.rows.len() == 1 { "row" } else { "rows" },
            named.join(", "),
            if self.rows.len() > NAMED { ", ..." } else { "" }
        )
    }

    /// Adds a row to the entry of its reason. Reasons are in the order of their first row.
    pub(super) fn add(dropped: &mut Vec<Self>, reason: &str, row: usize) {
        match dropped.iter_mut().find(|entry| entry.reason == reason) {
            Some(entry) => entry.rows.push(row),
            None => dropped.push(Self {
                reason: reason.to_owned(),
                rows: vec![row],
            }),
        }
    }
}

/// The rows of a file in one dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Name of the dialect.
    pub dialect: &'static str,
    /// The usable rows, in file order; may be none.
    pub rows: Vec<Row>,
    /// The dropped rows.
    pub dropped: Vec<Dropped>,
    /// Columns that have a value in some row and that the dialect ignores.
    pub unread: Vec<String>,
}

impl RowKind {
    /// The kind that a file may be by mistake.
    fn other(self) -> Option<Self> {
        match self {
            Self::Instruction => Some(Self::Preference),
            Self::Preference | Self::Chosen => Some(Self::Instruction),
            Self::Prompt => None,
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Instruction => "an instruction file (--sft)",
            Self::Preference | Self::Chosen => "a preference file (--dpo)",
            Self::Prompt => "a file of prompts",
        }
    }
}

/// Parses every row of a file; `path` is for messages.
///
/// # Errors
/// No dialect fits the first row, a later row lacks a column of the first one's dialect, or a column has the wrong type.
pub fn read(path: &Path, raw: &[RawRow], kind: RowKind) -> Result<Rows> {
    read_in(dialects(), path, raw, kind)
}

/// Like [`read`], with these dialects.
fn read_in(
    dialects: &[&'static Dialect],
    path: &Path,
    raw: &[RawRow],
    kind: RowKind,
) -> Result<Rows> {
    let Some(first) = raw.first() else {
        return Err(Error::input(format!("{}: no rows", path.display())));
    };
    let usual = detect(dialects, path, first, kind)?;
    let rows = Vec::with_capacity(raw.len());
    let mut rows = Rows {
        dialect: usual.name,
        rows,
        dropped: Vec::new(),
        unread: Vec::new(),
    };
    rows.take(dialects, path, raw, kind, usual)?;
    Ok(rows)
}

impl Rows {
    /// Adds the rows of another file of the same dialect and kind.
    ///
    /// # Errors
    /// A row lacks a column of the dialect, or a column has the wrong type.
    pub fn add(&mut self, path: &Path, raw: &[RawRow], kind: RowKind) -> Result<()> {
        let forms = forms(dialects(), kind);
        match forms.into_iter().find(|form| form.name == self.dialect) {
            Some(usual) => self.take(dialects(), path, raw, kind, usual),
            None => Err(Error::input(format!(
                "{}: is not of the same kind as the previous file",
                path.display()
            ))),
        }
    }

    fn take(
        &mut self,
        dialects: &[&'static Dialect],
        path: &Path,
        raw: &[RawRow],
        kind: RowKind,
        usual: Form,
    ) -> Result<()> {
        let mut known: HashSet<String> = self.unread.iter().cloned().collect();
        for row in raw {
            let fields = Fields { path, row };
            // Prompts may be in several dialects. A file that is trained on is in one, or something
            // is wrong with it.
            let form = if kind == RowKind::Prompt {
                detect(dialects, path, row, kind)?
            } else {
                usual
            };
            let mut needs = form.dialect.needs.iter();
            if let Some(missing) = needs.find(|need| !row.columns.contains_key(**need)) {
                return Err(Error::input(format!(
                    "{}: {} has no column {missing:?}: its columns are {}, but the first row of the file is in the dialect {}",
                    path.display(),
                    row.place(),
                    columns(&row.columns),
                    form.describe()
                ))
                .hint("give every row the same columns, or split the file in two"));
            }
            for column in unread(form.dialect, kind, &row.columns) {
                if !known.contains(column) {
                    known.insert(column.clone());
                    self.unread.push(column.clone());
                }
            }
            let reading = match (form.read)(&fields)? {
                Reading::Row(prompt, responses) => usable(prompt, responses, kind),
                unusable @ Reading::Dropped(_) => unusable,
            };
            match reading {
                Reading::Row(..) if label(&row.columns, kind) == Some(false) => {
                    Dropped::add(&mut self.dropped, "labeled as a bad response", row.index);
                }
                Reading::Row(prompt, responses) => self.rows.push(Row {
                    index: row.index,
                    line: row.line,
                    prompt,
                    tools: form.tools(&fields)?,
                    responses,
                }),
                Reading::Dropped(reason) => Dropped::add(&mut self.dropped, reason, row.index),
            }
        }
        Ok(())
    }
}

/// Checks for every dialect. There is nothing to train on in a blank response, but a blank rejected
/// response is worth avoiding.
fn usable(prompt: Prompt, responses: Vec<Message>, kind: RowKind) -> Reading {
    if prompt.is_empty() {
        return Reading::Dropped("empty prompt");
    }
    match responses.as_slice() {
        _ if kind == RowKind::Prompt => Reading::Row(prompt, Vec::new()),
        [wanted, ..] if wanted.is_blank() => Reading::Dropped("empty response"),
        [_, rejected] if rejected.is_empty() => Reading::Dropped("empty response"),
        [chosen, rejected] if chosen == rejected => Reading::Dropped("chosen equals rejected"),
        _ => Reading::Row(prompt, responses),
    }
}

/// Columns of unpaired preference rows that say, by true or false, whether the response is good
/// (names of TRL and LLaMA-Factory).
const LABELS: [&str; 2] = ["label", "kto_tag"];

/// The label of a row, if it has one.
fn label(columns: &Map<String, Value>, kind: RowKind) -> Option<bool> {
    LABELS
        .iter()
        .filter(|_| kind == RowKind::Instruction)
        .find_map(|name| columns.get(*name)?.as_bool())
}

/// Columns of a row that have a value and are ignored.
fn unread<'a>(
    dialect: &Dialect,
    kind: RowKind,
    columns: &'a Map<String, Value>,
) -> impl Iterator<Item = &'a String> {
    let labels: &[&str] = if label(columns, kind).is_some() {
        &LABELS
    } else {
        &[]
    };
    let read = move |name: &str| {
        let mut columns = dialect.columns().chain(labels.iter().copied());
        columns.any(|column| column == name)
    };
    columns
        .iter()
        .filter(move |(name, value)| !read(name) && !value.is_null())
        .map(|(name, _)| name)
}

/// The first dialect that fits a row.
fn detect(dialects: &[&'static Dialect], path: &Path, row: &RawRow, kind: RowKind) -> Result<Form> {
    let candidates = forms(dialects, kind);
    let found = fitting(&candidates, row);
    let rival = kind
        .other()
        .and_then(|other| fitting(&forms(dialects, other), row));
    match (found, rival) {
        // The other kind's dialect may fit all of these columns and more: ShareGPT's pairs are
        // conversations too.
        (Some(form), Some(rival)) if is_part_of(form.dialect, rival.dialect) => {
            Err(other_kind(path, row, kind, rival))
        }
        (Some(form), _) => Ok(form),
        (None, Some(rival)) => Err(other_kind(path, row, kind, rival)),
        (None, None) => Err(unknown(&candidates, path, row, kind)),
    }
}

fn fitting(forms: &[Form], row: &RawRow) -> Option<Form> {
    let mut forms = forms.iter();
    forms.find(|form| form.fits(&row.columns)).copied()
}

/// Whether `more` needs all columns that `dialect` needs.
fn is_part_of(dialect: &Dialect, more: &Dialect) -> bool {
    dialect.needs.iter().all(|need| more.needs.contains(need))
}

/// The error of a row that is in a dialect of the other kind.
fn other_kind(path: &Path, row: &RawRow, kind: RowKind, rival: Form) -> Error {
    Error::input(format!(
        "{}: this is {}, but {} is expected: {} has the columns {}, which fit the dialect {}",
        path.display(),
        kind.other().unwrap_or(kind).says(),
        kind.says(),
        row.place(),
        columns(&row.columns),
        rival.describe()
    ))
    .hint(match kind {
        RowKind::Instruction => {
            "pass it with --dpo, or pass a file of instructions and responses with --sft"
        }
        _ => "pass it with --sft, or pass a file of chosen and rejected responses with --dpo",
    })
}

/// The error of a row that is in no dialect. It names the closest one: most columns in common, then
/// fewest missing columns.
fn unknown(forms: &[Form], path: &Path, row: &RawRow, kind: RowKind) -> Error {
    let mut problem = format!(
        "{}: {} is in no known dialect: its columns are {}",
        path.display(),
        row.place(),
        columns(&row.columns)
    );
    let has = |column: &str| row.columns.contains_key(column);
    let shared = |form: &&Form| form.dialect.columns().filter(|column| has(column)).count();
    let lacks = |form: &&Form| {
        let needs = form.dialect.needs.iter();
        needs.filter(|need| !has(need)).count()
    };
    let nearest = forms
        .iter()
        .filter(|form| shared(form) > 0)
        .min_by_key(|form| (std::cmp::Reverse(shared(form)), lacks(form)));
    if let Some(nearest) = nearest {
        let missing: Vec<&str> = nearest
            .dialect
            .needs
            .iter()
            .filter(|need| row.columns.get(**need).is_none_or(Value::is_null))
            .copied()
            .collect();
        problem += &format!(
            "; the closest dialect is {}, but the row has no {}",
            nearest.describe(),
            missing.join(", ")
        );
    }
    if has("text") && kind == RowKind::Instruction {
        return Error::input(problem).hint(
            "a text column has no separate response to train on; split it into two columns, prompt and completion",
        );
    }
    let all: Vec<String> = forms.iter().map(Form::describe).collect();
    let example = match kind {
        RowKind::Instruction => "--sft-map prompt=COLUMN,completion=COLUMN",
        RowKind::Preference | RowKind::Chosen => {
            "--dpo-map prompt=COLUMN,chosen=COLUMN,rejected=COLUMN"
        }
        RowKind::Prompt => "--map prompt=COLUMN",
    };
    let elsewhere = if kind == RowKind::Prompt {
        ""
    } else {
        " (--map if there is one file)"
    };
    Error::input(problem).hint(format!(
        "rename the columns to those of a dialect, with {example}{elsewhere} or in the file: {}",
        all.join("; ")
    ))
}

fn columns(columns: &Map<String, Value>) -> String {
    listed(columns.keys())
}

/// Column names for a message, shortened if there are very many.
pub fn listed<'a>(columns: impl ExactSizeIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 12;
    let count = columns.len();
    let mut names: Vec<String> = columns
        .take(SHOWN)
        .map(|name| {
            name.chars()
                .take(40)
                .collect::<String>()
                .escape_debug()
                .to_string()
        })
        .collect();
    if count > SHOWN {
        names.push(format!("and {} more", count - SHOWN));
    }
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

//! Dialects: what the columns of a row mean. The columns of the first row decide; every later row
//! must fit. A new dialect is an entry in the table of its kind, plus the function that the entry
//! names.

mod columns;
mod completions;
mod fields;
mod instruction;
mod preference;
mod prompt;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::conversation::{Message, Prompt, Role, Row};
use super::source::RawRow;
pub use columns::ColumnMap;
use upright_base::{Error, Result};

use fields::Fields;

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

/// Result of a dialect's reader for one row.
enum Reading {
    Row(Prompt, Vec<Message>),
    /// Not usable, with the reason.
    Dropped(&'static str),
}

/// A convention for columns.
struct Dialect {
    name: &'static str,
    needs: &'static [&'static str],
    also: &'static [&'static str],
    read: fn(&Fields) -> Result<Reading>,
}

/// Dialects of instruction data; the first one whose required columns are present is used.
const INSTRUCTION: [Dialect; 5] = [
    Dialect {
        name: "alpaca",
        needs: &["instruction", "output"],
        also: &["input", "system", "history"],
        read: instruction::alpaca,
    },
    Dialect {
        name: "prompt-completion",
        needs: &["prompt", "completion"],
        also: &["system", "tools"],
        read: instruction::prompt_completion,
    },
    Dialect {
        name: "messages",
        needs: &["messages"],
        also: &["system", "tools"],
        read: instruction::messages,
    },
    Dialect {
        name: "sharegpt",
        needs: &["conversations"],
        also: &["system", "tools"],
        read: instruction::sharegpt,
    },
    Dialect {
        name: "question-answer",
        needs: &["question", "answer"],
        also: &["system"],
        read: instruction::question_answer,
    },
];

/// Dialects of preference data. The one without a prompt column comes last: it would fit the rows
/// of all the others.
const PREFERENCE: [Dialect; 6] = [
    Dialect {
        name: "prompt-chosen-rejected",
        needs: &["prompt", "chosen", "rejected"],
        also: &["system", "tools"],
        read: preference::with_prompt,
    },
    Dialect {
        name: "question-chosen-rejected",
        needs: &["question", "chosen", "rejected"],
        also: &["system"],
        read: preference::with_question,
    },
    Dialect {
        name: "alpaca-preference",
        needs: &["instruction", "chosen", "rejected"],
        also: &["input", "system", "history"],
        read: preference::alpaca,
    },
    Dialect {
        name: "sharegpt-preference",
        needs: &["conversations", "chosen", "rejected"],
        also: &["system", "tools"],
        read: preference::sharegpt,
    },
    Dialect {
        name: "context-completions",
        needs: &["context", "completions"],
        also: &["system", "tools"],
        read: completions::ranked,
    },
    Dialect {
        name: "chosen-rejected",
        needs: &["chosen", "rejected"],
        also: &["system", "tools"],
        read: preference::without_prompt,
    },
];

/// Dialects of prompts: those above, with or without the responses. If a row fits several, its
/// prompt is the one that would be trained on.
const PROMPT: [Dialect; 13] = [
    Dialect {
        name: "alpaca",
        needs: &["instruction", "output"],
        also: &["input", "system", "history"],
        read: prompt::instruction,
    },
    Dialect {
        name: "prompt-completion",
        needs: &["prompt", "completion"],
        also: &["system", "tools"],
        read: prompt::completed,
    },
    Dialect {
        name: "messages",
        needs: &["messages"],
        also: &["system", "tools"],
        read: prompt::messages,
    },
    Dialect {
        name: "prompt",
        needs: &["prompt", "chosen", "rejected"],
        also: &["system", "tools"],
        read: prompt::prompt,
    },
    Dialect {
        name: "question",
        needs: &["question", "chosen", "rejected"],
        also: &["system"],
        read: prompt::question,
    },
    Dialect {
        name: "alpaca",
        needs: &["instruction", "chosen", "rejected"],
        also: &["input", "system", "history"],
        read: prompt::instruction,
    },
    Dialect {
        name: "sharegpt",
        needs: &["conversations"],
        also: &["system", "tools"],
        read: prompt::sharegpt,
    },
    Dialect {
        name: "question-answer",
        needs: &["question", "answer"],
        also: &["system"],
        read: prompt::question,
    },
    Dialect {
        name: "prompt",
        needs: &["prompt"],
        also: &["system", "tools"],
        read: prompt::prompt,
    },
    Dialect {
        name: "question",
        needs: &["question"],
        also: &["system"],
        read: prompt::question,
    },
    Dialect {
        name: "alpaca",
        needs: &["instruction"],
        also: &["input", "system", "history"],
        read: prompt::instruction,
    },
    Dialect {
        name: "context",
        needs: &["context"],
        also: &["system", "tools"],
        read: prompt::context,
    },
    Dialect {
        name: "chosen-rejected",
        needs: &["chosen", "rejected"],
        also: &["system", "tools"],
        read: prompt::shared,
    },
];

impl RowKind {
    fn dialects(self) -> &'static [Dialect] {
        match self {
            Self::Instruction => &INSTRUCTION,
            Self::Preference | Self::Chosen => &PREFERENCE,
            Self::Prompt => &PROMPT,
        }
    }

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
    let usual = detect(path, raw, kind)?;
    let rows = Vec::with_capacity(raw.len());
    let mut rows = Rows {
        dialect: usual.name,
        rows,
        dropped: Vec::new(),
        unread: Vec::new(),
    };
    rows.take(path, raw, kind, usual)?;
    Ok(rows)
}

impl Rows {
    /// Adds the rows of another file of the same dialect and kind.
    ///
    /// # Errors
    /// A row lacks a column of the dialect, or a column has the wrong type.
    pub fn add(&mut self, path: &Path, raw: &[RawRow], kind: RowKind) -> Result<()> {
        match kind
            .dialects()
            .iter()
            .find(|dialect| dialect.name == self.dialect)
        {
            Some(usual) => self.take(path, raw, kind, usual),
            None => Err(Error::input(format!(
                "{}: is not of the same kind as the previous file",
                path.display()
            ))),
        }
    }

    fn take(
        &mut self,
        path: &Path,
        raw: &[RawRow],
        kind: RowKind,
        usual: &'static Dialect,
    ) -> Result<()> {
        let mut known: HashSet<String> = self.unread.iter().cloned().collect();
        for row in raw {
            let fields = Fields { path, row };
            // Prompts may be in several dialects. A file that is trained on is in one, or something
            // is wrong with it.
            let dialect = if kind == RowKind::Prompt {
                detect(path, std::slice::from_ref(row), kind)?
            } else {
                usual
            };
            if let Some(missing) = dialect
                .needs
                .iter()
                .find(|need| !row.columns.contains_key(**need))
            {
                return Err(Error::input(format!(
                    "{}: {} has no column {missing:?}: its columns are {}, but the first row of the file is in the dialect {}",
                    path.display(),
                    row.place(),
                    columns(&row.columns),
                    dialect.describe()
                ))
                .hint("give every row the same columns, or split the file in two"));
            }
            for column in unread(dialect, kind, &row.columns) {
                if !known.contains(column) {
                    known.insert(column.clone());
                    self.unread.push(column.clone());
                }
            }
            let reading = match (dialect.read)(&fields)? {
                Reading::Row(prompt, responses) => usable(prompt, responses, kind),
                unusable @ Reading::Dropped(_) => unusable,
            };
            match reading {
                Reading::Row(..) if label(&row.columns, kind) == Some(false) => {
                    Dropped::add(&mut self.dropped, "labeled as a bad response", row.index);
                }
                Reading::Row(prompt, responses) => {
                    let tools = match dialect.also.contains(&"tools") {
                        true if dialect.name.starts_with("sharegpt") => {
                            fields.bare_tools("tools")?
                        }
                        true => fields.tools("tools")?,
                        false => Vec::new(),
                    };
                    self.rows.push(Row {
                        index: row.index,
                        line: row.line,
                        prompt,
                        tools,
                        responses,
                    });
                }
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
        dialect
            .needs
            .iter()
            .chain(dialect.also)
            .chain(labels)
            .any(|column| *column == name)
    };
    columns
        .iter()
        .filter(move |(name, value)| !read(name) && !value.is_null())
        .map(|(name, _)| name)
}

impl Dialect {
    /// A column that is null counts as absent.
    fn fits(&self, columns: &Map<String, Value>) -> bool {
        self.needs
            .iter()
            .all(|need| columns.get(*need).is_some_and(|value| !value.is_null()))
    }

    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.needs.join(", "))
    }
}

fn detect(path: &Path, raw: &[RawRow], kind: RowKind) -> Result<&'static Dialect> {
    let name = path.display();
    let Some(first) = raw.first() else {
        return Err(Error::input(format!("{name}: no rows")));
    };
    let found = columns(&first.columns);
    let fitting = |kind: RowKind| {
        kind.dialects()
            .iter()
            .find(|dialect| dialect.fits(&first.columns))
    };
    match (fitting(kind), kind.other().and_then(fitting)) {
        // The other kind's dialect may fit all of these columns and more: ShareGPT's pairs are
        // conversations too.
        (Some(dialect), None) => return Ok(dialect),
        (Some(dialect), Some(rival))
            if !dialect.needs.iter().all(|need| rival.needs.contains(need)) =>
        {
            return Ok(dialect);
        }
        (_, Some(dialect)) => {
            return Err(Error::input(format!(
                "{name}: this is {}, but {} is expected: {} has the columns {found}, which fit the dialect {}",
                kind.other().unwrap_or(kind).says(),
                kind.says(),
                first.place(),
                dialect.describe()
            ))
            .hint(match kind {
                RowKind::Instruction => "pass it with --dpo, or pass a file of instructions and responses with --sft",
                _ => "pass it with --sft, or pass a file of chosen and rejected responses with --dpo",
            }));
        }
        (None, None) => {}
    }
    // Closest: most columns in common, then fewest missing columns.
    let lacks = |dialect: &Dialect| {
        dialect
            .needs
            .iter()
            .filter(|need| !first.columns.contains_key(**need))
            .count()
    };
    let shares = |dialect: &Dialect| {
        dialect
            .needs
            .iter()
            .chain(dialect.also)
            .filter(|column| first.columns.contains_key(**column))
            .count()
    };
    let nearest = kind
        .dialects()
        .iter()
        .min_by_key(|dialect| (std::cmp::Reverse(shares(dialect)), lacks(dialect)))
        .expect("there are dialects");
    let missing: Vec<&str> = nearest
        .needs
        .iter()
        .filter(|need| first.columns.get(**need).is_none_or(Value::is_null))
        .copied()
        .collect();
    let nearest = match shares(nearest) {
        0 => String::new(),
        _ => format!(
            "; the closest dialect is {}, but the row has no {}",
            nearest.describe(),
            missing.join(", ")
        ),
    };
    let problem = format!(
        "{name}: {} is in no known dialect: its columns are {found}{nearest}",
        first.place()
    );
    if first.columns.contains_key("text") && kind == RowKind::Instruction {
        return Err(Error::input(problem).hint(
            "a text column has no separate response to train on; split it into two columns, prompt and completion",
        ));
    }
    let all: Vec<String> = kind.dialects().iter().map(Dialect::describe).collect();
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
    Err(Error::input(problem).hint(format!(
        "rename the columns to those of a dialect, with {example}{elsewhere} or in the file: {}",
        all.join("; ")
    )))
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

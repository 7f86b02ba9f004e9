//! Dialects: what a row's columns mean. The first row's columns decide, every later row must fit. A new dialect is an entry
//! in the table of its kind and the function that the entry names.

mod cells;
mod instruction;
mod preference;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Map, Value};

use super::source::{self, RawRow};
use crate::{Error, Result};
use cells::Cells;

/// What the rows of a file are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One response a row, to be imitated.
    Instruction,
    /// Two responses a row, chosen and rejected.
    Preference,
    /// Preference rows of which the chosen response is imitated, which a reference is trained on. Rows are read, cut and
    /// dropped as with [`Kind::Preference`]; the rejected response goes last of all.
    Chosen,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The instructions that stand above a conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name that Hugging Face's message lists use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Reads OpenAI's and ShareGPT's names.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "system" | "developer" => Self::System,
            "user" | "human" => Self::User,
            "assistant" | "gpt" | "function_call" => Self::Assistant,
            "tool" | "function" | "observation" => Self::Tool,
            _ => return None,
        })
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// What comes before the response, in as much structure as the file had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// An instruction and what it is to be carried out on, apart, because templates word the two cases differently.
    Instruction {
        /// Overrides the template's own opening; empty where there is none.
        system: String,
        /// What to do.
        instruction: String,
        /// On what; empty where there is none.
        input: String,
    },
    /// A conversation, at least one turn.
    Messages(Vec<Message>),
}

impl Prompt {
    /// Whether there is nothing but white space.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Instruction { instruction, input, .. } => instruction.trim().is_empty() && input.trim().is_empty(),
            Self::Messages(messages) => messages.iter().all(|message| message.content.trim().is_empty()),
        }
    }
}

/// A row understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Zero-based number of the row in its file.
    pub index: usize,
    /// One-based line on which it starts, where lines are rows.
    pub line: Option<usize>,
    /// What comes before the response.
    pub prompt: Prompt,
    /// One response, or the chosen and the rejected one.
    pub responses: Vec<String>,
}

impl Row {
    /// Where the row is, for messages: `row 3 (line 4)`.
    pub fn place(&self) -> String {
        source::place(self.index, self.line)
    }
}

/// Rows that cannot be trained on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why, as a phrase: `empty response`.
    pub reason: String,
    /// Their indices in the file, ascending.
    pub rows: Vec<usize>,
}

impl Dropped {
    /// Adds a row to the entry of its reason, in the order in which reasons were first met.
    pub(super) fn add(dropped: &mut Vec<Self>, reason: &str, row: usize) {
        match dropped.iter_mut().find(|entry| entry.reason == reason) {
            Some(entry) => entry.rows.push(row),
            None => dropped.push(Self { reason: reason.to_owned(), rows: vec![row] }),
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
    /// The others.
    pub dropped: Vec<Dropped>,
}

/// One row as a dialect's reader understands it.
enum Reading {
    Row(Prompt, Vec<String>),
    /// Not usable, with the reason.
    Dropped(&'static str),
}

/// A convention for columns.
struct Dialect {
    name: &'static str,
    needs: &'static [&'static str],
    also: &'static [&'static str],
    read: fn(&Cells) -> Result<Reading>,
}

/// Dialects of instruction data; the first whose needed columns are there is taken.
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
        also: &[],
        read: instruction::prompt_completion,
    },
    Dialect { name: "messages", needs: &["messages"], also: &[], read: instruction::messages },
    Dialect { name: "sharegpt", needs: &["conversations"], also: &["system"], read: instruction::sharegpt },
    Dialect { name: "question-answer", needs: &["question", "answer"], also: &[], read: instruction::question_answer },
];

/// Dialects of preference data. The one without a prompt column comes last: it would fit all the others' rows.
const PREFERENCE: [Dialect; 4] = [
    Dialect {
        name: "prompt-chosen-rejected",
        needs: &["prompt", "chosen", "rejected"],
        also: &[],
        read: preference::with_prompt,
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
        also: &["system"],
        read: preference::sharegpt,
    },
    Dialect { name: "chosen-rejected", needs: &["chosen", "rejected"], also: &[], read: preference::without_prompt },
];

impl Kind {
    fn dialects(self) -> &'static [Dialect] {
        match self {
            Self::Instruction => &INSTRUCTION,
            Self::Preference | Self::Chosen => &PREFERENCE,
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Instruction => "an instruction file (--sft)",
            Self::Preference | Self::Chosen => "a preference file (--dpo)",
        }
    }
}

/// Understands every row of a file; `path` is for messages.
///
/// # Errors
/// No dialect fits the first row, a later row lacks a column of the first one's dialect, or a column has the wrong type.
pub fn read(path: &Path, raw: &[RawRow], kind: Kind) -> Result<Rows> {
    let dialect = detect(path, raw, kind)?;
    let (mut rows, mut dropped) = (Vec::with_capacity(raw.len()), Vec::new());
    for row in raw {
        let cells = Cells { path, row };
        if let Some(missing) = dialect.needs.iter().find(|need| !row.columns.contains_key(**need)) {
            return Err(Error::input(format!(
                "{}: {} has no column {missing:?}: its columns are {}, and the file's first row is in the dialect {}",
                path.display(),
                row.place(),
                columns(&row.columns),
                dialect.describe()
            ))
            .hint("give every row the same columns, or split the file in two"));
        }
        let reading = match (dialect.read)(&cells)? {
            Reading::Row(prompt, responses) => usable(prompt, responses),
            unusable @ Reading::Dropped(_) => unusable,
        };
        match reading {
            Reading::Row(prompt, responses) => {
                rows.push(Row { index: row.index, line: row.line, prompt, responses });
            }
            Reading::Dropped(reason) => Dropped::add(&mut dropped, reason, row.index),
        }
    }
    Ok(Rows { dialect: dialect.name, rows, dropped })
}

/// What no dialect may let through. A blank answer is nothing to imitate, but one that was rejected is worth avoiding.
fn usable(prompt: Prompt, responses: Vec<String>) -> Reading {
    if prompt.is_empty() {
        return Reading::Dropped("empty prompt");
    }
    match responses.as_slice() {
        [wanted, ..] if wanted.trim().is_empty() => Reading::Dropped("empty response"),
        [_, rejected] if rejected.is_empty() => Reading::Dropped("empty response"),
        [chosen, rejected] if chosen == rejected => Reading::Dropped("chosen equals rejected"),
        _ => Reading::Row(prompt, responses),
    }
}

impl Dialect {
    /// A column that holds null is as good as absent.
    fn fits(&self, columns: &Map<String, Value>) -> bool {
        self.needs.iter().all(|need| columns.get(*need).is_some_and(|value| !value.is_null()))
    }

    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.needs.join(", "))
    }
}

fn detect(path: &Path, raw: &[RawRow], kind: Kind) -> Result<&'static Dialect> {
    let name = path.display();
    let Some(first) = raw.first() else { return Err(Error::input(format!("{name}: there are no rows"))) };
    let found = columns(&first.columns);
    let fitting = |kind: Kind| kind.dialects().iter().find(|dialect| dialect.fits(&first.columns));
    let other = if kind == Kind::Instruction { Kind::Preference } else { Kind::Instruction };
    match (fitting(kind), fitting(other)) {
        // The other kind's dialect may explain all of these columns and more: ShareGPT's pairs are conversations too.
        (Some(dialect), None) => return Ok(dialect),
        (Some(dialect), Some(rival)) if !dialect.needs.iter().all(|need| rival.needs.contains(need)) => {
            return Ok(dialect);
        }
        (_, Some(dialect)) => {
            return Err(Error::input(format!(
                "{name}: this is {}, given where {} is wanted: {} has the columns {found}, which is the dialect {}",
                other.says(),
                kind.says(),
                first.place(),
                dialect.describe()
            ))
            .hint(match kind {
                Kind::Instruction => "give it to --dpo, or give --sft a file of instructions and responses",
                _ => "give it to --sft, or give --dpo a file of chosen and rejected responses",
            }));
        }
        (None, None) => {}
    }
    // Nearest: most columns in common; among equals, the one that lacks least.
    let lacks = |dialect: &Dialect| dialect.needs.iter().filter(|need| !first.columns.contains_key(**need)).count();
    let shares = |dialect: &Dialect| {
        dialect.needs.iter().chain(dialect.also).filter(|column| first.columns.contains_key(**column)).count()
    };
    let nearest = kind
        .dialects()
        .iter()
        .min_by_key(|dialect| (std::cmp::Reverse(shares(dialect)), lacks(dialect)))
        .expect("there are dialects");
    let missing: Vec<&str> =
        nearest.needs.iter().filter(|need| first.columns.get(**need).is_none_or(Value::is_null)).copied().collect();
    let all: Vec<String> = kind.dialects().iter().map(Dialect::describe).collect();
    Err(Error::input(format!(
        "{name}: {} is in no known dialect: its columns are {found}; the nearest dialect is {}, which lacks {}",
        first.place(),
        nearest.describe(),
        missing.join(", ")
    ))
    .hint(format!("rename the columns to those of one dialect: {}", all.join("; "))))
}

/// Column names for a message, cut where there are very many.
fn columns(columns: &Map<String, Value>) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<String> = columns
        .keys()
        .take(SHOWN)
        .map(|name| name.chars().take(40).collect::<String>().escape_debug().to_string())
        .collect();
    if columns.len() > SHOWN {
        names.push(format!("and {} more", columns.len() - SHOWN));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

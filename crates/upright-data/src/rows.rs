//! Dialects: what a row's columns mean. The first row's columns decide, every later row must fit. A new dialect is an entry
//! in the table of its kind and the function that the entry names.

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

use super::source::{self, RawRow};
pub use columns::ColumnMap;
use upright_base::{Error, Result};

use fields::Fields;

/// What the rows of a file are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// One response a row, to be imitated.
    Instruction,
    /// Two responses a row, chosen and rejected.
    Preference,
    /// Preference rows of which the chosen response is imitated, which a reference is trained on. Rows are read, cut and
    /// dropped as with [`RowKind::Preference`]; the rejected response goes last of all.
    Chosen,
    /// Prompts to be answered; answers that stand beside them are left out.
    Prompt,
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
            "tool" | "function" | "observation" | "ipython" => Self::Tool,
            _ => return None,
        })
    }
}

/// Where [`Message::more`] has the calls of tools that a turn's text writes as JSON: for templates that have words for calls.
/// The others get the text.
pub const WRITTEN_CALLS: &str = "written_calls";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What else a chat template may read: `tool_calls`, `tool_call_id`, `name`, reasoning, [`WRITTEN_CALLS`]; no nulls and
    /// no empty lists.
    pub more: Map<String, Value>,
}

impl Message {
    /// A turn that is its text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            more: Map::new(),
        }
    }

    /// What the model says.
    pub fn said(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// Whether it says nothing: no word, and no tool is called.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && !self.more.contains_key("tool_calls")
    }

    /// Whether it may be trained on: OpenAI's `weight` of 0 and Axolotl's `train` of false say that it is only read.
    pub fn is_trained(&self) -> bool {
        let off = |name: &str| self.more.get(name) == Some(&Value::Bool(false));
        self.more.get("weight").and_then(Value::as_f64) != Some(0.0)
            && !off("train")
            && !off("training")
    }

    fn is_blank(&self) -> bool {
        self.content.trim().is_empty() && !self.more.contains_key("tool_calls")
    }
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
            Self::Instruction {
                instruction, input, ..
            } => instruction.trim().is_empty() && input.trim().is_empty(),
            Self::Messages(messages) => messages.iter().all(Message::is_blank),
        }
    }

    /// What is asked, without a system text: one text, an instruction with its input below it; nothing of a conversation.
    pub fn asked(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Instruction {
                instruction, input, ..
            } if input.trim().is_empty() => instruction.clone(),
            Self::Instruction {
                instruction, input, ..
            } => format!("{instruction}\n{input}"),
            Self::Messages(_) => String::new(),
        }
    }

    /// The prompt as a conversation.
    pub fn messages(&self) -> Vec<Message> {
        match self {
            Self::Messages(messages) => messages.clone(),
            Self::Text(_) => vec![Message::new(Role::User, self.asked())],
            Self::Instruction { system, .. } => {
                let system =
                    (!system.trim().is_empty()).then(|| Message::new(Role::System, system));
                system
                    .into_iter()
                    .chain([Message::new(Role::User, self.asked())])
                    .collect()
            }
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
    /// Descriptions of the tools that the model may call, as chat templates read them; mostly none.
    pub tools: Vec<Value>,
    /// One response, or the chosen and the rejected one, or none where only prompts are wanted.
    pub responses: Vec<Message>,
}

impl Row {
    /// A prompt that nobody has answered yet.
    pub fn unanswered(index: usize, line: Option<usize>, prompt: Prompt) -> Self {
        Self {
            index,
            line,
            prompt,
            tools: Vec::new(),
            responses: Vec::new(),
        }
    }

    /// Where the row is, for messages: `row 3 (line 4)`.
    pub fn place(&self) -> String {
        source::place(self.index, self.line)
    }
}

/// Rows that cannot be trained on, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Why, as a phrase: `empty response`.
    pub reason: String,
    /// Their indices in the file, ascending.
    pub rows: Vec<usize>,
}

/// Dropped rows that are named one by one.
const NAMED: usize = 5;

impl Dropped {
    /// The first of the rows, as people read them: `row 3, 7`, of more than five `row 3, 7, 8, 12, 40, ...`.
    pub fn named(&self) -> String {
        let named: Vec<String> = self.rows.iter().take(NAMED).map(usize::to_string).collect();
        format!(
            "row {}{}",
            named.join(", "),
            if self.rows.len() > NAMED { ", ..." } else { "" }
        )
    }

    /// Adds a row to the entry of its reason, in the order in which reasons were first met.
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
    /// The others.
    pub dropped: Vec<Dropped>,
    /// Columns that have a value in some row, and that the dialect does not look at.
    pub unread: Vec<String>,
}

/// One row as a dialect's reader understands it.
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

/// Dialects of preference data. The one without a prompt column comes last: it would fit all the others' rows.
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

/// Dialects of prompts that are to be answered: those above, whether or not the answers are there. Where a row is in several,
/// its prompt is the one that is trained on.
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

    /// The kind that a file may be of instead, by mistake.
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

/// Understands every row of a file; `path` is for messages.
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
    /// Goes on with another file of the same dialect and kind.
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
                "{}: is of another kind than the file before it",
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
            // Whoever asks need not be consistent; a file that is trained on is of one kind, or something is wrong with it.
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
                    "{}: {} has no column {missing:?}: its columns are {}, and the file's first row is in the dialect {}",
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
                    Dropped::add(&mut self.dropped, "labelled as a bad answer", row.index);
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

/// What no dialect may let through. A blank answer is nothing to imitate, but one that was rejected is worth avoiding.
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

/// Columns of unpaired preference rows that say, by true or false, whether the answer is a good one (TRL's and
/// LLaMA-Factory's names).
const LABELS: [&str; 2] = ["label", "kto_tag"];

/// What a row's label says, where it has one.
fn label(columns: &Map<String, Value>, kind: RowKind) -> Option<bool> {
    LABELS
        .iter()
        .filter(|_| kind == RowKind::Instruction)
        .find_map(|name| columns.get(*name)?.as_bool())
}

/// Columns of a row that have a value nobody looks at.
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
    /// A column that holds null is as good as absent.
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
        return Err(Error::input(format!("{name}: there are no rows")));
    };
    let found = columns(&first.columns);
    let fitting = |kind: RowKind| {
        kind.dialects()
            .iter()
            .find(|dialect| dialect.fits(&first.columns))
    };
    match (fitting(kind), kind.other().and_then(fitting)) {
        // The other kind's dialect may explain all of these columns and more: ShareGPT's pairs are conversations too.
        (Some(dialect), None) => return Ok(dialect),
        (Some(dialect), Some(rival))
            if !dialect.needs.iter().all(|need| rival.needs.contains(need)) =>
        {
            return Ok(dialect);
        }
        (_, Some(dialect)) => {
            return Err(Error::input(format!(
                "{name}: this is {}, given where {} is wanted: {} has the columns {found}, which is the dialect {}",
                kind.other().unwrap_or(kind).says(),
                kind.says(),
                first.place(),
                dialect.describe()
            ))
            .hint(match kind {
                RowKind::Instruction => "give it to --dpo, or give --sft a file of instructions and responses",
                _ => "give it to --sft, or give --dpo a file of chosen and rejected responses",
            }));
        }
        (None, None) => {}
    }
    // Nearest: most columns in common; among equals, the one that lacks least.
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
            "; the nearest dialect is {}, which lacks {}",
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
            "text alone has no prompt and so no response to train: divide it into two columns, prompt and completion",
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
        " (--map where there is one file)"
    };
    Err(Error::input(problem).hint(format!(
        "name the columns as one dialect does, with {example}{elsewhere} or in the file: {}",
        all.join("; ")
    )))
}

fn columns(columns: &Map<String, Value>) -> String {
    listed(columns.keys())
}

/// Column names for a message, cut where there are very many.
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

//! Dialects: what the columns of a row mean. A new dialect is a file that declares it, and its line in `DIALECTS`.

mod alpaca;
mod asked;
mod chosen_rejected;
mod context;
mod fields;
mod messages;
mod prompt;
mod prompt_completion;
mod question;
mod sharegpt;
mod turns;

use upright_base::Result;
use upright_math::registry::Registry;

use crate::conversation::{Message, Prompt};

pub use fields::Fields;

/// A dialect: the columns of a row, and what they mean.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Name in messages and records.
    pub name: &'static str,
    /// What its rows are used for.
    pub kind: Kind,
    /// The columns that a row must have. A column that is null counts as absent.
    pub needs: &'static [&'static str],
    /// The columns that a row may have, apart from `tools`.
    pub also: &'static [&'static str],
    /// The form of the column `tools`.
    pub tools: Tools,
    /// Reads the prompt and as many responses as `kind` says. Empty responses are dropped later.
    pub read: Reader,
    /// How `upright generate` reads the prompt without the responses. `None` if the rows have no responses, or if another dialect
    /// of the table reads the prompts of the same rows.
    pub prompt: Option<PromptReader>,
}

/// Reads one row.
///
/// # Errors
/// A column has the wrong type.
pub type Reader = fn(&Fields<'_>) -> Result<Reading>;

/// How prompts are read from rows that also have responses.
#[derive(Clone, Copy, Debug)]
pub struct PromptReader {
    /// Name of the dialect in messages about prompts.
    pub name: &'static str,
    /// Reads the prompt. Responses in the result are ignored. Responses that cannot be trained on are no error.
    pub read: Reader,
}

/// What rows are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Training on one response per row.
    Instruction,
    /// Training on two responses per row: the chosen one, then the rejected one.
    Preference,
    /// Generation: the rows have no responses.
    Prompt,
}

/// The form of the column `tools`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    /// The dialect has no such column.
    None,
    /// Each tool is an object as chat templates expect it.
    Wrapped,
    /// Each tool is usually the description of a function, without the object around it.
    Bare,
}

/// Result of a reader for one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// The prompt and its responses, as many and in the order as [`Kind`] says.
    Row(Prompt, Vec<Message>),
    /// The row is not usable, with the reason as a phrase: `no assistant turn at the end`.
    Dropped(&'static str),
}

/// All dialects. The first one whose columns are there is used, so a dialect comes before those that need fewer of its columns.
/// `chosen-rejected` is last: it would fit the rows of most others.
static DIALECTS: Registry<Dialect> = Registry::new(&[
    &alpaca::INSTRUCTION,
    &prompt_completion::INSTRUCTION,
    &messages::INSTRUCTION,
    &prompt::PREFERENCE,
    &question::PREFERENCE,
    &alpaca::PREFERENCE,
    &sharegpt::INSTRUCTION,
    &sharegpt::PREFERENCE,
    &question::INSTRUCTION,
    &prompt::PROMPT,
    &question::PROMPT,
    &alpaca::PROMPT,
    &context::PREFERENCE,
    &context::PROMPT,
    &chosen_rejected::PREFERENCE,
]);

/// All dialects, in the order in which they are tried.
pub fn dialects() -> &'static [&'static Dialect] {
    DIALECTS.all()
}

/// The built-in dialects, whatever was installed.
pub fn builtin() -> &'static [&'static Dialect] {
    DIALECTS.builtin()
}

/// Makes these the dialects of the process, for programs with a dialect of their own. To add one, put it into [`builtin`].
///
/// # Panics
/// If a dialect was looked up or installed before.
pub fn install(dialects: Vec<&'static Dialect>) {
    DIALECTS.install(dialects);
}

impl Dialect {
    /// All columns that the dialect reads.
    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        let tools: &[&str] = match self.tools {
            Tools::None => &[],
            Tools::Wrapped | Tools::Bare => &["tools"],
        };
        self.needs.iter().chain(self.also).chain(tools).copied()
    }
}

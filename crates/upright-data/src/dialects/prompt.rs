//! `prompt` with `chosen` and `rejected`: texts, lists of messages, or a text with lists of messages.

use upright_base::Result;

use super::asked::{pair_in, prompt_in};
use super::{Dialect, Fields, Kind, PromptReader, Reading, Tools};

/// `prompt`, `chosen` and `rejected`.
pub(super) static PREFERENCE: Dialect = Dialect {
    name: "prompt-chosen-rejected",
    kind: Kind::Preference,
    needs: &["prompt", "chosen", "rejected"],
    also: &["system"],
    tools: Tools::Wrapped,
    read: pair,
    prompt: Some(PromptReader {
        name: "prompt",
        read: alone,
    }),
};

/// `prompt` alone.
pub(super) static PROMPT: Dialect = Dialect {
    name: "prompt",
    kind: Kind::Prompt,
    needs: &["prompt"],
    also: &["system"],
    tools: Tools::Wrapped,
    read: alone,
    prompt: None,
};

fn pair(fields: &Fields<'_>) -> Result<Reading> {
    pair_in(fields, "prompt")
}

fn alone(fields: &Fields<'_>) -> Result<Reading> {
    prompt_in(fields, "prompt")
}

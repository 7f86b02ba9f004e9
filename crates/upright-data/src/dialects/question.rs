//! `question`, with one `answer` or with two responses.

use upright_base::Result;

use super::asked::{asked, pair_in, prompt_in};
use super::{Dialect, Fields, Kind, PromptReader, Reading, Tools};
use crate::conversation::Message;

/// `question` and `answer`.
pub(super) static INSTRUCTION: Dialect = Dialect {
    name: "question-answer",
    kind: Kind::Instruction,
    needs: &["question", "answer"],
    also: &["system"],
    tools: Tools::None,
    read: answered,
    prompt: Some(PromptReader {
        name: "question-answer",
        read: alone,
    }),
};

/// `question`, `chosen` and `rejected`.
pub(super) static PREFERENCE: Dialect = Dialect {
    name: "question-chosen-rejected",
    kind: Kind::Preference,
    needs: &["question", "chosen", "rejected"],
    also: &["system"],
    tools: Tools::None,
    read: pair,
    prompt: Some(PromptReader {
        name: "question",
        read: alone,
    }),
};

/// `question` alone.
pub(super) static PROMPT: Dialect = Dialect {
    name: "question",
    kind: Kind::Prompt,
    needs: &["question"],
    also: &["system"],
    tools: Tools::None,
    read: alone,
    prompt: None,
};

fn answered(fields: &Fields<'_>) -> Result<Reading> {
    let prompt = asked(fields, "question")?;
    let answer = Message::said(fields.text("answer")?);
    Ok(Reading::Row(prompt, vec![answer]))
}

fn pair(fields: &Fields<'_>) -> Result<Reading> {
    pair_in(fields, "question")
}

fn alone(fields: &Fields<'_>) -> Result<Reading> {
    prompt_in(fields, "question")
}

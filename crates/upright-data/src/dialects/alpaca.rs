//! Alpaca's `instruction` and `input`, with one `output` or with two responses.

use upright_base::Result;

use super::asked::answers;
use super::turns::opened;
use super::{Dialect, Fields, Kind, PromptReader, Reading, Tools};
use crate::conversation::{Message, Prompt, Role};

/// `instruction` and `output`.
pub(super) static INSTRUCTION: Dialect = Dialect {
    name: "alpaca",
    kind: Kind::Instruction,
    needs: &["instruction", "output"],
    also: &["input", "system", "history"],
    tools: Tools::None,
    read: answered,
    prompt: Some(ALONE),
};

/// `instruction`, `chosen` and `rejected`.
pub(super) static PREFERENCE: Dialect = Dialect {
    name: "alpaca-preference",
    kind: Kind::Preference,
    needs: &["instruction", "chosen", "rejected"],
    also: &["input", "system", "history"],
    tools: Tools::None,
    read: pair,
    prompt: Some(ALONE),
};

/// `instruction` alone.
pub(super) static PROMPT: Dialect = Dialect {
    name: "alpaca",
    kind: Kind::Prompt,
    needs: &["instruction"],
    also: &["input", "system", "history"],
    tools: Tools::None,
    read: alone,
    prompt: None,
};

const ALONE: PromptReader = PromptReader {
    name: "alpaca",
    read: alone,
};

fn answered(fields: &Fields<'_>) -> Result<Reading> {
    let prompt = prompt(fields)?;
    let output = Message::said(fields.text("output")?);
    Ok(Reading::Row(prompt, vec![output]))
}

fn pair(fields: &Fields<'_>) -> Result<Reading> {
    let prompt = prompt(fields)?;
    Ok(Reading::Row(prompt, answers(fields)?))
}

fn alone(fields: &Fields<'_>) -> Result<Reading> {
    Ok(Reading::Row(prompt(fields)?, Vec::new()))
}

/// The prompt columns. With a history the row is a conversation.
fn prompt(fields: &Fields<'_>) -> Result<Prompt> {
    let system = fields.text("system")?;
    let instruction = fields.text("instruction")?;
    let input = fields.text("input")?;
    let history = fields.history("history")?;
    if history.is_empty() {
        return Ok(Prompt::Instruction {
            system,
            instruction,
            input,
        });
    }
    let asked = if input.trim().is_empty() {
        instruction
    } else {
        format!("{instruction}\n{input}")
    };
    let mut messages = opened(system, history);
    messages.push(Message::new(Role::User, asked));
    Ok(Prompt::Messages(messages))
}

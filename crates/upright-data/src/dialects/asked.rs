//! A column with the prompt, beside columns with the responses.

use upright_base::Result;

use super::turns::{continued, opened, opening, split_messages, unanswered};
use super::{Fields, Reading};
use crate::conversation::{Message, Prompt, Role};

const PROMPT_ELSEWHERE: &str = "prompt column does not match the conversation (without the column, the conversation is the prompt)";

/// A prompt column, a text or a list of messages, below the row's `system` text if there is one.
pub(super) fn asked(fields: &Fields<'_>, column: &str) -> Result<Prompt> {
    let system = fields.text("system")?;
    if fields.is_list(column) {
        return Ok(Prompt::Messages(opened(system, fields.messages(column)?)));
    }
    let text = fields.text(column)?;
    Ok(match system.trim().is_empty() {
        true => Prompt::Text(text),
        false => Prompt::Instruction {
            system,
            instruction: text,
            input: String::new(),
        },
    })
}

/// `chosen` and `rejected` as texts.
pub(super) fn answers(fields: &Fields<'_>) -> Result<Vec<Message>> {
    let chosen = Message::said(fields.text("chosen")?);
    let rejected = Message::said(fields.text("rejected")?);
    Ok(vec![chosen, rejected])
}

/// The prompt in `column` with `chosen` and `rejected`: texts, lists of messages, or a text with
/// lists of messages.
pub(super) fn pair_in(fields: &Fields<'_>, column: &str) -> Result<Reading> {
    let prompt = asked(fields, column)?;
    if !fields.is_list("chosen") && !fields.is_list("rejected") {
        return Ok(Reading::Row(prompt, answers(fields)?));
    }
    let chosen = fields.messages("chosen")?;
    let rejected = fields.messages("rejected")?;
    between(fields, column, &prompt, chosen, rejected)
}

/// The prompt in `column`. One response that is a list of messages is enough to find the prompt
/// that [`pair_in`] reads.
pub(super) fn prompt_in(fields: &Fields<'_>, column: &str) -> Result<Reading> {
    let prompt = asked(fields, column)?;
    let chosen = messages_in(fields, "chosen")?;
    let rejected = messages_in(fields, "rejected")?;
    let (chosen, rejected) = match (chosen.is_empty(), rejected.is_empty()) {
        (false, false) => (chosen, rejected),
        (false, true) => (chosen.clone(), chosen),
        (true, false) => (rejected.clone(), rejected),
        (true, true) => {
            return Ok(match prompt {
                Prompt::Messages(messages) => unanswered(messages),
                prompt => Reading::Row(prompt, Vec::new()),
            });
        }
    };
    between(fields, column, &prompt, chosen, rejected)
}

/// The messages of a column, or none if it has anything else.
fn messages_in(fields: &Fields<'_>, column: &str) -> Result<Vec<Message>> {
    match has_messages(fields, column)? {
        true => fields.messages(column),
        false => Ok(Vec::new()),
    }
}

/// Whether a column is a list of messages. A list of anything else cannot be trained on, but the
/// prompt can still be used.
pub(super) fn has_messages(fields: &Fields<'_>, column: &str) -> Result<bool> {
    Ok(fields.is_list(column)
        && fields
            .list(column)?
            .first()
            .is_some_and(serde_json::Value::is_object))
}

/// A prompt from a column (see [`asked`]), and responses that are lists of messages, with or
/// without the prompt before them. Either way they are a conversation.
fn between(
    fields: &Fields<'_>,
    column: &str,
    prompt: &Prompt,
    chosen: Vec<Message>,
    rejected: Vec<Message>,
) -> Result<Reading> {
    if let Prompt::Messages(prompt) = prompt {
        return Ok(split_messages(
            continued(prompt, &chosen),
            continued(prompt, &rejected),
        ));
    }
    let text = fields.text(column)?;
    Ok(match split_messages(chosen, rejected) {
        Reading::Row(Prompt::Messages(mut before), answers) => {
            // If the lists start with a user turn, the text can only repeat what they say, verbatim
            // or in a template's words.
            let first = opening(&before);
            let begins = before
                .get(first)
                .is_some_and(|turn| turn.role == Role::User);
            let text = text.trim();
            let says = |turn: &Message| {
                let content = turn.content.trim();
                turn.role == Role::User && (content.contains(text) || text.contains(content))
            };
            match (begins, before.iter().any(says)) {
                _ if text.is_empty() => {}
                (_, true) => {}
                (false, false) => before.insert(first, Message::new(Role::User, text)),
                (true, false) => return Ok(Reading::Dropped(PROMPT_ELSEWHERE)),
            }
            Reading::Row(
                Prompt::Messages(opened(fields.text("system")?, before)),
                answers,
            )
        }
        other => other,
    })
}

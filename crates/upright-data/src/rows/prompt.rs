//! Prompts of every dialect, to generate responses for. Responses in the row are left out.

use super::completions;
use super::fields::Fields;
use super::instruction::{alpaca_prompt, asked, opened, prompt_completion};
use super::preference::{between, without_prompt};
use super::{Message, Prompt, Reading, Role};
use upright_base::Result;

/// `prompt`, a text or a list of messages.
pub(super) fn prompt(fields: &Fields) -> Result<Reading> {
    question_in(fields, "prompt")
}

/// `prompt` and `completion`: the turns before the last, if they are a conversation.
pub(super) fn completed(fields: &Fields) -> Result<Reading> {
    match says(fields, "completion")? {
        true => Ok(alone(prompt_completion(fields)?)),
        false => question_in(fields, "prompt"),
    }
}

/// Alpaca's prompt columns.
pub(super) fn instruction(fields: &Fields) -> Result<Reading> {
    Ok(Reading::Row(alpaca_prompt(fields)?, Vec::new()))
}

/// OpenAI's `messages`, with an optional `system`.
pub(super) fn messages(fields: &Fields) -> Result<Reading> {
    Ok(unanswered(opened(
        fields.text("system")?,
        fields.messages("messages")?,
    )))
}

/// ShareGPT's `conversations`, with an optional `system`.
pub(super) fn sharegpt(fields: &Fields) -> Result<Reading> {
    Ok(unanswered(opened(
        fields.text("system")?,
        fields.messages("conversations")?,
    )))
}

/// `question`.
pub(super) fn question(fields: &Fields) -> Result<Reading> {
    question_in(fields, "question")
}

fn question_in(fields: &Fields, column: &str) -> Result<Reading> {
    let prompt = asked(fields, column)?;
    let answer = |name: &str| {
        if says(fields, name)? {
            fields.messages(name)
        } else {
            Ok(Vec::new())
        }
    };
    let (chosen, rejected) = (answer("chosen")?, answer("rejected")?);
    // One of the two responses is enough to find the prompt.
    let pair = match (chosen.is_empty(), rejected.is_empty()) {
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
    Ok(alone(between(fields, column, &prompt, pair.0, pair.1)?))
}

/// Whether a column is a list of messages. A list of anything else cannot be trained on, but the
/// prompt can still be used.
fn says(fields: &Fields, column: &str) -> Result<bool> {
    Ok(fields.is_list(column)
        && fields
            .list(column)?
            .first()
            .is_some_and(serde_json::Value::is_object))
}

/// A row without its responses.
fn alone(reading: Reading) -> Reading {
    match reading {
        Reading::Row(prompt, _) => Reading::Row(prompt, Vec::new()),
        dropped @ Reading::Dropped(_) => dropped,
    }
}

/// NeMo's `context`.
pub(super) fn context(fields: &Fields) -> Result<Reading> {
    Ok(unanswered(completions::context(fields)?))
}

/// The prompt that `chosen` and `rejected` share.
pub(super) fn shared(fields: &Fields) -> Result<Reading> {
    without_prompt(fields)
}

/// A conversation up to the model's turn.
fn unanswered(mut messages: Vec<Message>) -> Reading {
    if messages
        .last()
        .is_some_and(|message| message.role == Role::Assistant)
    {
        messages.pop();
    }
    Reading::Row(Prompt::Messages(messages), Vec::new())
}

//! Dialects with one response per row.

use super::fields::Fields;
use super::{Message, Prompt, Reading, Role};
use upright_base::Result;

/// `instruction`, `output`, and optionally `input`, `system` and `history`.
pub(super) fn alpaca(fields: &Fields) -> Result<Reading> {
    Ok(Reading::Row(
        alpaca_prompt(fields)?,
        vec![Message::said(fields.text("output")?)],
    ))
}

/// Alpaca's prompt columns; with a history the row is a conversation.
pub(super) fn alpaca_prompt(fields: &Fields) -> Result<Prompt> {
    let (system, instruction, input) = (
        fields.text("system")?,
        fields.text("instruction")?,
        fields.text("input")?,
    );
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

/// A prompt column, a text or a list of messages, below the row's `system` text if there is one.
pub(super) fn asked(fields: &Fields, column: &str) -> Result<Prompt> {
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

/// `prompt` and `completion`, each a text or a list of messages, with an optional `system`.
pub(super) fn prompt_completion(fields: &Fields) -> Result<Reading> {
    let prompt = asked(fields, "prompt")?;
    if fields.is_list("completion") {
        let mut messages = prompt.messages();
        messages.extend(fields.messages("completion")?);
        return Ok(last_turn(messages));
    }
    Ok(Reading::Row(
        prompt,
        vec![Message::said(fields.text("completion")?)],
    ))
}

/// OpenAI's `messages`, with an optional `system`.
pub(super) fn messages(fields: &Fields) -> Result<Reading> {
    Ok(last_turn(opened(
        fields.text("system")?,
        fields.messages("messages")?,
    )))
}

/// ShareGPT's `conversations`, with an optional `system`.
pub(super) fn sharegpt(fields: &Fields) -> Result<Reading> {
    Ok(last_turn(opened(
        fields.text("system")?,
        fields.messages("conversations")?,
    )))
}

/// `question` and `answer`.
pub(super) fn question_answer(fields: &Fields) -> Result<Reading> {
    Ok(Reading::Row(
        asked(fields, "question")?,
        vec![Message::said(fields.text("answer")?)],
    ))
}

/// Puts the row's system text above a conversation that has none.
pub(super) fn opened(system: String, mut messages: Vec<Message>) -> Vec<Message> {
    let has_one = messages
        .first()
        .is_some_and(|message| message.role == Role::System);
    if !system.trim().is_empty() && !has_one {
        messages.insert(0, Message::new(Role::System, system));
    }
    messages
}

/// The last turn is the response, everything before it the prompt.
fn last_turn(mut messages: Vec<Message>) -> Reading {
    match messages.pop() {
        Some(said) if said.role == Role::Assistant => {
            Reading::Row(Prompt::Messages(messages), vec![said])
        }
        _ => Reading::Dropped("no assistant turn at the end"),
    }
}

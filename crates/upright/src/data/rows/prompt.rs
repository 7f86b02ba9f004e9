//! Prompts of every dialect, to be answered: whatever answer stands there already is left out.

use super::cells::Cells;
use super::completions;
use super::instruction::{alpaca_prompt, asked, opened, prompt_completion};
use super::preference::{between, without_prompt};
use super::{Message, Prompt, Reading, Role};
use crate::Result;

/// `prompt`, a text or a list of messages.
pub(super) fn prompt(cells: &Cells) -> Result<Reading> {
    question_in(cells, "prompt")
}

/// `prompt` and `completion`: the turns before the last, where they are a conversation.
pub(super) fn completed(cells: &Cells) -> Result<Reading> {
    match says(cells, "completion")? {
        true => Ok(alone(prompt_completion(cells)?)),
        false => question_in(cells, "prompt"),
    }
}

/// Alpaca's prompt columns.
pub(super) fn instruction(cells: &Cells) -> Result<Reading> {
    Ok(Reading::Row(alpaca_prompt(cells)?, Vec::new()))
}

/// OpenAI's `messages`, with `system` beside them.
pub(super) fn messages(cells: &Cells) -> Result<Reading> {
    Ok(unanswered(opened(
        cells.text("system")?,
        cells.messages("messages")?,
    )))
}

/// ShareGPT's `conversations`, with `system` beside them.
pub(super) fn sharegpt(cells: &Cells) -> Result<Reading> {
    Ok(unanswered(opened(
        cells.text("system")?,
        cells.messages("conversations")?,
    )))
}

/// `question`.
pub(super) fn question(cells: &Cells) -> Result<Reading> {
    question_in(cells, "question")
}

fn question_in(cells: &Cells, column: &str) -> Result<Reading> {
    let prompt = asked(cells, column)?;
    let answer = |name: &str| {
        if says(cells, name)? {
            cells.messages(name)
        } else {
            Ok(Vec::new())
        }
    };
    let (chosen, rejected) = (answer("chosen")?, answer("rejected")?);
    // One of the two is enough to know what they answer.
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
    Ok(alone(between(cells, column, &prompt, pair.0, pair.1)?))
}

/// Whether a column is a list of messages. One of anything else is no answer that could be trained on, and the question is
/// there all the same.
fn says(cells: &Cells, column: &str) -> Result<bool> {
    Ok(cells.is_list(column)
        && cells
            .list(column)?
            .first()
            .is_some_and(serde_json::Value::is_object))
}

/// A row without its answers.
fn alone(reading: Reading) -> Reading {
    match reading {
        Reading::Row(prompt, _) => Reading::Row(prompt, Vec::new()),
        dropped @ Reading::Dropped(_) => dropped,
    }
}

/// NeMo's `context`.
pub(super) fn context(cells: &Cells) -> Result<Reading> {
    Ok(unanswered(completions::context(cells)?))
}

/// What `chosen` and `rejected` have in common.
pub(super) fn shared(cells: &Cells) -> Result<Reading> {
    without_prompt(cells)
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

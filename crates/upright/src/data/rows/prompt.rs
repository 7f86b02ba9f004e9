//! Prompts of every dialect, to be answered: whatever answer stands there already is left out.

use super::cells::Cells;
use super::completions;
use super::instruction::{alpaca_prompt, asked, opened};
use super::preference::without_prompt;
use super::{Message, Prompt, Reading, Role};
use crate::Result;

/// `prompt`, a text or a list of messages.
pub(super) fn prompt(cells: &Cells) -> Result<Reading> {
    question_in(cells, "prompt")
}

/// Alpaca's prompt columns.
pub(super) fn instruction(cells: &Cells) -> Result<Reading> {
    Ok(Reading::Row(alpaca_prompt(cells)?, Vec::new()))
}

/// OpenAI's `messages`.
pub(super) fn messages(cells: &Cells) -> Result<Reading> {
    Ok(unanswered(cells.messages("messages")?))
}

/// ShareGPT's `conversations`, with `system` beside them.
pub(super) fn sharegpt(cells: &Cells) -> Result<Reading> {
    Ok(unanswered(opened(cells.text("system")?, cells.messages("conversations")?)))
}

/// `question`.
pub(super) fn question(cells: &Cells) -> Result<Reading> {
    question_in(cells, "question")
}

fn question_in(cells: &Cells, column: &str) -> Result<Reading> {
    // Beside answers that are messages a text is a turn of a conversation, as it is where these rows are trained on.
    let is_turn = ["chosen", "rejected", "completion"].iter().any(|answer| cells.is_list(answer));
    Ok(match asked(cells, column)? {
        Prompt::Messages(messages) => unanswered(messages),
        prompt if is_turn && !prompt.is_empty() => Reading::Row(Prompt::Messages(prompt.messages()), Vec::new()),
        prompt => Reading::Row(prompt, Vec::new()),
    })
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
    if messages.last().is_some_and(|message| message.role == Role::Assistant) {
        messages.pop();
    }
    Reading::Row(Prompt::Messages(messages), Vec::new())
}

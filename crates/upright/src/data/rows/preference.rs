//! Dialects with a chosen and a rejected response.

use super::cells::Cells;
use super::instruction::{alpaca_prompt, asked, opened};
use super::{Message, Prompt, Reading, Role};
use crate::Result;

const NO_BOUNDARY: &str = "chosen and rejected share no prompt that ends in a turn boundary";
const TURNS_DIFFER: &str = "chosen and rejected differ before their last turn";
const NO_ANSWER: &str = "no assistant turn at the end";

/// `prompt`, `chosen`, `rejected`: texts, lists of messages, or a text with lists of messages; perhaps `system`.
pub(super) fn with_prompt(cells: &Cells) -> Result<Reading> {
    prompted(cells, "prompt")
}

/// `question`, `chosen`, `rejected`.
pub(super) fn with_question(cells: &Cells) -> Result<Reading> {
    prompted(cells, "question")
}

fn prompted(cells: &Cells, column: &str) -> Result<Reading> {
    let prompt = asked(cells, column)?;
    if !cells.is_list("chosen") && !cells.is_list("rejected") {
        return Ok(Reading::Row(prompt, answers(cells)?));
    }
    let (chosen, rejected) = (cells.messages("chosen")?, cells.messages("rejected")?);
    if let Prompt::Messages(prompt) = &prompt {
        return Ok(split_messages(continued(prompt, chosen), continued(prompt, rejected)));
    }
    let text = Message::new(Role::User, cells.text(column)?);
    Ok(match split_messages(chosen, rejected) {
        // The lists hold the answers alone, or repeat the prompt before them. Either way they are a conversation.
        Reading::Row(Prompt::Messages(mut before), answers) => {
            if !before.contains(&text) && !text.content.trim().is_empty() {
                let first = before.iter().take_while(|message| message.role == Role::System).count();
                before.insert(first, text);
            }
            Reading::Row(Prompt::Messages(opened(cells.text("system")?, before)), answers)
        }
        other => other,
    })
}

/// Both answers as texts.
fn answers(cells: &Cells) -> Result<Vec<Message>> {
    Ok(vec![Message::said(cells.text("chosen")?), Message::said(cells.text("rejected")?)])
}

/// Alpaca's prompt columns beside `chosen` and `rejected`.
pub(super) fn alpaca(cells: &Cells) -> Result<Reading> {
    Ok(Reading::Row(alpaca_prompt(cells)?, answers(cells)?))
}

/// ShareGPT's `conversations` beside `chosen` and `rejected`, one message each.
pub(super) fn sharegpt(cells: &Cells) -> Result<Reading> {
    let prompt = opened(cells.text("system")?, cells.messages("conversations")?);
    let (chosen, rejected) = (cells.message("chosen")?, cells.message("rejected")?);
    if chosen.role != Role::Assistant || rejected.role != Role::Assistant {
        return Ok(Reading::Dropped(NO_ANSWER));
    }
    Ok(Reading::Row(Prompt::Messages(prompt), vec![chosen, rejected]))
}

/// `chosen` and `rejected` alone: whole conversations that begin alike.
pub(super) fn without_prompt(cells: &Cells) -> Result<Reading> {
    if cells.is_list("chosen") || cells.is_list("rejected") {
        return Ok(split_messages(cells.messages("chosen")?, cells.messages("rejected")?));
    }
    let (chosen, rejected) = (cells.text("chosen")?, cells.text("rejected")?);
    Ok(match turn_boundary(&chosen, &rejected) {
        Some(cut) => {
            let prompt = Prompt::Text(chosen[..cut].to_owned());
            Reading::Row(prompt, vec![Message::said(&chosen[cut..]), Message::said(&rejected[cut..])])
        }
        None if chosen.trim().is_empty() || rejected.trim().is_empty() => Reading::Dropped("empty response"),
        None => Reading::Dropped(NO_BOUNDARY),
    })
}

/// Just after the last "\n\nAssistant:" that both texts begin with. Answers that begin alike are so not torn apart.
fn turn_boundary(chosen: &str, rejected: &str) -> Option<usize> {
    const TURN: &str = "\n\nAssistant:";
    let shared = chosen.bytes().zip(rejected.bytes()).take_while(|(a, b)| a == b).count();
    // The marker is ASCII, so it ends on a character boundary even where the shared bytes do not.
    let shared = chosen.floor_char_boundary(shared);
    chosen[..shared].rfind(TURN).map(|start| start + TURN.len())
}

/// A list of answers with its prompt before it, whether or not it repeats the prompt.
pub(super) fn continued(prompt: &[Message], answer: Vec<Message>) -> Vec<Message> {
    if answer.len() > prompt.len() && answer.starts_with(prompt) {
        return answer;
    }
    let mut whole = prompt.to_vec();
    whole.extend(answer);
    whole
}

/// The turns before the last are the prompt, and must be the same; the last ones are the answers.
pub(super) fn split_messages(mut chosen: Vec<Message>, mut rejected: Vec<Message>) -> Reading {
    match (chosen.pop(), rejected.pop()) {
        (Some(c), Some(r)) if c.role == Role::Assistant && r.role == Role::Assistant => {
            if chosen != rejected {
                return Reading::Dropped(TURNS_DIFFER);
            }
            Reading::Row(Prompt::Messages(chosen), vec![c, r])
        }
        _ => Reading::Dropped(NO_ANSWER),
    }
}

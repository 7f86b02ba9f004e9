//! Conversations: their opening, their last turn, and the turns that two responses share.

use super::Reading;
use crate::conversation::{Message, Prompt, Role};

/// Why a pair is dropped whose prompts differ.
pub(super) const TURNS_DIFFER: &str = "chosen and rejected differ before their last turn";

/// Why a conversation is dropped in which the model does not have the last word.
pub(super) const NO_ANSWER: &str = "no assistant turn at the end";

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

/// Number of system turns at the start.
pub(super) fn opening(messages: &[Message]) -> usize {
    messages
        .iter()
        .take_while(|message| message.role == Role::System)
        .count()
}

/// A conversation whose last turn is the response, everything before it the prompt.
pub(super) fn last_turn(mut messages: Vec<Message>) -> Reading {
    match messages.pop() {
        Some(said) if said.role == Role::Assistant => {
            Reading::Row(Prompt::Messages(messages), vec![said])
        }
        _ => Reading::Dropped(NO_ANSWER),
    }
}

/// A conversation up to the model's turn.
pub(super) fn unanswered(mut messages: Vec<Message>) -> Reading {
    if messages
        .last()
        .is_some_and(|message| message.role == Role::Assistant)
    {
        messages.pop();
    }
    Reading::Row(Prompt::Messages(messages), Vec::new())
}

/// A response with its prompt before it, whether or not it repeats the prompt. The repeated turns
/// may have other keys, and either of the two may have the system turn.
pub(super) fn continued(prompt: &[Message], answer: &[Message]) -> Vec<Message> {
    let (above, asked) = prompt.split_at(opening(prompt));
    let (own, turns) = answer.split_at(opening(answer));
    let same = |(a, b): (&Message, &Message)| {
        let calls = |message: &Message| message.more.get("tool_calls").cloned();
        a.role == b.role && a.content.trim() == b.content.trim() && calls(a) == calls(b)
    };
    if turns.len() <= asked.len() || !turns.iter().zip(asked).all(same) {
        return [prompt, answer].concat();
    }
    [
        if own.is_empty() { above } else { own },
        asked,
        &turns[asked.len()..],
    ]
    .concat()
}

/// The turns before the last are the prompt, and must be the same; the last turns are the
/// responses.
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

//! Dialects with a chosen and a rejected response.

use super::fields::Fields;
use super::instruction::{alpaca_prompt, asked, opened};
use super::{Message, Prompt, Reading, Role};
use upright_base::Result;

const NO_BOUNDARY: &str = "chosen and rejected share no prompt that ends at a turn boundary";
const TURNS_DIFFER: &str = "chosen and rejected differ before their last turn";
const PROMPT_ELSEWHERE: &str = "prompt column does not match the conversation (without the column, the conversation is the prompt)";
const NO_ANSWER: &str = "no assistant turn at the end";

/// `prompt`, `chosen`, `rejected`: texts, lists of messages, or a text with lists of messages;
/// optionally `system`.
pub(super) fn with_prompt(fields: &Fields) -> Result<Reading> {
    prompted(fields, "prompt")
}

/// `question`, `chosen`, `rejected`.
pub(super) fn with_question(fields: &Fields) -> Result<Reading> {
    prompted(fields, "question")
}

fn prompted(fields: &Fields, column: &str) -> Result<Reading> {
    let prompt = asked(fields, column)?;
    if !fields.is_list("chosen") && !fields.is_list("rejected") {
        return Ok(Reading::Row(prompt, answers(fields)?));
    }
    between(
        fields,
        column,
        &prompt,
        fields.messages("chosen")?,
        fields.messages("rejected")?,
    )
}

/// A prompt from a column (see [`asked`]), and responses that are lists of messages, with or
/// without the prompt before them. Either way they are a conversation.
pub(super) fn between(
    fields: &Fields,
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

/// Both responses as texts.
fn answers(fields: &Fields) -> Result<Vec<Message>> {
    Ok(vec![
        Message::said(fields.text("chosen")?),
        Message::said(fields.text("rejected")?),
    ])
}

/// Alpaca's prompt columns with `chosen` and `rejected`.
pub(super) fn alpaca(fields: &Fields) -> Result<Reading> {
    Ok(Reading::Row(alpaca_prompt(fields)?, answers(fields)?))
}

/// ShareGPT's `conversations` with `chosen` and `rejected`, one message each.
pub(super) fn sharegpt(fields: &Fields) -> Result<Reading> {
    let prompt = opened(fields.text("system")?, fields.messages("conversations")?);
    let (chosen, rejected) = (fields.message("chosen")?, fields.message("rejected")?);
    if chosen.role != Role::Assistant || rejected.role != Role::Assistant {
        return Ok(Reading::Dropped(NO_ANSWER));
    }
    Ok(Reading::Row(
        Prompt::Messages(prompt),
        vec![chosen, rejected],
    ))
}

/// `chosen` and `rejected` alone: whole conversations with the same start; optionally `system`.
pub(super) fn without_prompt(fields: &Fields) -> Result<Reading> {
    let system = fields.text("system")?;
    if fields.is_list("chosen") || fields.is_list("rejected") {
        return Ok(
            match split_messages(fields.messages("chosen")?, fields.messages("rejected")?) {
                Reading::Row(Prompt::Messages(turns), answers) => {
                    Reading::Row(Prompt::Messages(opened(system, turns)), answers)
                }
                other => other,
            },
        );
    }
    let (chosen, rejected) = (fields.text("chosen")?, fields.text("rejected")?);
    Ok(match turn_boundary(&chosen, &rejected) {
        // A rest of the conversation with a user turn is not a response.
        Some(cut)
            if [&chosen, &rejected]
                .iter()
                .any(|text| text[cut..].contains("\n\nHuman:")) =>
        {
            Reading::Dropped(TURNS_DIFFER)
        }
        Some(cut) => {
            let prompt = match system.trim() {
                "" => chosen[..cut].to_owned(),
                system => format!("{system}\n\n{}", chosen[..cut].trim_start()),
            };
            Reading::Row(
                Prompt::Text(prompt),
                vec![
                    Message::said(&chosen[cut..]),
                    Message::said(&rejected[cut..]),
                ],
            )
        }
        None if chosen.trim().is_empty() || rejected.trim().is_empty() => {
            Reading::Dropped("empty response")
        }
        None => Reading::Dropped(NO_BOUNDARY),
    })
}

/// Just after the last "\n\nAssistant:" that both texts start with. Responses with the same start
/// are thus not split in the middle.
fn turn_boundary(chosen: &str, rejected: &str) -> Option<usize> {
    const TURN: &str = "\n\nAssistant:";
    let shared = chosen
        .bytes()
        .zip(rejected.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    // The marker is ASCII, so it ends on a character boundary even where the shared bytes do not.
    let shared = chosen.floor_char_boundary(shared);
    chosen[..shared].rfind(TURN).map(|start| start + TURN.len())
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

/// Number of system turns at the start.
fn opening(messages: &[Message]) -> usize {
    messages
        .iter()
        .take_while(|message| message.role == Role::System)
        .count()
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

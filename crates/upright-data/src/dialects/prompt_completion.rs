//! `prompt` and `completion`, each a text or a list of messages.

use upright_base::Result;

use super::asked::{asked, has_messages, prompt_in};
use super::turns::last_turn;
use super::{Dialect, Fields, Kind, PromptReader, Reading, Tools};
use crate::conversation::Message;

/// `prompt` and `completion`.
pub(super) static INSTRUCTION: Dialect = Dialect {
    name: "prompt-completion",
    kind: Kind::Instruction,
    needs: &["prompt", "completion"],
    also: &["system"],
    tools: Tools::Wrapped,
    read: answered,
    prompt: Some(PromptReader {
        name: "prompt-completion",
        read: alone,
    }),
};

fn answered(fields: &Fields<'_>) -> Result<Reading> {
    let prompt = asked(fields, "prompt")?;
    if fields.is_list("completion") {
        let mut messages = prompt.messages();
        messages.extend(fields.messages("completion")?);
        return Ok(last_turn(messages));
    }
    let completion = Message::said(fields.text("completion")?);
    Ok(Reading::Row(prompt, vec![completion]))
}

/// The turns before the last, if the completion is a conversation.
fn alone(fields: &Fields<'_>) -> Result<Reading> {
    if has_messages(fields, "completion")? {
        answered(fields)
    } else {
        prompt_in(fields, "prompt")
    }
}

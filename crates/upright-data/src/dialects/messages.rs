//! OpenAI's `messages`.

use upright_base::Result;

use super::turns::{last_turn, opened, unanswered};
use super::{Dialect, Fields, Kind, PromptReader, Tools};
use crate::conversation::Message;

/// A conversation that ends with the response.
pub(super) static INSTRUCTION: Dialect = Dialect {
    name: "messages",
    kind: Kind::Instruction,
    needs: &["messages"],
    also: &["system"],
    tools: Tools::Wrapped,
    read: |fields| Ok(last_turn(conversation(fields)?)),
    prompt: Some(PromptReader {
        name: "messages",
        read: |fields| Ok(unanswered(conversation(fields)?)),
    }),
};

fn conversation(fields: &Fields<'_>) -> Result<Vec<Message>> {
    let system = fields.text("system")?;
    let messages = fields.messages("messages")?;
    Ok(opened(system, messages))
}

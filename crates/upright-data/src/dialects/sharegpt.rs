//! ShareGPT's `conversations`, alone or with two responses.

use upright_base::Result;

use super::turns::{NO_ANSWER, last_turn, opened, unanswered};
use super::{Dialect, Fields, Kind, PromptReader, Reading, Tools};
use crate::conversation::{Message, Prompt, Role};

/// A conversation that ends with the response.
pub(super) static INSTRUCTION: Dialect = Dialect {
    name: "sharegpt",
    kind: Kind::Instruction,
    needs: &["conversations"],
    also: &["system"],
    tools: Tools::Bare,
    read: |fields| Ok(last_turn(conversation(fields)?)),
    prompt: Some(PromptReader {
        name: "sharegpt",
        read: |fields| Ok(unanswered(conversation(fields)?)),
    }),
};

/// `conversations` with `chosen` and `rejected`, one message each.
pub(super) static PREFERENCE: Dialect = Dialect {
    name: "sharegpt-preference",
    kind: Kind::Preference,
    needs: &["conversations", "chosen", "rejected"],
    also: &["system"],
    tools: Tools::Bare,
    read: pair,
    prompt: None,
};

fn conversation(fields: &Fields<'_>) -> Result<Vec<Message>> {
    let system = fields.text("system")?;
    let messages = fields.messages("conversations")?;
    Ok(opened(system, messages))
}

fn pair(fields: &Fields<'_>) -> Result<Reading> {
    let prompt = conversation(fields)?;
    let chosen = fields.message("chosen")?;
    let rejected = fields.message("rejected")?;
    if chosen.role != Role::Assistant || rejected.role != Role::Assistant {
        return Ok(Reading::Dropped(NO_ANSWER));
    }
    Ok(Reading::Row(
        Prompt::Messages(prompt),
        vec![chosen, rejected],
    ))
}

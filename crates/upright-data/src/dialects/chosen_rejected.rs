//! `chosen` and `rejected` alone: whole conversations with the same start.

use upright_base::Result;

use super::turns::{TURNS_DIFFER, opened, split_messages};
use super::{Dialect, Fields, Kind, PromptReader, Reading, Tools};
use crate::conversation::{Message, Prompt};

const NO_BOUNDARY: &str = "chosen and rejected share no prompt that ends at a turn boundary";

/// `chosen` and `rejected`. The prompt is the start that both share.
pub(super) static PREFERENCE: Dialect = Dialect {
    name: "chosen-rejected",
    kind: Kind::Preference,
    needs: &["chosen", "rejected"],
    also: &["system"],
    tools: Tools::Wrapped,
    read: pair,
    prompt: Some(PromptReader {
        name: "chosen-rejected",
        read: pair,
    }),
};

fn pair(fields: &Fields<'_>) -> Result<Reading> {
    if fields.is_list("chosen") || fields.is_list("rejected") {
        messages(fields)
    } else {
        texts(fields)
    }
}

/// Lists of messages. All turns but the last are the prompt.
fn messages(fields: &Fields<'_>) -> Result<Reading> {
    let system = fields.text("system")?;
    let chosen = fields.messages("chosen")?;
    let rejected = fields.messages("rejected")?;
    Ok(match split_messages(chosen, rejected) {
        Reading::Row(Prompt::Messages(turns), answers) => {
            Reading::Row(Prompt::Messages(opened(system, turns)), answers)
        }
        other => other,
    })
}

/// HH-RLHF's texts, with a marker before every turn. They are split after the last shared marker of the model.
fn texts(fields: &Fields<'_>) -> Result<Reading> {
    let system = fields.text("system")?;
    let chosen = fields.text("chosen")?;
    let rejected = fields.text("rejected")?;
    let Some(cut) = turn_boundary(&chosen, &rejected) else {
        let is_blank = chosen.trim().is_empty() || rejected.trim().is_empty();
        return Ok(Reading::Dropped(if is_blank {
            "empty response"
        } else {
            NO_BOUNDARY
        }));
    };
    let (prompt, chosen) = chosen.split_at(cut);
    let rejected = &rejected[cut..];
    // A rest of the conversation with a user turn is not a response.
    if [chosen, rejected]
        .iter()
        .any(|text| text.contains("\n\nHuman:"))
    {
        return Ok(Reading::Dropped(TURNS_DIFFER));
    }
    let prompt = match system.trim() {
        "" => prompt.to_owned(),
        system => format!("{system}\n\n{}", prompt.trim_start()),
    };
    Ok(Reading::Row(
        Prompt::Text(prompt),
        vec![Message::said(chosen), Message::said(rejected)],
    ))
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

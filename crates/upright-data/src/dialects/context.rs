//! NeMo's pairs: `context`, and `completions` with a rank each; the smaller rank is better.

use serde_json::Value;
use upright_base::Result;

use super::turns::{continued, opened, split_messages, unanswered};
use super::{Dialect, Fields, Kind, Reading, Tools};
use crate::conversation::{Message, Role};

/// `context` (a text or messages) and two `completions`, each `{"rank": 0, "completion": [messages]}`.
pub(super) static PREFERENCE: Dialect = Dialect {
    name: "context-completions",
    kind: Kind::Preference,
    needs: &["context", "completions"],
    also: &["system"],
    tools: Tools::Wrapped,
    read: ranked,
    prompt: None,
};

/// `context`, with or without completions.
pub(super) static PROMPT: Dialect = Dialect {
    name: "context",
    kind: Kind::Prompt,
    needs: &["context"],
    also: &["system"],
    tools: Tools::Wrapped,
    read: |fields| Ok(unanswered(context(fields)?)),
    prompt: None,
};

fn ranked(fields: &Fields<'_>) -> Result<Reading> {
    let context = context(fields)?;
    let mut ranked = Vec::new();
    for (index, entry) in fields.list("completions")?.iter().enumerate() {
        let place = format!("completions[{index}]");
        let Some(rank) = entry["rank"].as_f64() else {
            return Err(fields.wrong(&format!("{place}.rank"), "a number", &entry["rank"]));
        };
        let place = format!("{place}.completion");
        let said = match &entry["completion"] {
            Value::String(text) => vec![Message::said(text)],
            Value::Array(list) => list
                .iter()
                .map(|value| fields.as_message(&place, value))
                .collect::<Result<_>>()?,
            other => return Err(fields.wrong(&place, "a text or a list of messages", other)),
        };
        ranked.push((rank, said));
    }
    ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut ranked = ranked.into_iter();
    Ok(match (ranked.next(), ranked.next(), ranked.next()) {
        (Some((best, _)), Some((worst, _)), None) if best == worst => {
            Reading::Dropped("both completions have the same rank")
        }
        (Some((_, chosen)), Some((_, rejected)), None) => {
            split_messages(continued(&context, &chosen), continued(&context, &rejected))
        }
        (_, _, Some(_)) => Reading::Dropped("more than two completions"),
        _ => Reading::Dropped("fewer than two completions"),
    })
}

/// The turns before the completions, below the row's `system` text if there is one.
fn context(fields: &Fields<'_>) -> Result<Vec<Message>> {
    let turns = match fields.is_list("context") {
        true => fields.messages("context")?,
        false => vec![Message::new(Role::User, fields.text("context")?)],
    };
    Ok(opened(fields.text("system")?, turns))
}

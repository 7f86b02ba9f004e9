//! NeMo's pairs: `context`, and `completions` with a rank each; the smaller rank is the better one.

use serde_json::Value;

use super::cells::Cells;
use super::instruction::opened;
use super::preference::{continued, split_messages};
use super::{Message, Reading, Role};
use crate::Result;

/// `context` (a text or messages) and two `completions`, each `{"rank": 0, "completion": [messages]}`.
pub(super) fn ranked(cells: &Cells) -> Result<Reading> {
    let context = context(cells)?;
    let mut ranked = Vec::new();
    for (index, entry) in cells.list("completions")?.iter().enumerate() {
        let place = format!("completions[{index}]");
        let Some(rank) = entry["rank"].as_f64() else {
            return Err(cells.wrong(&format!("{place}.rank"), "a number", &entry["rank"]));
        };
        let place = format!("{place}.completion");
        let said = match &entry["completion"] {
            Value::String(text) => vec![Message::said(text)],
            Value::Array(list) => list
                .iter()
                .map(|value| cells.as_message(&place, value))
                .collect::<Result<_>>()?,
            other => return Err(cells.wrong(&place, "a text or a list of messages", other)),
        };
        ranked.push((rank, said));
    }
    ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut ranked = ranked.into_iter();
    Ok(match (ranked.next(), ranked.next(), ranked.next()) {
        (Some((best, _)), Some((worst, _)), None) if best == worst => {
            Reading::Dropped("both completions have one rank")
        }
        (Some((_, chosen)), Some((_, rejected)), None) => {
            split_messages(continued(&context, &chosen), continued(&context, &rejected))
        }
        (_, _, Some(_)) => Reading::Dropped("more than two completions"),
        _ => Reading::Dropped("fewer than two completions"),
    })
}

/// The turns before the completions, under the row's `system` text where there is one.
pub(super) fn context(cells: &Cells) -> Result<Vec<Message>> {
    let turns = match cells.is_list("context") {
        true => cells.messages("context")?,
        false => vec![Message::new(Role::User, cells.text("context")?)],
    };
    Ok(opened(cells.text("system")?, turns))
}

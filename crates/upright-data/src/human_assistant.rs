//! HH-RLHF's texts: conversations as one text, with `\n\nHuman:` and `\n\nAssistant:` before the
//! turns. The split and the chat templates use this parser.

use std::borrow::Cow;

use super::conversation::{Message, Prompt, Role, Row};

/// The markers before the turns.
const MARKS: [(&str, Role); 2] = [
    ("\n\nHuman:", Role::User),
    ("\n\nAssistant:", Role::Assistant),
];

/// Whether a text has a turn of the user.
pub(super) fn has_user(text: &str) -> bool {
    text.contains(MARKS[0].0)
}

/// Whether a text ends where the model's turn begins: with `Assistant:`, in this or another wording.
pub(super) fn is_open(text: &str) -> bool {
    text.trim_end().ends_with("Assistant:")
}

/// The turns of a text, with all white space between the markers. The first is the text before the
/// first marker, as a system turn; it may be empty.
pub(super) fn turns(text: &str) -> Vec<Message> {
    let mut turns = Vec::new();
    let mut role = Role::System;
    let mut rest = text;
    loop {
        let next = MARKS
            .iter()
            .filter_map(|(mark, role)| Some((rest.find(mark)?, mark, *role)))
            .min_by_key(|next| next.0);
        let Some((place, mark, next_role)) = next else {
            turns.push(Message::new(role, rest));
            return turns;
        };
        turns.push(Message::new(role, &rest[..place]));
        role = next_role;
        rest = &rest[place + mark.len()..];
    }
}

/// The conversation of an [open](is_open) text: its trimmed turns up to where the model's turn
/// begins. `None` if the text has no turn of the user, ends otherwise, or begins with a marker
/// without the blank line, so that its first turn is unknown.
pub(super) fn conversation(text: &str) -> Option<Vec<Message>> {
    let mut turns = turns(text);
    let open = turns.pop()?;
    if open.role != Role::Assistant || !open.content.trim().is_empty() || !has_user(text) {
        return None;
    }
    for turn in &mut turns {
        turn.content = turn.content.trim().to_owned();
    }
    let opening = &turns[0].content;
    if MARKS
        .iter()
        .any(|(mark, _)| opening.starts_with(mark.trim_start()))
    {
        return None;
    }
    if opening.is_empty() {
        turns.remove(0);
    }
    Some(turns)
}

/// A row as chat templates read it. HH-RLHF's text becomes a conversation, below the row's system
/// text if there is one, and the white space around the responses is removed as around the other
/// turns. Every other row stays as it is.
pub(super) fn conversed(row: &Row) -> Cow<'_, Row> {
    let (system, text) = match &row.prompt {
        Prompt::Text(text) => ("", text),
        Prompt::Instruction {
            system,
            instruction,
            input,
        } if input.trim().is_empty() => (system.trim(), instruction),
        Prompt::Instruction { .. } | Prompt::Messages(_) => return Cow::Borrowed(row),
    };
    let Some(mut turns) = conversation(text) else {
        return Cow::Borrowed(row);
    };
    if !system.is_empty() {
        if turns[0].role == Role::System {
            // Neither of the two system texts may be lost.
            return Cow::Borrowed(row);
        }
        turns.insert(0, Message::new(Role::System, system));
    }
    let mut row = row.clone();
    row.prompt = Prompt::Messages(turns);
    for said in &mut row.responses {
        said.content = said.content.trim().to_owned();
    }
    Cow::Owned(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<Vec<(Role, String)>> {
        let turns = conversation(text)?.into_iter();
        Some(turns.map(|turn| (turn.role, turn.content)).collect())
    }

    fn turn(role: Role, content: &str) -> (Role, String) {
        (role, content.to_owned())
    }

    #[test]
    fn a_text_has_the_turns_between_its_markers() {
        let expected = [
            turn(Role::User, "Hi"),
            turn(Role::Assistant, "Ho\n\nand more"),
            turn(Role::User, ""),
        ];
        let text = "\n\nHuman: Hi\n\nAssistant: Ho\n\nand more \n\nHuman:\n\nAssistant:";
        assert_eq!(said(text).unwrap(), expected);
        assert_eq!(
            said("Be kind.\n\nHuman: Hi\n\nAssistant: \n").unwrap(),
            [turn(Role::System, "Be kind."), turn(Role::User, "Hi")]
        );
    }

    #[test]
    fn a_text_whose_turns_are_unknown_is_no_conversation() {
        for text in [
            "Hi",
            "User: Hi\nAssistant:",
            "\n\nHuman: Hi\nAssistant:",
            "Human: Hi\n\nAssistant:",
            "Human: Hi\n\nAssistant: Ho\n\nHuman: So?\n\nAssistant:",
            "\n\nAssistant:",
            "\n\nHuman: Hi\n\nAssistant: Ho",
            "\n\nHuman: Hi",
        ] {
            assert_eq!(said(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_row_becomes_a_conversation_with_all_of_its_text() {
        let row = |prompt: Prompt| Row {
            responses: vec![Message::said(" Yes.\n"), Message::said(" No.")],
            ..Row::unanswered(3, None, prompt)
        };
        let marked = "\n\nHuman: Hi\n\nAssistant:";
        let below = |system: &str, instruction: &str| {
            row(Prompt::Instruction {
                system: system.into(),
                instruction: instruction.into(),
                input: String::new(),
            })
        };
        let user = Message::new(Role::User, "Hi");
        let plain = row(Prompt::Text(marked.into()));
        let found = conversed(&plain);
        assert_eq!(found.prompt, Prompt::Messages(vec![user.clone()]));
        assert_eq!(
            found.responses,
            [Message::said("Yes."), Message::said("No.")]
        );
        let system = Message::new(Role::System, "Be kind.");
        assert_eq!(
            conversed(&below("Be kind.", marked)).prompt,
            Prompt::Messages(vec![system, user])
        );
        for unchanged in [
            row(Prompt::Text("Hi".into())),
            below("Be kind.", &format!("Be brief.{marked}")),
            below("Be kind.", "Hi"),
        ] {
            assert_eq!(*conversed(&unchanged), unchanged);
        }
    }
}

//! Which rows are held out. A hash of a row's opening words decides, so no template, tokenizer or
//! maximum length moves a row to the other side. Neither does a second objective with the same
//! prompts.

use std::collections::BTreeSet;

use super::conversation::{Message, Prompt, Role};
use super::{hash64, human_assistant};

/// Hash of a row's opening words: roles and trimmed contents up to the model's first response to
/// the user. Rows that continue one conversation thus stay on one side, however many of its turns
/// they have.
pub(super) fn hash(prompt: &Prompt) -> u64 {
    let mut words = String::new();
    let mut is_asked = false;
    for message in messages(prompt) {
        if is_asked && message.role == Role::Assistant {
            break;
        }
        is_asked |= message.role == Role::User;
        let content = message.content.trim();
        if !content.is_empty() {
            // Neither a role nor a content holds a bare NUL here, so parts cannot run into each
            // other.
            words += &format!(
                "{}\0{}\0",
                message.role.as_str(),
                content.replace('\0', "\u{fffd}")
            );
        }
    }
    hash64(&words)
}

/// A prompt as a conversation, including HH-RLHF's texts.
fn messages(prompt: &Prompt) -> Vec<Message> {
    match prompt {
        Prompt::Text(text) if human_assistant::has_user(text) => human_assistant::turns(text),
        Prompt::Instruction {
            system,
            instruction,
            input,
        } if input.trim().is_empty() && human_assistant::has_user(instruction) => {
            let mut turns = vec![Message::new(Role::System, system.as_str())];
            turns.extend(human_assistant::turns(instruction));
            turns
        }
        _ => prompt.messages(),
    }
}

/// Splits rows with their hashes into training rows, which stay, and held-out rows, which are
/// returned: about `fraction` of the distinct hashes. With two hashes or more, each side gets at
/// least one.
pub(super) fn carve<T>(files: &mut [Vec<(u64, T)>], fraction: f64) -> Vec<(u64, T)> {
    let hashes: BTreeSet<u64> = files.iter().flatten().map(|(hash, _)| *hash).collect();
    let (Some(&first), Some(&last)) = (hashes.first(), hashes.last()) else {
        return Vec::new();
    };
    if fraction == 0.0 || first == last {
        return Vec::new();
    }
    let mut held = Vec::new();
    for rows in files {
        let mut train = Vec::new();
        for (hash, row) in std::mem::take(rows) {
            // The top 53 bits are exact as a float. With few rows the fraction could take none or
            // all of them.
            let share = (hash >> 11) as f64 / (1_u64 << 53) as f64;
            if hash != first && (hash == last || share >= fraction) {
                train.push((hash, row));
            } else {
                held.push((hash, row));
            }
        }
        *rows = train;
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(turns: &[(Role, &str)]) -> Prompt {
        Prompt::Messages(
            turns
                .iter()
                .map(|(role, text)| Message::new(*role, *text))
                .collect(),
        )
    }

    fn text(text: &str) -> Prompt {
        Prompt::Text(text.into())
    }

    fn instruction(system: &str, instruction: &str, input: &str) -> Prompt {
        Prompt::Instruction {
            system: system.into(),
            instruction: instruction.into(),
            input: input.into(),
        }
    }

    #[test]
    fn one_question_has_one_hash_in_every_dialect() {
        let asked = hash(&text("Name a tree."));
        assert_eq!(hash(&instruction("", " Name a tree.\n", "")), asked);
        assert_eq!(
            hash(&conversation(&[
                (Role::System, " "),
                (Role::User, "Name a tree.")
            ])),
            asked
        );
        assert_eq!(hash(&text("\n\nHuman: Name a tree.\n\nAssistant:")), asked);
        // A system text of its own stands above the turns of the text.
        let talk = "\n\nHuman: Name a tree.\n\nAssistant:";
        let longer = format!("{talk} Oak.\n\nHuman: Another?\n\nAssistant:");
        let below = hash(&conversation(&[
            (Role::System, "Be kind."),
            (Role::User, "Name a tree."),
        ]));
        assert_eq!(hash(&instruction("Be kind.", talk, "")), below);
        assert_eq!(hash(&instruction("Be kind.", &longer, "")), below);
        let with_input = hash(&instruction("", "Translate.", "Baum"));
        assert_eq!(hash(&text("Translate.\nBaum")), with_input);
        let system = hash(&instruction("Be brief.", "Name a tree.", ""));
        assert_eq!(
            hash(&conversation(&[
                (Role::System, "Be brief."),
                (Role::User, "Name a tree.")
            ])),
            system
        );
        assert_eq!(
            hash(&text("Be brief.\n\nHuman: Name a tree.\n\nAssistant:")),
            system
        );
        let distinct = BTreeSet::from([asked, with_input, system, hash(&text("Name a tree"))]);
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn a_conversation_has_the_hash_of_its_opening() {
        let opening = [(Role::User, "a")];
        let more = [(Role::User, "a"), (Role::Assistant, "b"), (Role::User, "c")];
        assert_eq!(hash(&conversation(&opening)), hash(&conversation(&more)));
        assert_eq!(
            hash(&text(
                "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
            )),
            hash(&conversation(&more))
        );
        // A turn of the model before the first user turn is part of the opening.
        let greeted = |user: &'static str| {
            hash(&conversation(&[
                (Role::Assistant, "Hello!"),
                (Role::User, user),
            ]))
        };
        assert_ne!(greeted("a"), greeted("b"));
        assert_ne!(greeted("a"), hash(&conversation(&opening)));
    }
}

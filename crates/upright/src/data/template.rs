//! Templates: how a row becomes the text of a prompt and the texts of its responses.

use std::fmt;
use std::str::FromStr;

use super::rows::{Message, Prompt, Role, Row};
use crate::{Error, Result};

/// The wording around a prompt. In every template but `raw`, white space at the start of a response is the template's
/// business, and a space that separates prompt and response belongs to the response: tokenizers join it to the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Stanford Alpaca's "Below is an instruction", with and without an input.
    Alpaca,
    /// `User: …` and `Assistant:`, turn by turn.
    UserAssistant,
    /// Prompt and response as they are.
    Raw,
}

/// A row as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt, with its template.
    pub prompt: String,
    /// The responses, with the space that separates them from the prompt.
    pub responses: Vec<String>,
}

const NAMES: &str = "templates: alpaca, user-assistant, raw";

impl FromStr for Template {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "alpaca" => Ok(Self::Alpaca),
            "user-assistant" => Ok(Self::UserAssistant),
            "raw" => Ok(Self::Raw),
            "chat" => Err(Error::input("the template chat (the model's own) is not supported yet").hint(NAMES)),
            path if path.contains(['/', '\\', '.']) => {
                Err(Error::input(format!("{path}: templates from files are not supported yet")).hint(NAMES))
            }
            other => Err(Error::input(format!("no template is called {other:?}")).hint(NAMES)),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alpaca => "alpaca",
            Self::UserAssistant => "user-assistant",
            Self::Raw => "raw",
        })
    }
}

impl Template {
    /// `raw` where the first rows' prompts are texts that end in a turn marker already (HH-RLHF), else `user-assistant`.
    pub fn default_for(rows: &[Row]) -> Self {
        let marked = |row: &Row| matches!(&row.prompt, Prompt::Text(text) if text.trim_end().ends_with("Assistant:"));
        let first = &rows[..rows.len().min(16)];
        if !first.is_empty() && first.iter().all(marked) { Self::Raw } else { Self::UserAssistant }
    }

    /// A row as text.
    ///
    /// # Errors
    /// The row is a conversation and the template has no turns; the message starts with the row's place in its file.
    pub fn render(self, row: &Row) -> Result<Rendered> {
        let prompt = match self {
            Self::Alpaca => alpaca(&row.prompt),
            Self::UserAssistant => Some(user_assistant(&row.prompt)),
            Self::Raw => raw(&row.prompt),
        };
        let prompt = prompt.ok_or_else(|| {
            Error::input(format!("{}: its prompt is a conversation, and the template {self} has no turns", row.place()))
                .hint("use the template user-assistant")
        })?;
        let responses = row.responses.iter().map(|response| self.response(response)).collect();
        Ok(Rendered { prompt, responses })
    }

    /// A response as it follows the prompt.
    pub fn response(self, text: &str) -> String {
        match self {
            Self::Alpaca => text.trim_start().to_owned(),
            Self::UserAssistant => format!(" {}", text.trim_start()),
            Self::Raw => text.to_owned(),
        }
    }
}

fn alpaca(prompt: &Prompt) -> Option<String> {
    const WITH_INPUT: &str = "Below is an instruction that describes a task, paired with an input that provides further \
                              context. Write a response that appropriately completes the request.";
    const WITHOUT: &str = "Below is an instruction that describes a task. Write a response that appropriately completes \
                           the request.";
    let (system, instruction, input) = match prompt {
        Prompt::Text(text) => ("", text.as_str(), ""),
        Prompt::Instruction { system, instruction, input } => (system.as_str(), instruction.as_str(), input.as_str()),
        Prompt::Messages(_) => return None,
    };
    let has_input = !input.trim().is_empty();
    // A row's own system text takes the place of the opening.
    let opening = match system {
        system if !system.trim().is_empty() => system,
        _ if has_input => WITH_INPUT,
        _ => WITHOUT,
    };
    let input = if has_input { format!("### Input:\n{input}\n\n") } else { String::new() };
    Some(format!("{opening}\n\n### Instruction:\n{instruction}\n\n{input}### Response:\n"))
}

fn user_assistant(prompt: &Prompt) -> String {
    let mut text = String::new();
    match prompt {
        Prompt::Text(asked) => turn(&mut text, Role::User, asked),
        Prompt::Instruction { system, .. } => {
            if !system.trim().is_empty() {
                turn(&mut text, Role::System, system);
            }
            turn(&mut text, Role::User, &instruction_and_input(prompt));
        }
        Prompt::Messages(messages) => {
            for Message { role, content } in messages {
                turn(&mut text, *role, content);
            }
        }
    }
    text.push_str("Assistant:");
    text
}

fn turn(text: &mut String, role: Role, content: &str) {
    let name = match role {
        Role::System => "System",
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Tool",
    };
    // As in a response, one space separates the model's words from its name.
    let content = if role == Role::Assistant { content.trim_start() } else { content };
    text.push_str(&format!("{name}: {content}\n"));
}

fn raw(prompt: &Prompt) -> Option<String> {
    match prompt {
        Prompt::Text(text) => Some(text.clone()),
        Prompt::Instruction { system, .. } if system.trim().is_empty() => Some(instruction_and_input(prompt)),
        Prompt::Instruction { system, .. } => Some(format!("{system}\n{}", instruction_and_input(prompt))),
        Prompt::Messages(_) => None,
    }
}

fn instruction_and_input(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Instruction { instruction, input, .. } if input.trim().is_empty() => instruction.clone(),
        Prompt::Instruction { instruction, input, .. } => format!("{instruction}\n{input}"),
        Prompt::Text(_) | Prompt::Messages(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: Prompt) -> Row {
        Row { index: 3, line: Some(4), prompt, responses: vec![" Yes.".into(), "No.".into()] }
    }

    fn task(system: &str, input: &str) -> Row {
        row(Prompt::Instruction { system: system.into(), instruction: "Add.".into(), input: input.into() })
    }

    fn talk() -> Row {
        let say = |role, content: &str| Message { role, content: content.into() };
        row(Prompt::Messages(vec![
            say(Role::System, "Be kind."),
            say(Role::User, "Hi"),
            say(Role::Assistant, " Ho"),
            say(Role::User, "Really?"),
        ]))
    }

    fn prompt(template: Template, row: &Row) -> String {
        template.render(row).unwrap().prompt
    }

    #[test]
    fn alpaca_words_both_cases_and_takes_a_system_text() {
        assert_eq!(
            prompt(Template::Alpaca, &task("", "1 2")),
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
             response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### \
             Response:\n"
        );
        let without = "Below is an instruction that describes a task. Write a response that appropriately completes the \
                       request.\n\n### Instruction:\nAdd.\n\n### Response:\n";
        assert_eq!(prompt(Template::Alpaca, &task("", " ")), without);
        assert_eq!(prompt(Template::Alpaca, &row(Prompt::Text("Add.".into()))), without);
        let own = prompt(Template::Alpaca, &task("You add.", "1 2"));
        assert_eq!(own, "You add.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n");
    }

    #[test]
    fn user_assistant_joins_turns() {
        let template = Template::UserAssistant;
        assert_eq!(prompt(template, &task("", "1 2")), "User: Add.\n1 2\nAssistant:");
        assert_eq!(prompt(template, &task("Be brief.", "")), "System: Be brief.\nUser: Add.\nAssistant:");
        assert_eq!(prompt(template, &row(Prompt::Text("Hi".into()))), "User: Hi\nAssistant:");
        assert_eq!(prompt(template, &talk()), "System: Be kind.\nUser: Hi\nAssistant: Ho\nUser: Really?\nAssistant:");
    }

    #[test]
    fn raw_changes_nothing() {
        let rendered = Template::Raw.render(&row(Prompt::Text("\n\nHuman: Hi\n\nAssistant:".into()))).unwrap();
        assert_eq!(rendered.prompt, "\n\nHuman: Hi\n\nAssistant:");
        assert_eq!(rendered.responses, [" Yes.", "No."]);
        assert_eq!(prompt(Template::Raw, &task("", "1 2")), "Add.\n1 2");
        assert_eq!(prompt(Template::Raw, &task("S", "")), "S\nAdd.");
    }

    #[test]
    fn the_space_between_belongs_to_the_response() {
        assert_eq!(Template::UserAssistant.render(&task("", "")).unwrap().responses, [" Yes.", " No."]);
        assert_eq!(Template::Alpaca.render(&task("", "")).unwrap().responses, ["Yes.", "No."]);
    }

    #[test]
    fn templates_without_turns_refuse_conversations() {
        for template in [Template::Raw, Template::Alpaca] {
            let error = template.render(&talk()).unwrap_err();
            assert_eq!(
                error.message,
                format!("row 3 (line 4): its prompt is a conversation, and the template {template} has no turns")
            );
            assert_eq!(error.hint, "use the template user-assistant");
        }
    }

    #[test]
    fn names_are_parsed() {
        for template in [Template::Alpaca, Template::UserAssistant, Template::Raw] {
            assert_eq!(template.to_string().parse::<Template>().unwrap(), template);
        }
        let complaint = |name: &str| {
            let error = name.parse::<Template>().unwrap_err();
            assert_eq!(error.hint, NAMES);
            error.message
        };
        assert_eq!(complaint("chat"), "the template chat (the model's own) is not supported yet");
        assert_eq!(complaint("my/chat.jinja"), "my/chat.jinja: templates from files are not supported yet");
        assert_eq!(complaint("Alpaca"), "no template is called \"Alpaca\"");
    }

    #[test]
    fn prompts_that_end_in_a_turn_marker_are_left_alone_by_default() {
        let marked = row(Prompt::Text("\n\nHuman: Hi\n\nAssistant: ".into()));
        let plain = row(Prompt::Text("Hi".into()));
        assert_eq!(Template::default_for(&[marked.clone(), marked.clone()]), Template::Raw);
        assert_eq!(Template::default_for(&[marked, plain]), Template::UserAssistant);
        assert_eq!(Template::default_for(&[talk()]), Template::UserAssistant);
        assert_eq!(Template::default_for(&[]), Template::UserAssistant);
    }
}

//! The three templates that need no model: `alpaca`, `user-assistant` and `raw`.

use crate::conversation::{Message, Prompt, Role};

/// Stanford Alpaca's wording; `None` for a conversation.
pub(super) fn alpaca(prompt: &Prompt) -> Option<String> {
    const WITH_INPUT: &str = "Below is an instruction that describes a task, paired with an input that provides further \
                              context. Write a response that appropriately completes the request.";
    const WITHOUT: &str = "Below is an instruction that describes a task. Write a response that appropriately completes \
                           the request.";
    let (system, instruction, input) = match prompt {
        Prompt::Text(text) => ("", text.as_str(), ""),
        Prompt::Instruction {
            system,
            instruction,
            input,
        } => (system.as_str(), instruction.as_str(), input.as_str()),
        Prompt::Messages(_) => return None,
    };
    let has_input = !input.trim().is_empty();
    // A row's own system text replaces the opening.
    let opening = match system {
        system if !system.trim().is_empty() => system,
        _ if has_input => WITH_INPUT,
        _ => WITHOUT,
    };
    let input = if has_input {
        format!("### Input:\n{input}\n\n")
    } else {
        String::new()
    };
    Some(format!(
        "{opening}\n\n### Instruction:\n{instruction}\n\n{input}### Response:\n"
    ))
}

/// Turn by turn, up to where the model's next turn begins.
pub(super) fn user_assistant(messages: &[Message]) -> String {
    let mut text = String::new();
    for Message { role, content, .. } in messages {
        turn(&mut text, *role, content);
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
    // As in a response, one space separates the model's text from its name.
    let content = if role == Role::Assistant {
        content.trim_start()
    } else {
        content
    };
    text.push_str(&format!("{name}: {content}\n"));
}

/// The prompt unchanged; `None` for a conversation.
pub(super) fn raw(prompt: &Prompt) -> Option<String> {
    match prompt {
        Prompt::Text(text) => Some(text.clone()),
        Prompt::Instruction { system, .. } if system.trim().is_empty() => Some(prompt.asked()),
        Prompt::Instruction { system, .. } => Some(format!("{system}\n{}", prompt.asked())),
        Prompt::Messages(_) => None,
    }
}

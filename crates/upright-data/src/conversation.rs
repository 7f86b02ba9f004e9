//! A row as a conversation: who says what, and what is asked of the model.

use serde_json::{Map, Value};

use super::source;

/// Speaker of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The instructions at the start of a conversation.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name in Hugging Face's message lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Parses the names of OpenAI and ShareGPT.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "system" | "developer" => Self::System,
            "user" | "human" => Self::User,
            "assistant" | "gpt" | "function_call" => Self::Assistant,
            "tool" | "function" | "observation" | "ipython" => Self::Tool,
            _ => return None,
        })
    }
}

/// Key in [`Message::more`] for tool calls that a turn's text writes as JSON. Templates that
/// support tool calls get the calls; the others get the text.
pub const WRITTEN_CALLS: &str = "written_calls";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Speaker.
    pub role: Role,
    /// Text of the turn.
    pub content: String,
    /// Other keys that a chat template may use: `tool_calls`, `tool_call_id`, `name`, reasoning,
    /// [`WRITTEN_CALLS`]; no nulls and no empty lists.
    pub more: Map<String, Value>,
}

impl Message {
    /// A turn that is only text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            more: Map::new(),
        }
    }

    /// A turn of the model.
    pub fn said(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// Whether the turn is empty: no text, and no tool is called.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && !self.more.contains_key("tool_calls")
    }

    /// Whether the turn may be trained on. OpenAI's `weight` of 0 and Axolotl's `train` of false
    /// mask it.
    pub fn is_trained(&self) -> bool {
        let off = |name: &str| self.more.get(name) == Some(&Value::Bool(false));
        self.more.get("weight").and_then(Value::as_f64) != Some(0.0)
            && !off("train")
            && !off("training")
    }

    pub(super) fn is_blank(&self) -> bool {
        self.content.trim().is_empty() && !self.more.contains_key("tool_calls")
    }
}

/// The part of a row before the response, in as much structure as the file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// An instruction and its input, apart, because templates word the two cases differently.
    Instruction {
        /// Replaces the template's own opening; may be empty.
        system: String,
        /// The task.
        instruction: String,
        /// The input of the task; may be empty.
        input: String,
    },
    /// A conversation, at least one turn.
    Messages(Vec<Message>),
}

impl Prompt {
    /// Whether the prompt is only white space.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Instruction {
                instruction, input, ..
            } => instruction.trim().is_empty() && input.trim().is_empty(),
            Self::Messages(messages) => messages.iter().all(Message::is_blank),
        }
    }

    /// The user's text, without a system text: the text, or the instruction with its input below
    /// it. Empty for a conversation.
    pub fn asked(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Instruction {
                instruction, input, ..
            } if input.trim().is_empty() => instruction.clone(),
            Self::Instruction {
                instruction, input, ..
            } => format!("{instruction}\n{input}"),
            Self::Messages(_) => String::new(),
        }
    }

    /// The prompt as a conversation.
    pub fn messages(&self) -> Vec<Message> {
        match self {
            Self::Messages(messages) => messages.clone(),
            Self::Text(_) => vec![Message::new(Role::User, self.asked())],
            Self::Instruction { system, .. } => {
                let system =
                    (!system.trim().is_empty()).then(|| Message::new(Role::System, system));
                system
                    .into_iter()
                    .chain([Message::new(Role::User, self.asked())])
                    .collect()
            }
        }
    }
}

/// A parsed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Zero-based number of the row in its file.
    pub index: usize,
    /// One-based line on which it starts, if lines are rows.
    pub line: Option<usize>,
    /// The part before the response.
    pub prompt: Prompt,
    /// Descriptions of the tools that the model may call, as chat templates expect them; usually
    /// none.
    pub tools: Vec<Value>,
    /// One response, or the chosen and the rejected one, or none if only prompts are used.
    pub responses: Vec<Message>,
}

impl Row {
    /// A prompt without a response.
    pub fn unanswered(index: usize, line: Option<usize>, prompt: Prompt) -> Self {
        Self {
            index,
            line,
            prompt,
            tools: Vec::new(),
            responses: Vec::new(),
        }
    }

    /// Where the row is, for messages: `row 3 (line 4)`.
    pub fn place(&self) -> String {
        source::place(self.index, self.line)
    }
}

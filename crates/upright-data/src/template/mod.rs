//! Templates: how a row becomes the text of a prompt and the texts of its responses.

mod builtins;
mod chat;
mod date;
mod jinja;
mod name;
mod plain;
mod python;
pub mod sandbox;
#[cfg(test)]
mod tests;

pub use chat::ChatTemplate;
pub use date::Date;
pub use jinja::Marked;
pub use name::TemplateName;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conversation::{Message, Prompt, Role, Row};
use super::{Tokenizer, human_assistant};
use upright_base::{Error, ErrorKind, Result};

/// A template, ready to render. In `alpaca` and `user-assistant`, the template decides the white
/// space at the start of a response. A space between prompt and response belongs to the response:
/// tokenizers merge it with the word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// Stanford Alpaca's "Below is an instruction", with and without an input.
    Alpaca,
    /// `User: …` and `Assistant:`, turn by turn.
    UserAssistant,
    /// Prompt and response unchanged.
    Raw,
    /// The model's own Jinja template, or one from a file.
    Chat(Arc<ChatTemplate>),
}

/// Which of the model's turns in a conversation are trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turns {
    /// The last; everything before it is the prompt.
    #[default]
    Last,
    /// Every turn of the model; the turns of others between them are masked.
    All,
}

impl Turns {
    /// All values, in the order of the help texts.
    pub const ALL: &'static [Self] = &[Self::Last, Self::All];

    /// Name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::All => "all",
        }
    }
}

impl Turns {
    /// Whether only the last turn is trained on.
    pub fn is_last(&self) -> bool {
        *self == Self::Last
    }
}

/// A part of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its text.
    pub text: String,
    /// Whether its tokens are in the loss; otherwise they are masked.
    pub scored: bool,
}

impl Piece {
    fn scored(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            scored: true,
        }
    }
}

/// A row as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt, with its template.
    pub prompt: String,
    /// The responses, each with the space that separates it from the prompt: one piece in the loss,
    /// or several consecutive pieces if every turn is trained on or the template marks the model's
    /// text.
    pub responses: Vec<Vec<Piece>>,
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl Template {
    /// The template of a name, or the default for these rows.
    ///
    /// # Errors
    /// The model or the file has no such template, or it is broken.
    pub fn choose(
        name: Option<&TemplateName>,
        rows: &[Row],
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let name = name
            .cloned()
            .unwrap_or_else(|| Self::default_for(rows, tokenizer.folder()));
        Ok(match &name {
            TemplateName::Alpaca => Self::Alpaca,
            TemplateName::UserAssistant => Self::UserAssistant,
            TemplateName::Raw => Self::Raw,
            TemplateName::Chat { name, date } => {
                let tools = rows.iter().any(|row| !row.tools.is_empty());
                Self::Chat(ChatTemplate::of_model(
                    name.as_deref(),
                    *date,
                    tools,
                    tokenizer,
                )?)
            }
            TemplateName::File(path) => Self::Chat(ChatTemplate::of_file(path, tokenizer)?),
        })
    }

    /// The model's own template if it has one, else `user-assistant`. `raw` if the prompts of all
    /// rows are texts that already end with a turn marker, as HH-RLHF's do, unless the model
    /// has a template and each of these texts is a conversation for it.
    pub fn default_for(rows: &[Row], model: &Path) -> TemplateName {
        let has_chat = chat::is_in(model);
        let mut are_open = !rows.is_empty();
        for row in rows {
            are_open &= matches!(&row.prompt, Prompt::Text(text) if human_assistant::is_open(text));
        }
        let mut are_conversations = true;
        if are_open && has_chat {
            for row in rows {
                are_conversations &=
                    matches!(human_assistant::conversed(row).prompt, Prompt::Messages(_));
            }
        }
        if are_open && !(has_chat && are_conversations) {
            TemplateName::Raw
        } else if has_chat {
            TemplateName::CHAT
        } else {
            TemplateName::UserAssistant
        }
    }

    /// The error of a default template, which nobody named: with the reason for the choice, and
    /// with `setting`, which names another template.
    pub fn by_default(error: Error, setting: &str) -> Error {
        if error.kind != ErrorKind::Input {
            return error;
        }
        let reason = "chat is the default because the model has a chat template";
        let mut hint = error.hint;
        if !hint.is_empty() {
            hint += "; ";
        }
        hint += &format!("{setting} NAME selects another template");
        Error::input(format!("{}; {reason}", error.message)).hint(hint)
    }

    /// A row as this template reads it: a chat template reads HH-RLHF's texts as conversations.
    pub fn reads<'r>(&self, row: &'r Row) -> Cow<'r, Row> {
        match self {
            Self::Chat(_) => human_assistant::conversed(row),
            Self::Alpaca | Self::UserAssistant | Self::Raw => Cow::Borrowed(row),
        }
    }

    /// Name in settings.
    pub fn name(&self) -> TemplateName {
        match self {
            Self::Alpaca => TemplateName::Alpaca,
            Self::UserAssistant => TemplateName::UserAssistant,
            Self::Raw => TemplateName::Raw,
            Self::Chat(chat) => chat.name.clone(),
        }
    }

    /// SHA-256 of a template from a file: files with one name may render differently.
    pub fn sha256(&self) -> Option<&str> {
        match self {
            Self::Chat(chat) => Some(&chat.sha256),
            Self::Alpaca | Self::UserAssistant | Self::Raw => None,
        }
    }

    /// The Jinja source of a chat template.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Chat(chat) => Some(&chat.text),
            Self::Alpaca | Self::UserAssistant | Self::Raw => None,
        }
    }

    /// Whether it supports conversations.
    pub fn has_turns(&self) -> bool {
        matches!(self, Self::UserAssistant | Self::Chat(_))
    }

    /// The token that ends the response of a row; [`end`](Self::end), unless conversations with
    /// tools have their own template.
    pub fn end_of(&self, row: &Row, tokenizer: &Tokenizer) -> u32 {
        match self {
            Self::Chat(chat) => chat.of(row).end,
            Self::Alpaca | Self::UserAssistant | Self::Raw => tokenizer.eos(),
        }
    }

    /// The tokens that end a response, for all rows.
    pub fn ends(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match self {
            Self::Chat(chat) => chat.ends().collect(),
            Self::Alpaca | Self::UserAssistant | Self::Raw => vec![tokenizer.eos()],
        }
    }

    /// The token that ends a response: the token that closes the model's turn in the template, else
    /// EOS.
    pub fn end(&self, tokenizer: &Tokenizer) -> u32 {
        match self {
            Self::Chat(chat) => chat.end,
            Self::Alpaca | Self::UserAssistant | Self::Raw => tokenizer.eos(),
        }
    }

    /// Ids of a rendered prompt. A chat template writes BOS itself if it is needed; for every other
    /// template, the tokenizer adds it.
    ///
    /// # Errors
    /// As for [`Tokenizer::prompt`].
    pub fn prompt_ids(&self, prompt: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        match self {
            Self::Chat(_) => tokenizer.verbatim(prompt),
            Self::Alpaca | Self::UserAssistant | Self::Raw => tokenizer.prompt(prompt),
        }
    }

    /// Number of tokens at the start of a prompt that begin every sequence. They stay when the
    /// prompt is truncated from the left.
    pub fn head(&self, prompt: &[u32], tokenizer: &Tokenizer) -> usize {
        match self {
            Self::Chat(_) => usize::from(
                prompt
                    .first()
                    .is_some_and(|first| Some(*first) == tokenizer.bos_id()),
            ),
            _ if prompt.starts_with(tokenizer.bos()) => tokenizer.bos().len(),
            Self::Alpaca | Self::UserAssistant | Self::Raw => 0,
        }
    }

    /// The text of a row's prompt, up to where the response begins.
    ///
    /// # Errors
    /// As for [`Template::render`].
    pub fn prompt(&self, row: &Row) -> Result<String> {
        let row = &*self.reads(row);
        self.check_words(row)?;
        let prompt = match self {
            Self::Alpaca => plain::alpaca(&row.prompt),
            Self::UserAssistant => Some(plain::user_assistant(&row.prompt.messages())),
            Self::Raw => plain::raw(&row.prompt),
            Self::Chat(chat) => {
                return chat
                    .of(row)
                    .prompt(row)
                    .map_err(|error| error.at(row.place()));
            }
        };
        prompt.ok_or_else(|| {
            Error::input(format!(
                "{}: the prompt is a conversation, but the template {self} supports none",
                row.place()
            ))
            .hint("use the template user-assistant, or chat if the model has a chat template")
        })
    }

    /// A row as text. `turns` matters if there is one response and the prompt is a conversation.
    ///
    /// # Errors
    /// The template does not support the row's conversation or tools, or a chat template rejects
    /// the row or hides where the response begins. The message starts with the row's place in its
    /// file.
    pub fn render(&self, row: &Row, turns: Turns) -> Result<Rendered> {
        let row = &*self.reads(row);
        self.check_words(row)?;
        if let Self::Chat(chat) = self {
            return chat
                .of(row)
                .render(row, turns)
                .map_err(|error| error.at(row.place()));
        }
        if let (Turns::All, Self::UserAssistant, [said]) = (turns, self, row.responses.as_slice()) {
            let whole: Vec<Message> = row
                .prompt
                .messages()
                .into_iter()
                .chain([said.clone()])
                .collect();
            let before = |messages: &[Message]| Ok(plain::user_assistant(messages));
            let through = |messages: &[Message]| match messages.split_last() {
                Some((last, before)) => {
                    Ok(plain::user_assistant(before) + &self.response(&last.content))
                }
                None => Ok(String::new()),
            };
            return by_turns(&whole, &self.name(), before, through)
                .map_err(|error| error.at(row.place()));
        }
        let prompt = self.prompt(row)?;
        let responses = row
            .responses
            .iter()
            .map(|said| vec![Piece::scored(&self.response(&said.content))])
            .collect();
        Ok(Rendered { prompt, responses })
    }

    /// A response as it follows the prompt, for templates other than chat templates.
    pub(crate) fn response(&self, text: &str) -> String {
        match self {
            Self::Alpaca => text.trim_start().to_owned(),
            Self::UserAssistant => format!(" {}", text.trim_start()),
            Self::Raw | Self::Chat(_) => text.to_owned(),
        }
    }

    /// Rejects rows with content that the template would leave out silently.
    fn check_words(&self, row: &Row) -> Result<()> {
        let turns = match &row.prompt {
            Prompt::Messages(messages) => messages.as_slice(),
            Prompt::Text(_) | Prompt::Instruction { .. } => &[],
        };
        let words = self.words(row);
        let calls = |message: &Message| message.more.contains_key("tool_calls");
        let (what, out) = if !row.tools.is_empty() && !words.tools {
            (
                "the row has tools",
                "; or leave the tools out with tools= in --map, --sft-map or --dpo-map",
            )
        } else if !words.calls && turns.iter().chain(&row.responses).any(calls) {
            ("the conversation has tool calls", "")
        } else if !words.results
            && turns
                .iter()
                .any(|turn| turn.role == Role::Tool && !turn.content.trim().is_empty())
        {
            ("the conversation has tool results", "")
        } else {
            return Ok(());
        };
        let problem = format!(
            "{}: {what}, but the template {self} does not support them",
            row.place()
        );
        Err(Error::input(problem).hint(format!(
            "use the template chat with a model whose template supports them, or a .jinja file{out}"
        )))
    }

    fn words(&self, row: &Row) -> chat::Words {
        if let Self::Chat(chat) = self {
            chat.of(row).words
        } else {
            chat::Words::OF_TURNS
        }
    }

    /// Whether a response has reasoning that the template does not support. Such rows are not
    /// rejected: templates leave out the reasoning of earlier turns on purpose, and it is valid to
    /// train only on the answers.
    pub fn leaves_reasoning_out(&self, row: &Row) -> bool {
        let is_said =
            |thought: &Value| thought.as_str().is_some_and(|text| !text.trim().is_empty());
        let thinks = |said: &Message| {
            chat::REASONING
                .iter()
                .any(|name| said.more.get(*name).is_some_and(is_said))
        };
        row.responses.iter().any(thinks) && !self.words(row).reasoning
    }
}

/// A conversation in which every turn of the model is trained on. `before` renders a conversation
/// up to where the model's next turn begins, `through` one that ends with the model's turn. The
/// whole text has to start with each of them.
fn by_turns(
    whole: &[Message],
    name: &TemplateName,
    before: impl Fn(&[Message]) -> Result<String>,
    through: impl Fn(&[Message]) -> Result<String>,
) -> Result<Rendered> {
    let text = through(whole)?;
    let (mut prompt, mut pieces, mut at) = (None, Vec::new(), 0);
    let said = whole
        .iter()
        .enumerate()
        .filter(|(_, message)| message.role == Role::Assistant);
    for (index, said) in said {
        let (opened, closed) = (before(&whole[..index])?, through(&whole[..=index])?);
        for part in [&opened, &closed] {
            if !text.starts_with(part.as_str()) {
                return Err(chat::hidden_boundary(name, part, &text).hint(
                    "use --sft-turns last, which trains only on the last turn, or another template",
                ));
            }
        }
        if opened.len() < at || closed.len() < opened.len() {
            return Err(chat::hidden_boundary(name, &opened, &closed));
        }
        match prompt {
            None => prompt = Some(opened.clone()),
            Some(_) => pieces.push(Piece {
                text: text[at..opened.len()].to_owned(),
                scored: false,
            }),
        }
        pieces.push(Piece {
            text: text[opened.len()..closed.len()].to_owned(),
            scored: said.is_trained(),
        });
        at = closed.len();
    }
    Ok(Rendered {
        prompt: prompt.unwrap_or_default(),
        responses: vec![pieces],
    })
}

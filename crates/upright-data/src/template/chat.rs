//! Chat templates: the model's own Jinja template or a given file, rendered as in transformers and
//! split into masked text and the model's text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::date::Date;
use super::jinja::{Complaint, Marked};
use super::sandbox::Renderer;
use super::{Piece, Rendered, TemplateName, Turns, by_turns};
use crate::conversation::{Message, Role, Row, WRITTEN_CALLS};
use crate::{Tokenizer, sha256_hex};
use upright_base::{Error, Result, files};

/// A chat template that is ready to render. It writes every special token itself, BOS included.
pub struct ChatTemplate {
    pub(super) name: TemplateName,
    /// The file that contains it.
    path: PathBuf,
    renderer: Renderer,
    /// Special tokens that templates can use, such as `bos_token`.
    tokens: Map<String, Value>,
    /// The template's text.
    pub(super) text: String,
    /// SHA-256 of the template's text.
    pub(super) sha256: String,
    /// The token that ends the model's turn.
    pub(super) end: u32,
    /// What it supports.
    pub(super) words: Words,
    /// The model's own template for conversations with tools, if it has one and rows have tools.
    for_tools: Option<Box<Self>>,
}

/// What a template supports besides turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Descriptions of tools.
    pub(super) tools: bool,
    /// Tool calls.
    pub(super) calls: bool,
    /// Whether it expects the arguments of a call as text.
    text_arguments: bool,
    /// Tool results.
    pub(super) results: bool,
    /// Reasoning before the answer.
    pub(super) reasoning: bool,
}

impl Words {
    /// For templates that support only turns.
    pub(super) const OF_TURNS: Self = Self {
        tools: false,
        calls: false,
        text_arguments: false,
        results: true,
        reasoning: false,
    };
}

/// Keys of reasoning in messages.
pub(super) const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

const FILE: &str = "chat_template.jinja";
const PROCESSOR_FILE: &str = "chat_template.json";
const NAMED_FOLDER: &str = "additional_chat_templates";
const TOKENIZER_FILE: &str = "tokenizer_config.json";

/// A template's text, with the file that contains it.
struct Source {
    path: PathBuf,
    name: String,
    text: String,
}

/// Whether a model's folder holds a chat template.
pub(super) fn is_in(model: &Path) -> bool {
    // A template that cannot be read counts too, so that its error is reported.
    sources(model).map_or(true, |found| !found.is_empty())
}

/// A model's templates by name. Files take precedence over the tokenizer's configuration, as in
/// transformers.
fn sources(model: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut add = |path: &Path, name: &str, text: String| {
        found.push(Source {
            path: path.to_owned(),
            name: name.to_owned(),
            text,
        });
    };
    let path = model.join(FILE);
    if let Some(text) = files::read_text_if_there(&path)? {
        add(&path, "default", text);
    }
    let mut named: Vec<PathBuf> = std::fs::read_dir(model.join(NAMED_FOLDER))
        .map(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect()
        })
        .unwrap_or_default();
    named.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "jinja")
    });
    named.sort();
    for path in named {
        add(
            &path,
            &path.file_stem().unwrap_or_default().to_string_lossy(),
            text_of(&path)?,
        );
    }
    if !found.is_empty() {
        return Ok(found);
    }
    for file in [PROCESSOR_FILE, TOKENIZER_FILE] {
        let path = model.join(file);
        let Some(text) = files::read_text_if_there(&path)? else {
            continue;
        };
        let settings: Value = serde_json::from_str(&text).map_err(|error| {
            Error::input(format!("{}: broken JSON: {error}", path.display()))
                .hint("download the file again")
        })?;
        let mut of_config = Vec::new();
        match &settings["chat_template"] {
            Value::Null => continue,
            Value::String(text) => of_config.push(("default", text.as_str())),
            Value::Array(list) => {
                of_config.extend(list.iter().filter_map(|entry| {
                    Some((entry["name"].as_str()?, entry["template"].as_str()?))
                }));
            }
            Value::Object(map) => {
                of_config.extend(
                    map.iter()
                        .filter_map(|(name, text)| Some((name.as_str(), text.as_str()?))),
                );
            }
            _ => {}
        }
        if of_config.is_empty() {
            return Err(Error::input(format!(
                "{}: chat_template is neither text nor named templates",
                path.display()
            ))
            .hint("download the file again, or use a .jinja file as the template"));
        }
        let named = of_config
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()));
        return Ok(named
            .map(|(name, text)| Source {
                path: path.clone(),
                name,
                text,
            })
            .collect());
    }
    Ok(found)
}

fn text_of(path: &Path) -> Result<String> {
    files::read_text(path).map_err(|error| error.hint("a template must be a text file in UTF-8"))
}

impl ChatTemplate {
    /// The model's template of a name; without a name the default, and for rows with `tools` the
    /// template for tools.
    ///
    /// # Errors
    /// The model has no such template, or it is not valid Jinja.
    pub(super) fn of_model(
        name: Option<&str>,
        date: Option<Date>,
        tools: bool,
        tokenizer: &Tokenizer,
    ) -> Result<Arc<Self>> {
        let model = tokenizer.folder();
        let all = sources(model)?;
        let by_name = |name: &str| all.iter().find(|source| source.name == name);
        let for_tools = by_name("tool_use").filter(|_| tools && name.is_none());
        let found = match name {
            Some(name) => by_name(name),
            None => by_name("default").or(for_tools),
        };
        let Some(source) = found else {
            let names: Vec<&str> = all.iter().map(|source| &source.name[..]).collect();
            return Err(match (name, all.is_empty()) {
                (_, true) => Error::input(format!("{}: the model has no chat template", model.display())).hint(
                    "it would be in chat_template.jinja or tokenizer_config.json; use the template user-assistant, or a .jinja file",
                ),
                (Some(name), false) => {
                    Error::input(format!("{}: the model has no chat template named {name:?}", model.display()))
                        .hint(format!("available: {}", names.join(", ")))
                }
                (None, false) => {
                    Error::input(format!("{}: the model has several chat templates, but no default", model.display()))
                        .hint(format!("name one, as chat:{}", names.join(" or chat:")))
                }
            });
        };
        let name = TemplateName::Chat {
            name: name.map(str::to_owned),
            date,
        };
        let new = |source: &Source| {
            Self::new(
                name.clone(),
                &source.text,
                &source.path,
                date.unwrap_or(Date::USUAL),
                tokenizer,
            )
        };
        let mut template = new(source)?;
        if let Some(for_tools) = for_tools.filter(|for_tools| for_tools.name != source.name) {
            let for_tools = new(for_tools)?;
            template.sha256 =
                sha256_hex(format!("{}\n{}\n", template.sha256, for_tools.sha256).as_bytes());
            template.for_tools = Some(Box::new(for_tools));
        }
        Ok(Arc::new(template))
    }

    /// The template for a row's conversation, chosen as in transformers.
    pub(super) fn of(&self, row: &Row) -> &Self {
        self.for_tools
            .as_deref()
            .filter(|_| !row.tools.is_empty())
            .unwrap_or(self)
    }

    /// The tokens that end the model's turn, in rows without tools and with them.
    pub(super) fn ends(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.end).chain(self.for_tools.as_ref().map(|for_tools| for_tools.end))
    }

    /// A template from a Jinja file.
    ///
    /// # Errors
    /// The file cannot be read, or is not valid Jinja.
    pub(super) fn of_file(path: &Path, tokenizer: &Tokenizer) -> Result<Arc<Self>> {
        let name = TemplateName::File(path.to_owned());
        Ok(Arc::new(Self::new(
            name,
            &text_of(path)?,
            path,
            Date::USUAL,
            tokenizer,
        )?))
    }

    fn new(
        name: TemplateName,
        text: &str,
        path: &Path,
        date: Date,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let renderer = Renderer::new(text, date).map_err(|complaint| match complaint {
            Complaint::Refused(what) => Error::input(format!(
                "{}: not a valid chat template: {what}",
                path.display()
            ))
            .hint("correct the file, or choose another template: user-assistant, alpaca, raw"),
            other => unrendered(path, other),
        })?;
        let tokens = tokenizer.special_texts().clone();
        let sha256 = sha256_hex(format!("{text}\0{date}").as_bytes());
        let words = Words::default();
        let (path, end) = (path.to_owned(), tokenizer.eos());
        let mut template = Self {
            name,
            path,
            renderer,
            tokens,
            text: text.to_owned(),
            sha256,
            end,
            words,
            for_tools: None,
        };
        template
            .learn(tokenizer)
            .map_err(|complaint| unrendered(&template.path, complaint))?;
        Ok(template)
    }

    /// Renders test conversations to learn how the template closes a turn and what it supports.
    fn learn(&mut self, tokenizer: &Tokenizer) -> std::result::Result<(), Complaint> {
        if let Some(end) = self.closing(tokenizer)? {
            self.end = end;
        }
        self.learn_words()
    }

    /// Renders tools, calls, results and reasoning, and checks whether they are in the text. A
    /// template that rejects every such conversation leaves nothing out silently.
    fn learn_words(&mut self) -> std::result::Result<(), Complaint> {
        const TOOL: &str = "upright-tool";
        const CALL: &str = "upright-call";
        const RESULT: &str = "upright-result";
        const THOUGHT: &str = "upright-thought";
        let with = |role: Role, content: &str, more: Value| {
            let mut message = Message::new(role, content);
            message
                .more
                .extend(more.as_object().cloned().unwrap_or_default());
            message
        };
        let asked = || Message::new(Role::User, "a");
        // Mistral's templates require ids of nine characters.
        let arguments = format!("{{\"x\": \"{CALL}\"}}");
        let calls = json!([{"id": "123456789", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
        // Some templates support calls only with text next to them, or only without.
        let called =
            ["", "b"].map(|content| with(Role::Assistant, content, json!({"tool_calls": calls})));
        let calling = called.clone().map(|called| vec![asked(), called]);
        self.words.tools = self.writes(&[asked()], TOOL, true)?.unwrap_or(true);
        self.words.text_arguments = true;
        let as_text = self.any_writes(&calling, &arguments)?;
        self.words.text_arguments = as_text == Some(true);
        let mut calls = true;
        for talk in &calling {
            calls &= self.writes(talk, CALL, false)? != Some(false);
        }
        self.words.calls = calls;
        let result = with(
            Role::Tool,
            RESULT,
            json!({"tool_call_id": "123456789", "name": "f"}),
        );
        let before = [called[0].clone(), called[1].clone(), Message::said("b")];
        let answered = before.map(|turn| vec![asked(), turn, result.clone(), Message::said("c")]);
        let thinking = [called[0].clone(), Message::said("b")].map(|mut turn| {
            turn.more.insert(REASONING[0].into(), THOUGHT.into());
            vec![asked(), turn]
        });
        let results = self.any_writes(&answered, RESULT)?.unwrap_or(true);
        let reasoning = self.any_writes(&thinking, THOUGHT)?.unwrap_or(true);
        (self.words.results, self.words.reasoning) = (results, reasoning);
        Ok(())
    }

    /// Whether a text is in the rendering of any of these conversations; `None` if all of them are
    /// rejected.
    fn any_writes(
        &self,
        talks: &[Vec<Message>],
        text: &str,
    ) -> std::result::Result<Option<bool>, Complaint> {
        let mut found = None;
        for talk in talks {
            if let Some(written) = self.writes(talk, text, false)? {
                found = Some(found.unwrap_or(false) || written);
            }
        }
        Ok(found)
    }

    /// Whether a text is in the rendering of a conversation with a tool or, unless `tool` is set,
    /// without; `None` if that is rejected.
    fn writes(
        &self,
        talk: &[Message],
        text: &str,
        tool: bool,
    ) -> std::result::Result<Option<bool>, Complaint> {
        let about = if tool { text } else { "f" };
        let tools = [json!({"type": "function", "function": {
            "name": about, "description": about, "parameters": {"type": "object", "properties": {}}}})];
        let mut found = None;
        for tools in [&tools[..], &[]] {
            if tool && tools.is_empty() {
                continue;
            }
            match self.marked(talk, tools, tool) {
                Ok(marked) => found = Some(found.unwrap_or(false) || marked.text.contains(text)),
                Err(Complaint::Refused(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(found)
    }

    /// The first special token after the model's text: `<|im_end|>`, `<end_of_turn>`, `</s>`.
    fn closing(&self, tokenizer: &Tokenizer) -> std::result::Result<Option<u32>, Complaint> {
        const SAID: &str = "upright";
        let talk = [
            Message::new(Role::User, "a"),
            Message::new(Role::Assistant, SAID),
        ];
        let text = match self.marked(&talk, &[], false) {
            Ok(marked) => marked.text,
            Err(Complaint::Refused(_)) => return Ok(None),
            Err(other) => return Err(other),
        };
        let Some(said) = text.rfind(SAID) else {
            return Ok(None);
        };
        let Ok(after) = tokenizer.continued(&text[said + SAID.len()..]) else {
            return Ok(None);
        };
        Ok(after.into_iter().find(|&id| tokenizer.is_added(id)))
    }

    fn marked(
        &self,
        messages: &[Message],
        tools: &[Value],
        generation_prompt: bool,
    ) -> std::result::Result<Marked, Complaint> {
        let mut context = self.tokens.clone();
        context.insert(
            "messages".into(),
            messages
                .iter()
                .map(|message| as_json(message, self.words))
                .collect(),
        );
        context.insert(
            "tools".into(),
            if tools.is_empty() {
                Value::Null
            } else {
                tools.into()
            },
        );
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), generation_prompt.into());
        self.renderer.render(&context)
    }

    /// The rendered conversation; with `generation_prompt`, up to where the model's next turn
    /// begins.
    ///
    /// # Errors
    /// The template rejects the conversation, or exceeds a limit.
    pub fn text(
        &self,
        messages: &[Message],
        tools: &[Value],
        generation_prompt: bool,
    ) -> Result<Marked> {
        self.marked(messages, tools, generation_prompt).map_err(|complaint| match complaint {
            Complaint::Refused(what) => {
                Error::input(format!("the template {} rejects the conversation: {what}", self.name))
                    .hint("change the rows so that the template accepts them, or choose another template, such as user-assistant")
            }
            other => unrendered(&self.path, other),
        })
    }

    /// A prompt, up to where the model's turn begins.
    pub(super) fn prompt(&self, row: &Row) -> Result<String> {
        Ok(self.text(&row.prompt.messages(), &row.tools, true)?.text)
    }

    pub(super) fn render(&self, row: &Row, turns: Turns) -> Result<Rendered> {
        let asked = row.prompt.messages();
        if let (Turns::All, [said]) = (turns, row.responses.as_slice()) {
            let whole: Vec<Message> = asked.into_iter().chain([said.clone()]).collect();
            if self.renderer.marks {
                if whole.iter().any(|message| !message.is_trained()) {
                    return Err(Error::input(format!(
                        "a turn is masked (weight 0 or train false), but the template {} itself marks what is trained on",
                        self.name
                    ))
                    .hint("remove the weights from the rows, or use a template without {% generation %}"));
                }
                let marked = self.text(&whole, &row.tools, false)?;
                let Some(first) = marked.spans.first() else {
                    return Err(self.marks_nothing());
                };
                let prompt = marked.text[..first.start].to_owned();
                return Ok(Rendered {
                    responses: vec![pieces(&marked, first.start)],
                    prompt,
                });
            }
            let before = |messages: &[Message]| Ok(self.text(messages, &row.tools, true)?.text);
            let through = |messages: &[Message]| Ok(self.text(messages, &row.tools, false)?.text);
            return by_turns(&whole, &self.name, before, through);
        }
        let prompt = self.text(&asked, &row.tools, true)?.text;
        let mut responses = Vec::with_capacity(row.responses.len());
        for said in &row.responses {
            let whole: Vec<Message> = asked.iter().chain([said]).cloned().collect();
            let marked = self.text(&whole, &row.tools, false)?;
            if !marked.text.starts_with(&prompt) {
                return Err(hidden_boundary(&self.name, &prompt, &marked.text));
            }
            let said = if self.renderer.marks {
                pieces(&marked, prompt.len())
            } else {
                vec![Piece::scored(&marked.text[prompt.len()..])]
            };
            if said.is_empty() {
                return Err(self.marks_nothing());
            }
            responses.push(said);
        }
        Ok(Rendered { prompt, responses })
    }

    fn marks_nothing(&self) -> Error {
        Error::input(format!(
            "the template {} has {{% generation %}}, but puts no text of the last turn into it",
            self.name
        ))
        .hint("correct the template, or choose another, such as user-assistant")
    }
}

/// The error of a template that could not be rendered.
fn unrendered(path: &Path, complaint: Complaint) -> Error {
    let path = path.display();
    match complaint {
        Complaint::Refused(what) => Error::input(format!("{path}: the template rejects the conversation: {what}")),
        Complaint::Limit(what) => Error::input(format!("{path}: the template exceeds a limit: {what}"))
            .hint("correct the template, or choose another, such as user-assistant"),
        Complaint::Broken(what) => {
            Error::failure(format!("{path}: the process that renders the template failed: {what}"))
                .hint("check that child processes with limits are allowed here; the template user-assistant needs none")
        }
    }
}

/// The text after byte `start`, split by the template's marks; text after the last mark is left
/// out.
fn pieces(marked: &Marked, start: usize) -> Vec<Piece> {
    let (mut pieces, mut at) = (Vec::new(), start);
    for span in marked.spans.iter().filter(|span| span.end > start) {
        let from = span.start.max(start);
        if at < from {
            pieces.push(Piece {
                text: marked.text[at..from].to_owned(),
                scored: false,
            });
        }
        pieces.push(Piece::scored(&marked.text[from..span.end]));
        at = span.end;
    }
    pieces
}

/// The error of a template whose conversation does not start with its prompt: it is unknown which
/// tokens are the model's.
pub(super) fn hidden_boundary(name: &TemplateName, prompt: &str, whole: &str) -> Error {
    let same = whole.floor_char_boundary(
        prompt
            .bytes()
            .zip(whole.bytes())
            .take_while(|(a, b)| a == b)
            .count(),
    );
    let part = |text: &str| {
        text[text.floor_char_boundary(same)..]
            .chars()
            .take(24)
            .collect::<String>()
            .escape_debug()
            .to_string()
    };
    Error::input(format!(
        "the template {name} hides where the response begins: after byte {same} its prompt continues \
         with \"{}\", the conversation with \"{}\"",
        part(prompt),
        part(whole)
    ))
    .hint(
        "choose another template, such as user-assistant, or a .jinja file whose conversations start \
         with their prompts or that marks the model's text with {% generation %}",
    )
}

/// A message as templates see it: no nulls, and reasoning under each of its names. Calls that the
/// text writes become calls if the template supports them. Arguments that are JSON text are
/// decoded, unless the template expects text.
fn as_json(message: &Message, words: Words) -> Value {
    if let (true, Some(written)) = (words.calls, message.more.get(WRITTEN_CALLS)) {
        let mut spoken = Message::said("");
        spoken.more.extend(message.more.clone());
        spoken.more.shift_remove(WRITTEN_CALLS);
        spoken.more.insert("tool_calls".into(), written.clone());
        return as_json(&spoken, words);
    }
    let reasoning = REASONING
        .iter()
        .find_map(|name| message.more.get(*name))
        .cloned();
    let mut fields = Map::new();
    fields.extend(
        reasoning
            .clone()
            .map(|reasoning| ("thinking".to_owned(), reasoning)),
    );
    fields.insert("role".into(), json!(message.role.as_str()));
    if !(message.content.is_empty() && message.more.contains_key("tool_calls")) {
        fields.insert("content".into(), json!(message.content));
    }
    fields.extend(
        message
            .more
            .clone()
            .into_iter()
            .filter(|(name, _)| name != WRITTEN_CALLS),
    );
    fields.extend(reasoning.map(|reasoning| ("reasoning_content".to_owned(), reasoning)));
    if let Some(Value::Array(calls)) = fields
        .get_mut("tool_calls")
        .filter(|_| !words.text_arguments)
    {
        calls.iter_mut().for_each(decode_arguments);
    }
    Value::Object(fields)
}

/// Decodes the arguments of a call, which OpenAI writes as JSON text: `tojson` would quote them
/// once more.
fn decode_arguments(call: &mut Value) {
    let function = if call.get("function").is_some() {
        &mut call["function"]
    } else {
        call
    };
    if let Some(arguments) = function.get_mut("arguments")
        && let Some(decoded @ Value::Object(_)) = arguments
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
    {
        *arguments = decoded;
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("name", &self.name)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ChatTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.sha256 == other.sha256 && self.end == other.end
    }
}

impl Eq for ChatTemplate {}

//! The fields of one row by column name, with errors that say where and what.

use std::path::Path;

use serde_json::{Map, Value, json};

use upright_base::{Error, Result};

use crate::conversation::{Message, Role, WRITTEN_CALLS};
use crate::source::{RawRow, type_name};

/// Keys of a message that chat templates use besides role and content, and keys that mask it.
const MORE: [&str; 9] = [
    "tool_calls",
    "tool_call_id",
    "name",
    "reasoning_content",
    "thinking",
    "reasoning",
    "weight",
    "train",
    "training",
];

/// Tool calls that ShareGPT's `function_call` turns write as JSON, `{"name": …, "arguments": …}` or
/// a list of these, in the form that chat templates expect. `None` for other text.
fn calls_in(text: &str) -> Option<Value> {
    let calls = match serde_json::from_str(text).ok()? {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let call = |function: Value| {
        let whole = function["name"].is_string() && function.get("arguments").is_some();
        whole.then(|| json!({"type": "function", "function": function}))
    };
    calls
        .into_iter()
        .map(call)
        .collect::<Option<Vec<_>>>()
        .filter(|calls| !calls.is_empty())
        .map(Value::from)
}

/// One row while it is parsed. Errors name the file, the row and the column.
#[derive(Debug)]
pub struct Fields<'a> {
    pub(crate) path: &'a Path,
    pub(crate) row: &'a RawRow,
}

impl Fields<'_> {
    /// A column's text. Null and a missing column are empty; a row that needs the column is then
    /// dropped.
    ///
    /// # Errors
    /// The column has another type.
    pub fn text(&self, column: &str) -> Result<String> {
        match self.row.columns.get(column) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(value) => self.as_text(column, value),
        }
    }

    /// A column's list of messages, in the form of OpenAI (role, content) or ShareGPT (from,
    /// value).
    ///
    /// # Errors
    /// The column is not a list of messages.
    pub fn messages(&self, column: &str) -> Result<Vec<Message>> {
        match self.row.columns.get(column) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .map(|(index, value)| self.as_message(&format!("{column}[{index}]"), value))
                .collect(),
            Some(other) => Err(self.wrong(column, "a list of messages", other)),
        }
    }

    /// A column's one message.
    ///
    /// # Errors
    /// The column is not a message.
    pub fn message(&self, column: &str) -> Result<Message> {
        self.as_message(column, self.row.columns.get(column).unwrap_or(&Value::Null))
    }

    /// Alpaca's `history`: pairs of a question and its answer, as turns.
    ///
    /// # Errors
    /// The column is not a list of pairs of texts.
    pub fn history(&self, column: &str) -> Result<Vec<Message>> {
        let pairs = match self.row.columns.get(column) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(pairs)) => pairs,
            Some(other) => {
                return Err(self.wrong(column, "a list of [question, answer] pairs", other));
            }
        };
        let mut turns = Vec::with_capacity(2 * pairs.len());
        for (index, pair) in pairs.iter().enumerate() {
            let place = format!("{column}[{index}]");
            match pair.as_array().map(Vec::as_slice) {
                Some([question, answer]) => {
                    turns.push(Message::new(Role::User, self.as_text(&place, question)?));
                    turns.push(Message::said(self.as_text(&place, answer)?));
                }
                _ => return Err(self.wrong(&place, "a pair [question, answer]", pair)),
            }
        }
        Ok(turns)
    }

    /// Whether a column holds a list.
    pub fn is_list(&self, column: &str) -> bool {
        self.row.columns.get(column).is_some_and(Value::is_array)
    }

    /// A value as a message. `place` is its column, and its place in the column if it is part of a list.
    ///
    /// # Errors
    /// The value is not a message of a known role, or its content is not text.
    pub fn as_message(&self, place: &str, value: &Value) -> Result<Message> {
        let Value::Object(fields) = value else {
            return Err(self.wrong(place, "a message (role, content)", value));
        };
        let (role_key, content_key) = if fields.contains_key("role") {
            ("role", "content")
        } else {
            ("from", "value")
        };
        // An empty list of calls has no calls, as null.
        let is_there = |value: &&Value| {
            !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
        };
        let more: Map<String, Value> = MORE
            .iter()
            .filter_map(|name| {
                Some((
                    (*name).to_owned(),
                    fields.get(*name).filter(is_there)?.clone(),
                ))
            })
            .collect();
        // A turn that only calls tools may have no content, or null.
        let nothing = fields
            .get("tool_calls")
            .filter(|calls| !calls.is_null())
            .and(Some(&Value::Null));
        let (Some(role), Some(content)) =
            (fields.get(role_key), fields.get(content_key).or(nothing))
        else {
            let found: Vec<&str> = fields.keys().map(String::as_str).take(6).collect();
            return Err(self.complain(
                place,
                &format!(
                    "a message has the keys {}, not role and content",
                    found.join(", ")
                ),
            ));
        };
        let role_name = self.as_text(&format!("{place}.{role_key}"), role)?;
        let Some(role) = Role::parse(&role_name) else {
            return Err(self
                .complain(&format!("{place}.{role_key}"), &format!("unknown role {role_name:?}"))
                .hint(
                    "known roles: system, user, assistant, tool, and ShareGPT's human, gpt, function_call, observation",
                ));
        };
        let content = match content {
            Value::Null if nothing.is_some() => String::new(),
            content => self.as_content(&format!("{place}.{content_key}"), content)?,
        };
        let mut message = Message {
            role,
            content,
            more,
        };
        if role_name == "function_call" {
            message
                .more
                .extend(calls_in(&message.content).map(|calls| (WRITTEN_CALLS.to_owned(), calls)));
        }
        Ok(message)
    }

    /// Content of a message: text, or OpenAI's list of parts, all of them text.
    fn as_content(&self, place: &str, value: &Value) -> Result<String> {
        let Value::Array(parts) = value else {
            return self.as_text(place, value);
        };
        let part =
            |(index, part): (usize, &Value)| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text.to_owned()),
                (Some(kind), _) if kind != "text" => Err(self.complain(
                    &format!("{place}[{index}]"),
                    &format!("a part of type {kind:?} is not supported, only text"),
                )),
                _ => Err(self.wrong(place, "text", value)),
            };
        parts.iter().enumerate().map(part).collect()
    }

    /// A column's descriptions of tools: a list of objects, or the same as JSON text.
    ///
    /// # Errors
    /// The column is neither.
    pub fn tools(&self, column: &str) -> Result<Vec<Value>> {
        let list = match self.row.columns.get(column) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
            Some(Value::String(text)) => serde_json::from_str(text).map_err(|error| {
                self.complain(column, &format!("expected a JSON list of tools: {error}"))
            })?,
            Some(value) => value.clone(),
        };
        match list {
            Value::Array(list) if list.iter().all(Value::is_object) => Ok(list),
            other => Err(self.wrong(column, "a list of tools, each an object", &other)),
        }
    }

    /// Like [`Fields::tools`], for ShareGPT's rows. Their tools are usually descriptions of
    /// functions, without the object around them that chat templates expect.
    ///
    /// # Errors
    /// The column is neither.
    pub fn bare_tools(&self, column: &str) -> Result<Vec<Value>> {
        let whole = |tool: Value| match tool.get("name").is_some() && tool.get("function").is_none()
        {
            true => json!({"type": "function", "function": tool}),
            false => tool,
        };
        Ok(self.tools(column)?.into_iter().map(whole).collect())
    }

    /// A column's list. Null and a missing column are empty.
    ///
    /// # Errors
    /// The column has another type.
    pub fn list(&self, column: &str) -> Result<&[Value]> {
        match self.row.columns.get(column) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.wrong(column, "a list", other)),
        }
    }

    fn as_text(&self, place: &str, value: &Value) -> Result<String> {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| self.wrong(place, "text", value))
    }

    /// The error of a value that is not what was `wanted`: `a list of messages`.
    pub fn wrong(&self, place: &str, wanted: &str, found: &Value) -> Error {
        self.complain(
            place,
            &format!("expected {wanted}, found {}", type_name(found)),
        )
    }

    fn complain(&self, place: &str, what: &str) -> Error {
        Error::input(format!(
            "{}: {}, column {place}: {what}",
            self.path.display(),
            self.row.place()
        ))
        .hint("correct the row, or remove it from the file")
    }
}

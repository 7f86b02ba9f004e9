//! `/v1/chat/completions`: the request, and the objects of the answer.

use serde_json::{Map, Value, json};
use upright_data::conversation::{Message, Prompt, Role, Row};

use super::{
    completions::MOST_CANDIDATES,
    error::ApiError,
    fields::{Fields, wrong},
    sampling::SamplingFields,
};

/// A request for the next turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChatRequest {
    /// The model: the base or an adapter.
    pub(crate) model: String,
    /// The conversation, at least one turn.
    pub(crate) messages: Vec<Message>,
    /// Most tokens of each answer; `None` for as many as fit.
    pub(crate) max_tokens: Option<usize>,
    /// Candidates per position, if log-probabilities are requested.
    pub(crate) logprobs: Option<usize>,
    /// How answers are generated.
    pub(crate) sampling: SamplingFields,
}

impl ChatRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// A field is wrong, missing or not supported.
    pub(crate) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let model = fields.required_text("model")?;
        let messages = messages(fields.required("messages")?)?;
        let most = u64::from(u32::MAX);
        let older = fields.count("max_tokens", 1, most)?;
        let newer = fields.count("max_completion_tokens", 1, most)?;
        let sampling = SamplingFields::take(&mut fields)?;
        let is_scored = fields.flag("logprobs")?.unwrap_or(false);
        let candidates = fields.count("top_logprobs", 0, MOST_CANDIDATES)?;
        if candidates.is_some() && !is_scored {
            let problem = "only allowed with logprobs true";
            return Err(ApiError::field("top_logprobs", problem));
        }
        for name in ["tools", "functions", "modalities", "audio", "prediction"] {
            fields.only(name, &Value::Null)?;
        }
        fields.only("tool_choice", &json!("none"))?;
        fields.only("response_format", &json!({"type": "text"}))?;
        fields.finish()?;
        Ok(Self {
            model,
            messages,
            max_tokens: newer.or(older),
            logprobs: is_scored.then_some(candidates.unwrap_or(0)),
            sampling,
        })
    }

    /// The conversation as a row for a template. A template without turns gets the text of a single
    /// message of the user.
    pub(crate) fn row(&self, has_turns: bool) -> Row {
        let prompt = match &self.messages[..] {
            [only] if !has_turns && only.role == Role::User => Prompt::Text(only.content.clone()),
            messages => Prompt::Messages(messages.to_vec()),
        };
        Row::unanswered(0, None, prompt)
    }
}

fn messages(value: Value) -> Result<Vec<Message>, ApiError> {
    let list = match value {
        Value::Array(list) if !list.is_empty() => list,
        other => return Err(wrong("messages", "a list of messages", &other)),
    };
    let mut messages = Vec::with_capacity(list.len());
    for (index, message) in list.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        let fields = match message {
            Value::Object(fields) => Fields::of(fields),
            other => return Err(wrong(&place, "an object with role and content", &other)),
        };
        messages.push(message_of(fields).map_err(|error| error.within(&place))?);
    }
    Ok(messages)
}

fn message_of(mut fields: Fields) -> Result<Message, ApiError> {
    let name = fields.required("role")?;
    let role = name.as_str().and_then(Role::parse);
    let Some(role) = role.filter(|role| *role != Role::Tool) else {
        let wanted = "system, developer, user or assistant";
        return Err(wrong("role", wanted, &name));
    };
    let content = match fields.required("content")? {
        Value::String(text) => text,
        Value::Array(parts) => {
            let mut text = String::new();
            for part in &parts {
                let is_text = part["type"] == "text";
                match part["text"].as_str() {
                    Some(words) if is_text => text += words,
                    _ => return Err(wrong("content", "text, or a list of text parts", part)),
                }
            }
            text
        }
        other => return Err(wrong("content", "text, or a list of text parts", &other)),
    };
    let mut message = Message::new(role, content);
    if let Some(name) = fields.text("name")? {
        message.more = Map::from_iter([("name".to_owned(), Value::String(name))]);
    }
    for name in [
        "tool_calls",
        "function_call",
        "refusal",
        "audio",
        "annotations",
    ] {
        fields.only(name, &Value::Null)?;
    }
    fields.finish()?;
    Ok(message)
}

/// One answer of a chat.
pub(crate) fn choice(
    index: usize,
    text: &str,
    logprobs: Option<Value>,
    finish: Option<&str>,
) -> Value {
    json!({
        "index": index,
        "message": {"role": "assistant", "content": text, "refusal": null},
        "logprobs": logprobs,
        "finish_reason": finish,
    })
}

/// One event of a chat's answer.
pub(crate) fn delta(
    index: usize,
    delta: Value,
    logprobs: Option<Value>,
    finish: Option<&str>,
) -> Value {
    json!({
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ChatRequest, ApiError> {
        ChatRequest::parse(Fields::parse(text.as_bytes())?)
    }

    #[test]
    fn parts_of_text_are_joined() {
        let request = parse(
            r#"{"model": "m", "messages": [{"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "you"}]}],
                "max_completion_tokens": 5, "logprobs": true, "top_logprobs": 2}"#,
        )
        .unwrap();
        let expected = [
            Message::new(Role::System, "Be brief."),
            Message::new(Role::User, "Hi you"),
        ];
        assert_eq!(request.messages, expected);
        assert_eq!((request.max_tokens, request.logprobs), (Some(5), Some(2)));
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        let bad = [
            (r#""messages": []"#, "messages"),
            (r#""messages": [{"role": "user"}]"#, "messages[0].content"),
            (
                r#""messages": [{"role": "tool", "content": "4"}]"#,
                "messages[0].role",
            ),
            (
                r#""messages": [{"role": "user", "content": [{"type": "image_url"}]}]"#,
                "messages[0].content",
            ),
            (
                r#""messages": [{"role": "user", "content": "a"}], "tools": [{}]"#,
                "tools",
            ),
            (
                r#""messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_object"}"#,
                "response_format",
            ),
            (
                r#""messages": [{"role": "user", "content": "a"}], "top_logprobs": 3"#,
                "top_logprobs",
            ),
        ];
        for (fields, param) in bad {
            let error = parse(&format!(r#"{{"model": "m", {fields}}}"#)).unwrap_err();
            assert_eq!(error.body()["error"]["param"], param, "{fields}");
        }
    }
}

//! `/v1/completions`: the request, and the objects of the answer.

use serde_json::{Value, json};

use super::{
    error::ApiError,
    fields::{Fields, wrong},
    sampling::SamplingFields,
    tokens::ids,
};

/// Most candidates per position. OpenAI allows 5, vLLM 20.
pub(crate) const MOST_CANDIDATES: u64 = 20;

/// A prompt as text or as token ids.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PromptField {
    /// Text for the tokenizer.
    Text(String),
    /// Token ids, used as they are.
    Ids(Vec<u32>),
}

/// A request for completions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompletionRequest {
    /// The model: the base or an adapter.
    pub(crate) model: String,
    /// The prompts, at least one.
    pub(crate) prompts: Vec<PromptField>,
    /// Most tokens of each answer.
    pub(crate) max_tokens: usize,
    /// Whether the answer begins with the prompt.
    pub(crate) echo: bool,
    /// Candidates per position, if log-probabilities are requested.
    pub(crate) logprobs: Option<usize>,
    /// Whether the tokenizer adds BOS to text.
    pub(crate) add_special_tokens: bool,
    /// How answers are generated.
    pub(crate) sampling: SamplingFields,
}

impl CompletionRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// A field is wrong, missing or not supported.
    pub(crate) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let model = fields.required_text("model")?;
        let prompts = prompts(fields.required("prompt")?)?;
        let echo = fields.flag("echo")?.unwrap_or(false);
        let max_tokens = fields
            .count("max_tokens", 0, u32::MAX.into())?
            .unwrap_or(16);
        if max_tokens == 0 && !echo {
            let problem = "must be at least 1, unless echo is true";
            return Err(ApiError::field("max_tokens", problem));
        }
        let sampling = SamplingFields::take(&mut fields)?;
        fields.only("best_of", &json!(sampling.n))?;
        fields.only("suffix", &json!(""))?;
        let request = Self {
            model,
            prompts,
            max_tokens,
            echo,
            logprobs: fields.count("logprobs", 0, MOST_CANDIDATES)?,
            add_special_tokens: fields.flag("add_special_tokens")?.unwrap_or(true),
            sampling,
        };
        fields.finish()?;
        Ok(request)
    }
}

/// The prompts of a request: text, a list of texts, token ids, or a list of lists of token ids.
fn prompts(value: Value) -> Result<Vec<PromptField>, ApiError> {
    let wanted = "text, a list of texts, token ids, or a list of lists of token ids";
    let list = match value {
        Value::String(text) => return Ok(vec![PromptField::Text(text)]),
        Value::Array(list) if !list.is_empty() => list,
        other => return Err(wrong("prompt", wanted, &other)),
    };
    if list[0].is_number() {
        return Ok(vec![PromptField::Ids(ids("prompt", &Value::Array(list))?)]);
    }
    let is_text = list[0].is_string();
    let mut prompts = Vec::with_capacity(list.len());
    for prompt in list {
        prompts.push(match prompt {
            Value::String(text) if is_text => PromptField::Text(text),
            Value::Array(_) if !is_text => PromptField::Ids(ids("prompt", &prompt)?),
            other => return Err(wrong("prompt", wanted, &other)),
        });
    }
    Ok(prompts)
}

/// One answer of a completion.
pub(crate) fn choice(
    index: usize,
    text: &str,
    logprobs: Option<Value>,
    finish: Option<&str>,
) -> Value {
    json!({
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CompletionRequest, ApiError> {
        CompletionRequest::parse(Fields::parse(text.as_bytes())?)
    }

    /// What lm-eval 0.4.13 sends for a likelihood request of two rows.
    #[test]
    fn lists_of_ids_are_prompts() {
        let request = parse(
            r#"{"model": "m", "prompt": [[1, 2], [3]], "temperature": 0, "max_tokens": 1,
                "logprobs": 1, "seed": 1234, "echo": true}"#,
        )
        .unwrap();
        let ids = |ids: &[u32]| PromptField::Ids(ids.to_vec());
        assert_eq!(request.prompts, [ids(&[1, 2]), ids(&[3])]);
        assert_eq!((request.max_tokens, request.logprobs), (1, Some(1)));
        assert!(request.echo && !request.sampling.stream);
        assert_eq!(request.sampling.seed, Some(1234));
        let one = parse(r#"{"model": "m", "prompt": [7, 8]}"#).unwrap();
        assert_eq!(one.prompts, [ids(&[7, 8])]);
        assert_eq!((one.max_tokens, one.sampling.temperature), (16, 1.0));
    }

    #[test]
    fn prompts_of_other_forms_are_refused() {
        for prompt in [
            "{}",
            "[]",
            "3",
            r#"["a", 1]"#,
            "[1, -2]",
            "[[1], 2]",
            "[1.5]",
        ] {
            let error = parse(&format!(r#"{{"model": "m", "prompt": {prompt}}}"#)).unwrap_err();
            assert_eq!(error.status(), 400, "{prompt}");
            assert_eq!(error.body()["error"]["param"], "prompt", "{prompt}");
        }
        let error = parse(r#"{"model": "m", "prompt": "a", "max_tokens": 0}"#).unwrap_err();
        assert_eq!(error.body()["error"]["param"], "max_tokens");
        let error = parse(r#"{"model": "m", "prompt": "a", "best_of": 4}"#).unwrap_err();
        assert_eq!(error.body()["error"]["param"], "best_of");
    }
}

//! The fields that completions and chats share.

use serde_json::Value;

use super::{
    error::ApiError,
    fields::{Fields, wrong},
};

/// Most answers to one prompt.
pub(crate) const MOST_ANSWERS: u64 = 128;
/// Most stop texts of a request. OpenAI allows 4; lm-eval sends more.
const MOST_STOPS: usize = 64;

/// How answers are generated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SamplingFields {
    /// Answers to each prompt.
    pub(crate) n: usize,
    /// 0 takes the most likely token.
    pub(crate) temperature: f64,
    /// Nucleus.
    pub(crate) top_p: f64,
    /// Seed of the draws; `None` for a new one.
    pub(crate) seed: Option<u64>,
    /// Texts before which an answer ends.
    pub(crate) stop: Vec<String>,
    /// Whether the end token is a token like any other.
    pub(crate) ignore_eos: bool,
    /// Whether to answer with server-sent events.
    pub(crate) stream: bool,
    /// Whether the last event reports the usage.
    pub(crate) stream_usage: bool,
    /// Whether the answer lists the ids of its tokens.
    pub(crate) return_token_ids: bool,
}

impl SamplingFields {
    /// Takes the fields.
    ///
    /// # Errors
    /// A value is out of range, or a setting is not supported.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let zero = Value::from(0);
        for name in [
            "presence_penalty",
            "frequency_penalty",
            "min_p",
            "min_tokens",
        ] {
            fields.only(name, &zero)?;
        }
        fields.only("repetition_penalty", &Value::from(1))?;
        fields.only("top_k", &Value::from(-1))?;
        fields.only("logit_bias", &Value::Null)?;
        let n = fields.count("n", 1, MOST_ANSWERS)?.unwrap_or(1);
        let stream = fields.flag("stream")?.unwrap_or(false);
        let mut stream_usage = false;
        match fields.take("stream_options") {
            None => {}
            Some(Value::Object(options)) if stream => {
                let mut options = Fields::of(options);
                stream_usage = options.flag("include_usage")?.unwrap_or(false);
                options.flag("include_obfuscation")?;
                options.finish()?;
            }
            Some(Value::Object(_)) => {
                let problem = "only allowed with stream true";
                return Err(ApiError::field("stream_options", problem));
            }
            Some(other) => return Err(wrong("stream_options", "an object", &other)),
        }
        Ok(Self {
            n,
            temperature: fields.number("temperature", 0.0, 100.0)?.unwrap_or(1.0),
            top_p: match fields.number("top_p", 0.0, 1.0)? {
                Some(0.0) => return Err(ApiError::field("top_p", "must be above 0")),
                top_p => top_p.unwrap_or(1.0),
            },
            seed: fields.seed("seed")?,
            stop: fields.texts("stop", MOST_STOPS)?,
            ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
            stream,
            stream_usage,
            return_token_ids: fields.flag("return_token_ids")?.unwrap_or(false),
        })
    }
}

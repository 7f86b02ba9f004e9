//! Requests of the tokenizer's routes, as vLLM has them.

use serde_json::Value;

use super::{
    error::ApiError,
    fields::{Fields, wrong},
};

/// A request of `/tokenize`.
#[derive(Debug, PartialEq)]
pub(crate) struct Tokenize {
    /// The model, if one is named.
    pub(crate) model: Option<String>,
    /// The text.
    pub(crate) prompt: String,
    /// Whether the tokenizer adds BOS.
    pub(crate) add_special_tokens: bool,
}

impl Tokenize {
    /// Reads the request.
    ///
    /// # Errors
    /// A field is wrong, missing or unknown.
    pub(crate) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let request = Self {
            model: fields.text("model")?,
            prompt: fields.required_text("prompt")?,
            add_special_tokens: fields.flag("add_special_tokens")?.unwrap_or(true),
        };
        fields.only("return_token_strs", &Value::Bool(false))?;
        fields.finish()?;
        Ok(request)
    }
}

/// A request of `/detokenize`.
#[derive(Debug, PartialEq)]
pub(crate) struct Detokenize {
    /// The model, if one is named.
    pub(crate) model: Option<String>,
    /// The token ids.
    pub(crate) tokens: Vec<u32>,
}

impl Detokenize {
    /// Reads the request.
    ///
    /// # Errors
    /// A field is wrong, missing or unknown.
    pub(crate) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let request = Self {
            model: fields.text("model")?,
            tokens: ids("tokens", &fields.required("tokens")?)?,
        };
        fields.finish()?;
        Ok(request)
    }
}

/// A list of token ids.
///
/// # Errors
/// The value is not a list of numbers that can be token ids.
pub(crate) fn ids(name: &str, value: &Value) -> Result<Vec<u32>, ApiError> {
    let Value::Array(list) = value else {
        return Err(wrong(name, "a list of token ids", value));
    };
    let mut ids = Vec::with_capacity(list.len());
    for id in list {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        ids.push(number.ok_or_else(|| wrong(name, "a list of token ids", id))?);
    }
    Ok(ids)
}

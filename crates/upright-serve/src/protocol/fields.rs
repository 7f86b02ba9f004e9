//! The fields of a request. Every field is taken by name; a field that nobody takes is an error, so
//! that no setting is ignored silently.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Fields that do not change an answer.
const WITHOUT_EFFECT: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
];

/// The fields that are still to be taken.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a JSON object.
    ///
    /// # Errors
    /// The bytes are not a JSON object.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::invalid("the body must be a JSON object")),
            Err(error) => Err(ApiError::invalid(format!("the body is not JSON: {error}"))),
        }
    }

    /// The fields of an object inside a request.
    pub(crate) fn of(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// Takes a field; `None` if it is absent or null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<Value, ApiError> {
        self.take(name)
            .ok_or_else(|| ApiError::field(name, "the field is missing"))
    }

    /// Takes text that must be there.
    pub(crate) fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        match self.required(name)? {
            Value::String(text) => Ok(text),
            other => Err(wrong(name, "text", &other)),
        }
    }

    /// Takes text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "text", &other)),
        }
    }

    /// Takes true or false.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(name, "true or false", &other)),
        }
    }

    /// Takes a whole number within limits.
    pub(crate) fn count(
        &mut self,
        name: &str,
        least: u64,
        most: u64,
    ) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) if (least..=most).contains(&count) => Ok(Some(count as usize)),
            _ => {
                let wanted = format!("a whole number from {least} to {most}");
                Err(wrong(name, &wanted, &value))
            }
        }
    }

    /// Takes a number within limits.
    pub(crate) fn number(
        &mut self,
        name: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                let wanted = format!("a number from {least} to {most}");
                Err(wrong(name, &wanted, &value))
            }
        }
    }

    /// Takes a seed: any whole number.
    pub(crate) fn seed(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let negative = value.as_i64().map(i64::cast_unsigned);
        match value.as_u64().or(negative) {
            Some(seed) => Ok(Some(seed)),
            None => Err(wrong(name, "a whole number", &value)),
        }
    }

    /// Takes text or a list of texts, none of them empty.
    pub(crate) fn texts(&mut self, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let texts = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(one) => vec![one],
        };
        if texts.len() > most {
            return Err(ApiError::field(name, format!("at most {most} texts")));
        }
        let mut found = Vec::with_capacity(texts.len());
        for text in texts {
            match text {
                Value::String(text) if !text.is_empty() => found.push(text),
                other => {
                    return Err(wrong(
                        name,
                        "text that is not empty, or a list of it",
                        &other,
                    ));
                }
            }
        }
        Ok(found)
    }

    /// Takes a field that is supported with one value only, or with an empty list or object.
    pub(crate) fn only(&mut self, name: &str, supported: &Value) -> Result<(), ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(());
        };
        let is_empty = value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(Map::is_empty);
        let is_same_number = value.is_number() && value.as_f64() == supported.as_f64();
        if is_empty || is_same_number || value == *supported {
            return Ok(());
        }
        let problem = match supported {
            Value::Null => "the field is not supported; leave it out".to_owned(),
            supported => format!("only {supported} is supported"),
        };
        Err(ApiError::field(name, problem))
    }

    /// Rejects the fields that were not taken, except those without an effect.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        for (name, value) in &self.0 {
            if !value.is_null() && !WITHOUT_EFFECT.contains(&&name[..]) {
                return Err(ApiError::field(
                    name,
                    "the field is not supported; leave it out",
                ));
            }
        }
        Ok(())
    }
}

/// A field with a value of another form than `wanted`.
pub(crate) fn wrong(name: &str, wanted: &str, found: &Value) -> ApiError {
    let mut shown = found.to_string();
    if shown.chars().count() > 60 {
        shown = shown.chars().take(57).chain("...".chars()).collect();
    }
    ApiError::field(name, format!("must be {wanted}, found {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_field_that_nobody_takes_is_named() {
        let mut request = fields(r#"{"n": 2, "user": "me", "top_k": 5, "seed": null}"#);
        assert_eq!(request.count("n", 1, 8), Ok(Some(2)));
        assert_eq!(request.seed("seed"), Ok(None));
        let error = request.finish().unwrap_err();
        assert_eq!(error.status(), 400);
        let expected = "top_k: the field is not supported; leave it out";
        assert_eq!(error.body()["error"]["message"], expected);
        assert_eq!(error.body()["error"]["param"], "top_k");
    }

    #[test]
    fn values_of_another_form_are_shown() {
        let message = |error: ApiError| error.body()["error"]["message"].clone();
        let mut request = fields(r#"{"n": 2.5, "stop": ["a", ""], "temperature": -1}"#);
        let error = request.count("n", 1, 8).unwrap_err();
        assert_eq!(
            message(error),
            "n: must be a whole number from 1 to 8, found 2.5"
        );
        assert!(request.texts("stop", 4).is_err());
        let error = request.number("temperature", 0.0, 2.0).unwrap_err();
        assert_eq!(
            message(error),
            "temperature: must be a number from 0 to 2, found -1"
        );
        assert_eq!(Fields::parse(b"[]").unwrap_err().status(), 400);
        assert_eq!(Fields::parse(b"{\"n\": ").unwrap_err().status(), 400);
    }

    #[test]
    fn neutral_values_of_other_settings_are_accepted() {
        let mut request = fields(r#"{"presence_penalty": 0.0, "logit_bias": {}, "best_of": 3}"#);
        assert_eq!(request.only("presence_penalty", &Value::from(0)), Ok(()));
        assert_eq!(request.only("logit_bias", &Value::Null), Ok(()));
        assert!(request.only("best_of", &Value::from(1)).is_err());
    }
}

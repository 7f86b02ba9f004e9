//! Requests that load and unload adapters, as vLLM has them.

use super::{error::ApiError, fields::Fields};

/// Longest name of an adapter, in bytes.
const LONGEST_NAME: usize = 256;

/// A request of `/v1/load_lora_adapter`.
#[derive(Debug, PartialEq)]
pub(crate) struct LoadAdapter {
    /// The name that requests will use.
    pub(crate) name: String,
    /// The folder, relative to the allowed one or absolute.
    pub(crate) path: String,
    /// Whether the adapter replaces one with the same name.
    pub(crate) in_place: bool,
}

impl LoadAdapter {
    /// Reads the request.
    ///
    /// # Errors
    /// A field is wrong, missing or unknown.
    pub(crate) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let request = Self {
            name: name(&mut fields)?,
            path: fields.required_text("lora_path")?,
            in_place: fields.flag("load_inplace")?.unwrap_or(false),
        };
        if request.path.is_empty() {
            return Err(ApiError::field("lora_path", "the path is empty"));
        }
        fields.finish()?;
        Ok(request)
    }
}

/// A request of `/v1/unload_lora_adapter`.
#[derive(Debug, PartialEq)]
pub(crate) struct UnloadAdapter {
    /// The name.
    pub(crate) name: String,
}

impl UnloadAdapter {
    /// Reads the request.
    ///
    /// # Errors
    /// A field is wrong, missing or unknown.
    pub(crate) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let name = name(&mut fields)?;
        fields.finish()?;
        Ok(Self { name })
    }
}

fn name(fields: &mut Fields) -> Result<String, ApiError> {
    let name = fields.required_text("lora_name")?;
    if name.is_empty() || name.len() > LONGEST_NAME {
        let problem = format!("a name has from 1 to {LONGEST_NAME} bytes");
        return Err(ApiError::field("lora_name", problem));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn requests_are_those_of_vllm() {
        let request = fields(r#"{"lora_name": "a", "lora_path": "b", "load_inplace": true}"#);
        let expected = LoadAdapter {
            name: "a".to_owned(),
            path: "b".to_owned(),
            in_place: true,
        };
        assert_eq!(LoadAdapter::parse(request), Ok(expected));
        let request = fields(r#"{"lora_name": "a", "lora_int_id": null}"#);
        let name = "a".to_owned();
        assert_eq!(UnloadAdapter::parse(request), Ok(UnloadAdapter { name }));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let long = format!(
            r#"{{"lora_name": "{}", "lora_path": "b"}}"#,
            "a".repeat(257)
        );
        for (text, field) in [
            (r#"{"lora_path": "b"}"#, "lora_name"),
            (r#"{"lora_name": "a"}"#, "lora_path"),
            (r#"{"lora_name": "", "lora_path": "b"}"#, "lora_name"),
            (r#"{"lora_name": "a", "lora_path": ""}"#, "lora_path"),
            (&long, "lora_name"),
            (
                r#"{"lora_name": "a", "lora_path": "b", "base_model_name": "c"}"#,
                "base_model_name",
            ),
        ] {
            let error = LoadAdapter::parse(fields(text)).unwrap_err();
            assert_eq!(error.body()["error"]["param"], field, "{text}");
        }
        let error = UnloadAdapter::parse(fields(r#"{"lora_name": "a", "lora_int_id": 3}"#));
        assert_eq!(error.unwrap_err().body()["error"]["param"], "lora_int_id");
    }
}

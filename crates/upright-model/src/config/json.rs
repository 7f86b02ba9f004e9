//! Reads JSON by hand, so that an error about a key names the file, the value and the expected
//! value.

use std::path::Path;

use serde_json::{Map, Value};

use upright_base::{Error, Result, file_kind};

/// Maximum size of a JSON file. A config has a few kilobytes, the index of a large model a few
/// megabytes.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// Reads a JSON object from a file.
///
/// # Errors
/// A system error, or the file is too large, not JSON, or not an object.
pub(crate) fn read_file(path: &Path, hint: &str) -> Result<Map<String, Value>> {
    file_kind::check_file(path)?;
    let size = std::fs::metadata(path)
        .map_err(|e| Error::unreadable(path, "read", e))?
        .len();
    if size > MAX_BYTES {
        return Err(Error::file(
            path,
            format!("{size} bytes, more than the maximum of {MAX_BYTES}"),
            hint,
        ));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::unreadable(path, "read", e))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(Error::file(
            path,
            format!("found {}, expected a JSON object", shown(&other)),
            hint,
        )),
        Err(error) => Err(Error::file(path, format!("not JSON: {error}"), hint)),
    }
}

/// A value for a message: short, on one line.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        text
    } else {
        text.chars().take(77).chain("...".chars()).collect()
    }
}

/// An object of a JSON file. A key that is `null` counts as missing, except in [`Object::has`].
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    /// The file, for messages.
    pub(crate) path: &'a Path,
    /// Path of keys to this object, each followed by a dot.
    prefix: &'a str,
    /// The object.
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The object at the top of a file.
    pub(crate) fn new(path: &'a Path, map: &'a Map<String, Value>) -> Self {
        Self {
            path,
            prefix: "",
            map,
        }
    }

    /// Whether the key is present, even as `null`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value of a key that is present and not `null`.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of a key, for a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        self.map
            .get(key)
            .map_or_else(|| "nothing".to_owned(), shown)
    }

    /// An error about a key of this object.
    pub(crate) fn error(&self, key: &str, problem: &str, hint: impl Into<String>) -> Error {
        Error::file(self.path, format!("`{}{key}` {problem}", self.prefix), hint)
    }

    /// The error for a key with an invalid value.
    pub(crate) fn wrong(&self, key: &str, expected: &str) -> Error {
        let problem = format!("is {}, expected {expected}", self.shown(key));
        self.error(
            key,
            &problem,
            format!("set `{}{key}` to {expected}", self.prefix),
        )
    }

    /// The error for a required key that is missing.
    pub(crate) fn missing(&self, key: &str) -> Error {
        self.error(
            key,
            "is missing",
            "download the file again, or copy it from its model",
        )
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(key)
            .map(|value| convert(value).ok_or_else(|| self.wrong(key, expected)))
            .transpose()
    }

    /// A whole number of at least 0.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| {
            v.as_u64().and_then(|n| usize::try_from(n).ok())
        })
    }

    /// A size from 1 to `limit`.
    pub(crate) fn size(&self, key: &str, limit: usize) -> Result<Option<usize>> {
        match self.count(key)? {
            Some(n) if n == 0 || n > limit => {
                Err(self.wrong(key, &format!("a whole number from 1 to {limit}")))
            }
            found => Ok(found),
        }
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// A finite number above 0.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.number(key)? {
            Some(x) if x <= 0.0 => Err(self.wrong(key, "a number above 0")),
            found => Ok(found),
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(key, "a list of strings", |v| {
            v.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// An object; `prefix` is the key followed by a dot, for messages about keys inside the object.
    pub(crate) fn object(&self, key: &str, prefix: &'a str) -> Result<Option<Object<'a>>> {
        let path = self.path;
        self.typed(key, "an object", |v| {
            v.as_object().map(|map| Object { path, prefix, map })
        })
    }

    /// A token id, or the first of a list of them; a negative id means none.
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>> {
        let id = |v: &Value| {
            let v = v.as_array().map_or(Some(v), |list| list.first());
            match v.map(|v| v.as_i64().map(u32::try_from)) {
                None | Some(Some(Err(_))) => Some(None),
                Some(Some(Ok(id))) => Some(Some(id)),
                Some(None) => None,
            }
        };
        Ok(self
            .typed(key, "a token id or a list of them", id)?
            .flatten())
    }
}

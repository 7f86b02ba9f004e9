//! Values as Python writes them: `str()`, `repr()` and `json.dumps()`. Templates are written for Jinja under Python, and
//! what they print of a flag or of a tool's schema has to be the same to the letter.

use minijinja::value::{Value, ValueKind};
use serde_json::Value as Json;

/// `str(value)`, as a template's `{{ }}` prints it; undefined is nothing.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        _ => repr(value),
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => "Undefined".to_owned(),
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<String> =
                value.try_iter().map(|items| items.map(|v| repr(&v)).collect()).unwrap_or_default();
            match items.as_slice() {
                [one] if value.is_tuple() => format!("({one},)"),
                items if value.is_tuple() => format!("({})", items.join(", ")),
                items => format!("[{}]", items.join(", ")),
            }
        }
        ValueKind::Map => {
            let keys = value.try_iter().map(|keys| keys.collect::<Vec<_>>()).unwrap_or_default();
            let entry = |key: &Value| {
                let entry = value.get_item(key).unwrap_or_default();
                format!("{}: {}", repr(key), repr(&entry))
            };
            format!("{{{}}}", keys.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

/// A string with the quotes that Python picks.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for letter in text.chars() {
        match letter {
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\\' => out += "\\\\",
            letter if letter == quote => out.extend(['\\', letter]),
            letter if letter.is_control() => out += &format!("\\x{:02x}", u32::from(letter)),
            letter => out.push(letter),
        }
    }
    out.push(quote);
    out
}

/// What `json.dumps` can be told.
pub(super) struct Dumps {
    /// Escape everything beyond ASCII.
    pub ensure_ascii: bool,
    /// What a level is indented by; none: all on one line.
    pub indent: Option<String>,
    /// Between items, and between a key and its value.
    pub separators: (String, String),
    /// Sort keys.
    pub sort_keys: bool,
}

impl Dumps {
    /// `json.dumps(value, ...)`.
    pub(super) fn write(&self, value: &Json) -> String {
        let mut out = String::new();
        self.value(value, 0, &mut out);
        out
    }

    fn value(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Array(items) if !items.is_empty() => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.between(index, depth + 1, out);
                    self.value(item, depth + 1, out);
                }
                self.line(depth, out);
                out.push(']');
            }
            Json::Object(fields) if !fields.is_empty() => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sort_keys {
                    fields.sort_by_key(|(key, _)| *key);
                }
                out.push('{');
                for (index, (key, value)) in fields.into_iter().enumerate() {
                    self.between(index, depth + 1, out);
                    self.string(key, out);
                    *out += &self.separators.1;
                    self.value(value, depth + 1, out);
                }
                self.line(depth, out);
                out.push('}');
            }
            Json::String(text) => self.string(text, out),
            other => *out += &other.to_string(),
        }
    }

    fn between(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            *out += &self.separators.0;
        }
        self.line(depth, out);
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            *out += &indent.repeat(depth);
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        let written = Json::from(text).to_string();
        for letter in written.chars() {
            if letter == '\u{7f}' || !self.ensure_ascii || letter.is_ascii() {
                out.push(letter);
                continue;
            }
            for unit in letter.encode_utf16(&mut [0; 2]) {
                *out += &format!("\\u{unit:04x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_in_python() {
        let print = |json: Json| text(&Value::from(minijinja::value::Serde(json)));
        assert_eq!(print(json!(true)) + &print(json!(null)) + &print(json!(1.0)), "TrueNone1.0");
        assert_eq!(
            print(json!({"a": [1, false, "it's", "\"q'\n"], "b": {}})),
            r#"{'a': [1, False, "it's", '"q\'\n'], 'b': {}}"#
        );
        assert_eq!(text(&Value::UNDEFINED), "");
        assert_eq!(print(json!("it's")), "it's");
    }

    #[test]
    fn json_is_written_as_json_dumps_writes_it() {
        let dumps = |indent: Option<&str>, ensure_ascii, sort_keys| Dumps {
            ensure_ascii,
            indent: indent.map(str::to_owned),
            separators: (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
            sort_keys,
        };
        let value = json!({"b": [1, 2.5, {}], "a": "é<\u{1f600}", "c": []});
        assert_eq!(dumps(None, false, false).write(&value), r#"{"b": [1, 2.5, {}], "a": "é<😀", "c": []}"#);
        assert_eq!(
            dumps(None, true, true).write(&json!({"b": 1, "a": "é😀"})),
            r#"{"a": "\u00e9\ud83d\ude00", "b": 1}"#
        );
        assert_eq!(dumps(Some("  "), false, false).write(&json!({"a": [1]})), "{\n  \"a\": [\n    1\n  ]\n}");
    }
}

//! Values as Python writes them: `str()`, `repr()` and `json.dumps()`. Templates are written for
//! Python's Jinja, and what they print of a flag or of a tool's schema has to match to the letter.

use minijinja::value::{Value, ValueKind};
use serde_json::Value as Json;

/// `str(value)`, as a template's `{{ }}` prints it; undefined prints nothing.
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
            let items: Vec<String> = value
                .try_iter()
                .map(|items| items.map(|v| repr(&v)).collect())
                .unwrap_or_default();
            match items.as_slice() {
                [one] if value.is_tuple() => format!("({one},)"),
                items if value.is_tuple() => format!("({})", items.join(", ")),
                items => format!("[{}]", items.join(", ")),
            }
        }
        ValueKind::Map => {
            let keys = value
                .try_iter()
                .map(|keys| keys.collect::<Vec<_>>())
                .unwrap_or_default();
            let entry = |key: &Value| {
                let entry = value.get_item(key).unwrap_or_default();
                format!("{}: {}", repr(key), repr(&entry))
            };
            format!(
                "{{{}}}",
                keys.iter().map(entry).collect::<Vec<_>>().join(", ")
            )
        }
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => float(number),
            Err(_) => value.to_string(),
        },
        _ => value.to_string(),
    }
}

/// `repr(number)` of a float: with an exponent below 1e-4 and from 1e16 on, of at least two digits.
fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan".to_owned()
        } else {
            format!("{number}")
        };
    }
    let scientific = format!("{number:e}");
    let parts = scientific
        .split_once('e')
        .and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    match parts {
        Some((digits, exponent)) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{number:?}"),
    }
}

/// `text.title()`: uppercase for every letter that does not follow a letter.
pub(super) fn title(text: &str) -> String {
    let (mut out, mut inside) = (String::with_capacity(text.len()), false);
    for letter in text.chars() {
        if inside {
            out.extend(letter.to_lowercase());
        } else {
            out.extend(letter.to_uppercase());
        }
        inside = letter.is_alphabetic();
    }
    out
}

/// Whether a character ends a line for `splitlines`.
fn ends_line(letter: char) -> bool {
    matches!(
        letter,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// `text.splitlines(True)`: lines with their line breaks.
pub(super) fn lines_with_ends(text: &str) -> Vec<&str> {
    let (mut lines, mut start) = (Vec::new(), 0);
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let pair = letter == '\r' && letters.peek().is_some_and(|(_, next)| *next == '\n');
        if ends_line(letter) && !pair {
            let end = at + letter.len_utf8();
            lines.push(&text[start..end]);
            start = end;
        }
    }
    lines.extend(Some(&text[start..]).filter(|rest| !rest.is_empty()));
    lines
}

/// `text.splitlines()`.
pub(super) fn lines(text: &str) -> Vec<&str> {
    let bare = |line| {
        str::strip_suffix(line, "\r\n")
            .or(str::strip_suffix(line, ends_line))
            .unwrap_or(line)
    };
    lines_with_ends(text).into_iter().map(bare).collect()
}

/// A string in the quotes that Python chooses.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
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

/// Options of `json.dumps`.
pub(super) struct Dumps {
    /// Escape everything beyond ASCII.
    pub ensure_ascii: bool,
    /// Indentation per level; `None` for all on one line.
    pub indent: Option<String>,
    /// Separators between items, and between a key and its value.
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
            Json::Number(number) if number.is_f64() => {
                *out += &float(number.as_f64().unwrap_or_default());
            }
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
        assert_eq!(
            print(json!(true)) + &print(json!(null)) + &print(json!(1.0)),
            "TrueNone1.0"
        );
        assert_eq!(
            print(json!({"a": [1, false, "it's", "\"q'\n"], "b": {}})),
            r#"{'a': [1, False, "it's", '"q\'\n'], 'b': {}}"#
        );
        assert_eq!(text(&Value::UNDEFINED), "");
        assert_eq!(print(json!("it's")), "it's");
    }

    #[test]
    fn floats_lines_and_titles_are_pythons() {
        let floats = [
            0.0,
            -0.0,
            1.0,
            1e15,
            1e16,
            1.5e20,
            1e-4,
            1e-5,
            -2.5e-7,
            1e100,
            123456789.123,
            f64::INFINITY,
        ];
        assert_eq!(
            floats.map(float).join(" "),
            "0.0 -0.0 1.0 1000000000000000.0 1e+16 1.5e+20 0.0001 1e-05 -2.5e-07 1e+100 123456789.123 inf"
        );
        assert_eq!(lines("a\nb\r\nc\r\rd\u{2028}"), ["a", "b", "c", "", "d"]);
        assert_eq!(lines_with_ends("a\nb\r\nc"), ["a\n", "b\r\n", "c"]);
        assert_eq!(
            (lines("").len(), lines("\n").len(), lines("x").len()),
            (0, 1, 1)
        );
        assert_eq!(title("it's ab,CD 3x"), "It'S Ab,Cd 3X");
    }

    #[test]
    fn json_is_written_as_json_dumps_writes_it() {
        let dumps = |indent: Option<&str>, ensure_ascii, sort_keys| Dumps {
            ensure_ascii,
            indent: indent.map(str::to_owned),
            separators: (
                if indent.is_some() { "," } else { ", " }.into(),
                ": ".into(),
            ),
            sort_keys,
        };
        let value = json!({"b": [1, 2.5, {}], "a": "é<\u{1f600}", "c": []});
        assert_eq!(
            dumps(None, false, false).write(&value),
            r#"{"b": [1, 2.5, {}], "a": "é<😀", "c": []}"#
        );
        assert_eq!(
            dumps(None, true, true).write(&json!({"b": 1, "a": "é😀"})),
            r#"{"a": "\u00e9\ud83d\ude00", "b": 1}"#
        );
        assert_eq!(
            dumps(Some("  "), false, false).write(&json!({"a": [1]})),
            "{\n  \"a\": [\n    1\n  ]\n}"
        );
    }
}

//! Filters, tests and methods of Python's Jinja that the engine lacks, or that give another result
//! there. Anything else that the engine lacks is an error that names it, once a template uses it.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::globals::{cycler, joiner};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::python;

/// Adds them to an environment.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    // As for Python's `iter` and `len`: strings are both, null is neither.
    environment.add_test("iterable", |value: &Value| {
        !matches!(
            value.kind(),
            ValueKind::None | ValueKind::Bool | ValueKind::Number
        )
    });
    environment.add_test("sequence", |value: &Value| {
        !matches!(
            value.kind(),
            ValueKind::None | ValueKind::Bool | ValueKind::Number
        )
    });
    environment.add_filter("indent", indent);
    for name in ["escape", "e"] {
        environment.add_filter(name, |value: &Value| escaped(&python::text(value)));
    }
    environment.add_function("cycler", |items: Rest<Value>| cycler(items.0));
    environment.add_function("joiner", joiner);
    // Its output is Rust's, not Python's.
    environment.remove_filter("pprint");
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Jinja's `indent`. Lines follow Python's rules, so the last line break stays.
fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let Some(text) = value.as_str() else {
        return Err(wrong(format!("indent: {} is not text", value.kind())));
    };
    let width = width.or(options.get("width")?).unwrap_or_else(|| 4.into());
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = blank.or(options.get("blank")?).unwrap_or(false);
    options.assert_all_used()?;
    let margin = match width.as_str() {
        Some(margin) => margin.to_owned(),
        None => " ".repeat(
            width
                .as_usize()
                .ok_or_else(|| wrong("indent: the width is not a number"))?
                .min(256),
        ),
    };
    let mut out = if first { margin.clone() } else { String::new() };
    for (index, line) in python::lines(&format!("{text}\n")).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out += &margin;
            }
        }
        out += line;
    }
    Ok(out)
}

/// MarkupSafe's `escape`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&#34;",
            '\'' => out += "&#39;",
            other => out.push(other),
        }
    }
    out
}

/// Methods of Python's strings, lists and maps.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return unknown_method_callback(state, value, name, args);
    };
    Ok(match name {
        "title" => {
            let () = from_args(args)?;
            python::title(text).into()
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            let lines = if keep.unwrap_or(false) {
                python::lines_with_ends(text)
            } else {
                python::lines(text)
            };
            lines.into_iter().map(Value::from).collect()
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let Some(separator) = separator.filter(|separator| !separator.is_empty()) else {
                return Err(wrong("rsplit: needs a separator"));
            };
            let most = most
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(usize::MAX);
            let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator).collect();
            parts.reverse();
            parts.into_iter().map(Value::from).collect()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (first, found) = match name {
                "partition" => (true, text.split_once(separator)),
                _ => (false, text.rsplit_once(separator)),
            };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if first => [text, "", ""],
                None => ["", "", text],
            };
            Tuple::from(parts.map(Value::from)).into()
        }
        "index" | "rindex" => {
            let (wanted,): (&str,) = from_args(args)?;
            let found = if name == "index" {
                text.find(wanted)
            } else {
                text.rfind(wanted)
            };
            let at = found.ok_or_else(|| wrong("substring not found"))?;
            text[..at].chars().count().into()
        }
        _ => return unknown_method_callback(state, value, name, args),
    })
}

//! Jinja as transformers sets it up for chat templates: blocks trimmed, `tojson`,
//! `raise_exception`, `strftime_now`, loop controls, Python's methods on strings and maps, and
//! `{% generation %}` around the model's own text.

use std::io;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::date::Date;
use super::{builtins, python};

/// Base limit of rendering steps, without the steps for the size of the conversation.
const STEPS: u64 = 1_000_000;

/// Further steps per byte of a conversation.
const STEPS_PER_BYTE: u64 = 4;

/// Base limit of the rendered text in bytes, without the bytes for the size of the conversation.
const TEXT: u64 = 1_000_000;

/// Further bytes of text per byte of a conversation. A template may write a conversation several times.
const TEXT_PER_BYTE: u64 = 16;

/// Marks around a `{% generation %}` block in the rendered text until spans are extracted:
/// characters that Unicode keeps out of texts.
const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// The name of an environment's only template.
const NAME: &str = "chat";

/// A compiled template.
pub(super) struct Jinja {
    environment: Environment<'static>,
    /// Whether the template marks the model's text.
    pub(super) marks: bool,
}

/// Why there is no rendered text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Complaint {
    /// The template is not valid Jinja, or rejects the conversation: its message, with its line.
    Refused(String),
    /// The template exceeds a limit for one conversation: the limit.
    Limit(String),
    /// The process that renders templates failed: why.
    Broken(String),
}

/// A rendered text, with the spans that its template marks as the model's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Marked {
    /// The text.
    pub text: String,
    /// Byte ranges, ascending; none where the template has no `{% generation %}`.
    pub spans: Vec<Range<usize>>,
}

impl Jinja {
    /// Compiles a template; an error names the line and what is wrong there.
    pub(super) fn new(source: &str, date: Date) -> Result<Self, Complaint> {
        // Jinja reads every line break alike, whichever system wrote the file.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let (source, marks) = with_generation_blocks(&source);
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| complaint(&error, STEPS))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_recursion_limit(200);
        builtins::add(&mut environment);
        environment.set_formatter(|out, _, value| {
            out.write_str(&python::text(value))
                .map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure))
        });
        environment.add_filter("tojson", tojson);
        environment.add_filter(BLOCK, |text: &str| {
            format!("{}{text}{}", MARKS[0], MARKS[1])
        });
        environment.add_function(
            "raise_exception",
            |message: &str| -> Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(
                    ErrorKind::InvalidOperation,
                    message.to_owned(),
                ))
            },
        );
        environment.add_function("strftime_now", move |format: &str| {
            date.strftime(format).ok_or_else(|| {
                minijinja::Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: unsupported format: {format}"),
                )
            })
        });
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| complaint(&error, STEPS))?;
        Ok(Self { environment, marks })
    }

    /// Renders a conversation of `size` bytes.
    pub(super) fn render(
        &self,
        context: &serde_json::Map<String, Json>,
        size: u64,
    ) -> Result<Marked, Complaint> {
        let steps = STEPS.saturating_add(size.saturating_mul(STEPS_PER_BYTE));
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        let template = environment
            .get_template(NAME)
            .map_err(|error| complaint(&error, steps))?;
        let mut out = Limited {
            text: Vec::new(),
            limit: TEXT.saturating_add(size.saturating_mul(TEXT_PER_BYTE)),
            is_full: false,
        };
        let rendered = template.render_captured_to(Value::from(Serde(context)), &mut out);
        if out.is_full {
            let limit = out.limit / 1_000_000;
            return Err(Complaint::Limit(format!(
                "one conversation becomes more than {limit} MB of text"
            )));
        }
        rendered.map_err(|error| complaint(&error, steps))?;
        let text = String::from_utf8(out.text).expect("a template renders to text");
        unmark(&text).map_err(Complaint::Refused)
    }
}

/// Collects rendered text up to a limit.
struct Limited {
    text: Vec<u8>,
    /// Maximum length of the text in bytes.
    limit: u64,
    /// Whether a write exceeded the limit.
    is_full: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.text.len() + bytes.len()) as u64 > self.limit {
            self.is_full = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The filter that replaces the tag: the closest kind of block that Jinja has, so white space is
/// trimmed the same.
const BLOCK: &str = "said_by_the_model";

/// `{% generation %}` is not a tag of Jinja; a filter block replaces it. Also returns whether there
/// is one outside of comments.
fn with_generation_blocks(source: &str) -> (String, bool) {
    let (mut out, mut rest, mut found) = (String::with_capacity(source.len()), source, false);
    while let Some(start) = rest
        .match_indices(['%', '#'])
        .map(|(at, _)| at)
        .find(|at| rest[..*at].ends_with('{'))
    {
        let end = if rest[start..].starts_with('#') {
            "#}"
        } else {
            "%}"
        };
        let Some(len) = rest[start + 1..].find(end) else {
            break;
        };
        let inside = &rest[start + 1..start + 1 + len];
        let word = inside
            .trim_start_matches(['-', '+'])
            .trim_end_matches(['-', '+'])
            .trim();
        let tag = match word {
            _ if end == "#}" => None,
            "generation" => Some(format!("filter {BLOCK}")),
            "endgeneration" => Some("endfilter".to_owned()),
            _ => None,
        };
        found |= tag.is_some();
        out += &rest[..=start];
        out += &tag.map_or_else(
            || inside.to_owned(),
            |tag| inside.replace(word, &format!(" {tag} ")),
        );
        rest = &rest[start + 1 + len..];
    }
    (out + rest, found)
}

fn unmark(marked: &str) -> Result<Marked, String> {
    let (mut text, mut spans, mut open) = (String::with_capacity(marked.len()), Vec::new(), None);
    let unpaired =
        || "the conversation holds U+FDD0 or U+FDD1, which are not characters".to_owned();
    for letter in marked.chars() {
        match (MARKS.iter().position(|mark| *mark == letter), open) {
            (None, _) => text.push(letter),
            (Some(0), None) => open = Some(text.len()),
            (Some(1), Some(start)) => {
                spans.push(start..text.len());
                open = None;
            }
            _ => return Err(unpaired()),
        }
    }
    if open.is_some() {
        Err(unpaired())
    } else {
        Ok(Marked { text, spans })
    }
}

/// transformers' `tojson`, which is `json.dumps` without escapes for HTML. Its first argument is not Jinja's `indent`.
fn tojson(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<String, minijinja::Error> {
    let wrong = |error: &dyn std::fmt::Display| {
        minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
    };
    if value.is_undefined() {
        return Err(wrong(&"tojson: the value is undefined"));
    }
    let json = serde_json::to_value(value).map_err(|error| wrong(&error))?;
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = indent
        .filter(|indent| !indent.is_none())
        .map(|indent| match indent.as_usize() {
            Some(spaces) => " ".repeat(spaces.min(64)),
            None => indent.as_str().unwrap_or_default().to_owned(),
        });
    let usual = (
        if indent.is_some() { "," } else { ", " }.to_owned(),
        ": ".to_owned(),
    );
    let separators = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            let part = |index: usize| {
                pair.get_item_by_index(index)
                    .map(|part| python::text(&part))
            };
            (part(0)?, part(1)?)
        }
        _ => usual,
    };
    let flag = |name: &str| {
        options
            .get::<Option<bool>>(name)
            .map(|flag| flag.unwrap_or(false))
    };
    let ensure_ascii =
        ensure_ascii.map_or_else(|| flag("ensure_ascii"), |given| Ok(given.is_true()))?;
    let dumps = python::Dumps {
        ensure_ascii,
        indent,
        separators,
        sort_keys: flag("sort_keys")?,
    };
    options.assert_all_used()?;
    Ok(dumps.write(&json))
}

/// The meaning of a template's error; `steps` is the limit that applied.
fn complaint(error: &minijinja::Error, steps: u64) -> Complaint {
    match error.kind() {
        ErrorKind::OutOfFuel => Complaint::Limit(format!(
            "one conversation takes more than {} million steps",
            steps / 1_000_000
        )),
        _ => Complaint::Refused(said(error)),
    }
}

/// The message of a template's error, in one line.
fn said(error: &minijinja::Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    error.line().map_or(what.clone(), |line| {
        format!("{what} (line {line} of the template)")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(source: &str, context: Json) -> Result<Marked, Complaint> {
        Jinja::new(source, Date::USUAL)?.render(
            context.as_object().unwrap(),
            context.to_string().len() as u64,
        )
    }

    fn text(source: &str, context: Json) -> String {
        render(source, context)
            .unwrap_or_else(|error| panic!("{source}: {error:?}"))
            .text
    }

    #[test]
    fn the_rendered_text_is_limited() {
        let template = |bytes: usize| {
            let text = "x".repeat(bytes);
            format!("{{% for i in range(10000) %}}{text}{{% endfor %}}")
        };
        assert_eq!(text(&template(100), json!({})).len(), 1_000_000);
        let complaint = render(&template(101), json!({})).unwrap_err();
        let expected = "one conversation becomes more than 1 MB of text";
        assert_eq!(complaint, Complaint::Limit(expected.into()));
        // A long conversation may become a long text.
        let long = json!({"s": "y".repeat(400_000)});
        assert_eq!(text("{{ s }}{{ s }}{{ s }}", long).len(), 1_200_000);
    }

    #[test]
    fn what_python_has_is_there() {
        let say = |source: &str| {
            text(
                source,
                json!({"s": " a,b ", "m": {"k": 1}, "none": null, "yes": true}),
            )
        };
        assert_eq!(
            say("{{ s.strip().split(',')[-1] }}{{ s.startswith(' ') }}"),
            "bTrue"
        );
        assert_eq!(
            say("{% for k, v in m.items() %}{{ k }}={{ v }}{% endfor %}{{ none }}{{ missing }}"),
            "k=1None"
        );
        assert_eq!(
            say("{{ strftime_now('%d %b %Y') }} {{ m | tojson }} {{ m | tojson(indent=2) }}"),
            "26 Jul 2024 {\"k\": 1} {\n  \"k\": 1\n}"
        );
        assert_eq!(
            say(
                "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
            ),
            "02"
        );
        assert_eq!(say("  {% if yes %}\nx\n  {% endif %}\ny\n"), "x\ny");
        assert_eq!(
            say(
                "{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
            ),
            "3"
        );
    }

    #[test]
    fn what_the_model_says_is_marked() {
        let source = "u\n{%- generation -%}\n a{{ x }} {% endgeneration %}\n b{% generation %}c{% endgeneration %}";
        let marked = render(source, json!({"x": "é"})).unwrap();
        assert_eq!(marked.text, "uaé  bc");
        let spans: Vec<&str> = marked
            .spans
            .iter()
            .map(|span| &marked.text[span.clone()])
            .collect();
        assert_eq!(spans, ["aé ", "c"]);
        assert!(
            render(
                "{% generation %}{{ x }}{% endgeneration %}",
                json!({"x": "\u{fdd0}"})
            )
            .is_err()
        );
        let marks = |source: &str| Jinja::new(source, Date::USUAL).unwrap().marks;
        assert!(
            marks(source)
                && marks("{# a #}{% set x = '{#' %}{% generation %}{% endgeneration %}")
                && !marks("a")
        );
        assert!(!marks("{#- here stood {% generation %} once -#}{{ x }}"));
    }

    #[test]
    fn complaints_say_what_and_where() {
        let complaint = |source: &str| match render(source, json!({})) {
            Err(Complaint::Refused(what)) => what,
            other => panic!("{source}: {other:?}"),
        };
        assert_eq!(
            complaint("\n{{ raise_exception('No system role') }}"),
            "No system role (line 2 of the template)"
        );
        assert!(complaint("{% if %}").contains("line 1"));
        assert!(complaint("{{ a.b }}").contains("undefined"));
        assert!(complaint("{{ strftime_now('%Q') }}").contains("%Q"));
    }

    #[test]
    fn an_endless_template_ends() {
        let limit = |million: u64| {
            Err(Complaint::Limit(format!(
                "one conversation takes more than {million} million steps"
            )))
        };
        let double = "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        assert_eq!(render(double, json!({})), limit(1));
        let count =
            "{% for i in range(9999) %}{% for j in range(9999) %}{{ j }}{% endfor %}{% endfor %}";
        assert_eq!(render(count, json!({})), limit(1));
        // A longer conversation may take more.
        let once = "{% for i in range(1000) %}{{ x|length }}{% endfor %}";
        assert_eq!(
            render(once, json!({"x": "a".repeat(500)})).unwrap().text,
            "500".repeat(1000)
        );
        assert_eq!(render(count, json!({"x": "a".repeat(500_000)})), limit(3));
    }

    proptest! {
        #[test]
        fn random_templates_never_panic(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{%", "%}", "{{", "}}", "-", " generation ", " endgeneration ", "for m in messages", " if ", "endfor", "endif",
                "messages", "[0]", "['content']", ".strip(", ")", "| tojson", "(indent=", "9", "'", "{#", "#}", "\n", "é", "set x = ",
                "raise_exception('x')", "strftime_now('%d", "macro a(b)", "endmacro", "|trim", "loop.index0", "range(", "~", "*", "//",
            ]), 0..24)
        ) {
            let _ = render(&parts.concat(), json!({"messages": [{"role": "user", "content": "é"}]}));
        }
    }
}

//! Rows in their dialects.

mod mistakes;
mod one_response;
mod pairs;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::conversation::Role;
use crate::dialects::{Kind, PromptReader, Tools, builtin};

fn raw(values: &[Value]) -> Vec<RawRow> {
    values
        .iter()
        .enumerate()
        .map(|(index, value)| RawRow {
            index,
            line: Some(index + 1),
            columns: value.as_object().unwrap().clone(),
        })
        .collect()
}

fn read_as(kind: RowKind, values: &[Value]) -> Rows {
    read(Path::new("f.jsonl"), &raw(values), kind).unwrap()
}

fn complaint(kind: RowKind, values: &[Value]) -> Error {
    let error = read(Path::new("f.jsonl"), &raw(values), kind).unwrap_err();
    assert!(
        error.message.starts_with("f.jsonl: ") && !error.hint.is_empty(),
        "{error:?}"
    );
    error
}

/// The one row of a file of one row.
fn one(kind: RowKind, value: Value) -> (&'static str, Prompt, Vec<String>) {
    let mut read = read_as(kind, &[value]);
    assert_eq!(read.dropped, []);
    let row = read.rows.pop().unwrap();
    (
        read.dialect,
        row.prompt,
        row.responses.into_iter().map(|said| said.content).collect(),
    )
}

fn why_dropped(kind: RowKind, value: Value) -> String {
    let read = read_as(kind, &[value]);
    assert!(read.rows.is_empty());
    assert_eq!(read.dropped[0].rows, [0]);
    read.dropped[0].reason.clone()
}

fn says(role: Role, content: &str) -> Message {
    Message::new(role, content)
}

fn text(prompt: &str) -> Prompt {
    Prompt::Text(prompt.to_owned())
}

/// A dialect that is in no table: `ask`, and perhaps `reply`.
fn toy() -> (&'static Dialect, &'static Dialect) {
    fn prompt(fields: &Fields<'_>) -> Result<Reading> {
        let prompt = Prompt::Text(fields.text("ask")?);
        Ok(Reading::Row(prompt, Vec::new()))
    }
    fn whole(fields: &Fields<'_>) -> Result<Reading> {
        let prompt = Prompt::Text(fields.text("ask")?);
        let reply = Message::said(fields.text("reply")?);
        Ok(Reading::Row(prompt, vec![reply]))
    }
    static WHOLE: Dialect = Dialect {
        name: "toy",
        kind: Kind::Instruction,
        needs: &["ask", "reply"],
        also: &["mood"],
        tools: Tools::None,
        read: whole,
        prompt: Some(PromptReader {
            name: "toy-with-reply",
            read: prompt,
        }),
    };
    static ALONE: Dialect = Dialect {
        name: "toy",
        kind: Kind::Prompt,
        needs: &["ask"],
        also: &[],
        tools: Tools::None,
        read: prompt,
        prompt: None,
    };
    (&WHOLE, &ALONE)
}

#[test]
fn a_dialect_is_an_entry_in_a_table() {
    let (whole, alone) = toy();
    let mut table = builtin().to_vec();
    table.extend([whole, alone]);
    let path = Path::new("f.jsonl");
    let rows = raw(&[json!({"ask": "a", "reply": "b", "mood": "c", "more": 1})]);

    let found = read_in(&table, path, &rows, RowKind::Instruction).unwrap();
    assert_eq!(
        (found.dialect, &found.unread[..]),
        ("toy", &["more".to_owned()][..])
    );
    assert_eq!(found.rows[0].prompt, text("a"));
    assert_eq!(found.rows[0].responses, [Message::said("b")]);

    let found = read_in(&table, path, &rows, RowKind::Prompt).unwrap();
    assert_eq!(found.dialect, "toy-with-reply");
    assert_eq!(
        (&found.rows[0].prompt, found.rows[0].responses.len()),
        (&text("a"), 0)
    );
    let unanswered = raw(&[json!({"ask": "a"})]);
    let found = read_in(&table, path, &unanswered, RowKind::Prompt).unwrap();
    assert_eq!((found.dialect, &found.rows[0].prompt), ("toy", &text("a")));

    let error = read_in(&table, path, &rows, RowKind::Preference).unwrap_err();
    assert!(
        error.message.contains("fit the dialect toy (ask, reply)"),
        "{error}"
    );
    let error = read_in(&[whole], path, &unanswered, RowKind::Instruction).unwrap_err();
    assert!(
        error
            .message
            .ends_with("the closest dialect is toy (ask, reply), but the row has no reply"),
        "{error}"
    );
    assert!(error.hint.ends_with(": toy (ask, reply)"), "{}", error.hint);
    assert!(
        read(path, &rows, RowKind::Instruction).is_err(),
        "the process has its own table"
    );
}

#[test]
fn the_first_dialect_that_fits_is_used() {
    let (whole, _) = toy();
    static GENERAL: Dialect = Dialect {
        name: "general",
        kind: Kind::Instruction,
        needs: &["reply"],
        also: &[],
        tools: Tools::None,
        read: |fields| {
            Ok(Reading::Row(
                text("?"),
                vec![Message::said(fields.text("reply")?)],
            ))
        },
        prompt: None,
    };
    let rows = raw(&[json!({"ask": "a", "reply": "b"})]);
    let used = |table: &[&'static Dialect]| {
        let read = read_in(table, Path::new("f"), &rows, RowKind::Instruction);
        read.unwrap().dialect
    };
    assert_eq!(used(&[whole, &GENERAL]), "toy");
    assert_eq!(used(&[&GENERAL, whole]), "general");
}

/// Otherwise the later dialect could never be found.
#[test]
fn no_dialect_hides_a_later_one() {
    for kind in [RowKind::Instruction, RowKind::Preference, RowKind::Prompt] {
        let forms = forms(builtin(), kind);
        for (index, later) in forms.iter().enumerate() {
            for earlier in &forms[..index] {
                assert!(
                    !is_part_of(earlier.dialect, later.dialect),
                    "{kind:?}: {} hides {}",
                    earlier.name,
                    later.name
                );
            }
        }
    }
}

#[test]
fn a_system_text_stands_above_every_prompt() {
    let asked = |text: &str| Prompt::Instruction {
        system: "S".into(),
        instruction: text.into(),
        input: String::new(),
    };
    let turns = || Prompt::Messages(vec![says(Role::System, "S"), says(Role::User, "hi")]);
    let answers = || vec!["good".to_owned(), "bad".to_owned()];
    let user = json!({"role": "user", "content": "hi"});
    let turn = |content: &str| json!([{"role": "assistant", "content": content}]);
    let row = json!({"system": "S", "question": "hi", "chosen": "good", "rejected": "bad"});
    assert_eq!(
        one(RowKind::Preference, row.clone()),
        ("question-chosen-rejected", asked("hi"), answers())
    );
    assert_eq!(one(RowKind::Prompt, row), ("question", asked("hi"), vec![]));
    let row =
        json!({"system": "S", "prompt": "hi", "chosen": turn("good"), "rejected": turn("bad")});
    assert_eq!(one(RowKind::Preference, row).1, turns());
    let row = json!({"system": "S", "prompt": [user], "chosen": "good", "rejected": "bad"});
    assert_eq!(one(RowKind::Preference, row).1, turns());
    let whole =
        |said: &str| json!([user, {"role": "assistant", "content": "x"}, user, turn(said)[0]]);
    let row =
        json!({"system": "S", "prompt": "hi", "chosen": whole("good"), "rejected": whole("bad")});
    let Prompt::Messages(found) = one(RowKind::Preference, row).1 else {
        panic!("a conversation")
    };
    assert_eq!((found.len(), &found[0]), (4, &says(Role::System, "S")));
    let row = json!({"system": "S", "question": "hi", "answer": "good"});
    assert_eq!(one(RowKind::Instruction, row).1, asked("hi"));
    let row = json!({"system": "S", "prompt": "hi", "completion": turn("good")});
    assert_eq!(one(RowKind::Instruction, row).1, turns());
    let row = json!({"system": " ", "prompt": "hi", "completion": "good"});
    assert_eq!(one(RowKind::Instruction, row).1, text("hi"));
    let row = json!({"system": "S", "messages": [user, turn("good")[0]]});
    assert_eq!(
        (
            one(RowKind::Instruction, row.clone()).1,
            one(RowKind::Prompt, row).1
        ),
        (turns(), turns())
    );
    let with = |said: &str| json!([user, turn(said)[0]]);
    let row = json!({"system": "S", "chosen": with("good"), "rejected": with("bad")});
    assert_eq!(
        (
            one(RowKind::Preference, row.clone()).1,
            one(RowKind::Prompt, row).1
        ),
        (turns(), turns())
    );
    let ranked = |rank: u32, said: &str| json!({"rank": rank, "completion": said});
    let row = json!({"system": "S", "context": "hi", "completions": [ranked(0, "good"), ranked(1, "bad")]});
    assert_eq!(
        (
            one(RowKind::Preference, row.clone()).1,
            one(RowKind::Prompt, row).1
        ),
        (turns(), turns())
    );
    let own = json!({"role": "system", "content": "own"});
    let row = json!({"system": "S", "messages": [own, user, turn("good")[0]]});
    let Prompt::Messages(found) = one(RowKind::Instruction, row).1 else {
        panic!("a conversation")
    };
    assert_eq!((found.len(), &found[0]), (2, &says(Role::System, "own")));
    let marked = |said: &str| format!("\n\nHuman: hi\n\nAssistant: {said}");
    let row = json!({"system": "S", "chosen": marked("good"), "rejected": marked("bad")});
    assert_eq!(
        one(RowKind::Preference, row).1,
        text("S\n\nHuman: hi\n\nAssistant:")
    );
}

#[test]
fn columns_that_are_not_read_are_named() {
    let row = json!({"prompt": "p", "chosen": "a", "rejected": "b", "ref_chosen_logps": -1.5, "id": null, "source": "s"});
    assert_eq!(
        read_as(RowKind::Preference, &[row]).unread,
        ["ref_chosen_logps", "source"]
    );
    let row = |more: Value| {
        let mut row = json!({"prompt": "p", "completion": "c"});
        row.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        row
    };
    let rows = [
        row(json!({"id": null})),
        row(json!({"id": 7, "system": "S"})),
        row(json!({"id": 8, "language": "en"})),
    ];
    assert_eq!(
        read_as(RowKind::Instruction, &rows).unread,
        ["id", "language"],
        "whichever row has them"
    );
}

#[test]
fn unusable_rows_are_counted_by_reason() {
    let row = |prompt: &str, chosen: &str, rejected: &str| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected});
    let rows = [
        row("p", "a", "b"),
        row("p", "a", "a"),
        row("p", " \n", "b"),
        row(" ", "a", "b"),
        row("p", "a", ""),
        row("q", "a", "b"),
    ];
    let blank = read_as(RowKind::Preference, &[row("p", "a", " ")]);
    assert_eq!(
        blank.rows.len(),
        1,
        "a blank rejected response is worth avoiding"
    );
    for kind in [RowKind::Preference, RowKind::Chosen] {
        let read = read_as(kind, &rows);
        assert_eq!(
            read.rows.iter().map(|row| row.index).collect::<Vec<_>>(),
            [0, 5]
        );
        let dropped: Vec<(&str, &[usize])> = read
            .dropped
            .iter()
            .map(|entry| (entry.reason.as_str(), entry.rows.as_slice()))
            .collect();
        let expected: [(&str, &[usize]); 3] = [
            ("chosen equals rejected", &[1]),
            ("empty response", &[2, 4]),
            ("empty prompt", &[3]),
        ];
        assert_eq!(dropped, expected);
    }
    let read = read_as(
        RowKind::Instruction,
        &[
            json!({"instruction": "", "output": "x"}),
            json!({"instruction": "i", "output": null}),
        ],
    );
    assert_eq!(read.dropped.len(), 2, "null is empty");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        r"[a-zé \n]{0,6}".prop_map(Value::from),
        prop::sample::select(vec![
            "user",
            "assistant",
            "human",
            "gpt",
            "\n\nAssistant: é",
            "\n\nAssistant: è"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let names = prop::sample::select(vec![
            "role",
            "content",
            "from",
            "value",
            "tool_calls",
            "rank",
            "completion",
            "type",
            "text",
            "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..4).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn random_cells_never_panic(fields in prop::collection::vec(any_json(), 5), which in 0..dialects().len()) {
        let names = dialects()[which].columns();
        let columns = names.zip(fields).map(|(name, cell)| (name.to_owned(), cell)).collect();
        let raw = [RawRow { index: 0, line: None, columns }];
        for kind in [RowKind::Instruction, RowKind::Preference, RowKind::Chosen, RowKind::Prompt] {
            if let Ok(read) = read(Path::new("f"), &raw, kind) {
                for row in read.rows {
                    prop_assert!(!row.prompt.is_empty());
                    prop_assert!(row.responses.first().is_none_or(|response| !response.is_blank()));
                    prop_assert!(row.responses.iter().all(|response| !response.is_empty()));
                    let responses = match kind { RowKind::Prompt => 0, RowKind::Instruction => 1, _ => 2 };
                    prop_assert_eq!(row.responses.len(), responses);
                }
            }
        }
    }
}

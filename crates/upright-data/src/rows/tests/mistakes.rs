//! Errors of files and rows.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_file_for_the_other_objective_is_said_to_be_one() {
    let error = complaint(
        RowKind::Instruction,
        &[json!({"chosen": "a", "rejected": "b"})],
    );
    assert_eq!(
        error.message,
        "f.jsonl: this is a preference file (--dpo), but an instruction file (--sft) is expected: \
         row 0 (line 1) has the columns chosen, rejected, which fit the dialect chosen-rejected (chosen, rejected)"
    );
    assert!(error.hint.contains("--dpo"));
    let turn = |text: &str| json!({"from": "gpt", "value": text});
    let pair = json!({"conversations": [{"from": "human", "value": "q"}], "chosen": turn("a"), "rejected": turn("b")});
    assert!(
        complaint(RowKind::Instruction, &[pair])
            .message
            .contains("the dialect sharegpt-preference")
    );
    let both = json!({"prompt": "q", "chosen": "a", "rejected": "b",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
    assert_eq!(
        one(RowKind::Instruction, both.clone()).0,
        "messages",
        "UltraFeedback is both"
    );
    assert_eq!(one(RowKind::Preference, both).0, "prompt-chosen-rejected");
    let error = complaint(
        RowKind::Chosen,
        &[json!({"instruction": "a", "output": "b"})],
    );
    assert!(error.message.contains(
        "this is an instruction file (--sft), but a preference file (--dpo) is expected"
    ));
    assert!(error.hint.contains("--sft"));
}

#[test]
fn an_unknown_dialect_names_the_nearest() {
    let error = complaint(
        RowKind::Instruction,
        &[json!({"instruction": "a", "input": "b", "response": "c"})],
    );
    assert_eq!(
        error.message,
        "f.jsonl: row 0 (line 1) is in no known dialect: its columns are instruction, input, response; \
         the closest dialect is alpaca (instruction, output), but the row has no output"
    );
    assert!(
        error.hint.contains("--sft-map prompt=COLUMN")
            && error
                .hint
                .contains("prompt-completion (prompt, completion)")
    );
    let error = complaint(
        RowKind::Preference,
        &[json!({"prompt": "a", "chosen": "b", "lost": "c"})],
    );
    assert!(error.message.contains(
        "closest dialect is prompt-chosen-rejected (prompt, chosen, rejected), but the row has no rejected"
    ));
    let many: Map<String, Value> = (0..50)
        .map(|i| (format!("column\n{i}"), json!(1)))
        .collect();
    let error = complaint(RowKind::Instruction, &[Value::Object(many)]);
    assert!(
        error.message.ends_with("column\\n11, and 38 more"),
        "{}",
        error.message
    );
    let error = complaint(RowKind::Instruction, &[json!({"text": "The sky is blue."})]);
    assert!(
        error.message.ends_with("its columns are text")
            && error.hint.contains("split it into two columns"),
        "{error:?}"
    );
    assert!(
        complaint(RowKind::Instruction, &[json!({})])
            .message
            .contains("its columns are none")
    );
    assert_eq!(
        read(Path::new("f"), &[], RowKind::Chosen)
            .unwrap_err()
            .message,
        "f: no rows"
    );
}

#[test]
fn later_rows_must_fit_the_first() {
    let rows = [
        json!({"prompt": "a", "completion": "b"}),
        json!({"instruction": "a", "output": "b"}),
    ];
    let error = complaint(RowKind::Instruction, &rows);
    assert_eq!(
        error.message,
        "f.jsonl: row 1 (line 2) has no column \"prompt\": its columns are instruction, output, but the first row of the file \
         is in the dialect prompt-completion (prompt, completion)"
    );
}

#[test]
fn wrong_types_name_row_column_and_type() {
    let message = |kind, row| complaint(kind, &[row]).message;
    assert_eq!(
        message(
            RowKind::Instruction,
            json!({"prompt": "a", "completion": 7})
        ),
        "f.jsonl: row 0 (line 1), column completion: expected text, found a number"
    );
    let found = message(RowKind::Instruction, json!({"messages": "hi"}));
    assert!(found.ends_with("column messages: expected a list of messages, found text"));
    let found = message(
        RowKind::Instruction,
        json!({"messages": [{"role": "user", "content": "hi"}, "ho"]}),
    );
    assert!(found.ends_with("column messages[1]: expected a message (role, content), found text"));
    let found = message(
        RowKind::Instruction,
        json!({"messages": [{"role": "user", "content": ["hi"]}]}),
    );
    assert!(found.ends_with("column messages[0].content: expected text, found a list"));
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]});
    let found = message(RowKind::Instruction, image);
    assert!(found.ends_with(
        "column messages[0].content[0]: a part of type \"image\" is not supported, only text"
    ));
    let row = |tools: Value| json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": tools});
    assert!(
        message(RowKind::Instruction, row(json!("[{")))
            .contains("column tools: expected a JSON list of tools")
    );
    assert!(
        message(RowKind::Instruction, row(json!([1])))
            .contains("column tools: expected a list of tools, each an object")
    );
    let completion = json!({"context": "q", "completions": [{"rank": "first", "completion": "a"}]});
    assert!(
        message(RowKind::Preference, completion)
            .ends_with("column completions[0].rank: expected a number, found text")
    );
    let found = message(
        RowKind::Instruction,
        json!({"messages": [{"role": "bard", "content": "hi"}]}),
    );
    assert!(found.ends_with("column messages[0].role: unknown role \"bard\""));
    let found = message(
        RowKind::Instruction,
        json!({"messages": [{"speaker": "user", "content": "hi"}]}),
    );
    assert!(found.ends_with(
        "column messages[0]: a message has the keys speaker, content, not role and content"
    ));
    let found = message(
        RowKind::Instruction,
        json!({"instruction": "a", "output": "b", "history": [["q"]]}),
    );
    assert!(found.ends_with("column history[0]: expected a pair [question, answer], found a list"));
    let found = message(
        RowKind::Preference,
        json!({"prompt": {"x": 1}, "chosen": "b", "rejected": "c"}),
    );
    assert!(found.ends_with("column prompt: expected text, found an object"));
    let found = message(
        RowKind::Preference,
        json!({"chosen": [{"role": "user", "content": "hi"}], "rejected": "c"}),
    );
    assert!(found.ends_with("column rejected: expected a list of messages, found text"));
    let found = message(
        RowKind::Preference,
        json!({"conversations": [], "chosen": "b", "rejected": "c"}),
    );
    assert!(found.ends_with("column chosen: expected a message (role, content), found text"));
}

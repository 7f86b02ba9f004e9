//! Dialects with one response, and messages with tools.

use serde_json::{Value, json};

use super::*;
use crate::conversation::WRITTEN_CALLS;

#[test]
fn alpaca_keeps_instruction_and_input_apart() {
    let prompt = |system: &str, input: &str| Prompt::Instruction {
        system: system.into(),
        instruction: "Sort.".into(),
        input: input.into(),
    };
    let row = json!({"instruction": "Sort.", "input": "2 1", "output": "1 2", "score": 5});
    assert_eq!(
        one(RowKind::Instruction, row),
        ("alpaca", prompt("", "2 1"), vec!["1 2".into()])
    );
    let row = json!({"instruction": "Sort.", "input": null, "output": "?", "system": "Be terse.", "history": []});
    assert_eq!(
        one(RowKind::Instruction, row),
        ("alpaca", prompt("Be terse.", ""), vec!["?".into()])
    );
    let row = json!({"instruction": "Sort.", "input": "2 1", "output": "1 2", "system": "S", "history": [["q", "a"]]});
    let turns = vec![
        says(Role::System, "S"),
        says(Role::User, "q"),
        says(Role::Assistant, "a"),
        says(Role::User, "Sort.\n2 1"),
    ];
    assert_eq!(one(RowKind::Instruction, row).1, Prompt::Messages(turns));
}

#[test]
fn instruction_dialects_are_found_by_their_columns() {
    let asked = vec![says(Role::User, "hi")];
    let expected = |name| (name, Prompt::Messages(asked.clone()), vec!["ho".to_owned()]);
    let row = json!({"prompt": "The sky is", "completion": " blue."});
    assert_eq!(
        one(RowKind::Instruction, row),
        (
            "prompt-completion",
            text("The sky is"),
            vec![" blue.".into()]
        )
    );
    let row = json!({"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "ho"}]});
    assert_eq!(
        one(RowKind::Instruction, row),
        expected("prompt-completion")
    );
    let row = json!({"prompt": "hi", "completion": [{"role": "assistant", "content": "ho"}]});
    assert_eq!(
        one(RowKind::Instruction, row),
        expected("prompt-completion")
    );
    let row = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]});
    assert_eq!(one(RowKind::Instruction, row), expected("messages"));
    let row = json!({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]});
    assert_eq!(one(RowKind::Instruction, row), expected("sharegpt"));
    let row = json!({"question": "hi", "answer": "ho"});
    assert_eq!(
        one(RowKind::Instruction, row),
        ("question-answer", text("hi"), vec!["ho".into()])
    );
    let row = json!({"system": "S", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]});
    let Prompt::Messages(turns) = one(RowKind::Instruction, row).1 else {
        panic!("a conversation")
    };
    assert_eq!(turns[0], says(Role::System, "S"));
    let unanswered = json!({"messages": [{"role": "assistant", "content": "ho"}, {"role": "user", "content": "hi"}]});
    assert_eq!(
        why_dropped(RowKind::Instruction, unanswered),
        "no assistant turn at the end"
    );
    assert_eq!(
        why_dropped(RowKind::Instruction, json!({"messages": []})),
        "no assistant turn at the end"
    );
    let unasked = json!({"messages": [{"role": "assistant", "content": "ho"}]});
    assert_eq!(why_dropped(RowKind::Instruction, unasked), "empty prompt");
}

#[test]
fn answers_that_are_labelled_bad_are_not_imitated() {
    let row = |label: Value| json!({"prompt": "p", "completion": "c", "label": label});
    let read = read_as(
        RowKind::Instruction,
        &[row(json!(true)), row(json!(false)), row(Value::Null)],
    );
    assert_eq!(
        read.rows.iter().map(|row| row.index).collect::<Vec<_>>(),
        [0, 2]
    );
    assert_eq!(
        read.dropped,
        [Dropped {
            reason: "labeled as a bad response".into(),
            rows: vec![1]
        }]
    );
    assert!(read.unread.is_empty());
    let talk = json!([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]);
    assert_eq!(
        why_dropped(
            RowKind::Instruction,
            json!({"conversations": talk, "kto_tag": false})
        ),
        "labeled as a bad response"
    );
    // Classes of a classifier are not such labels.
    assert_eq!(
        read_as(RowKind::Instruction, &[row(json!(0))]).unread,
        ["label"]
    );
    assert_eq!(read_as(RowKind::Prompt, &[row(json!(false))]).rows.len(), 1);
}

#[test]
fn sharegpt_writes_tools_and_calls_in_its_own_way() {
    let call = "{\"name\": \"f\", \"arguments\": {\"x\": 1}}";
    let row = |said: &str| {
        let value = json!({"tools": "[{\"name\": \"f\", \"parameters\": {}}]", "conversations": [
            {"from": "human", "value": "q"}, {"from": "function_call", "value": said},
            {"from": "observation", "value": "7"}, {"from": "gpt", "value": "a"}]});
        read_as(RowKind::Instruction, &[value]).rows.pop().unwrap()
    };
    let found = row(call);
    assert_eq!(
        found.tools,
        [json!({"type": "function", "function": {"name": "f", "parameters": {}}})]
    );
    let Prompt::Messages(turns) = &found.prompt else {
        panic!("a conversation")
    };
    assert_eq!(
        (turns[1].role, &turns[1].content[..], turns[2].role),
        (Role::Assistant, call, Role::Tool)
    );
    let function = json!({"name": "f", "arguments": {"x": 1}});
    assert_eq!(
        turns[1].more[WRITTEN_CALLS],
        json!([{"type": "function", "function": function}])
    );
    for (said, calls) in [
        (format!("[{call}, {call}]"), 2),
        ("f(1)".into(), 0),
        ("{\"name\": 3}".into(), 0),
        ("[]".into(), 0),
    ] {
        let Prompt::Messages(turns) = row(&said).prompt else {
            panic!("a conversation")
        };
        let found = turns[1]
            .more
            .get(WRITTEN_CALLS)
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        assert_eq!((found, &turns[1].content), (calls, &said));
    }
}

#[test]
fn tools_and_what_goes_with_them_are_kept() {
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
    let value = json!({"tools": "[{\"type\": \"function\"}]", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": null, "tool_calls": call, "name": null},
        {"role": "tool", "content": "7", "tool_call_id": "a"},
        {"role": "assistant", "tool_calls": call},
    ]});
    let row = read_as(RowKind::Instruction, &[value]).rows.pop().unwrap();
    assert_eq!(row.tools, [json!({"type": "function"})]);
    let Prompt::Messages(turns) = &row.prompt else {
        panic!("a conversation")
    };
    assert_eq!(
        (
            turns[0].content.as_str(),
            turns[1].content.as_str(),
            turns.len()
        ),
        ("hi", "", 3)
    );
    assert_eq!(
        (json!(turns[1].more), json!(turns[2].more)),
        (json!({"tool_calls": call}), json!({"tool_call_id": "a"}))
    );
    assert_eq!(
        (
            row.responses[0].content.as_str(),
            &row.responses[0].more["tool_calls"]
        ),
        ("", &call)
    );
}

#[test]
fn an_empty_list_of_calls_calls_nothing() {
    let said = |content: Value| json!({"role": "assistant", "content": content, "tool_calls": []});
    let row = |content: Value| json!({"tools": [], "messages": [{"role": "user", "content": "hi", "tool_calls": []}, said(content)]});
    let read = read_as(RowKind::Instruction, &[row(json!("ho"))]);
    let Prompt::Messages(turns) = &read.rows[0].prompt else {
        panic!("a conversation")
    };
    assert_eq!(
        (&turns[0], &read.rows[0].responses[0]),
        (&says(Role::User, "hi"), &Message::said("ho"))
    );
    assert!(read.rows[0].tools.is_empty());
    for content in [json!(null), json!("")] {
        assert_eq!(
            why_dropped(RowKind::Instruction, row(content)),
            "empty response"
        );
    }
}

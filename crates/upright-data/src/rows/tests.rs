use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::conversation::WRITTEN_CALLS;

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
fn preference_dialects_are_found_by_their_columns() {
    let answers = || vec!["good".to_owned(), "bad".to_owned()];
    let turn = |content: &str| json!({"role": "assistant", "content": content});
    let user = json!({"role": "user", "content": "hi"});
    let asked = || Prompt::Messages(vec![says(Role::User, "hi")]);
    let named = "prompt-chosen-rejected";

    let row = json!({"prompt": "hi", "chosen": "good", "rejected": "bad"});
    assert_eq!(
        one(RowKind::Preference, row.clone()),
        (named, text("hi"), answers())
    );
    assert_eq!(one(RowKind::Chosen, row), (named, text("hi"), answers()));
    let row = json!({"prompt": [user], "chosen": [turn("good")], "rejected": [turn("bad")]});
    assert_eq!(one(RowKind::Preference, row), (named, asked(), answers()));
    let row = json!({"prompt": [user], "chosen": "good", "rejected": "bad"});
    assert_eq!(one(RowKind::Preference, row), (named, asked(), answers()));
    let row = json!({"prompt": [user], "chosen": [user, turn("good")], "rejected": [turn("bad")]});
    assert_eq!(
        one(RowKind::Preference, row),
        (named, asked(), answers()),
        "one side repeats the prompt"
    );
    let row = json!({"prompt": "hi", "chosen": [turn("good")], "rejected": [turn("bad")]});
    assert_eq!(
        one(RowKind::Preference, row),
        (named, asked(), answers()),
        "answers that are messages are of a conversation"
    );
    let row =
        json!({"prompt": "hi", "chosen": [user, turn("good")], "rejected": [user, turn("bad")]});
    assert_eq!(one(RowKind::Preference, row), (named, asked(), answers()));
    let row =
        json!({"prompt": " ", "chosen": [user, turn("good")], "rejected": [user, turn("bad")]});
    assert_eq!(
        one(RowKind::Preference, row),
        (named, asked(), answers()),
        "a blank prompt is none"
    );
    let system = json!({"role": "system", "content": "S"});
    let row = json!({"prompt": "hi", "chosen": [system, user, turn("good")], "rejected": [system, user, turn("bad")]});
    let opened = Prompt::Messages(vec![says(Role::System, "S"), says(Role::User, "hi")]);
    assert_eq!(
        one(RowKind::Preference, row),
        (named, opened.clone(), answers())
    );
    let row = json!({"prompt": "hi", "chosen": [system, turn("good")], "rejected": [system, turn("bad")]});
    assert_eq!(one(RowKind::Preference, row), (named, opened, answers()));

    let row = json!({"instruction": "hi", "input": "", "chosen": "good", "rejected": "bad"});
    assert_eq!(one(RowKind::Preference, row).0, "alpaca-preference");
    let row = json!({"conversations": [{"from": "human", "value": "hi"}],
        "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}});
    assert_eq!(
        one(RowKind::Preference, row),
        ("sharegpt-preference", asked(), answers())
    );
    let row = json!({"chosen": [user, turn("good")], "rejected": [user, turn("bad")]});
    assert_eq!(
        one(RowKind::Preference, row),
        ("chosen-rejected", asked(), answers())
    );

    let row = json!({"chosen": [user, turn("x"), user, turn("good")], "rejected": [user, turn("y"), user, turn("bad")]});
    assert_eq!(
        why_dropped(RowKind::Preference, row),
        "chosen and rejected differ before their last turn"
    );
    let row = json!({"chosen": [turn("good")], "rejected": [turn("bad")]});
    assert_eq!(why_dropped(RowKind::Preference, row), "empty prompt");
    let row = json!({"chosen": [turn("good"), user], "rejected": [turn("bad"), user]});
    assert_eq!(
        why_dropped(RowKind::Preference, row),
        "no assistant turn at the end"
    );
}

#[test]
fn a_prompt_that_the_answers_repeat_is_asked_once() {
    let turn = |content: &str| json!({"role": "assistant", "content": content});
    let turns = |row: Value| match one(RowKind::Preference, row).1 {
        Prompt::Messages(turns) => turns
            .into_iter()
            .map(|turn| format!("{}: {}", turn.role.as_str(), turn.content))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let whole = |above: &[Value], asked: &Value, said: &str| {
        Value::Array(above.iter().chain([asked, &turn(said)]).cloned().collect())
    };
    let system = json!({"role": "system", "content": "S"});
    for asked in [
        json!({"role": "user", "content": "hi", "weight": 1.0}),
        json!({"role": "user", "content": "hi\n", "name": "ann"}),
        json!({"role": "user", "content": "hi", "tool_calls": []}),
    ] {
        let row = |prompt: Value| json!({"prompt": prompt, "chosen": whole(&[], &asked, "good"), "rejected": whole(&[], &asked, "bad")});
        assert_eq!(
            turns(row(json!("hi "))),
            [format!("user: {}", asked["content"].as_str().unwrap())]
        );
        let plain = json!({"role": "user", "content": "hi"});
        assert_eq!(turns(row(json!([plain]))), ["user: hi"]);
        let mut opened = row(json!([plain]));
        opened["system"] = json!("S");
        assert_eq!(
            turns(opened),
            ["system: S", "user: hi"],
            "the answers do not repeat the system text"
        );
        let above = std::slice::from_ref(&system);
        let row = json!({"prompt": [plain], "chosen": whole(above, &asked, "good"), "rejected": whole(above, &asked, "bad")});
        assert_eq!(
            turns(row),
            ["system: S", "user: hi"],
            "the answers alone have a system turn"
        );
        let completion =
            |rank: u32, said: &str| json!({"rank": rank, "completion": whole(&[], &asked, said)});
        let row = json!({"context": [plain], "completions": [completion(0, "good"), completion(1, "bad")]});
        assert_eq!(turns(row), ["user: hi"]);
    }
    // If the lists start with a user turn, it is the prompt, in whatever words the column has it.
    let asked = json!({"role": "user", "content": "hi, all"});
    let row = json!({"prompt": "hi", "chosen": whole(&[], &asked, "good"), "rejected": whole(&[], &asked, "bad")});
    assert_eq!(turns(row), ["user: hi, all"]);
    let row = |prompt: &str| json!({"prompt": prompt, "chosen": whole(&[], &asked, "good"), "rejected": whole(&[], &asked, "bad")});
    assert_eq!(
        turns(row("User: hi, all\nAssistant:")),
        ["user: hi, all"],
        "or in a template's"
    );
    // A different text is not left out silently.
    assert!(
        why_dropped(RowKind::Preference, row("A passage."))
            .starts_with("prompt column does not match the conversation")
    );
    // A model turn at the start does not hide the prompt.
    let asked = json!({"role": "user", "content": "hi"});
    let greeted = |said: &str| whole(&[turn("Welcome.")], &asked, said);
    let row = json!({"prompt": "hi", "chosen": greeted("good"), "rejected": greeted("bad")});
    assert_eq!(turns(row), ["assistant: Welcome.", "user: hi"]);
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
fn ranked_completions_are_pairs() {
    let answers = || vec!["good".to_owned(), "bad".to_owned()];
    let turn = |content: &str| json!([{"role": "assistant", "content": content}]);
    let user = json!([{"role": "user", "content": "hi"}]);
    let ranked = |first: Value, second: Value| json!({"context": user, "completions": [{"rank": first, "completion": turn("bad")}, {"rank": second, "completion": turn("good")}]});
    let asked = Prompt::Messages(vec![says(Role::User, "hi")]);
    assert_eq!(
        one(RowKind::Preference, ranked(json!(1), json!(0))),
        ("context-completions", asked.clone(), answers())
    );
    assert_eq!(
        why_dropped(RowKind::Preference, ranked(json!(1), json!(1))),
        "both completions have the same rank"
    );
    let text = json!({"context": "hi", "completions": [{"rank": 0, "completion": "good"}, {"rank": 2, "completion": "bad"}]});
    assert_eq!(
        one(RowKind::Preference, text),
        ("context-completions", asked, answers())
    );
    let some = |count: usize| {
        let completions: Vec<Value> = (0..count)
            .map(|rank| json!({"rank": rank, "completion": turn("x")}))
            .collect();
        why_dropped(
            RowKind::Preference,
            json!({"context": user, "completions": completions}),
        )
    };
    assert_eq!(
        (some(1).as_str(), some(3).as_str()),
        ("fewer than two completions", "more than two completions")
    );
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
fn an_implicit_prompt_ends_at_the_last_shared_turn() {
    let pair = |chosen: &str, rejected: &str| json!({"chosen": chosen, "rejected": rejected});
    let split = |chosen: &str, rejected: &str| one(RowKind::Preference, pair(chosen, rejected));
    let prompt = "\n\nHuman: Name a tree.\n\nAssistant:";
    let (dialect, found, answers) =
        split(&format!("{prompt} The oak."), &format!("{prompt} The ash."));
    assert_eq!(
        (dialect, found, answers),
        (
            "chosen-rejected",
            text(prompt),
            vec![" The oak.".into(), " The ash.".into()]
        )
    );
    // Responses with the same start, up to the middle of a character; one that is the start of the
    // other.
    assert_eq!(
        split(&format!("{prompt} é"), &format!("{prompt} è")).2,
        [" é", " è"]
    );
    assert_eq!(
        split(&format!("{prompt} Oak"), &format!("{prompt} Oaks")).2,
        [" Oak", " Oaks"]
    );
    // Two turns; then a difference before the last turn: a user turn there is not a response.
    let two = format!("{prompt} Oak.\n\nHuman: Another.\n\nAssistant:");
    assert_eq!(
        split(&format!("{two} Elm."), &format!("{two} Fir.")).1,
        text(&two)
    );
    let early = pair(
        &format!("{two} Elm."),
        &format!("{prompt} Ash.\n\nHuman: More.\n\nAssistant: Yew."),
    );
    assert_eq!(
        why_dropped(RowKind::Preference, early),
        "chosen and rejected differ before their last turn"
    );
    let longer = pair(&format!("{two} Elm."), &format!("{prompt} Ash."));
    assert_eq!(
        why_dropped(RowKind::Preference, longer),
        "chosen and rejected differ before their last turn"
    );
    let reason = "chosen and rejected share no prompt that ends at a turn boundary";
    assert_eq!(
        why_dropped(RowKind::Preference, pair("A tree: oak", "A tree: ash")),
        reason
    );
    assert_eq!(
        why_dropped(RowKind::Preference, pair(" ", "A tree: ash")),
        "empty response"
    );
    assert_eq!(
        why_dropped(RowKind::Preference, pair(prompt, &format!("{prompt} Oak"))),
        "empty response"
    );
    let same = format!("{prompt} Oak");
    assert_eq!(
        why_dropped(RowKind::Preference, pair(&same, &same)),
        "chosen equals rejected"
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
    fn random_cells_never_panic(fields in prop::collection::vec(any_json(), 5), which in 0..INSTRUCTION.len() + PREFERENCE.len() + PROMPT.len()) {
        let dialect = INSTRUCTION.iter().chain(&PREFERENCE).chain(&PROMPT).nth(which).unwrap();
        let names = dialect.needs.iter().chain(dialect.also);
        let columns = names.zip(fields).map(|(name, cell)| ((*name).to_owned(), cell)).collect();
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

//! Dialects with a chosen and a rejected response.

use serde_json::{Value, json};

use super::*;

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

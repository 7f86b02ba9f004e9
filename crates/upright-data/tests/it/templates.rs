//! Chat templates compared with transformers' rendering of them; `tools/templates` makes the
//! goldens.

use std::{fs, path::Path};

use super::tokenizer::tokenizer;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use upright_data::{
    Example, Response, Template, Tokenizer, TooLong, Truncation, Turns,
    conversation::{Message, Prompt, Role, Row},
    encode::{Encoded, Encoder},
};

/// The folder of the tests' templates.
fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/templates_data")
}

fn source(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.jinja"))).unwrap()
}

/// A model's folder with a token for every character and for each of `special`; `config` is its
/// tokenizer_config.json.
fn model(special: &[&str], config: &Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tokenizer = tokenizer();
    let added = special.iter().enumerate().map(|(index, text)| {
        json!({"id": 150 + index, "content": text, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false})
    });
    tokenizer["added_tokens"] = added.collect();
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

fn open(model: &TempDir) -> Tokenizer {
    Tokenizer::open(model.path(), Some(2), Some(1)).unwrap()
}

fn template(name: &str, tokenizer: &Tokenizer) -> Template {
    Template::choose(Some(&name.parse().unwrap()), &[], tokenizer).unwrap()
}

fn message(value: &Value) -> Message {
    let mut more = value.as_object().unwrap().clone();
    let role = Role::parse(more.shift_remove("role").unwrap().as_str().unwrap()).unwrap();
    let content = more
        .shift_remove("content")
        .map_or(String::new(), |content| {
            content.as_str().unwrap().to_owned()
        });
    Message {
        role,
        content,
        more,
    }
}

#[test]
fn conversations_render_as_transformers_renders_them() {
    let goldens: Value =
        serde_json::from_slice(&fs::read(folder().join("goldens.json")).unwrap()).unwrap();
    let (mut compared, mut refused) = (0, 0);
    for golden in goldens["goldens"].as_array().unwrap() {
        let (name, which) = (
            golden["template"].as_str().unwrap(),
            golden["conversation"].as_str().unwrap(),
        );
        let config = json!({
            "bos_token": golden["tokens"][0], "eos_token": golden["tokens"][1], "chat_template": source(name)
        });
        // Tokens that the template writes, without those that the tokenizer has anyway.
        let named = golden["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str);
        let mut special: Vec<&str> = named
            .filter(|text| !["<s>", "</s>"].contains(text))
            .collect();
        special.dedup();
        let model = model(&special, &config);
        let tokenizer = open(&model);
        let asked = format!("chat@{}", goldens["day"].as_str().unwrap());
        let Template::Chat(chat) = template(&asked, &tokenizer) else {
            panic!("a chat template")
        };
        let conversation = &goldens["conversations"][which];
        let messages: Vec<Message> = conversation["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(message)
            .collect();
        let tools = conversation["tools"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for (key, generation_prompt) in [("whole", false), ("opened", true)] {
            let (found, golden) = (
                chat.text(&messages, &tools, generation_prompt),
                &golden[key],
            );
            let place = format!("{name}, {which}, {key}");
            if let Some(error) = golden["error"].as_str() {
                let found = found.expect_err(&place);
                // Every engine words a missing value in its own way, but not what a template
                // raises.
                assert!(
                    found.message.contains(error) || error.contains("has no attribute"),
                    "{place}: {found}"
                );
                refused += 1;
                continue;
            }
            let found = found.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(found.text, golden["text"].as_str().unwrap(), "{place}");
            let characters = |end: usize| found.text[..end].chars().count();
            let spans: Vec<_> = found
                .spans
                .iter()
                .map(|span| json!([characters(span.start), characters(span.end)]))
                .collect();
            assert_eq!(
                spans,
                golden["spans"].as_array().cloned().unwrap_or_default(),
                "{place}"
            );
            compared += 1;
        }
    }
    assert!(
        compared > 200 && refused > 20,
        "{compared} texts, {refused} refusals"
    );
}

/// Two turns each of a user and a model.
fn talk() -> Row {
    let turns = vec![
        Message::new(Role::User, "a"),
        Message::said("b"),
        Message::new(Role::User, "c"),
    ];
    Row {
        responses: vec![Message::said("d")],
        ..Row::unanswered(7, None, Prompt::Messages(turns))
    }
}

fn encode(
    row: &Row,
    name: &str,
    turns: Turns,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Encoded {
    let truncation = Truncation {
        max_length,
        min_prompt: 1,
        rule: TooLong::CutPrompt,
    };
    let template = template(name, tokenizer);
    Encoder {
        template: &template,
        turns,
        tokenizer,
        truncation,
        default_setting: None,
    }
    .row(row)
    .unwrap()
}

fn usable(encoded: Encoded) -> Example {
    match encoded {
        Encoded::Usable { example, .. } => example,
        Encoded::Dropped(reason) => panic!("{reason}"),
    }
}

/// The prompt, and the response with its masked parts in braces.
fn shown(example: &Example, tokenizer: &Tokenizer) -> (String, String) {
    let (mut text, mut at) = (String::new(), 0);
    let decode = |ids: &[u32]| tokenizer.decode(ids).unwrap();
    let Response { tokens, masked } = &example.responses[0];
    for range in masked {
        text += &format!(
            "{}{{{}}}",
            decode(&tokens[at..range.start]),
            decode(&tokens[range.clone()])
        );
        at = range.end;
    }
    (decode(&example.prompt), text + &decode(&tokens[at..]))
}

const CHATML: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

#[test]
fn a_response_ends_with_the_token_that_closes_its_turn() {
    // EOS is not the token that ends a turn; what the template writes after that token is not
    // trained on.
    let config = json!({"eos_token": "</s>", "chat_template": source("chatml")});
    let model = model(&CHATML, &config);
    let tokenizer = open(&model);
    let row = talk();
    let example = usable(encode(&row, "chat", Turns::Last, &tokenizer, 999));
    let (prompt, response) = shown(&example, &tokenizer);
    assert_eq!(
        prompt,
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(response, "d<|im_end|>");
    assert_eq!(
        tokenizer
            .decode(&[template("chat", &tokenizer).end(&tokenizer)])
            .unwrap(),
        "<|im_end|>"
    );
    // A template that closes its turns with plain text ends a response with EOS.
    let path = model.path().join("plain.jinja");
    fs::write(&path, "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}").unwrap();
    let (_, response) = shown(
        &usable(encode(
            &row,
            path.to_str().unwrap(),
            Turns::Last,
            &tokenizer,
            999,
        )),
        &tokenizer,
    );
    assert_eq!(response, " d\n</s>");
}

#[test]
fn every_turn_can_be_trained() {
    let config = json!({"eos_token": "<|im_end|>", "chat_template": source("chatml")});
    let model = model(&CHATML, &config);
    fs::write(model.path().join("marked.jinja"), source("generation")).unwrap();
    let (tokenizer, row) = (open(&model), talk());
    let marked = model.path().join("marked.jinja");
    for name in ["chat", marked.to_str().unwrap()] {
        let example = usable(encode(&row, name, Turns::All, &tokenizer, 999));
        let (prompt, response) = shown(&example, &tokenizer);
        assert_eq!(
            prompt, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n",
            "{name}"
        );
        let read = response.replace("}{", "");
        assert_eq!(
            read,
            "b<|im_end|>{\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n}d<|im_end|>",
            "{name}"
        );
        assert_eq!(example.loss_tokens(), 4);
        // The same tokens, and the same last turn, as when only the last turn is trained on.
        let last = usable(encode(&row, name, Turns::Last, &tokenizer, 999));
        assert_eq!(last.tokens(), example.tokens());
        assert_eq!(shown(&last, &tokenizer).1, "d<|im_end|>");
    }
    // A masked turn, with a template that does not itself mark the model's text.
    let Prompt::Messages(mut turns) = row.prompt.clone() else {
        panic!("a conversation")
    };
    turns[1].more.insert("train".into(), false.into());
    let read = Row {
        prompt: Prompt::Messages(turns),
        ..row.clone()
    };
    let example = usable(encode(&read, "chat", Turns::All, &tokenizer, 999));
    assert_eq!(
        (example.loss_tokens(), example.tokens()),
        (
            2,
            usable(encode(&row, "chat", Turns::All, &tokenizer, 999)).tokens()
        )
    );
    let error = template(marked.to_str().unwrap(), &tokenizer)
        .render(&read, Turns::All)
        .unwrap_err();
    assert!(error.message.contains("a turn is masked"), "{error}");
    let (prompt, response) = shown(
        &usable(encode(&row, "user-assistant", Turns::All, &tokenizer, 999)),
        &tokenizer,
    );
    assert_eq!(
        (prompt.as_str(), response.as_str()),
        (
            "User: a\nAssistant:",
            " b{\nUser: c\nAssistant:} d<|im_end|>"
        )
    );
    // The rest of a truncated row ends with a token in the loss, or the row is dropped.
    for max_length in 2..90 {
        match encode(&row, "chat", Turns::All, &tokenizer, max_length) {
            Encoded::Usable { example, .. } => {
                assert!(example.tokens() <= max_length && example.loss_tokens() > 0);
                let Response { tokens, masked } = &example.responses[0];
                assert!(masked.iter().all(|range| range.end < tokens.len()));
            }
            Encoded::Dropped(reason) => assert_eq!(reason, "longer than the maximum length"),
        }
    }
}

#[test]
fn a_bos_that_the_template_writes_is_the_only_one() {
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "chat_template": source("mistral-v3")});
    let model = model(&["<s>", "</s>"], &config);
    let tokenizer = open(&model);
    let example = usable(encode(&talk(), "chat", Turns::Last, &tokenizer, 999));
    let (prompt, response) = shown(&example, &tokenizer);
    assert_eq!(
        (prompt.as_str(), response.as_str()),
        ("<s>[INST] a[/INST] b</s>[INST] c[/INST]", " d</s>")
    );
    assert_eq!(
        example
            .prompt
            .iter()
            .filter(|&&id| id == example.prompt[0])
            .count(),
        1
    );
    // It stays when the prompt is truncated, though the tokenizer did not add it.
    let cut = usable(encode(&talk(), "chat", Turns::Last, &tokenizer, 20));
    assert_eq!(cut.prompt[0], example.prompt[0]);
    assert!(cut.prompt.len() < example.prompt.len());
    // Without a template of its own, the tokenizer adds it.
    let plain = usable(encode(
        &talk(),
        "user-assistant",
        Turns::Last,
        &tokenizer,
        999,
    ));
    assert_eq!(plain.prompt[0], example.prompt[0]);
}

#[test]
fn a_template_that_hides_where_the_response_begins_is_refused() {
    let config = json!({"bos_token": "<s>", "chat_template": source("deepseek-r1")});
    let model = model(&[], &config);
    let tokenizer = open(&model);
    let chat = template("chat", &tokenizer);
    let error = chat.render(&talk(), Turns::Last).unwrap_err();
    assert!(
        error
            .message
            .starts_with("row 7: the template chat hides where the response begins: after byte "),
        "{error}"
    );
    assert!(
        error
            .message
            .contains("its prompt continues with \"<think>\\n\", the conversation with \"d<"),
        "{error}"
    );
    assert!(
        error.hint.contains("such as user-assistant") && error.hint.contains("{% generation %}"),
        "{}",
        error.hint
    );
    // Reasoning that is written only into the last turn: the last turn can be trained on, the
    // others would never occur like this.
    let config = json!({"eos_token": "<|im_end|>", "chat_template": source("qwen3")});
    let model = self::model(&CHATML, &config);
    let tokenizer = open(&model);
    let chat = template("chat", &tokenizer);
    assert!(chat.render(&talk(), Turns::Last).is_ok());
    let error = chat.render(&talk(), Turns::All).unwrap_err();
    assert!(
        error.message.contains("hides") && error.hint.contains("--sft-turns last"),
        "{error:?}"
    );
    // What a template itself rejects.
    let config = json!({"chat_template": source("gemma")});
    let model = self::model(&[], &config);
    let tokenizer = open(&model);
    let chat = template("chat", &tokenizer);
    let system = Row::unanswered(
        3,
        Some(4),
        Prompt::Messages(vec![Message::new(Role::System, "s")]),
    );
    let error = chat.prompt(&system).unwrap_err();
    assert!(error.message.starts_with(
        "row 3 (line 4): the template chat rejects the conversation: System role not supported"
    ));
}

#[test]
fn what_a_template_has_no_words_for_is_not_left_out_in_silence() {
    let prompt = |name: &str, row: &Row| {
        let model = model(
            &CHATML,
            &json!({"eos_token": "<|im_end|>", "chat_template": source(name)}),
        );
        let tokenizer = open(&model);
        let found = template("chat", &tokenizer);
        found
            .render(row, Turns::Last)
            .map(|rendered| rendered.prompt)
            .map_err(|error| format!("{error} | {}", error.hint))
    };
    let mut row = talk();
    row.tools = vec![json!({"type": "function", "function": {"name": "f"}})];
    // A template that mentions tools and writes none does not support them.
    let named = json!({"eos_token": "<|im_end|>", "chat_template": "{% if tools %}{% endif %}{{ messages[0].content }}"});
    let model = model(&CHATML, &named);
    assert!(
        template("chat", &open(&model))
            .render(&row, Turns::Last)
            .unwrap_err()
            .message
            .contains("the row has tools")
    );
    let error = prompt("chatml", &row).unwrap_err();
    assert!(
        error.starts_with("row 7: the row has tools, but the template chat does not support them"),
        "{error}"
    );
    assert!(error.contains("tools= in --map"), "{error}");
    assert!(prompt("qwen2.5", &row).unwrap().contains("\"name\": \"f\""));
    let function = json!({"name": "f", "arguments": {"x": 1}});
    let call = json!([{"type": "function", "function": function}]);
    let mut called = Message::said("");
    called.more.insert("tool_calls".into(), call.clone());
    let mut written = Message::said(function.to_string());
    written.more.insert("written_calls".into(), call);
    let with = |said: &Message| {
        let turns = vec![
            Message::new(Role::User, "q"),
            said.clone(),
            Message::new(Role::Tool, "7"),
        ];
        Row {
            responses: vec![Message::said("a")],
            ..Row::unanswered(7, None, Prompt::Messages(turns))
        }
    };
    let error = prompt("chatml", &with(&called)).unwrap_err();
    assert!(
        error.starts_with(
            "row 7: the conversation has tool calls, but the template chat does not support"
        ),
        "{error}"
    );
    // Calls that ShareGPT's rows write as text become calls for templates that support them, and
    // stay text for the others.
    assert_eq!(
        prompt("qwen2.5", &with(&written)),
        prompt("qwen2.5", &with(&called))
    );
    assert!(
        prompt("qwen2.5", &with(&written))
            .unwrap()
            .contains("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}")
    );
    let text = prompt("chatml", &with(&written)).unwrap();
    assert!(
        text.contains("<|im_start|>assistant\n{\"name\":\"f\",\"arguments\":{\"x\":1}}<|im_end|>"),
        "{text}"
    );
}

#[test]
fn results_and_reasoning_are_not_left_out_in_silence() {
    let of = |name: &str, row: &Row| {
        let config =
            json!({"bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": source(name)});
        let model = model(&CHATML, &config);
        let tokenizer = open(&model);
        let found = template("chat", &tokenizer);
        (
            found.render(row, Turns::Last),
            found.leaves_reasoning_out(row),
        )
    };
    let turns = vec![
        Message::new(Role::User, "q"),
        Message::said("[f]"),
        Message::new(Role::Tool, "7"),
    ];
    let used = Row {
        responses: vec![Message::said("a")],
        ..Row::unanswered(7, None, Prompt::Messages(turns))
    };
    for name in ["zephyr", "phi-3", "deepseek-v3"] {
        let error = of(name, &used).0.unwrap_err();
        let expected =
            "row 7: the conversation has tool results, but the template chat does not support them";
        assert!(
            error.message.starts_with(expected) && error.hint.contains(".jinja"),
            "{name}: {error}"
        );
        assert!(of(name, &talk()).0.is_ok(), "{name}");
    }
    for name in ["chatml", "qwen2.5", "qwen3", "llama-3", "smollm2"] {
        assert!(of(name, &used).0.unwrap().prompt.contains('7'), "{name}");
    }
    // What a template rejects, it does not leave out silently.
    assert!(
        of("llama-2", &used)
            .0
            .unwrap_err()
            .message
            .contains("rejects the conversation")
    );

    let mut thinking = talk();
    thinking.responses[0]
        .more
        .insert("reasoning_content".into(), "hm".into());
    assert_eq!(
        ["qwen3", "chatml", "qwen2.5"].map(|name| of(name, &thinking).1),
        [false, true, true]
    );
    let rendered = of("qwen3", &thinking).0.unwrap();
    assert!(
        rendered.responses[0][0]
            .text
            .starts_with("<think>\nhm\n</think>"),
        "{rendered:?}"
    );
    assert!(
        of("chatml", &thinking).0.is_ok(),
        "the answers alone may be wanted"
    );
    // The reasoning of earlier turns is left out on purpose.
    let Prompt::Messages(turns) = &mut thinking.prompt else {
        panic!("a conversation")
    };
    turns[1].more = std::mem::take(&mut thinking.responses[0].more);
    assert!(!of("chatml", &thinking).1);
}

#[test]
fn arguments_that_are_json_in_a_text_are_quoted_once() {
    let row = |arguments: Value| {
        let mut called = Message::said("");
        let function = json!({"name": "f", "arguments": arguments});
        called.more.insert(
            "tool_calls".into(),
            json!([{"type": "function", "function": function}]),
        );
        let turns = vec![Message::new(Role::User, "q")];
        Row {
            responses: vec![called],
            ..Row::unanswered(7, None, Prompt::Messages(turns))
        }
    };
    let said = |jinja: &str, row: &Row| {
        let model = model(
            &CHATML,
            &json!({"eos_token": "<|im_end|>", "chat_template": jinja}),
        );
        let tokenizer = open(&model);
        template("chat", &tokenizer)
            .render(row, Turns::Last)
            .map(|rendered| rendered.responses[0][0].text.clone())
    };
    let (text, object) = (row(json!("{\"x\":1}")), row(json!({"x": 1})));
    let qwen = source("qwen2.5");
    assert!(
        said(&qwen, &text)
            .unwrap()
            .contains("\"arguments\": {\"x\": 1}}")
    );
    assert_eq!(said(&qwen, &text).unwrap(), said(&qwen, &object).unwrap());
    assert!(
        said(&qwen, &row(json!("no JSON")))
            .unwrap()
            .contains("\"arguments\": \"no JSON\"}")
    );
    // Templates that write the text unchanged get it unchanged; DeepSeek's accept nothing else.
    let calls = |arguments: &str| {
        format!(
            "{{% for m in messages %}}{{{{ m.content }}}}{{% for call in m.tool_calls %}}{{% set a = call.function.arguments %}}\
             {{{{ 'f' + {arguments} }}}}{{% endfor %}}{{% endfor %}}"
        )
    };
    let (either, only) = (calls("(a if a is string else a | tojson)"), calls("a"));
    assert_eq!(
        [&either, &only].map(|jinja| said(jinja, &text).unwrap()),
        ["f{\"x\":1}", "f{\"x\":1}"]
    );
    assert_eq!(said(&either, &object).unwrap(), "f{\"x\": 1}");
    assert!(
        said(&only, &object)
            .unwrap_err()
            .message
            .contains("rejects the conversation")
    );
    // A template that wants text next to the call, and writes arguments after it.
    let behind = "{% for m in messages %}{{ m.content + m.tool_calls[0].function.arguments if m.tool_calls else m.content }}{% endfor %}";
    let mut spoken = text;
    spoken.responses[0].content = "so ".into();
    assert_eq!(said(behind, &spoken).unwrap(), "so {\"x\":1}");
}

#[test]
fn line_breaks_of_other_systems_are_line_breaks() {
    let text = |breaks: &str| {
        let model = model(&[], &json!({"eos_token": "</s>"}));
        fs::write(
            model.path().join("chat_template.jinja"),
            source("zephyr").replace('\n', breaks),
        )
        .unwrap();
        let tokenizer = open(&model);
        template("chat", &tokenizer).prompt(&talk()).unwrap()
    };
    assert_eq!(text("\r\n"), text("\n"));
    assert_eq!(text("\r"), text("\n"));
}

#[test]
fn a_models_template_is_found_wherever_it_stands() {
    let text = |model: &TempDir, name: &str, tools: bool| {
        let mut row = talk();
        row.tools = if tools { vec![json!({})] } else { Vec::new() };
        let tokenizer = open(model);
        Template::choose(
            Some(&name.parse().unwrap()),
            std::slice::from_ref(&row),
            &tokenizer,
        )
        .and_then(|template| template.prompt(&row))
    };
    let named = json!([{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T{{ tools | tojson }}"}, {"name": "rag", "template": "R{{ tools | tojson }}"}]);
    let model = model(&[], &json!({"chat_template": named}));
    assert_eq!(text(&model, "chat", false).unwrap(), "D");
    assert_eq!(text(&model, "chat", true).unwrap(), "T[{}]");
    assert_eq!(text(&model, "chat:rag", true).unwrap(), "R[{}]");
    // Rows with and without tools in one file have a template each.
    let (plain, mut tooled) = (talk(), talk());
    tooled.tools = vec![json!({})];
    let chosen = |rows: &[Row]| {
        Template::choose(Some(&"chat".parse().unwrap()), rows, &open(&model)).unwrap()
    };
    let both = chosen(&[plain.clone(), tooled.clone()]);
    assert_eq!(
        [&plain, &tooled].map(|row| both.prompt(row).unwrap()),
        ["D", "T[{}]"]
    );
    assert_ne!(
        both.sha256(),
        chosen(std::slice::from_ref(&plain)).sha256(),
        "a run knows both"
    );
    let error = text(&model, "chat:rags", false).unwrap_err();
    assert!(
        error
            .message
            .ends_with("the model has no chat template named \"rags\"")
            && error.hint == "available: default, tool_use, rag"
    );
    let file = |name: &str, text: &str| {
        fs::create_dir_all(model.path().join(name).parent().unwrap()).unwrap();
        fs::write(model.path().join(name), text).unwrap();
    };
    file("chat_template.json", "{\"chat_template\": \"P\"}");
    assert_eq!(text(&model, "chat", false).unwrap(), "P");
    file("chat_template.jinja", "J");
    assert_eq!(text(&model, "chat", false).unwrap(), "J");
    file("additional_chat_templates/short.jinja", "S");
    assert_eq!(text(&model, "chat:short", false).unwrap(), "S");
    file("chat_template.jinja", "{% if %}");
    let error = text(&model, "chat", false).unwrap_err();
    assert!(
        error
            .message
            .contains("chat_template.jinja: not a valid chat template"),
        "{error}"
    );

    let none = self::model(&[], &json!({}));
    let error = text(&none, "chat", false).unwrap_err();
    assert!(
        error.message.ends_with("the model has no chat template")
            && error.hint.contains("user-assistant")
    );
    let several = self::model(
        &[],
        &json!({"chat_template": [{"name": "a", "template": "A"}, {"name": "b", "template": "B"}]}),
    );
    assert!(
        text(&several, "chat", false)
            .unwrap_err()
            .hint
            .contains("chat:a or chat:b")
    );
    let odd = self::model(&[], &json!({"chat_template": 3}));
    assert!(
        text(&odd, "chat", false)
            .unwrap_err()
            .message
            .contains("neither text nor named templates")
    );
}

fn any_config() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec![
            "<s>",
            "</s>",
            "default",
            "{{ messages }}",
            "{% for",
            "{{ bos_token * 9 }}"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let names = prop::sample::select(vec!["name", "template", "content", "default", "x"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..4).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_configurations_never_panic(values in prop::collection::vec(any_config(), 4), whole in any::<bool>(), cut in 0..200usize) {
        let names = ["chat_template", "bos_token", "eos_token", "add_bos_token"];
        let config: serde_json::Map<String, Value> = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
        let model = model(&[], &Value::Null);
        let text = Value::Object(config).to_string();
        let end = if whole { text.len() } else { cut.min(text.len()) };
        fs::write(model.path().join("tokenizer_config.json"), &text.as_bytes()[..end]).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(model.path(), Some(2), Some(1))
            && let Ok(template) = Template::choose(Some(&"chat".parse().unwrap()), &[talk()], &tokenizer)
        {
            let _ = template.render(&talk(), Turns::All);
        }
    }
}

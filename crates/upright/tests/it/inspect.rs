//! Commands for a look: inspect, generate, chat.

use std::io::Write;

use crate::fixture::{Done, Place, fed};
use serde_json::json;

#[test]
fn inspect_counts_what_a_run_would_train_on() {
    let place = Place::new();
    let report =
        &Done::good(place.command("inspect dpo.jsonl --model model --json --token-budget 512"))
            .json()[0];
    assert_eq!(
        (&report["kind"], &report["template"]),
        (&json!("preference"), &json!("user-assistant"))
    );
    let rows = report["train_rows"].as_u64().unwrap() + report["eval_rows"].as_u64().unwrap();
    assert_eq!(rows, 24);
    let (packed, unshared) = (
        report["packed_rows"].as_u64().unwrap(),
        report["unshared_rows"].as_u64().unwrap(),
    );
    // Every character is a token: "User: Where does wren 0 live?\nAssistant:" is read once instead of twice, and the 17
    // characters that all prompts begin with once a pack.
    let (trained, packs) = (
        report["train_rows"].as_f64().unwrap(),
        report["packs"].as_f64().unwrap(),
    );
    let prompts = report["prompt_tokens"]["mean"].as_f64().unwrap() * trained;
    assert_eq!(
        (unshared - packed) as f64,
        prompts.round() + 17.0 * (trained - packs)
    );
    assert!(packed as f64 <= packs * 512.0);
    assert_eq!(report["batch"], 4);
    let steps = (trained / 4.0).ceil();
    assert_eq!(report["steps_per_epoch"].as_f64().unwrap(), steps);
    let words = "inspect dpo.jsonl --model model --json --rows 10 --held-out 0 --threads 1";
    assert_eq!(Done::good(place.command(words)).json()[0]["train_rows"], 10);
    let words = "inspect dpo.jsonl --model model --rows 10 --held-out 0 --batch 3";
    let text = Done::good(place.command(words)).stdout;
    assert!(
        text.contains("\nepoch        4 steps of 3 rows\n"),
        "{text}"
    );
    let histogram = report["prompt_tokens"]["histogram"].as_array().unwrap();
    let counted: u64 = histogram.iter().map(|bar| bar[1].as_u64().unwrap()).sum();
    assert_eq!(counted, report["train_rows"].as_u64().unwrap());
}

#[test]
fn inspect_names_the_rows_that_a_run_leaves_out() {
    let place = Place::new();
    let output = |i: usize| {
        if [1, 2, 3, 5, 8, 13].contains(&i) {
            ""
        } else {
            "Yes."
        }
    };
    let rows: Vec<_> = (0..20)
        .map(|i| json!({"instruction": format!("Is {i} so?"), "output": output(i)}))
        .collect();
    place.rows("holes.jsonl", &rows);
    let text = Done::good(place.command("inspect holes.jsonl --model model --show 0")).stdout;
    assert!(
        text.contains("\ndropped      6, empty response: rows 1, 2, 3, 5, 8, ...\n"),
        "{text}"
    );
    let report = &Done::good(place.command("inspect holes.jsonl --model model --json")).json()[0];
    assert_eq!(
        report["dropped"],
        json!([{"reason": "empty response", "rows": [1, 2, 3, 5, 8, 13]}])
    );
    assert_eq!(
        (&report["reasoning_left_out"], &report["contested_bos"]),
        (&json!(0), &json!(null))
    );
    place.edit("model/tokenizer_config.json", |settings| {
        settings.insert("bos_token".into(), json!("<s>"));
        settings.insert("add_bos_token".into(), json!(true));
    });
    let text = Done::good(place.command("inspect holes.jsonl --model model --show 0")).stdout;
    assert!(
        text.contains("\nBOS          prompts start with BOS, as add_bos_token"),
        "{text}"
    );
}

#[test]
fn inspect_shows_a_row_with_its_end_and_without_colour_in_a_pipe() {
    let place = Place::new();
    let done = Done::good(place.command("inspect sft.jsonl --model model --row 7"));
    let shown = "User: Count 7 of the voles.\nAssistant:\nresponse, 20 tokens in the loss\n[ There are 7 voles.<EOS>]\n";
    assert!(done.stdout.contains(shown), "{}", done.stdout);
    assert!(!done.stdout.contains('\x1b'));
    let cut = Done::good(place.command("inspect sft.jsonl --model model --row 7 --max-length 20"));
    assert!(cut.stdout.contains("<CUT>]"), "{}", cut.stdout);
    let cut = Done::good(
        place.command("inspect sft.jsonl --model model --row 7 --max-length 40 --min-prompt 30"),
    );
    assert!(
        cut.stdout.contains("row 7: prompt, 30 tokens") && cut.stdout.contains("<CUT>]"),
        "{}",
        cut.stdout
    );
    for (words, part) in [
        ("inspect sft.jsonl --model model --row 99", "no row 99"),
        ("inspect nothing.jsonl --model model", "nothing.jsonl"),
        ("inspect sft.jsonl --model nowhere", "nowhere"),
        ("inspect sft.jsonl --model model --held-out 2", "2"),
        (
            "inspect sft.jsonl --model model --max-length 0",
            "max-length",
        ),
        (
            "inspect sft.jsonl --model model --row 17 --max-length 58 --too-long drop",
            "row 17 is dropped: longer than",
        ),
        (
            "inspect sft.jsonl --model model --max-length 9 --min-prompt 9",
            "min-prompt must be below max-length, 9",
        ),
        (
            "inspect sft.jsonl --model model --too-long keep",
            "too-long must be one of",
        ),
        (
            "inspect sft.jsonl --model model --rows 0",
            "rows must be a whole number of at least 1",
        ),
        (
            "inspect sft.jsonl --model model --threads 0",
            "threads must be",
        ),
        (
            "inspect sft.jsonl --model model --template stanza",
            "stanza",
        ),
    ] {
        let done = Done::of(place.command(words));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(done.error().contains(part), "{words}: {done:?}");
    }
}

#[test]
fn generate_answers_every_prompt_the_same_in_any_batch() {
    let place = Place::new();
    place.write(
        "prompts.jsonl",
        "{\"prompt\": \"Where?\"}\n\n{\"instruction\": \"Count.\", \"input\": \"2\"}\n",
    );
    let words = "generate --model model --prompts prompts.jsonl --max-tokens 6";
    let together = Done::good(place.command(words)).json();
    assert_eq!(together.len(), 2);
    assert_eq!(together[1]["prompt"], "User: Count.\n2\nAssistant:");
    assert!(
        together
            .iter()
            .all(|line| line["tokens"].as_u64().unwrap() <= 6)
    );
    assert_eq!(
        Done::good(place.command(&format!("{words} --batch 1 --threads 1"))).json(),
        together
    );
    let piped = fed(
        place.command("generate --model model --max-tokens 6"),
        "Where?\n",
    );
    assert_eq!(piped.code, Some(0), "{piped:?}");
    assert_eq!(piped.json()[0]["response"], together[0]["response"]);
    let sampled = |seed: u32| {
        Done::good(place.command(&format!("{words} --temperature 1.5 --seed {seed}"))).stdout
    };
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
    Done::good(place.command(&format!("{words} --out answers.jsonl")));
    assert_eq!(
        String::from_utf8(place.read("answers.jsonl"))
            .unwrap()
            .lines()
            .count(),
        2
    );

    for (words, part) in [
        ("--max-tokens 0", "max-tokens"),
        ("--temperature -1", "-1"),
        ("--top-p 0", "top-p"),
        ("--batch 0", "batch"),
        ("--threads 100000", "100000"),
        ("--adapter nowhere", "nowhere"),
        ("--out ..", ".."),
        ("--out missing/answers.jsonl", "missing"),
    ] {
        let done = Done::of(place.command(&format!(
            "generate --model model --prompts prompts.jsonl {words}"
        )));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(done.error().contains(part), "{words}: {done:?}");
    }
    place.write(
        "bad.jsonl",
        "{\"prompt\": \"Who?\"}\n{\"riddle\": \"Where?\"}\n",
    );
    let done = Done::of(place.command("generate --model model --prompts bad.jsonl"));
    assert!(
        done.code == Some(2) && done.error().contains("line 2") && done.error().contains("riddle"),
        "{done:?}"
    );
}

#[test]
fn generate_stops_at_every_end_that_the_model_names() {
    let place = Place::new();
    place.write("prompts.txt", "Where?\nWhy?\n");
    let words = "generate --model model --prompts prompts.txt --max-tokens 12";
    let say = || Done::good(place.command(words)).json();
    let whole: Vec<String> = say()
        .iter()
        .map(|line| line["response"].as_str().unwrap().to_owned())
        .collect();
    // Every character is a token: each answer's third ends it now, or whichever of the two comes first.
    let ends: Vec<char> = whole
        .iter()
        .map(|text| text.chars().nth(2).unwrap())
        .collect();
    let vocabulary = &crate::fixture::tokenizer()["model"]["vocab"];
    let ids: Vec<_> = ends
        .iter()
        .map(|end| vocabulary[end.to_string()].clone())
        .collect();
    let cut: Vec<_> = whole
        .iter()
        .map(|text| text.split(&ends[..]).next().unwrap())
        .collect();
    assert!(
        cut.iter()
            .zip(&whole)
            .all(|(cut, whole)| cut.len() < whole.len()),
        "{whole:?}"
    );
    let stops = |why: &str| {
        let lines = say();
        assert!(
            lines.iter().all(|line| line["finish"] == "eos"),
            "{why}: {lines:?}"
        );
        assert_eq!(
            lines
                .iter()
                .map(|line| &line["response"])
                .collect::<Vec<_>>(),
            cut,
            "{why}"
        );
    };
    place.edit("model/config.json", |config| {
        drop(config.insert("eos_token_id".into(), json!(ids)));
    });
    stops("the model's config, for want of another");
    place.write(
        "model/generation_config.json",
        json!({"temperature": 1.0, "eos_token_id": null}).to_string(),
    );
    stops("another that names none");
    place.write(
        "model/generation_config.json",
        json!({"eos_token_id": 2}).to_string(),
    );
    assert_eq!(
        say()
            .iter()
            .map(|line| &line["response"])
            .collect::<Vec<_>>(),
        whole.iter().collect::<Vec<_>>()
    );
    place.edit("model/config.json", |config| {
        drop(config.insert("eos_token_id".into(), json!(2)));
    });
    place.write(
        "model/generation_config.json",
        json!({"eos_token_id": ids}).to_string(),
    );
    stops("another that names all");
    for (text, parts) in [
        (
            r#"{"eos_token_id": [2, "</s>"]}"#,
            [
                "eos_token_id must be a token id or a list of them",
                "`\"</s>\"`",
            ],
        ),
        (r#"{"eos_token_id": 2.5}"#, ["eos_token_id", "`2.5`"]),
        ("{", ["broken JSON", "download"]),
    ] {
        place.write("model/generation_config.json", text);
        let done = Done::of(place.command(words));
        assert_eq!((done.code, &done.stdout[..]), (Some(2), ""), "{done:?}");
        assert!(
            done.error().contains("model/generation_config.json: "),
            "{done:?}"
        );
        assert!(
            parts.iter().all(|part| done.error().contains(part)),
            "{parts:?}: {done:?}"
        );
    }
}

#[test]
fn generate_takes_rows_of_every_dialect() {
    let place = Place::new();
    let talk = "{\"messages\": [{\"role\": \"user\", \"content\": \"Where?\"}, {\"role\": \"assistant\", \"content\": \"Here.\"}]}\n";
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed
        .write_all(
            format!("{talk}{{\"question\": \"Where?\", \"answer\": \"Here.\"}}\n").as_bytes(),
        )
        .unwrap();
    place.write("prompts.jsonl.gz", packed.finish().unwrap());
    place.write("list.json", "[\"Where?\", \"Why?\"]");
    place.write("other.json", "[{\"q\": \"Where?\"}]");
    let ask = |words: &str| {
        Done::good(place.command(&format!("generate --model model --max-tokens 4 {words}"))).json()
    };
    let prompts = |lines: &[serde_json::Value]| {
        lines
            .iter()
            .map(|line| line["prompt"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        prompts(&ask("--prompts prompts.jsonl.gz")),
        ["User: Where?\nAssistant:"; 2]
    );
    assert_eq!(
        prompts(&ask("--prompts list.json --template raw")),
        ["Where?", "Why?"]
    );
    assert_eq!(
        prompts(&ask("--prompts other.json --map prompt=q")),
        ["User: Where?\nAssistant:"]
    );
    // A model's own template, and the token that ends its turns.
    place.write("model/chat_template.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}");
    place.write("talk.jsonl", talk);
    assert_eq!(
        prompts(&ask("--prompts talk.jsonl")),
        ["user: Where?\nassistant:"]
    );
    assert_eq!(
        prompts(&ask("--prompts list.json --template chat"))[1],
        "user: Why?\nassistant:"
    );
    let done =
        Done::of(place.command("generate --model model --prompts other.json --map prompt=p"));
    assert!(
        done.code == Some(2) && done.error().contains("row 0 has no column \"p\""),
        "{done:?}"
    );
}

#[test]
fn an_adapter_is_asked_as_its_run_was_trained() {
    let place = Place::new();
    Done::good(place.train("--sft-template alpaca --steps 1 --checkpoint-every 1"));
    let ask = |words: &str| {
        Done::good(place.command(&format!("generate --model model --max-tokens 2 {words}")))
    };
    let prompt = |done: &Done| done.json()[0]["prompt"].as_str().unwrap().to_owned();
    place.write("prompts.txt", "Count.\n");
    for adapter in ["run", "run/adapter", "run/checkpoints/step-1"] {
        let done = ask(&format!("--prompts prompts.txt --adapter {adapter}"));
        assert!(
            prompt(&done).ends_with("### Instruction:\nCount.\n\n### Response:\n"),
            "{done:?}"
        );
        assert!(
            done.stderr.contains("using the template of the run ")
                && done.stderr.contains(", template alpaca"),
            "{done:?}"
        );
    }
    let done = ask("--prompts prompts.txt --adapter run --template raw");
    assert_eq!(
        (
            prompt(&done).as_str(),
            done.stderr.contains("template of the run")
        ),
        ("Count.", false)
    );
    // An adapter that lies elsewhere has no run.
    std::fs::rename(place.path("run/adapter"), place.path("alone")).unwrap();
    assert_eq!(
        prompt(&ask("--prompts prompts.txt --adapter alone")),
        "User: Count.\nAssistant:"
    );
}

#[test]
fn chat_answers_until_an_empty_line() {
    let place = Place::new();
    let say = |text: &str| fed(place.command("chat --model model --max-tokens 5"), text);
    let done = say("Hello\nAnd then?\n\nnever read\n");
    assert_eq!(done.code, Some(0), "{done:?}");
    // What follows the empty line changes nothing, what precedes it does; the first answer is the same in both.
    assert_eq!(done.stdout, say("Hello\nAnd then?\n").stdout);
    let first = say("Hello\n").stdout;
    assert!(
        done.stdout.starts_with(&first) && done.stdout.len() > first.len(),
        "{done:?}"
    );
    // Commands are not sent to the model, and a reset forgets what was said before.
    assert_eq!(say("Hello\n/exit\nnever read\n").stdout, first);
    let reset = say("Hello\n/help\n/reset\nHello\n");
    assert_eq!(reset.stdout, format!("{first}{first}"));
    assert_ne!(say("Hello\nHello\n").stdout, reset.stdout);
    let help = "/exit or Ctrl-D ends the chat; /reset starts a new conversation";
    assert_eq!(reset.stderr.matches(help).count(), 2, "{reset:?}");
    assert!(
        reset.stderr.contains("template user-assistant"),
        "{reset:?}"
    );
    assert!(
        reset.stderr.contains("the conversation starts anew"),
        "{reset:?}"
    );
}

/// Decoded text looks the same whether the tokenizer has a token for it or not; the ids do not.
#[test]
fn inspect_shows_the_ids_that_text_hides() {
    let place = Place::new();
    place.rows(
        "marks.jsonl",
        &[json!({"prompt": "c\n<|im_start|>a", "completion": "b<|im_end|>"})],
    );
    let words = "inspect marks.jsonl --model model --template raw --held-out 0";
    let split = Done::good(place.command(words)).stdout;
    let marks = "looks like a special token, but the tokenizer splits it: <|im_start|> = 32 ";
    assert!(
        split.contains(marks) && split.contains("<|im_end|> = 32 "),
        "{split}"
    );
    assert!(
        split.contains("\nspecial tokens by id: 2 </s>\n"),
        "{split}"
    );
    let token = |text: &str| {
        json!({"content": text, "special": true, "lstrip": false, "rstrip": false, "normalized": false,
        "single_word": false})
    };
    place.edit("model/tokenizer_config.json", |settings| {
        settings.insert(
            "added_tokens_decoder".into(),
            json!({"99": token("<|im_start|>"), "100": token("<|im_end|>")}),
        );
    });
    let whole = Done::good(place.command(words)).stdout;
    assert!(
        whole.contains("special tokens by id: 99 <|im_start|>, 100 <|im_end|>, 2 </s>"),
        "{whole}"
    );
    assert!(!whole.contains("splits it"), "{whole}");
}

#[test]
fn positions_beyond_the_model_and_dropout_are_noted() {
    let place = Place::new();
    place.edit("model/config.json", |config| {
        config.insert("max_position_embeddings".into(), json!(32));
        config.insert("attention_dropout".into(), json!(0.1));
    });
    let note = "rows are longer than the model's 32 positions (max_position_embeddings), up to ";
    let inspected = Done::good(place.command("inspect sft.jsonl --model model --show 0")).stdout;
    assert!(
        inspected.contains(&format!("\ntoo long     40 {note}")),
        "{inspected}"
    );
    let report =
        &Done::good(place.command("inspect sft.jsonl --model model --max-length 32 --json")).json()
            [0];
    assert_eq!(report["positions"], json!(null));
    let trained = Done::good(place.train("--steps 1")).stderr;
    assert!(
        trained.contains(&format!("warning: sft: 40 {note}")),
        "{trained}"
    );
    assert!(
        trained.contains("note: attention_dropout 0.1 of config.json is not applied"),
        "{trained}"
    );
    let doctor = Done::good(place.command("doctor --model model")).stdout;
    assert!(
        doctor.contains(
            "positions    32 (max_position_embeddings): below the default --max-length of 2048"
        ),
        "{doctor}"
    );
    place.write("one.txt", "Hello");
    let generated =
        Done::good(place.command("generate --model model --prompts one.txt --max-tokens 20"))
            .stderr;
    assert!(
        generated.contains("1 of 1 prompts may exceed the 32 positions"),
        "{generated}"
    );
    let short = Done::good(
        place.command("generate --model model --prompts one.txt --max-tokens 2 --template raw"),
    )
    .stderr;
    assert!(!short.contains("positions"), "{short}");
}

#[test]
fn dropout_of_a_continued_adapter_is_noted() {
    let place = Place::new();
    place.adapter("start", "llama");
    place.edit("start/adapter_config.json", |config| {
        config.insert("lora_dropout".into(), json!(0.1));
    });
    let done = Done::good(place.train("--init-adapter start !--lora-rank --steps 1"));
    assert!(
        done.stderr
            .contains("note: start: its lora_dropout 0.1 is not applied"),
        "{}",
        done.stderr
    );
}

#[test]
fn generate_does_not_overwrite() {
    let place = Place::new();
    place.write("one.txt", "Hello");
    let words = "generate --model model --prompts one.txt --max-tokens 2 --out answers.jsonl";
    Done::good(place.command(words));
    let first = place.read("answers.jsonl");
    let again = Done::of(place.command(words));
    assert_eq!(again.code, Some(2), "{again:?}");
    let error = again.error();
    assert!(
        error.contains("answers.jsonl: already exists and is not overwritten")
            && error.contains("hint: "),
        "{error}"
    );
    assert_eq!(place.read("answers.jsonl"), first);
}

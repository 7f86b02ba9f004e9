//! Runs on files of rows that people have.

use std::{fs, path::Path};

use crate::fixture::{Done, Place};
use serde_json::{Value, json};

/// A file of the data crate's tests.
fn parquet(compression: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(
        "../upright-data/tests/it/parquet/pairs-{compression}.parquet"
    ))
}

#[test]
fn a_run_takes_parquet_several_files_and_other_columns() {
    let place = Place::new();
    fs::copy(parquet("zstd"), place.path("pairs.parquet")).unwrap();
    place.rows(
        "more.jsonl",
        &[json!({"question": "Who?", "good": "I.", "bad": "You."})],
    );
    let done =
        Done::of(place.train("--dpo pairs.parquet --sft sft.jsonl:0.5 --sft sft2.jsonl:0.5"));
    assert!(
        done.code == Some(2) && done.error().contains("no file `sft2.jsonl`"),
        "{done:?}"
    );
    place.rows(
        "sft2.jsonl",
        &[
            json!({"q": "Why?", "a": "So."}),
            json!({"q": "When?", "a": "Now."}),
        ],
    );
    let words = "--dpo pairs.parquet --sft sft.jsonl:0.5 --sft sft2.jsonl:0.5 --held-out 0";
    let done = Done::of(place.train(words));
    assert!(
        done.error()
            .contains("sft2.jsonl: row 0 (line 1) is in no known dialect"),
        "{done:?}"
    );
    place.rows(
        "sft2.jsonl",
        &[
            json!({"instruction": "Why?", "output": "So."}),
            json!({"question": "When?", "answer": "?"}),
        ],
    );
    let done = Done::of(place.train(words));
    assert!(
        done.error()
            .contains("row 1 (line 2) has no column \"instruction\""),
        "{done:?}"
    );
    place.rows(
        "sft2.jsonl",
        &[json!({"instruction": "Why?", "output": "So."})],
    );
    let done = Done::good(place.train(words));
    assert!(done.stderr.contains("sft: 80 rows"), "{done:?}");
    assert!(
        done.stderr.contains("ignored columns: score, note"),
        "{done:?}"
    );
    let plan = String::from_utf8(place.read("run/plan.toml")).unwrap();
    assert!(
        plan.contains("data = [\"sft.jsonl:0.5\", \"sft2.jsonl:0.5\"]")
            && plan.contains("data = \"pairs.parquet\""),
        "{plan}"
    );
    // The same again is finished; another share is another run.
    Done::good(place.train(&format!("{words} --resume")));
    let other = words.replace("sft.jsonl:0.5", "sft.jsonl:0.8");
    let done = Done::of(place.train(&format!("{other} --resume")));
    assert!(done.error().contains("the data of sft"), "{done:?}");
    let mapped = "--dpo more.jsonl --dpo-map prompt=question,chosen=good,rejected=bad !--sft --held-out 0 --out mapped";
    Done::good(place.train(&mapped.replace("!--sft", "--lambda 1 !--sft")));
    let plan = String::from_utf8(place.read("mapped/plan.toml")).unwrap();
    assert!(
        plan.contains("map = \"prompt=question,chosen=good,rejected=bad\""),
        "{plan}"
    );
}

#[test]
fn a_chat_template_decides_what_a_run_sees() {
    let place = Place::new();
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    place.write("model/chat_template.jinja", template);
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let talk = |i: usize| json!({"messages": [turn("user", &format!("q{i}")), turn("assistant", "a"), turn("user", "r"), turn("assistant", "b")]});
    place.rows("talk.jsonl", &(0..8).map(talk).collect::<Vec<Value>>());
    let shown = Done::good(
        place.command("inspect talk.jsonl --model model --row 0 --turns all --held-out 0"),
    )
    .stdout;
    assert!(shown.contains("template     chat\n"), "{shown}");
    assert!(
        shown.contains("<user>q0\n<assistant>\nresponse, 5 tokens in the loss\n[a\n]<user>r\n<assistant>[b\n<EOS>]\n"),
        "{shown}"
    );
    let words = "--sft talk.jsonl --sft-turns all --dpo dpo.jsonl";
    Done::good(place.train(words));
    let plan = String::from_utf8(place.read("run/plan.toml")).unwrap();
    assert!(
        plan.contains("turns = \"all\"")
            && plan.contains("template = \"chat\"")
            && plan.contains("template-sha256 = \""),
        "{plan}"
    );
    place.write("model/chat_template.jinja", template.replace('<', "["));
    let done = Done::of(place.train(&format!("{words} --resume")));
    assert!(done.error().contains("the template of sft: "), "{done:?}");
    for (words, parts) in [
        (
            "--sft talk.jsonl --sft-template raw",
            vec!["talk.jsonl: row 0 (line 1): the prompt is a conversation"],
        ),
        (
            "--sft-turns some",
            vec!["sft-turns must be one of last, all"],
        ),
        (
            "--sft-template none.jinja",
            vec!["sft-template: there is no file `none.jinja`"],
        ),
        (
            "--sft-template chat:rag",
            vec!["no chat template named \"rag\"", "available: default"],
        ),
        (
            "--sft-template chat@tomorrow",
            vec!["`tomorrow` is not a date"],
        ),
        (
            "--sft-map prompt=x",
            vec![
                "sft.jsonl: row 0 (line 1) has no column \"x\"",
                "instruction, input, output",
            ],
        ),
        (
            "--sft sft.jsonl:0.5",
            vec![
                "sft must list several files to use shares",
                "remove the share",
            ],
        ),
        (
            "--sft sft.jsonl:0.5 --sft talk.jsonl",
            vec!["sft must have a share for every file or for none"],
        ),
        (
            "--sft sft.jsonl --sft sft.jsonl",
            vec!["name every file once"],
        ),
        (
            "--sft sft.jsonl:-1 --sft talk.jsonl:2",
            vec!["a share above 0"],
        ),
    ] {
        let done = Done::of(place.train(&format!("{words} --out other")));
        assert_eq!(done.code, Some(2), "{words}: {done:?}");
        assert!(
            parts.iter().all(|part| done.error().contains(part)),
            "{words}: {done:?}"
        );
        assert!(!place.path("other").exists());
    }
}

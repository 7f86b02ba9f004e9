//! Files of rows that people have, read as they are; and files that nobody should have, which never end in a panic.

mod fixture;

use std::{fs, path::Path};

use fixture::{Done, Place};
use proptest::prelude::*;
use serde_json::{Value, json};
use upright::data::{ColumnMap, Kind, prompts, rows, source};

const PARQUET: [&str; 5] = ["none", "snappy", "gzip", "zstd", "lz4"];

fn parquet(compression: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/rows/pairs-{compression}.parquet"))
}

#[test]
fn parquet_rows_are_read_in_every_compression() {
    let mut hashes = Vec::new();
    for compression in PARQUET {
        let path = parquet(compression);
        let source = source::read(&path).unwrap();
        let read = rows::read(&path, &source.rows, Kind::Preference).unwrap();
        assert_eq!(
            (read.dialect, read.rows.len()),
            ("prompt-chosen-rejected", 5),
            "{compression}"
        );
        assert_eq!(read.unread, ["score", "note"]);
        let row = &read.rows[3];
        let asked = rows::Message::new(rows::Role::User, "Question 3, é?");
        assert_eq!(row.prompt, rows::Prompt::Messages(vec![asked]));
        assert_eq!(
            [&row.responses[0].content, &row.responses[1].content],
            ["Good 3.", "Bad 3."]
        );
        assert_eq!(
            (
                source.rows[3].place().as_str(),
                &source.rows[3].columns["score"]
            ),
            ("row 3", &json!(1.5))
        );
        hashes.push(source.sha256);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), PARQUET.len());
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
        done.stderr.contains("columns not read: score, note"),
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
        shown.contains("<user>q0\n<assistant>\nresponse, 5 tokens, scored\n[a\n]<user>r\n<assistant>[b\n<EOS>]\n"),
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
            vec!["talk.jsonl: row 0 (line 1): its prompt is a conversation"],
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
            vec!["no chat template called \"rag\"", "it has: default"],
        ),
        (
            "--sft-template chat@tomorrow",
            vec!["`tomorrow` is not a day"],
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
                "sft must be several files to have shares",
                "leave the share out",
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

fn read_everything(name: &str, bytes: &[u8]) {
    let path = Path::new(name);
    let _ = prompts::read(path, bytes, &ColumnMap::default());
    let Ok(raw) = source::parse(path, bytes) else {
        return;
    };
    for kind in [
        Kind::Instruction,
        Kind::Preference,
        Kind::Chosen,
        Kind::Prompt,
    ] {
        let _ = rows::read(path, &raw, kind);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_files_never_panic(
        which in 0..PARQUET.len() + 2, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = match PARQUET.get(which) {
            Some(compression) => fs::read(parquet(compression)).unwrap(),
            None => {
                let text = "{\"prompt\": [{\"role\": \"user\", \"content\": \"é\"}], \"chosen\": \"a\", \"rejected\": \"b\"}\n".repeat(3);
                if which == PARQUET.len() { text.into_bytes() } else { gzip(text.as_bytes()) }
            }
        };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_everything("f", &bytes);
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

//! Files, folders and records that would hang, fill or mislead whoever opens them.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use crate::fixture::{Done, Place};
use serde_json::{Value, json};

const INSPECT: &str = "inspect sft.jsonl --model model";

/// The command ends with bad input, nothing on stdout, and these parts in its error.
fn refused(command: Command, parts: &[&str]) {
    let shown = format!("{command:?}");
    let done = Done::of(command);
    assert_eq!(
        (done.code, &done.stdout[..]),
        (Some(2), ""),
        "{shown}: {done:?}"
    );
    assert!(done.error().contains("hint: "), "{shown}: {done:?}");
    assert!(
        parts.iter().all(|part| done.error().contains(part)),
        "{shown}: {parts:?} {done:?}"
    );
}

/// A gzipped file of rows behind this many bytes of `filler`, with `last` at the end.
fn bomb(place: &Place, name: &str, first: &str, filler: u8, megabytes: usize, last: &str) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(first.as_bytes()).unwrap();
    for _ in 0..megabytes {
        encoder.write_all(&[filler; 1_000_000]).unwrap();
    }
    encoder.write_all(last.as_bytes()).unwrap();
    place.write(name, encoder.finish().unwrap());
}

#[test]
fn what_unpacks_without_end_is_stopped() {
    let place = Place::new();
    let row = "{\"instruction\": \"a\", \"output\": \"b\"}\n";
    bomb(
        &place,
        "text.jsonl.gz",
        "{\"instruction\": \"",
        b'a',
        80,
        "\", \"output\": \"b\"}\n",
    );
    bomb(&place, "lines.jsonl.gz", "", b'\n', 80, row);
    for name in ["text.jsonl.gz", "lines.jsonl.gz"] {
        let parts = [name, "bytes unpack to more than 64 MB", "--unpack-all"];
        refused(
            place.command(&format!("inspect {name} --model model --rows 1")),
            &parts,
        );
        refused(
            place.command(&format!("eval loss --model model --sft {name}")),
            &parts,
        );
        refused(
            place.command(&format!("generate --model model --prompts {name}")),
            &parts,
        );
        refused(place.train(&format!("--sft {name}")), &parts);
    }
    Done::good(place.command("inspect lines.jsonl.gz --model model --unpack-all --held-out 0"));
    // What is wanted stands before the bomb.
    bomb(&place, "after.jsonl.gz", &row.repeat(200), b'\n', 80, row);
    Done::good(place.command("inspect after.jsonl.gz --model model --rows 4"));
    Done::good(place.command("eval loss --model model --sft after.jsonl.gz --limit 4"));
    refused(
        place.command("inspect after.jsonl.gz --model model"),
        &["--unpack-all"],
    );
}

#[test]
fn rows_beyond_those_that_are_wanted_are_not_read() {
    let place = Place::new();
    let usable = "{\"instruction\": \"Say a.\", \"output\": \"a\"}\n";
    let dropped = "{\"instruction\": \"Say a.\", \"output\": \"\"}\n";
    place.write("broken.jsonl", usable.repeat(70) + "{\"instruction\"");
    let rows = |words: &str| {
        let done = Done::good(place.command(&format!(
            "inspect {words} --model model --held-out 0 --json"
        )));
        done.json()[0]["train_rows"].as_u64().unwrap()
    };
    assert_eq!(rows("broken.jsonl --rows 3"), 3);
    refused(
        place.command("inspect broken.jsonl --model model"),
        &["broken JSON in line 71"],
    );
    // Rows that turn out unusable are made up for, however many there are.
    place.write("late.jsonl", dropped.repeat(500) + &usable.repeat(5));
    assert_eq!(rows("late.jsonl --rows 3"), 3);
}

#[test]
fn control_characters_of_files_are_shown_and_not_sent() {
    let place = Place::new();
    place.edit("model/tokenizer.json", |file| {
        for (id, letter) in ["\u{1b}", "\u{7}", "\r"].iter().enumerate() {
            file["model"]["vocab"][letter] = json!(150 + id);
        }
    });
    let row = json!({"instruction": "\u{1b}]0;pwn\u{7}\u{1b}[2J", "output": "\u{1b}[31mred\r", "\u{1b}[31mcol\n": 1});
    place.rows("esc.jsonl", &[row]);
    let is_hidden = |c: char| c.is_control() && c != '\n';
    let inspected = Done::good(place.command("inspect esc.jsonl --model model --held-out 0"));
    for text in [
        r"\u{1b}]0;pwn\u{7}\u{1b}[2J",
        r"\u{1b}[31mred\r",
        r"columns \u{1b}[31mcol\n",
    ] {
        assert!(inspected.stdout.contains(text), "{text}: {inspected:?}");
    }
    place.write(
        "model/chat_template.jinja",
        "{{ raise_exception('\u{1b}[31mno') }}",
    );
    place.write(
        "plan.toml",
        "probe-every = \"\u{1b}[31m\"\nmethod = \"maxright\"\n".replace('\u{1b}', "\\u001b"),
    );
    let template = Done::of(place.command("inspect sft.jsonl --model model --template chat"));
    let plan = Done::of(place.train("--config plan.toml"));
    assert!(template.stderr.contains(r"\u{1b}[31mno"), "{template:?}");
    assert!(plan.stderr.contains(r"\u{1b}[31m"), "{plan:?}");
    for done in [inspected, template, plan] {
        assert!(
            !done.stdout.contains(is_hidden) && !done.stderr.contains(is_hidden),
            "{done:?}"
        );
    }
}

/// A way to put something else where a file is expected.
type Replace = fn(&Path);

#[test]
fn what_is_no_file_is_not_read() {
    let pipe: Replace =
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let device: Replace = |path| symlink("/dev/zero", path).unwrap();
    let folder: Replace = |path| fs::create_dir(path).unwrap();
    let circle: Replace = |path| symlink(path.file_name().unwrap(), path).unwrap();
    let kinds = [
        (pipe, "a pipe"),
        (device, "a device"),
        (folder, "a folder"),
        (circle, "a broken link"),
    ];
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "config.json",
        "model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "upright_merge.json",
    ] {
        for (replace, what) in kinds {
            let place = Place::new();
            let path = place.path("model").join(name);
            let _ = fs::remove_file(&path);
            replace(&path);
            let command = match name {
                "chat_template.jinja" => place.command(&format!("{INSPECT} --template chat")),
                "generation_config.json" => {
                    place.command("generate --model model --prompts sft.jsonl --max-tokens 1")
                }
                _ => place.command("eval loss --model model --sft sft.jsonl --limit 1"),
            };
            refused(command, &[name, what]);
        }
    }
    for (replace, what) in kinds {
        let place = Place::new();
        replace(&place.path("rows.jsonl"));
        refused(
            place.train("--sft rows.jsonl"),
            &[
                "rows.jsonl",
                if what == "a folder" {
                    "it is a folder"
                } else {
                    what
                },
            ],
        );
        if what != "a folder" {
            refused(
                place.command("inspect rows.jsonl --model model"),
                &["rows.jsonl", what],
            );
        }
    }
}

#[test]
fn a_library_that_panics_is_quiet() {
    let pieces = |value: Value| {
        move |file: &mut serde_json::Map<String, Value>| {
            for (key, value) in value.as_object().unwrap() {
                file[key] = value.clone();
            }
        }
    };
    let replace = |pattern: Value| json!({"normalizer": {"type": "Replace", "pattern": pattern, "content": "bbbb"}});
    let charsmap =
        |map: &str| json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": map}});
    for value in [
        replace(json!({"String": ""})),
        replace(json!({"Regex": ""})),
        charsmap("AAAA"),
        charsmap(""),
        charsmap("BAAAAP////8AAAAA"),
        json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}),
        json!({"post_processor": {"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {}}}),
        json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}}),
    ] {
        let place = Place::new();
        place.edit("model/tokenizer.json", pieces(value.clone()));
        let done = Done::of(place.command(INSPECT));
        // `Done::of` looks for a panic's text. What a library makes of such a file is its own affair.
        if done.code != Some(0) {
            assert_eq!(done.code, Some(2), "{value}: {done:?}");
            assert!(
                done.stderr.starts_with("error: ") && done.error().contains("model/tokenizer.json"),
                "{value}: {done:?}"
            );
        }
    }
}

#[test]
fn losses_of_any_size_are_drawn() {
    let place = Place::new();
    Done::good(place.train("--steps 2 --eval-every 1"));
    let written = String::from_utf8(place.read("run/evals.jsonl")).unwrap();
    for (index, loss) in [1e300, 1e308, 5e-324, 1e-320, -1e308]
        .into_iter()
        .enumerate()
    {
        let mut lines: Vec<Value> = written
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines[1]["eval/loss/sft"] = json!(loss);
        place.rows("run/evals.jsonl", &lines);
        Done::good(place.command(&format!("report run --out page{index}")));
        let page = String::from_utf8(place.read(&format!("page{index}/report.html"))).unwrap();
        assert!(!page.contains("NaN"), "{loss}");
    }
}

#[test]
fn a_report_does_not_write_through_a_link_that_leads_out() {
    let place = Place::new();
    Done::good(place.train("--steps 1"));
    fs::create_dir_all(place.path("run/report")).unwrap();
    fs::create_dir(place.path("victim")).unwrap();
    for (link, target) in [
        ("run/report/figures", "../../victim"),
        ("run/report", "../victim"),
    ] {
        let _ = fs::remove_dir_all(place.path("run/report/tables"));
        let _ = fs::remove_dir(place.path(link));
        symlink(target, place.path(link)).unwrap();
        refused(
            place.command("report run"),
            &[link, "is a link that leads out of", "victim"],
        );
        assert_eq!(
            fs::read_dir(place.path("victim")).unwrap().count(),
            0,
            "{link}"
        );
        fs::remove_file(place.path(link)).unwrap();
    }
    Done::good(place.command("report run"));
}

#[test]
fn a_damaged_run_is_reported_with_a_way_out() {
    let place = Place::new();
    Done::good(place.train("--steps 2 --eval-every 1"));
    let plan = String::from_utf8(place.read("run/plan.toml")).unwrap();
    let evals = place.read("run/evals.jsonl");
    place.write("run/evals.jsonl", [&evals[..], &evals[..]].concat());
    refused(
        place.command("report run"),
        &[
            "no run can be read: ",
            "evals.jsonl: line 4: step is not in order",
        ],
    );
    place.write("run/evals.jsonl", evals);
    place.write(
        "run/plan.toml",
        plan.replacen("seed = 42", "seed = true", 1),
    );
    refused(
        place.command("report run"),
        &["plan.toml, line ", "`seed = true`"],
    );
    // Values of the right type from which no length or order follows.
    let values = [
        (
            "batch = 8",
            "batch = 0",
            "plan.toml: objective sft: batch must be at least 1",
        ),
        (
            "weight = 0.5",
            "weight = -1e308",
            "plan.toml: objective sft: weight must lie between 0 and 1",
        ),
        (
            "weight = 0.5",
            "weight = nan",
            "plan.toml: objective sft: weight must lie between 0 and 1",
        ),
        (
            "[plan.length]",
            "[[plan.stages]]\nobjective = 7\nlength = { steps = 2 }\n\n[plan.length]",
            "index of one of 2 objectives, found `7`",
        ),
    ];
    for (old, new, problem) in values {
        assert!(plan.contains(old), "{old}: {plan}");
        place.write("run/plan.toml", plan.replacen(old, new, 1));
        refused(place.command("report run"), &[problem]);
        refused(place.command("train --resume --out run"), &[problem]);
    }
}

#[test]
fn a_run_whose_records_have_gaps_does_not_go_on() {
    let place = Place::new();
    let words = "--steps 4 --checkpoint-every 2 --eval-every 1";
    Done::good(place.train(words));
    let read = |name: &str| String::from_utf8(place.read(name)).unwrap();
    let (steps, evals) = (read("run/steps.jsonl"), read("run/evals.jsonl"));
    let interrupted = || {
        let _ = fs::remove_dir_all(place.path("run/adapter"));
        let _ = fs::remove_dir_all(place.path("run/checkpoints/step-4"));
        place.write("run/steps.jsonl", &steps);
        place.write("run/evals.jsonl", &evals);
    };
    let without = |text: &str, line: usize| -> String {
        text.split_inclusive('\n')
            .enumerate()
            .filter(|(index, _)| *index != line)
            .map(|(_, line)| line)
            .collect()
    };
    let resume = || place.train(&format!("{words} --resume"));
    for (name, text, step) in [
        ("run/evals.jsonl", String::new(), 0),
        ("run/evals.jsonl", without(&evals, 0), 0),
        ("run/evals.jsonl", without(&evals, 1), 1),
        ("run/steps.jsonl", String::new(), 0),
        ("run/steps.jsonl", without(&steps, 1), 1),
    ] {
        interrupted();
        place.write(name, text);
        let missing = format!(
            "{name}: the line of step {step} is missing, but the newest checkpoint is at step 2"
        );
        refused(resume(), &[&missing, "put the file back"]);
    }
    interrupted();
    Done::good(resume());
    assert_eq!(
        read("run/evals.jsonl").lines().count(),
        evals.lines().count()
    );

    interrupted();
    place.write("run/config.toml", "");
    refused(
        place.command("train --resume --out run"),
        &["run/config.toml: is empty or damaged", "put the file back"],
    );
}

#[test]
fn the_cache_of_a_user_without_a_home_is_their_own() {
    let place = Place::new();
    fs::create_dir(place.path("tmp")).unwrap();
    let user = fs::metadata(place.path("tmp")).unwrap().uid();
    let own = format!("tmp/upright-cache-{user}");
    let train = || {
        let mut command = place.train("--steps 1");
        for name in ["HOME", "UPRIGHT_CACHE", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("TMPDIR", place.path("tmp"));
        command
    };
    let set_mode = |mode: u32| {
        fs::set_permissions(place.path(&own), fs::Permissions::from_mode(mode)).unwrap();
    };
    // Somebody else was first.
    fs::create_dir(place.path(&own)).unwrap();
    set_mode(0o777);
    refused(train(), &[&own, "is writable by others", "UPRIGHT_CACHE"]);
    fs::remove_dir(place.path(&own)).unwrap();
    fs::create_dir(place.path("elsewhere")).unwrap();
    symlink("../elsewhere", place.path(&own)).unwrap();
    refused(train(), &[&own]);
    fs::remove_file(place.path(&own)).unwrap();
    Done::good(train());
    assert_eq!(
        fs::metadata(place.path(&own)).unwrap().mode() & 0o777,
        0o700
    );
}

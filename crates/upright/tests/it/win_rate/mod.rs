//! `upright eval win-rate` with a scripted judge on this machine.

#[path = "../../../../upright-judge/tests/it/scripted.rs"]
mod scripted;
mod study;

use std::{fs, process::Command};

use scripted::{
    Scripted,
    server::{Answer, polite, reply},
};
use serde_json::{Value, json};

use crate::fixture::{Done, Place, preference};

/// A scripted judge for the program's commands.
struct Judge(Scripted);

impl Judge {
    fn new(script: impl Fn(usize, &Value) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self(Scripted::new(script))
    }

    fn polite() -> Self {
        Self::new(|_, request| polite(request))
    }

    fn asked(&self) -> usize {
        self.0.asked()
    }

    fn command(&self, place: &Place, words: &str) -> Command {
        place.command(&format!(
            "eval win-rate --judge-url http://{}/v1 --judge-model scripted {words}",
            self.0.address
        ))
    }

    fn good(&self, place: &Place, words: &str) -> Done {
        Done::good(self.command(place, words))
    }
}

/// Files of answers: the model is polite in the first of three.
fn with_files() -> Place {
    let place = Place::new();
    let row = |instruction: &str, output: &str, generator: &str| json!({"instruction": instruction, "output": output, "generator": generator});
    let own = [
        row("a {output_1}", "Thank you, with pleasure!", "org/own"),
        row("b", "No.", "org/own"),
        row("c", "The same.", "org/own"),
    ];
    let other = [
        row("a {output_1}", "Yes.", "other"),
        row("b", "Sorry, no.", "other"),
        row("c", "The same.", "other"),
    ];
    let reference = [
        row("a {output_1}", "Yes <|im_end|>", "base"),
        row("b", "Please, no.", "base"),
        row("c", "The same.", "base"),
    ];
    for (name, rows) in [("own", own), ("other", other), ("reference", reference)] {
        place.write(&format!("{name}.json"), json!(rows).to_string());
    }
    place
}

const FILES: &str = "--outputs own.json --reference reference.json";

#[test]
fn files_of_answers_are_judged_and_alpaca_eval_can_read_the_result() {
    let (place, judge) = (with_files(), Judge::polite());
    let words = format!("{FILES} --outputs other.json --out judged --json");
    let done = judge.good(&place, &words);
    let object = &done.json()[0];
    let [own, other] = &object["models"].as_array().unwrap()[..] else {
        panic!("{object}");
    };
    assert_eq!(own["model"], "org/own");
    assert_eq!(
        (&own["wins"], &own["ties"], &own["losses"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!((&own["missing"], &own["flips"]), (&json!(0), &json!(0)));
    assert!(
        other["points_over_first"].as_f64().unwrap() < 0.0,
        "{other}"
    );
    // Two orders of two pairs, for two models.
    assert_eq!(judge.asked(), 8);

    let rows: Value =
        serde_json::from_slice(&place.read("judged/org__own/annotations.json")).unwrap();
    let first = &rows[0];
    assert_eq!(first["instruction"], "a {output_1}");
    assert_eq!(
        (&first["generator_1"], &first["generator_2"]),
        (&json!("base"), &json!("org/own"))
    );
    assert!(first["preference"].as_f64().unwrap() > 1.5, "{first}");
    assert_eq!(rows[2]["preference"], 1.5);
    let table = String::from_utf8(place.read("judged/org__own/leaderboard.csv")).unwrap();
    let start = ",win_rate,standard_error,mode,avg_length,n_wins,n_wins_base,n_draws,n_total,discrete_win_rate";
    assert!(table.starts_with(start), "{table}");
    // Texts are data: neither placeholders nor marks of chats in them mean anything.
    let requests = judge.0.requests.lock().unwrap();
    for request in requests.iter() {
        assert_eq!(request["messages"].as_array().unwrap().len(), 2);
    }
    let asked = |text: &str| {
        let contents = requests
            .iter()
            .filter_map(|request| request["messages"][1]["content"].as_str());
        contents.filter(|content| content.contains(text)).count()
    };
    assert_eq!(asked("\"instruction\": \"\"\"a {output_1}\"\"\""), 4);
    assert_eq!(asked("\"output\": \"\"\"Yes <|im_end|>\"\"\""), 4);
    drop(requests);

    let text = judge.good(&place, FILES).stdout;
    assert!(
        text.starts_with("win rate against base, in % ± standard error\n"),
        "{text}"
    );
    assert!(
        text.contains("the winner changes with the order in 0.0% of 2 pairs"),
        "{text}"
    );
    assert_eq!(judge.asked(), 8, "known verdicts are not asked again");
}

#[test]
fn a_model_answers_and_a_second_start_asks_only_what_is_missing() {
    let place = Place::new();
    place.adapter("adapter", "llama");
    let rows: Vec<Value> = (0..6).map(preference).collect();
    place.rows("pairs.jsonl", &rows);
    let words = "--model model --adapter adapter --with-base --prompts pairs.jsonl --template raw --max-tokens 5";
    // The third reply and all later ones fail.
    let broken = Judge::new(|number, request| match number {
        0..2 => Some((200, String::new(), reply(request, 0.3).to_string())),
        _ => Some((
            400,
            String::new(),
            json!({"error": {"message": "no more"}}).to_string(),
        )),
    });
    let done = Done::of(broken.command(&place, &format!("{words} --parallel 1")));
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.error().contains("no more"), "{done:?}");
    let count = |folder: &str| -> usize {
        let mut lines = 0;
        for entry in fs::read_dir(place.path(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "jsonl") {
                lines += fs::read_to_string(path).unwrap().lines().count();
            }
        }
        lines
    };
    assert_eq!(
        count("cache/answers"),
        12,
        "answers of both models are kept"
    );
    assert_eq!(count("cache/judge-replies"), 2);

    // The same judge at the same address, now well: only what is missing is asked.
    let replies = "--replies replies.jsonl";
    let judge = Judge::polite();
    let object = judge
        .good(&place, &format!("{words} {replies} --json"))
        .json()[0]
        .clone();
    // Equal answers of both models are judged once.
    let asked = judge.asked();
    assert!((12..=24).contains(&asked), "{asked}");
    let models = object["models"].as_array().unwrap();
    assert_eq!(
        (&models[0]["model"], &models[1]["model"]),
        (&json!("model"), &json!("adapter"))
    );
    assert_eq!(models[0]["pairs"], 6);
    // One reply is lost. The rest is known.
    let text = String::from_utf8(place.read("replies.jsonl")).unwrap();
    let shorter: String = text
        .lines()
        .take(asked - 1)
        .map(|line| format!("{line}\n"))
        .collect();
    place.write("replies.jsonl", format!("{shorter}{{\"key\": \"torn"));
    let again = judge
        .good(&place, &format!("{words} {replies} --json"))
        .json()[0]
        .clone();
    assert_eq!(again, object);
    assert_eq!(judge.asked(), asked + 1);
    assert_eq!(
        count("cache/answers"),
        12,
        "answers are not generated again"
    );
}

#[test]
fn answers_do_not_depend_on_an_interruption() {
    let place = Place::new();
    place.rows("pairs.jsonl", &(0..6).map(preference).collect::<Vec<_>>());
    let judge = Judge::polite();
    let words = "--model model --prompts pairs.jsonl --template raw --max-tokens 6 --temperature 1 --batch 2 --out";
    judge.good(&place, &format!("{words} straight"));
    let file = fs::read_dir(place.path("cache/answers"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let kept: String = text
        .lines()
        .take(3)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&file, format!("{kept}{{\"prompt\": \"to")).unwrap();
    judge.good(&place, &format!("{words} resumed"));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let answers = |folder: &str| place.read(&format!("{folder}/model/model_outputs.json"));
    assert_eq!(answers("straight"), answers("resumed"));
}

#[test]
fn missing_verdicts_are_counted_bounded_and_an_error_above_a_twentieth() {
    let place = with_files();
    let judge = Judge::new(|number, request| match number {
        0 => Some((
            200,
            String::new(),
            "{\"choices\": [{\"message\": {\"content\": \"Both.\"}}]}".into(),
        )),
        _ => polite(request),
    });
    let words = format!("{FILES} --protocol fn --parallel 1");
    let done = Done::of(judge.command(&place, &words));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.error().contains("1 verdict of 3 are missing"),
        "{done:?}"
    );
    assert!(
        done.stdout.contains("if all were lost and"),
        "{}",
        done.stdout
    );
    let done = judge.good(&place, &words);
    assert_eq!(judge.asked(), 3, "{done:?}");
}

#[test]
fn the_cost_is_known_before_the_first_request() {
    let (place, judge) = (with_files(), Judge::polite());
    let words = format!("{FILES} --judge-price 1000,1000");
    let plan = judge
        .good(&place, &format!("{words} --dry-run --json"))
        .json()[0]
        .clone();
    assert_eq!((&plan["calls"], &plan["known"]), (&json!(4), &json!(0)));
    assert!(plan["cost_usd"].as_f64().unwrap() > 0.5, "{plan}");
    let text = judge.good(&place, &format!("{words} --dry-run")).stdout;
    assert!(
        text.starts_with("1 model, 4 requests to scripted"),
        "{text}"
    );
    let replies = fs::read_dir(place.path("cache/judge-replies")).unwrap();
    assert_eq!(replies.count(), 0, "a dry run writes no file");
    let done = Done::of(judge.command(&place, &format!("{words} --max-cost 0.01")));
    assert_eq!((done.code, judge.asked()), (Some(2), 0), "{done:?}");
    assert!(done.error().contains("max-cost is 0.01"), "{done:?}");
    let rows: Vec<Value> = (0..4).map(preference).collect();
    place.rows("pairs.jsonl", &rows);
    let plan = judge
        .good(
            &place,
            "--model model --prompts pairs.jsonl --dry-run --json",
        )
        .json()[0]
        .clone();
    assert_eq!(
        (&plan["calls"], &plan["cost_usd"]),
        (&json!(8), &Value::Null)
    );
    assert_eq!(judge.asked(), 0);
    judge.good(&place, &format!("{words} --max-cost 5"));
    assert_eq!(judge.asked(), 4);
}

#[test]
fn a_key_comes_from_a_variable_and_is_written_nowhere() {
    let place = with_files();
    let judge = Judge::polite();
    let words = format!("{FILES} --judge-key-env JUDGE_KEY --out judged --json");
    let unset = Done::of(judge.command(&place, &words));
    assert_eq!(unset.code, Some(2), "{unset:?}");
    assert!(
        unset.error().contains("JUDGE_KEY is empty or not set"),
        "{unset:?}"
    );
    let mut command = judge.command(&place, &words);
    command.env("JUDGE_KEY", "sk-very-secret");
    let done = Done::good(command);
    assert!(!format!("{done:?}").contains("very-secret"));
    let mut folders = vec![place.path("judged"), place.path("cache")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                assert!(
                    !String::from_utf8_lossy(&bytes).contains("very-secret"),
                    "{}",
                    path.display()
                );
            }
        }
    }
    let mut command = place.command(&format!(
        "eval win-rate {FILES} --judge-url http://judge.example.com/v1 --judge-model m --judge-key-env JUDGE_KEY"
    ));
    command.env("JUDGE_KEY", "sk-very-secret");
    let done = Done::of(command);
    assert_eq!(done.code, Some(2));
    assert!(done.error().contains("unencrypted"), "{done:?}");
}

#[test]
fn as_in_the_paper_keeps_labels_and_asks_for_a_ranking() {
    let place = Place::new();
    let row = json!({"prompt": "Human: hi\n\n", "chosen": "Assistant: hello", "rejected": "Assistant: no"});
    place.rows("pairs.jsonl", &[row]);
    let judge = Judge::polite();
    // The tiny model's context does not hold the paper's 1024 new tokens.
    place.edit("model/config.json", |config| {
        config.insert("max_position_embeddings".into(), json!(2048));
    });
    let done = judge.good(
        &place,
        "--model model --prompts pairs.jsonl --as-in-paper --judge-options {\"seed\":1}",
    );
    assert!(
        done.stderr
            .contains("the paper takes 640 prompts, but the rows have 1"),
        "{done:?}"
    );
    let requests = judge.0.requests.lock().unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (&requests[0]["max_tokens"], &requests[0]["seed"]),
        (&json!(100), &json!(1))
    );
    assert!(requests[0].get("tools").is_some());
    let content = requests[0]["messages"][1]["content"].as_str().unwrap();
    assert!(
        content.contains("\"\"\"Assistant: hello\"\"\"")
            && content.contains("\"\"\"Human: hi\n\n\"\"\"")
    );
}

#[test]
fn mistakes_end_before_anything_is_asked() {
    let (place, judge) = (with_files(), Judge::polite());
    place.rows("pairs.jsonl", &[preference(0)]);
    place.write(
        "twice.json",
        r#"[{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "c"}]"#,
    );
    place.write("others.json", r#"[{"instruction": "z", "output": "b"}]"#);
    for (words, part) in [
        ("", "required"),
        ("--outputs own.json", "--reference"),
        ("--model model", "--prompts"),
        (
            "--model model --outputs own.json --reference reference.json",
            "cannot be used with",
        ),
        (
            "--outputs own.json --reference reference.json --temperature 1",
            "cannot be used with",
        ),
        (
            "--outputs none.json --reference reference.json",
            "none.json",
        ),
        (
            "--outputs twice.json --reference reference.json",
            "rows 0 and 1 have the same instruction",
        ),
        (
            "--outputs others.json --reference reference.json",
            "share no instruction",
        ),
        (
            "--outputs own.json --outputs own.json --reference reference.json",
            "`org/own` is given twice",
        ),
        (
            "--outputs own.json --reference reference.json --protocol rank",
            "protocol",
        ),
        (
            "--outputs own.json --reference reference.json --judge-price 1",
            "judge-price must be two numbers",
        ),
        (
            "--outputs own.json --reference reference.json --max-cost 1",
            "max-cost needs the judge's prices",
        ),
        (
            "--outputs own.json --reference reference.json --judge-options [1]",
            "judge-options must be a JSON object",
        ),
        (
            "--outputs own.json --reference reference.json --replies .",
            "is a folder",
        ),
        ("--model model --prompts sft.jsonl", "sft.jsonl"),
        (
            "--model model --prompts pairs.jsonl --limit 0",
            "limit must be",
        ),
    ] {
        let done = Done::of(judge.command(&place, words));
        assert_eq!(done.code, Some(2), "{words}: {done:?}");
        assert!(done.error().contains(part), "{words}: {done:?}");
    }
    assert_eq!(judge.asked(), 0);
}

#[test]
fn a_full_disk_and_a_kill_lose_no_reply_that_was_kept() {
    let (place, judge) = (with_files(), Judge::polite());
    let words = format!("{FILES} --parallel 1 --replies replies.jsonl");
    let command = judge.command(&place, &words);
    // A file may not grow beyond one block, as on a full disk.
    let mut shell = place.command("");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    shell = {
        let mut limited = Command::new("sh");
        limited
            .args(["-c", script])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in shell.get_envs() {
            limited.env(name, value.unwrap_or_default());
        }
        limited.current_dir(place.path(""));
        limited
    };
    let done = Done::of(shell);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.error().contains("replies.jsonl") && done.error().contains("free some space"),
        "{done:?}"
    );
    let whole = || -> usize {
        let text = String::from_utf8(place.read("replies.jsonl")).unwrap();
        text.lines()
            .filter(|line| serde_json::from_str::<Value>(line).is_ok())
            .count()
    };
    let kept = whole();
    assert!(kept < 4, "{kept}");
    let before = judge.asked();
    judge.good(&place, &words);
    assert_eq!(
        judge.asked() - before,
        4 - kept,
        "only what is missing is asked"
    );

    // Killed while the third reply is under way.
    place.write("replies.jsonl", "");
    let slow = Judge::new(|number, request| {
        if number == 2 {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        polite(request)
    });
    let mut child = slow.command(&place, &words).spawn().unwrap();
    while slow.asked() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(whole(), 2);
    slow.good(&place, &words);
    assert_eq!(slow.asked(), 5, "two replies were kept");
}

//! `upright inspect --similarity`: what is compared, listed and written.

use crate::fixture::{Done, Place};
use serde_json::{Value, json};

/// Every character is a token, so cosines can be worked out by hand.
fn place() -> Place {
    let place = Place::new();
    let instruction =
        |prompt: &str, output: &str| json!({"instruction": prompt, "input": "", "output": output});
    place.rows(
        "few.jsonl",
        &[
            instruction("xyz", "nothing"),
            instruction("aab", "kk"),
            instruction("ccd", "lm"),
        ],
    );
    let pair = |prompt: &str, chosen: &str, rejected: &str| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected});
    place.rows(
        "pairs.jsonl",
        &[
            pair("ab", "kkk", "m"),
            pair("dropped", "same", "same"),
            pair("cdc", "q", "lmlm"),
            pair("777", "a", "b"),
        ],
    );
    place
}

const COMPARE: &str = "inspect --similarity --sft few.jsonl --dpo pairs.jsonl --model model";

/// "ab" beside "aab": (2 + 1) / (sqrt 2 sqrt 5). Row 2 beside "ccd": the same counts, so 1, first in rank, and the worst
/// conflict: its chosen answer has nothing of "lm". Row 3 has nothing in common with any: the first, at 0.
#[test]
fn pairs_are_ranked_and_conflicts_listed() {
    let place = place();
    let report =
        &Done::good(place.command(&format!("{COMPARE} --json --out compared --show 1"))).json()[0];
    assert_eq!(
        (&report["sft_rows"], &report["dpo_rows"]),
        (&json!(3), &json!(3))
    );
    let worst = &report["conflicts"][0];
    assert_eq!(
        (&worst["dpo_row"], &worst["sft_row"], &worst["chosen"]),
        (&json!(2), &json!(2), &json!(0.0))
    );
    assert_eq!(
        (&worst["dpo_prompt"], &worst["sft_answer"]),
        (&json!("cdc"), &json!("lm"))
    );
    assert_eq!(report["conflicts"].as_array().unwrap().len(), 1);
    let lines = String::from_utf8(place.read("compared/similarity.jsonl")).unwrap();
    let pairs: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let found = |key: &str| {
        pairs
            .iter()
            .map(|pair| pair[key].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let close = |key: &str, expected: [f64; 3]| {
        assert!(
            found(key)
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-12),
            "{key}: {:?}",
            found(key)
        );
    };
    close("dpo_row", [2.0, 0.0, 3.0]);
    close("sft_row", [2.0, 1.0, 0.0]);
    close("prompts", [1.0, 3.0 / 10f64.sqrt(), 0.0]);
    close("chosen", [0.0, 1.0, 0.0]);
    close("rejected", [1.0, 0.0, 0.0]);
    close("chosen_rejected", [0.0, 0.0, 0.0]);
    assert!(
        String::from_utf8(place.read("compared/similarity.svg"))
            .unwrap()
            .contains("cosine")
    );
    assert!(
        place
            .read("compared/similarity.png")
            .starts_with(b"\x89PNG")
    );
}

#[test]
fn the_text_shows_both_rows_and_rows_can_be_capped() {
    let place = place();
    let text = Done::good(place.command(&format!("{COMPARE} --threads 1"))).stdout;
    for part in [
        "median",
        "prompts 1.000, chosen 0.000, rejected 1.000",
        "dpo row 2",
        "sft row 2",
        "cdc",
        "ccd",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let capped = &Done::good(place.command(&format!("{COMPARE} --json --sft-rows 1 --dpo-rows 2")))
        .json()[0];
    assert_eq!(
        (&capped["sft_rows"], &capped["dpo_rows"]),
        (&json!(1), &json!(2))
    );
    place.rows(
        "q.jsonl",
        &[
            json!({"q": "xyz", "a": "nothing"}),
            json!({"q": "ccd", "a": "lm"}),
        ],
    );
    let words = COMPARE.replace(
        "few.jsonl",
        "q.jsonl --sft-map prompt=q,completion=a --dpo-map system= --show 1",
    );
    let mapped = &Done::good(place.command(&format!("{words} --json"))).json()[0];
    assert_eq!(
        (&mapped["sft_rows"], &mapped["conflicts"][0]["sft_answer"]),
        (&json!(2), &json!("lm"))
    );
}

#[test]
fn mistakes_are_told() {
    let place = place();
    place.rows(
        "same.jsonl",
        &[json!({"prompt": "a", "chosen": "b", "rejected": "b"})],
    );
    for (words, part) in [
        ("inspect --model model", "DATA"),
        (
            "inspect --similarity --model model --sft few.jsonl",
            "--dpo",
        ),
        (
            "inspect pairs.jsonl --model model --dpo pairs.jsonl",
            "--similarity",
        ),
        (
            "inspect pairs.jsonl --similarity --model model --sft few.jsonl --dpo pairs.jsonl",
            "--similarity",
        ),
        (
            "inspect --similarity --model model --sft few.jsonl --dpo pairs.jsonl --template raw",
            "--template",
        ),
        (
            "inspect --similarity --model model --sft few.jsonl --dpo pairs.jsonl --map prompt=a",
            "--map",
        ),
        (
            "inspect --similarity --model model --sft few.jsonl --dpo pairs.jsonl --dpo-map prompt=a",
            "no column \"a\"",
        ),
        (
            "inspect --similarity --model model --sft pairs.jsonl --dpo few.jsonl",
            "pairs.jsonl",
        ),
        (
            "inspect --similarity --model model --sft few.jsonl --dpo same.jsonl",
            "chosen equals rejected",
        ),
        (
            "inspect --similarity --model model --sft few.jsonl --dpo pairs.jsonl --sft-rows 0",
            "sft-rows",
        ),
        (
            "inspect --similarity --model model --sft few.jsonl --dpo nothing.jsonl",
            "nothing.jsonl",
        ),
        (
            "inspect --similarity --model model --sft few.jsonl --dpo pairs.jsonl --out few.jsonl",
            "out must be a folder",
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

//! What a run prints before and after its steps: the plan, its time, optima, and what went wrong in silence.

use crate::fixture::{Done, Place};
use serde_json::Value;

const TWO: &str = "--sft sft.jsonl --dpo dpo.jsonl";

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let place = Place::new();
    let words = format!("{TWO} --reference train:chosen --steps 30 --eval-every 10 --dry-run");
    let done = Done::good(place.train(&words));
    for part in [
        "plan: 30 steps of alright, ",
        "  sft         weight 0.5, 8 per step of ",
        " training rows (",
        "  adapter     LoRA rank 2, alpha 2, on all linear layers: ",
        "  optimizer   AdamW, learning rate ",
        "  reference   an adapter for the chosen responses, trained first in ",
        " rows to score (",
        "  training    ",
        " per step\n",
        "  evaluation  4 times, ",
    ] {
        assert!(done.stdout.contains(part), "{part:?}: {}", done.stdout);
    }
    assert!(!place.path("run").exists());
    assert!(!place.path("cache/references").exists());

    let done = Done::good(place.train(&format!("{words} --json")));
    let [line] = &done.json()[..] else {
        panic!("{done:?}")
    };
    assert_eq!(line["steps"], 30);
    assert_eq!(
        line["adapter"]["targets"],
        serde_json::json!(["all-linear"])
    );
    assert!(line["reference"]["steps"].as_u64().unwrap() > 0);
    let seconds = |key: &str| line["seconds"][key].as_f64().unwrap();
    let parts = [
        "reference_training",
        "reference_scoring",
        "steps",
        "evaluations",
    ];
    let sum: f64 = parts.iter().map(|key| seconds(key)).sum();
    assert!(parts.iter().all(|key| seconds(key) > 0.0), "{line}");
    assert!((sum - seconds("total")).abs() < 1e-9 * sum, "{line}");

    // A run shows the same before its first step.
    let run = Done::good(place.train(&format!("{TWO} --steps 2")));
    assert!(run.stderr.contains("plan: 2 steps of alright, "), "{run:?}");
    assert!(
        run.stderr.contains("  reference   the base model; "),
        "{run:?}"
    );
}

#[test]
fn sequential_and_a_finished_reference_are_outlined() {
    let place = Place::new();
    let words = format!("{TWO} --reference train:chosen --method sequential --stages dpo:3,sft:1");
    Done::good(place.train(&format!("{words} !--steps")));
    let dry = format!("{words} !--steps --dry-run --json --out other");
    let line = Done::good(place.train(&dry)).json()[0].clone();
    assert_eq!(line["reference"]["steps"], Value::Null, "the cache has it");
    let steps = |index: usize| line["objectives"][index]["steps"].as_f64().unwrap();
    assert_eq!((steps(0), steps(1)), (1.0, 3.0));
}

#[test]
fn an_objective_that_was_never_trained_on_is_a_warning() {
    let place = Place::new();
    let done = Done::good(place.train(&format!("{TWO} --method maxright --steps 3")));
    assert!(
        done.stderr.contains(
            "warning: dpo was never trained on: none of 3 steps chose it. Without optima, maxright"
        ),
        "{done:?}"
    );
    let done = Done::good(place.train(&format!("{TWO} --method mix --steps 1 --out mix")));
    assert!(!done.stderr.contains("never trained on"), "{done:?}");
    assert!(!done.stdout.contains("for maxright"), "{done:?}");
}

#[test]
fn a_run_of_one_objective_prints_its_optimum_as_flags() {
    let place = Place::new();
    let done = Done::good(place.train(&format!("{TWO} --lambda 0 --steps 2 --held-out 0.3")));
    let line = done
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("for maxright: "))
        .unwrap_or_else(|| panic!("{done:?}"));
    let evals = String::from_utf8(place.read("run/evals.jsonl")).unwrap();
    let last: Value = serde_json::from_str(evals.lines().last().unwrap()).unwrap();
    let loss = |set: &str| last[format!("{set}/loss/sft")].as_f64().unwrap();
    let expected = format!(
        "--optimum sft={:.4} --optimum-eval sft={:.4}",
        loss("fit"),
        loss("eval")
    );
    assert_eq!(line, expected);
    // The flags are accepted as they are printed.
    let joint = format!("{TWO} --method maxright --steps 1 --out joint {line}");
    Done::good(place.train(&joint));
}

#[test]
fn a_finished_run_says_that_it_is_finished() {
    let place = Place::new();
    let words = format!("{TWO} --steps 2");
    let first = Done::good(place.train(&words));
    let again = Done::good(place.train(&format!("{words} --resume")));
    assert_eq!(first.stdout, again.stdout);
    let expected = "run: already finished, with 2 steps; --resume with a larger --steps extends it";
    assert!(again.stderr.contains(expected), "{again:?}");
}

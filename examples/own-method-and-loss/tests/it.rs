//! The program with a method and a loss of its own: help, a run, a study and its report know both.

#![allow(clippy::disallowed_methods, reason = "tests write what they like")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/upright/demo");

/// Runs the program in a folder. Returns what it printed.
fn run(folder: &Path, words: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_own-method-and-loss"))
        .args(words)
        .current_dir(folder)
        .env("UPRIGHT_CACHE", folder.join("cache"))
        .env("UPRIGHT_CPU", "portable")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let notes = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words:?}: {text}{notes}");
    text + &notes
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn help_names_the_method_the_loss_and_their_settings() {
    let place = tempfile::tempdir().unwrap();
    let help = run(place.path(), &["train", "--help"]);
    for part in [
        "sequential, mix, alright, maxright, compromise, turns",
        "--turn-length <STEPS>",
        "orpo, simpo, hinge",
        "--dpo-delta <NATS>",
    ] {
        let joined = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.contains(part), "{part}: {help}");
    }
}

#[test]
fn a_run_trains_with_both_and_continues() {
    let place = tempfile::tempdir().unwrap();
    let model = format!("{DEMO}/model");
    let sft = format!("{DEMO}/instructions.jsonl");
    let dpo = format!("{DEMO}/preferences.jsonl");
    let train = |steps: &str| {
        let words = [
            "train",
            "--model",
            &model,
            "--sft",
            &sft,
            "--dpo",
            &dpo,
            "--sft-rows",
            "20",
            "--dpo-rows",
            "20",
            "--eval-rows",
            "4",
            "--max-length",
            "64",
            "--threads",
            "1",
            "--lora-rank",
            "2",
            "--method",
            "turns",
            "--turn-length",
            "3",
            "--dpo-loss",
            "hinge",
            "--dpo-delta",
            "0.5",
            "--steps",
            steps,
            "--resume",
            "--out",
            "run",
        ];
        run(place.path(), &words)
    };
    train("5");
    train("8");
    let mut trained = Vec::new();
    for line in lines(&place.path().join("run/steps.jsonl")) {
        assert_ne!(
            line.get("loss/sft").is_some(),
            line.get("loss/dpo").is_some()
        );
        trained.push(line.get("loss/dpo").is_some());
    }
    assert_eq!(
        trained,
        [false, false, false, true, true, true, false, false]
    );
    // A pair without a preference has the loss delta, and none has less than 0.
    for line in lines(&place.path().join("run/evals.jsonl")) {
        let loss = line["eval/loss/dpo"].as_f64().unwrap();
        assert!(loss >= 0.0, "{line}");
    }
    let plan = fs::read_to_string(place.path().join("run/plan.toml")).unwrap();
    for part in [
        "method = \"turns\"",
        "turn-length = 3",
        "loss = \"hinge\"",
        "delta = 0.5",
    ] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
}

#[test]
fn a_study_compares_them_and_its_report_names_them() {
    let place = tempfile::tempdir().unwrap();
    let study = format!(
        "seeds = [1]\n[settings]\nmodel = \"{DEMO}/model\"\nsft = \"{DEMO}/instructions.jsonl\"\n\
         dpo = \"{DEMO}/preferences.jsonl\"\nsteps = 6\nsft-rows = 20\ndpo-rows = 20\neval-rows = 4\n\
         max-length = 64\nlora-rank = 2\nthreads = 1\n\
         [[sweep]]\nmethods = [\"mix\", \"turns\"]\nbaselines = \"hinge\"\nlambdas = [0.5]\nturn-length = [1, 3]\n\
         front = \"none\"\n[baseline.hinge]\ndelta = 0.25\n"
    );
    fs::write(place.path().join("study.toml"), study).unwrap();
    run(
        place.path(),
        &["experiment", "study.toml", "--out", "study"],
    );
    let report = place.path().join("study/report");
    let ends = fs::read_to_string(report.join("tables/cost.csv")).unwrap();
    for arm in ["turns, turn-length 1", "turns, turn-length 3", "hinge"] {
        assert!(ends.contains(arm), "{arm}: {ends}");
    }
    assert!(!ends.contains("maxright"), "{ends}");
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    for part in [
        "The objectives take turns of a few steps each.",
        "Turns gives every objective a turn",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let mut names: Vec<String> = Vec::new();
    for folder in fs::read_dir(place.path().join("study/runs")).unwrap() {
        names.push(folder.unwrap().file_name().into_string().unwrap());
    }
    for name in ["turns-lambda-0.5-length-1-seed-1-", "hinge-seed-1-"] {
        assert!(
            names.iter().any(|other| other.starts_with(name)),
            "{names:?}"
        );
    }
}

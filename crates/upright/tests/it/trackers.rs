//! `--report-to`, `--tensorboard` and their keys.

use std::fs;

use crate::runs_fixture::{
    Fixture, TWO,
    study::{SETTINGS, Study},
};

/// Number of event files of a run; 0 without a folder for them.
fn event_files(fixture: &Fixture, run: &str) -> usize {
    fs::read_dir(fixture.path(run).join("tensorboard")).map_or(0, Iterator::count)
}

#[test]
fn a_run_reports_to_the_trackers_that_it_names() {
    let fixture = Fixture::new("llama");
    let flags = format!("{TWO} --steps 1 --eval-rows 2");
    for (run, words, files) in [
        ("nobody", "", 0),
        ("none", "--report-to none", 0),
        ("name", "--report-to tensorboard", 1),
        ("short", "--tensorboard", 1),
        ("both", "--report-to tensorboard --tensorboard", 1),
    ] {
        fixture.train(run, &format!("{flags} {words}")).good();
        assert_eq!(event_files(&fixture, run), files, "{words}");
    }
    // A tracker changes no record.
    let evals = |run: &str| fs::read(fixture.path(run).join("evals.jsonl")).unwrap();
    assert_eq!(evals("nobody"), evals("both"));
}

#[test]
fn a_config_file_names_trackers_and_a_resumed_run_keeps_them() {
    let fixture = Fixture::new("llama");
    fs::write(fixture.path("run.toml"), "report-to = ['tensorboard']\n").unwrap();
    let flags = format!("{TWO} --steps 2 --eval-rows 2");
    fixture
        .train("run", &format!("--config run.toml {flags}"))
        .good();
    assert_eq!(event_files(&fixture, "run"), 1);
    let resumed = "--resume --steps 3 --model model --config run/config.toml";
    fixture.train("run", resumed).good();
    assert_eq!(event_files(&fixture, "run"), 2);
    // A flag replaces the key of the file.
    let silent = format!("--config run.toml --report-to none {flags}");
    fixture.train("silent", &silent).good();
    assert_eq!(event_files(&fixture, "silent"), 0);
}

#[test]
fn unknown_trackers_are_named_before_anything_is_written() {
    let fixture = Fixture::new("llama");
    for (words, message, hint) in [
        (
            "--report-to trackio",
            "report-to must be one of none, tensorboard, found `trackio`",
            "wandb sync",
        ),
        (
            "--report-to tensorbord",
            "found `tensorbord`",
            "did you mean `tensorboard`?",
        ),
        (
            "--report-to none --tensorboard",
            "report-to must not name none beside tensorboard, found `none`",
            "leave out one of them",
        ),
    ] {
        let ended = fixture.train("run", &format!("{TWO} --steps 1 {words}"));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(message), "{}", ended.stderr);
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
        assert!(!fixture.path("run").exists(), "{words}");
    }
}

#[test]
fn the_runs_of_a_study_report_too() {
    let study = Study::new();
    let text = |name: &str| {
        let settings = SETTINGS.replace("steps = 8", &format!("steps = 1\nreport-to = '{name}'"));
        format!(
            "seeds = [1]\n{settings}\n[[sweep]]\nmethods = ['mix']\nlambdas = [0.5]\nfront = 'none'\n"
        )
    };
    study.write("wrong.toml", &text("mlflow"));
    let ended = study.run("wrong.toml --out wrong");
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("found `mlflow`"), "{}", ended.stderr);
    study.write("study.toml", &text("tensorboard"));
    let done = study.json("study.toml --out out");
    let folder = study.folder(&done, "mix-lambda-0.5-seed-1");
    assert_eq!(event_files(&study.fixture, &folder), 1);
}

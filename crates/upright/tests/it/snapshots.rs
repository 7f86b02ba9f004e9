//! Texts that a user reads, whole: a change to one of them shows in the diff. `INSTA_UPDATE=always` writes them anew.

use insta::assert_snapshot;
use upright_base::progress::Silent;
use upright_report::Report;

use crate::{
    fixture::{Done, Place},
    report::story,
};

/// Compares a text with its snapshot, without what differs between machines and runs.
pub(crate) fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in [
        (r"/tmp/[^/\s]+", "[tmp]"),
        (r"\d+(\.\d+)? GB", "[n] GB"),
        (r"\d+(\.\d+)? s\b", "[n] s"),
        (r"\d+ tokens/s", "[n] tokens/s"),
        (r"f32x\d+", "f32x[n]"),
        (r"(?m)^cores +\d+$", "cores [n]"),
        (r"(?:about|under) (?:[0-9.]+|\[n\]) (?:s|min|h)\b", "[time]"),
        (r"(?m)^tiers .*$", "tiers [list]"),
        (r"(?m)^mpi .*$(\nnccl .*$)?", "mpi [list]"),
        (r"[0-9a-f]{32,}", "[hash]"),
    ] {
        settings.add_filter(pattern, replacement);
    }
    settings.bind(|| assert_snapshot!(name, text));
}

/// What a command prints, on both streams.
fn both(done: &Done) -> String {
    format!("{}---- stderr\n{}", done.stdout, done.stderr)
}

#[test]
fn help() {
    let place = Place::new();
    check("help", &Done::good(place.command("--help")).stdout);
    check(
        "help-generate",
        &Done::good(place.command("generate --help")).stdout,
    );
}

#[test]
fn final_table() {
    let place = Place::new();
    let done = Done::good(place.train("--steps 4 --optimum sft=1,dpo=0.1 --method maxright"));
    check("train", &both(&done));
}

#[test]
fn doctor() {
    let place = Place::new();
    check(
        "doctor",
        &Done::good(place.command("doctor --model model")).stdout,
    );
}

#[test]
fn inspect() {
    let place = Place::new();
    let done = Done::good(place.command("inspect dpo.jsonl --model model --show 1"));
    check("inspect", &both(&done));
}

#[test]
fn errors() {
    let place = Place::new();
    place.write(
        "broken.jsonl",
        "{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": 3}\n",
    );
    let mut text = String::new();
    for words in [
        "train --model nowhere --sft sft.jsonl --steps 1 --out x",
        "train --model model --sft broken.jsonl --steps 1 --out x",
        "train --model model --sft sft.jsonl --steps 1 --out x --learning-rate fast",
        "train --model model --sft sft.jsonl --steps 1 --out x --device cuda:1",
        "report nowhere --out x",
    ] {
        let done = Done::of(place.command(words));
        assert_eq!(done.code, Some(2), "{done:?}");
        text += &format!("$ upright {words}\n{}\n", done.stderr);
    }
    check("errors", &text);
}

#[test]
fn page_and_figure() {
    let study = story();
    let out = study.path().join("report");
    let page = Report::read(&[study.path()])
        .unwrap()
        .write(&out, &mut Silent)
        .unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    // The page's words without its rules and pictures, which have snapshots of their own.
    let mut words = String::new();
    let mut rest = &page[..];
    while let Some(start) = ["<style", "<svg"]
        .iter()
        .filter_map(|tag| rest.find(tag))
        .min()
    {
        let end = if rest[start..].starts_with("<svg") {
            "</svg>"
        } else {
            "</style>"
        };
        words += &rest[..start];
        let length = rest[start..].find(end).unwrap() + end.len();
        rest = &rest[start + length..];
    }
    words += rest;
    check("page", &words);
    let figure = std::fs::read_to_string(out.join("figures/gaps.svg")).unwrap();
    check("figure", &figure);
}

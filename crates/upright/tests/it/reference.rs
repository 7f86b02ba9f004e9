//! `docs/reference.md` and the completions say what the program understands.

use std::{fs, path::Path, process::Command};

fn said(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_upright"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_reference_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let printed = said(&["reference"]);
    let written = fs::read_to_string(&path).unwrap_or_default();
    let place = printed
        .lines()
        .zip(written.lines())
        .position(|(a, b)| a != b)
        .map_or(0, |line| line + 1);
    assert!(
        printed == written,
        "docs/reference.md, line {place}, is not what the program says: cargo run -- reference > docs/reference.md"
    );
    for part in [
        "## `upright train`",
        "`--sft-turns TURNS`",
        "## `upright eval loss`",
        "| `label-smoothing` |",
        "| `DATA` |",
        "What to compute [default: all] [possible values: toy, theorem-3.3, theorem-4.1, all].",
        "[possible values: jsonl].",
        "for the memory estimate [default: 2048].",
        "or a Hub id); none, the base model",
        "| key in `[[sweep]]` | |",
        "| `probe-every` | List of values. Probe the losses",
        "| key in `[baseline.NAME]` | |",
        "| `max-tokens` |",
        "## Exit codes",
    ] {
        assert!(printed.contains(part), "{part}");
    }
}

#[test]
fn completions_know_every_flag_of_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&["completions", shell]);
        for word in ["sft-template", "completions", "inspect", "tensorboard"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_upright"))
        .args(["completions", "korn"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2)
            && stderr.contains("`korn`")
            && stderr.contains("hint: supported shells: bash"),
        "{stderr}"
    );
}

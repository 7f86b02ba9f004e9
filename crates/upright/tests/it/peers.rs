//! What a user of TRL, PEFT, LLaMA-Factory or Axolotl reads who types a setting of theirs.

use std::fmt::Write;

use crate::fixture::{Done, Place};
use crate::snapshots::check;

/// The error and the hint of `upright train` with a flag of another trainer.
fn train(place: &Place, flag: &str) -> String {
    let words = format!("train --model model --sft sft.jsonl --out run {flag}");
    let done = Done::of(place.command(&words));
    assert_eq!((done.code, &done.stdout[..]), (Some(2), ""), "{done:?}");
    assert!(!place.path("run").exists(), "{flag}: a run was started");
    done.stderr
}

#[test]
fn flags_and_keys_of_other_trainers_get_an_answer() {
    let place = Place::new();
    let mut text = String::new();
    for flag in [
        "--lr 1e-4",
        "--report-to wandb",
        "--gradient-accumulation-steps 4",
        "--load-in-4bit",
        "--num-train-epochs 3",
        "--push-to-hub",
        "--lora-dropout 0.05",
        "--wandb",
        "--full",
        "--max_steps 100",
        "--per_device_train_batch_size=8",
        "--lora_r 16",
        "--output_dir runs/a",
        "--bf16",
        "--zebra",
    ] {
        let _ = writeln!(text, "$ upright train ... {flag}\n{}", train(&place, flag));
    }
    place.write(
        "run.toml",
        "model = 'model'\nsft = 'sft.jsonl'\nlr = 1e-4\n",
    );
    let words = "train --config run.toml --out run";
    let done = Done::of(place.command(words));
    assert_eq!(done.code, Some(2), "{done:?}");
    let _ = writeln!(
        text,
        "$ upright {words}   # with lr = 1e-4\n{}",
        done.stderr
    );
    let study = "title = 'T'\n[settings]\nmodel = 'model'\nsft = 'sft.jsonl'\ndpo = 'dpo.jsonl'\nlr = 1e-4\n\
                 [[sweep]]\nmethods = ['mix']\nlambdas = [0.5]\n";
    place.write("study.toml", study);
    let words = "experiment study.toml --out study";
    let done = Done::of(place.command(words));
    assert_eq!(done.code, Some(2), "{done:?}");
    let _ = writeln!(
        text,
        "$ upright {words}   # with lr = 1e-4 in [settings]\n{}",
        done.stderr
    );
    let words = "eval loss --model model --sft sft.jsonl --dpo dpo.jsonl --reference none";
    let done = Done::of(place.command(words));
    assert_eq!(done.code, Some(2), "{done:?}");
    let _ = writeln!(text, "$ upright {words}\n{}", done.stderr);
    check("peers", &text);
}

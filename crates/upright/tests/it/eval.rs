//! `upright eval loss` reads rows as the run of the adapter did.

use crate::fixture::{Done, Place};
use serde_json::{Value, json};

fn eval(place: &Place, words: &str) -> (Value, String) {
    let done = Done::good(place.command(&format!("eval loss --model model {words} --json")));
    (done.json()[0].clone(), done.stderr)
}

/// Numbers of the rows that are scored.
fn rows(place: &Place, words: &str) -> Vec<u64> {
    let done = Done::good(place.command(&format!("eval loss --model model {words} --per-row")));
    done.json()
        .iter()
        .map(|line| line["row"].as_u64().unwrap())
        .collect()
}

#[test]
fn rows_are_read_as_in_the_run_of_the_adapter() {
    let place = Place::new();
    place.model("model", "llama");
    let renamed: Vec<Value> = (0..40)
        .map(|i| json!({"ask": format!("Count {i} voles, one by one."), "answer": format!("There are {i} voles.")}))
        .collect();
    place.rows("asked.jsonl", &renamed);
    // The map turns the columns into those of the dialect of completions.
    let map = "prompt=ask,completion=answer";
    let words = format!(
        "--sft asked.jsonl --sft-map {map} --sft-template alpaca --max-length 240 --min-prompt 7 --held-out 0.3 --eval-rows 99 \
         --method sequential --stages sft:2 --learning-rate 1e-3 !--steps"
    );
    Done::good(place.train(&words));
    let adapter = "--adapter run/adapter --sft asked.jsonl";
    let (as_in_run, notes) = eval(&place, adapter);
    let explicit = format!(
        "{adapter} --template alpaca --map {map} --max-length 240 --min-prompt 7 --too-long cut-prompt"
    );
    let (as_given, quiet) = eval(&place, &explicit);
    assert_eq!(as_in_run, as_given);
    let said = format!(
        "run: --template alpaca, --map {map}, --min-prompt 7, --max-length 240, --too-long cut-prompt"
    );
    assert!(notes.contains("settings of sft in the run "), "{notes}");
    assert!(notes.contains(&said), "{notes}");
    assert!(!quiet.contains("settings of "), "{quiet}");
    let (other, _) = eval(&place, &format!("{adapter} --template raw"));
    assert_ne!(other["loss"], as_in_run["loss"]);

    // The held-out rows, and so the loss, are those of the run's last evaluation.
    let evals = String::from_utf8(place.read("run/evals.jsonl")).unwrap();
    let last: Value = serde_json::from_str(evals.lines().last().unwrap()).unwrap();
    for (split, key) in [("held-out", "eval/loss/sft"), ("train", "fit/loss/sft")] {
        let (line, _) = eval(&place, &format!("{adapter} --split {split}"));
        // The same sums in another order.
        let (loss, recorded) = (line["loss"].as_f64().unwrap(), last[key].as_f64().unwrap());
        assert!(
            (loss / recorded - 1.0).abs() < 1e-14,
            "{split}: {loss}, {recorded}"
        );
    }
    assert!(
        notes.contains("--split held-out scores only the held-out rows"),
        "{notes}"
    );
    let held = rows(&place, &format!("{adapter} --split held-out"));
    let train = rows(&place, &format!("{adapter} --split train"));
    let mut all = [held.clone(), train].concat();
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<u64>>());
    assert_eq!(
        rows(&place, &format!("{adapter} --split held-out --limit 2")),
        held[..2]
    );
    let done = Done::of(place.command(&format!(
        "eval loss --model model {adapter} --split held-out --held-out 0"
    )));
    assert!(done.error().contains("no rows are held out"), "{done:?}");
    let done = Done::of(place.command(&format!(
        "eval loss --model model {adapter} --split all --held-out 0.3"
    )));
    assert!(
        done.error()
            .contains("held-out 0.3 has no effect: all rows are scored"),
        "{done:?}"
    );
    let done = Done::of(place.command(&format!("eval loss --model model {adapter} --split some")));
    assert!(
        done.error()
            .contains("split must be one of all, train, held-out, found `some`"),
        "{done:?}"
    );
}

/// A minimum prompt is checked against the run's maximum length, not the usual one.
#[test]
fn the_run_leaves_room_for_a_long_prompt() {
    let place = Place::new();
    Done::good(place.train("--max-length 4096 --min-prompt 80"));
    let (_, notes) = eval(
        &place,
        "--adapter run/adapter --sft sft.jsonl --min-prompt 3000",
    );
    assert!(notes.contains("--max-length 4096"), "{notes}");
    let done = Done::of(place.command("eval loss --model model --sft sft.jsonl --min-prompt 3000"));
    assert!(
        done.error()
            .contains("min-prompt must be below max-length, 2048, found `3000`"),
        "{done:?}"
    );
}

/// The same questions as instructions and as preferences, in any template: a row is on one side.
#[test]
fn no_template_and_no_second_objective_moves_a_row() {
    let place = Place::new();
    let question = |i: u64| format!("What is {i} and {i}?");
    let sft: Vec<Value> = (0..40)
        .map(|i| json!({"instruction": question(i), "input": "", "output": "Two."}))
        .collect();
    let dpo: Vec<Value> = (0..40)
        .map(|i| json!({"prompt": question(i), "chosen": "Two.", "rejected": "No."}))
        .collect();
    let talk = |i: u64| json!({"messages": [{"role": "user", "content": question(i)}, {"role": "assistant", "content": "Two."}]});
    place.rows("sft.jsonl", &sft);
    place.rows("dpo.jsonl", &dpo);
    place.rows("talk.jsonl", &(0..40).map(talk).collect::<Vec<_>>());
    let split = "--split held-out --held-out 0.3";
    let held = rows(
        &place,
        &format!("--sft sft.jsonl --template user-assistant {split}"),
    );
    assert!((5..20).contains(&held.len()), "{held:?}");
    for words in [
        "--sft sft.jsonl --template alpaca",
        "--sft sft.jsonl --template raw",
        "--dpo dpo.jsonl",
        "--sft talk.jsonl --template user-assistant",
    ] {
        assert_eq!(rows(&place, &format!("{words} {split}")), held, "{words}");
    }
}

/// A preference run's loss and reference are the defaults of `eval loss` on its adapter.
#[test]
fn the_reference_of_the_run_is_used() {
    let place = Place::new();
    let words = "--dpo dpo.jsonl --dpo-loss rpo --dpo-alpha 0.5 --beta 0.3 --reference train:chosen --held-out 0.3 \
                 --eval-rows 99 --learning-rate 1e-3 --steps 3";
    Done::good(place.train(words));
    let evals = String::from_utf8(place.read("run/evals.jsonl")).unwrap();
    let last: Value = serde_json::from_str(evals.lines().last().unwrap()).unwrap();
    let adapter = "--adapter run --dpo dpo.jsonl --split held-out";
    let (line, notes) = eval(&place, adapter);
    let loss = line["loss"].as_f64().unwrap();
    let recorded = last["eval/loss/dpo"].as_f64().unwrap();
    assert!((loss / recorded - 1.0).abs() < 1e-12, "{loss}, {recorded}");
    assert!(
        notes.contains("loss: rpo, beta 0.3, label-smoothing 0, alpha 0.5, reference "),
        "{notes}"
    );
    // A setting that is given leaves the others as in the run.
    let (same, _) = eval(&place, &format!("{adapter} --dpo-alpha 0.5"));
    assert_eq!(same, line);
    let (named, _) = eval(&place, &format!("{adapter} --reference run"));
    assert_eq!(named, line);

    // Another reference is another loss; settings that are given win over those of the run.
    let (base, _) = eval(&place, &format!("{adapter} --reference none"));
    assert_ne!(base["loss"], line["loss"]);
    let (other, _) = eval(&place, &format!("{adapter} --dpo-loss sigmoid --beta 0.3"));
    assert_ne!(other["loss"], line["loss"]);

    // A reference folder that has changed since the run is not taken for the run's.
    let words = "--dpo dpo.jsonl --reference run --steps 1 --out on-run";
    Done::good(place.train(words));
    let on_run = "--adapter on-run --dpo dpo.jsonl";
    let (before, _) = eval(&place, on_run);
    assert!(before["loss"].is_number(), "{before}");
    std::fs::rename(place.path("run/adapter"), place.path("moved")).unwrap();
    std::fs::create_dir(place.path("run/adapter")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let other = place.path("on-run/adapter").join(name);
        std::fs::copy(other, place.path("run/adapter").join(name)).unwrap();
    }
    let (changed, notes) = eval(&place, on_run);
    assert_eq!(changed.get("loss"), None);
    assert!(notes.contains("has changed since the run"), "{notes}");
    std::fs::remove_dir_all(place.path("run/adapter")).unwrap();
    std::fs::rename(place.path("moved"), place.path("run/adapter")).unwrap();

    // Without the trained reference there is no loss by default, and an error where it is asked for.
    std::fs::remove_dir_all(place.path("cache")).unwrap();
    let (without, notes) = eval(&place, adapter);
    assert_eq!(without.get("loss"), None);
    assert!(notes.contains("warning: log-probabilities only"), "{notes}");
    let words = format!("eval loss --model model {adapter} --reference run");
    let refused = Done::of(place.command(&words));
    assert_eq!(refused.code, Some(2));
    assert!(refused.error().contains("--reference none"), "{refused:?}");
    let lone = "eval loss --model model --dpo dpo.jsonl --reference run";
    let refused = Done::of(place.command(lone));
    assert!(refused.error().contains("belongs to no run"), "{refused:?}");
}

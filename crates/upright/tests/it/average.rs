//! `--average polynomial`, half batches of Mix, and the tokens that a run counts.

use std::fs;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::fixture::{Done, Place};

fn lines(place: &Place, name: &str) -> Vec<Value> {
    let text = String::from_utf8(place.read(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The tensors of an adapter folder, sorted by name.
fn tensors(place: &Place, folder: &str) -> Vec<(String, Vec<f32>)> {
    let bytes = place.read(&format!("{folder}/adapter_model.safetensors"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let mut values = Vec::new();
        for bytes in view.data().chunks_exact(4) {
            values.push(f32::from_le_bytes(bytes.try_into().unwrap()));
        }
        tensors.push((name, values));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// The average of the checkpoints of some steps, with weights t (t + 1) (t + 2), in f64.
fn explicit(place: &Place, run: &str, steps: std::ops::RangeInclusive<usize>) -> Vec<f64> {
    let mut sums: Vec<f64> = Vec::new();
    let mut weights = 0.0;
    for (before, step) in steps.enumerate() {
        let t = before as f64 + 1.0;
        let weight = t * (t + 1.0) * (t + 2.0);
        let mut index = 0;
        for (_, values) in tensors(place, &format!("{run}/checkpoints/step-{step}")) {
            sums.resize(sums.len().max(index + values.len()), 0.0);
            for value in values {
                sums[index] += weight * f64::from(value);
                index += 1;
            }
        }
        weights += weight;
    }
    sums.into_iter().map(|sum| sum / weights).collect()
}

fn assert_average(place: &Place, folder: &str, expected: &[f64]) {
    let mut found = Vec::new();
    for (_, values) in tensors(place, folder) {
        found.extend(values);
    }
    assert_eq!(found.len(), expected.len());
    let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut difference = 0.0;
    for (found, expected) in found.iter().zip(expected) {
        difference += (f64::from(*found) - expected).powi(2);
    }
    let difference = difference.sqrt();
    assert!(difference < 1e-6 * norm, "{difference} of {norm}");
}

const ALL_STEPS: &str = "--learning-rate 1e-2 --checkpoint-every 1 --keep 100 --eval-every 4";

#[test]
fn the_average_is_that_of_all_steps_and_is_evaluated() {
    let place = Place::new();
    let words = format!("--steps 9 --average polynomial {ALL_STEPS}");
    let done = Done::good(place.train(&words));
    assert!(
        done.stdout
            .contains("averaged adapter: run/adapter-average"),
        "{}",
        done.stdout
    );
    assert_average(
        &place,
        "run/adapter-average",
        &explicit(&place, "run", 1..=9),
    );
    assert_eq!(
        tensors(&place, "run/adapter"),
        tensors(&place, "run/checkpoints/step-9")
    );

    let evals = lines(&place, "run/evals.jsonl");
    assert_eq!(evals[0]["average/eval/loss/sft"], evals[0]["eval/loss/sft"]);
    let last = evals.last().unwrap();
    assert_ne!(last["average/eval/loss/sft"], last["eval/loss/sft"]);
    for objective in ["sft", "dpo"] {
        let key = &format!("average/eval/loss/{objective}")[..];
        let words = format!(
            "eval loss --model model --adapter run/adapter-average --{objective} {objective}.jsonl \
             --split held-out --limit 4 --json"
        );
        let scored = Done::good(place.command(&words)).json()[0]["loss"]
            .as_f64()
            .unwrap();
        let recorded = last[key].as_f64().unwrap();
        assert!(
            (scored / recorded - 1.0).abs() < 1e-12,
            "{key}: {scored}, {recorded}"
        );
    }
}

#[test]
fn export_iterate_swaps_the_two_adapters() {
    let place = Place::new();
    let words = "--steps 5 --learning-rate 1e-2 --average polynomial";
    Done::good(place.train(words));
    let swapped = format!("{words} --export-iterate average --out swapped");
    let done = Done::good(place.train(&swapped));
    assert!(
        done.stdout.contains("last adapter: swapped/adapter-last"),
        "{}",
        done.stdout
    );
    assert_eq!(
        tensors(&place, "swapped/adapter"),
        tensors(&place, "run/adapter-average")
    );
    assert_eq!(
        tensors(&place, "swapped/adapter-last"),
        tensors(&place, "run/adapter")
    );
    assert!(!place.path("swapped/adapter-average").exists());

    // An extended run replaces both.
    let longer = "--steps 7 --learning-rate 1e-2 --average polynomial --resume";
    Done::good(place.train(longer));
    let straight = "--steps 7 --learning-rate 1e-2 --average polynomial --out straight";
    Done::good(place.train(straight));
    for folder in ["adapter", "adapter-average"] {
        let other = tensors(&place, &format!("straight/{folder}"));
        assert_eq!(tensors(&place, &format!("run/{folder}")), other, "{folder}");
    }
}

/// The average begins anew with the optimizer; the evaluation at the boundary is still that of the first
/// stage.
#[test]
fn every_stage_of_sequential_has_an_average_of_its_own() {
    let place = Place::new();
    let words = format!(
        "--method sequential --stages dpo:4,sft:5 --average polynomial !--steps {ALL_STEPS}"
    );
    Done::good(place.train(&words));
    assert_average(
        &place,
        "run/adapter-average",
        &explicit(&place, "run", 5..=9),
    );
    let short = format!(
        "--method sequential --stages dpo:4 --average polynomial !--steps {ALL_STEPS} --out short"
    );
    Done::good(place.train(&short));
    let boundary = &lines(&place, "run/evals.jsonl")[1];
    let end = &lines(&place, "short/evals.jsonl")[1];
    assert_eq!(boundary["step"], 4);
    assert_eq!(
        boundary["average/fit/loss/dpo"],
        end["average/fit/loss/dpo"]
    );
    assert_ne!(boundary["average/fit/loss/dpo"], boundary["fit/loss/dpo"]);
}

#[test]
fn without_an_average_nothing_is_kept() {
    let place = Place::new();
    Done::good(place.train("--method mix"));
    assert!(!place.path("run/adapter-average").exists());
    let evals = String::from_utf8(place.read("run/evals.jsonl")).unwrap();
    assert!(!evals.contains("average"), "{evals}");
    let mut files = fs::read_dir(place.path("run")).unwrap();
    assert!(files.all(|file| file.unwrap().file_name() != "adapter-last"));
    // A run with an average is another run.
    let done = Done::of(place.train("--method mix --average polynomial --resume"));
    assert!(
        done.error().contains("average: not set -> \"polynomial\""),
        "{done:?}"
    );
}

/// Rows of one length: a full step of Mix has the tokens of both batches, and a half step half of them.
#[test]
fn a_run_counts_the_tokens_it_trained_on_and_those_it_only_probed() {
    let place = Place::new();
    let tokens = |out: &str, key: &str| -> u64 {
        let mut sum = 0;
        for line in lines(&place, &format!("{out}/steps.jsonl")) {
            sum += line.get(key).and_then(Value::as_u64).unwrap_or(0);
        }
        sum
    };
    let steps = "--steps 8 --sft-batch 4 --dpo-batch 2 --held-out 0";
    Done::good(place.train(&format!("{steps} --method mix --out full")));
    let half = Done::good(place.train(&format!(
        "{steps} --method mix --mix-batches half --out half --json"
    )));
    let (full, halved) = (tokens("full", "tokens"), tokens("half", "tokens"));
    let ratio = halved as f64 / full as f64;
    assert!((0.45..0.55).contains(&ratio), "{halved} of {full}");
    assert_eq!(half.json()[0]["tokens"], halved);
    assert_eq!(half.json()[0]["probed_tokens"], 0);
    assert_eq!(
        tokens("full", "probed_tokens") + tokens("half", "probed_tokens"),
        0
    );

    let maxright = format!("{steps} --method maxright --probe-every 2 --out maxright --json");
    let done = Done::good(place.train(&maxright));
    let summary = done.json()[0].clone();
    let probed = tokens("maxright", "probed_tokens");
    assert_eq!(summary["probed_tokens"], probed);
    let records = lines(&place, "maxright/steps.jsonl");
    for (index, line) in records.iter().enumerate() {
        assert_eq!(
            line.get("probed_tokens").is_some(),
            index % 2 == 0,
            "{index}"
        );
    }
    // Every second step probes the batch that it does not train on.
    let mut one_of_each = 0;
    for line in records.iter().step_by(2) {
        one_of_each += line["tokens"].as_u64().unwrap() + line["probed_tokens"].as_u64().unwrap();
    }
    let per_step = full as f64 / 8.0;
    let ratio = one_of_each as f64 / (4.0 * per_step);
    assert!((0.9..1.1).contains(&ratio), "{one_of_each} of {full}");
}

//! Nothing that was found out about one base, one tokenizer or one file is used for another.

use std::fs;

use crate::fixture::{Done, Place};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Draws the embeddings of some tokens anew, as a fine-tuned or re-initialized token has them.
fn redraw(place: &Place, model: &str, tokens: &[usize]) {
    let path = format!("{model}/model.safetensors");
    let bytes = place.read(&path);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            (
                name,
                view.dtype(),
                view.shape().to_vec(),
                view.data().to_vec(),
            )
        })
        .collect();
    for (name, _, shape, data) in &mut tensors {
        if name == "model.embed_tokens.weight" {
            let row = data.len() / shape[0];
            for token in tokens {
                data[token * row..(token + 1) * row].rotate_left(row / 2);
            }
        }
    }
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    place.write(&path, safetensors::serialize(views, None).unwrap());
}

fn evaluations(place: &Place, run: &str) -> Vec<Value> {
    let text = String::from_utf8(place.read(&format!("{run}/evals.jsonl"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The policy is the reference before the first step, so that DPO's loss is ln 2.
fn starts_at_ln_2(place: &Place, run: &str) {
    let loss = evaluations(place, run)[0]["fit/loss/dpo"].as_f64().unwrap();
    assert!(
        (loss - std::f64::consts::LN_2).abs() < 1e-12,
        "{run}: {loss}"
    );
}

const BASE: &str = "--method alright --reference none";
const TRAINED: &str = "--method alright --reference train:chosen";

/// The letters that every row has.
const LETTERS: [usize; 6] = [72, 73, 86, 88, 89, 90];

#[test]
fn a_changed_base_has_nothing_of_the_old_one() {
    let place = Place::new();
    Done::good(place.train(&format!("{BASE} --out before")));
    starts_at_ln_2(&place, "before");
    let again = Done::good(place.train(&format!("{BASE} --out again")));
    assert!(
        again.stderr.contains(" 0 responses scored, "),
        "{}",
        again.stderr
    );
    Done::good(place.train(&format!("{TRAINED} --out trained")));
    let found = Done::good(place.train(&format!("{TRAINED} --out found")));
    assert!(
        found.stderr.contains("reference: trained before"),
        "{}",
        found.stderr
    );
    Done::good(place.train(&format!("{BASE} --steps 4 --checkpoint-every 2 --out run")));
    fs::remove_dir_all(place.path("run/adapter")).unwrap();
    fs::remove_dir_all(place.path("run/checkpoints/step-4")).unwrap();

    redraw(&place, "model", &LETTERS);
    let changed = Done::good(place.train(&format!("{BASE} --out after")));
    assert!(
        !changed.stderr.contains(" 0 responses scored"),
        "{}",
        changed.stderr
    );
    starts_at_ln_2(&place, "after");
    let changed = Done::good(place.train(&format!("{TRAINED} --out retrained")));
    assert!(
        changed.stderr.contains("reference: training it in"),
        "{}",
        changed.stderr
    );
    let resumed = Done::of(place.command("train --resume --out run"));
    assert_eq!(resumed.code, Some(2), "{resumed:?}");
    assert!(
        resumed.error().contains("the base model's weights: v2-"),
        "{}",
        resumed.error()
    );
    let adapter =
        Done::of(place.command("eval loss --model model --adapter before/adapter --sft sft.jsonl"));
    assert_eq!(adapter.code, Some(2), "{adapter:?}");
    assert!(
        adapter.error().contains("was trained on another base"),
        "{}",
        adapter.error()
    );
}

/// A second net under the key of the cache: a value that this model does not give is noticed.
#[test]
fn cached_values_that_the_model_does_not_give_are_discarded() {
    let place = Place::new();
    Done::good(place.train(&format!("{BASE} --out before")));
    let caches: Vec<_> = fs::read_dir(place.path("cache/reference-logps"))
        .unwrap()
        .flatten()
        .collect();
    let [cache] = &caches[..] else {
        panic!("one file: {caches:?}")
    };
    let mut bytes = fs::read(cache.path()).unwrap();
    for record in bytes.chunks_exact_mut(28) {
        let value = f64::from_le_bytes(record[16..24].try_into().unwrap());
        record[16..24].copy_from_slice(&(value - 1.0).to_le_bytes());
        let check = Sha256::digest(&record[..24]);
        record[24..].copy_from_slice(&check[..4]);
    }
    fs::write(cache.path(), bytes).unwrap();
    let noticed = Done::good(place.train(&format!("{BASE} --out after")));
    assert!(
        noticed
            .stderr
            .contains("the file is discarded and all values are computed again"),
        "{}",
        noticed.stderr
    );
    starts_at_ln_2(&place, "after");
    let again = Done::good(place.train(&format!("{BASE} --out again")));
    assert!(!again.stderr.contains("discarded"), "{}", again.stderr);
    assert!(
        again.stderr.contains(" 0 responses scored"),
        "{}",
        again.stderr
    );
}

#[test]
fn runs_whose_base_or_tokens_cannot_be_proved_are_not_continued() {
    let place = Place::new();
    Done::good(place.train(&format!("{BASE} --steps 4 --checkpoint-every 2 --out run")));
    fs::remove_dir_all(place.path("run/adapter")).unwrap();
    fs::remove_dir_all(place.path("run/checkpoints/step-4")).unwrap();
    let plan = String::from_utf8(place.read("run/plan.toml")).unwrap();
    let refused = |from: &str, to: &str| {
        let start = plan
            .find(from)
            .unwrap_or_else(|| panic!("{from} in {plan}"));
        let end = start + plan[start..].find('\n').unwrap();
        place.write(
            "run/plan.toml",
            format!("{}{to}{}", &plan[..start], &plan[end..]),
        );
        let done = Done::of(place.command("train --resume --out run"));
        assert_eq!(done.code, Some(2), "{done:?}");
        done.error().to_owned()
    };
    // As a build that sampled the weights wrote it.
    let older = refused("base = \"v2-", &format!("base = \"{}\"", "ab".repeat(32)));
    assert!(
        older.contains("an older build started this run")
            && older.contains("hint: start a new run"),
        "{older}"
    );
    // As a build that added the gradients of packs in f32 wrote it.
    let sums = refused("gradient-exponent = ", "");
    assert!(
        sums.contains("summed the gradients of packs differently"),
        "{sums}"
    );
    // As a build that cut or joined the rows in another way wrote it.
    let tokens = refused(
        "encoded-sha256 = ",
        &format!("encoded-sha256 = \"{}\"", "cd".repeat(32)),
    );
    assert!(
        tokens.contains("the token ids of sft, from the same file: cdcdcdcdcdcd -> "),
        "{tokens}"
    );
    place.write("run/plan.toml", &plan);
    Done::good(place.command("train --resume --out run"));
}

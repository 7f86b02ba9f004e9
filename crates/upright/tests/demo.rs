//! The demo, made small: its table and its claims are those of the runs' own files.

use std::path::Path;

use upright::{
    demo::{Compared, Demo, claims},
    observer::Silent,
};

/// Last value of a key in a run's `evals.jsonl`, read without the program's own reader.
fn last(run: &Path, key: &str) -> f64 {
    let text = std::fs::read_to_string(run.join("evals.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    line[key].as_f64().unwrap_or_else(|| panic!("{key} in {}", run.display()))
}

fn smallest(run: &Path, key: &str) -> f64 {
    let text = std::fs::read_to_string(run.join("evals.jsonl")).unwrap();
    let values =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()[key].as_f64().unwrap());
    values.fold(f64::INFINITY, f64::min)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_story_is_told_by_the_runs() {
    let dir = tempfile::tempdir().unwrap();
    // SAFETY: this binary has one test, and none of its threads reads the environment yet.
    unsafe { std::env::set_var("UPRIGHT_CACHE", dir.path().join("cache")) };
    let mut demo = Demo::new(dir.path(), 2).unwrap();
    demo.steps = 4;
    demo.seeds = vec![1, 2];
    let story = demo.tell(&mut Silent).unwrap();
    let runs = dir.path().join("runs");
    let names = ["dpo-sft", "sft-dpo", "mix", "alright", "maxright"];
    for (compared, name) in story.methods.iter().zip(names) {
        let of = |key: &str| mean([1, 2].into_iter().map(|seed| last(&runs.join(format!("{name}-{seed}")), key)));
        for (index, set) in ["eval", "fit"].into_iter().enumerate() {
            let optimum = |objective: &str| {
                smallest(&runs.join(format!("{objective}-alone")), &format!("{set}/loss/{objective}"))
            };
            let (sft, dpo) = (of(&format!("{set}/loss/sft")), of(&format!("{set}/loss/dpo")));
            assert!((compared.sft[index].mean - sft).abs() < 1e-12, "{name} {set}");
            assert!((compared.dpo[index].mean - dpo).abs() < 1e-12, "{name} {set}");
            assert!((compared.sft_gap[index].mean - (sft - optimum("sft"))).abs() < 1e-9, "{name} {set}");
            assert!((compared.dpo_gap[index].mean - (dpo - optimum("dpo"))).abs() < 1e-9, "{name} {set}");
        }
    }
    // The same claims from the same numbers, asked again by hand for one of them.
    assert_eq!(story.claims, claims(&story.methods));
    let find = |name: &str| -> &Compared { story.methods.iter().find(|m| m.method == name).unwrap() };
    let nearest = (0..2).map(|set| {
        let others = story.methods.iter().filter(|m| m.method != "maxright");
        others.into_iter().all(|m| find("maxright").ideal_distance[set].mean < m.ideal_distance[set].mean)
    });
    assert_eq!(story.claims[3].holds.to_vec(), nearest.collect::<Vec<_>>());
    assert_eq!(story.answers.len(), 3);

    // Told again, nothing is repeated: the runs' files are as they were.
    let before = std::fs::metadata(runs.join("mix-1/steps.jsonl")).unwrap().modified().unwrap();
    assert_eq!(demo.tell(&mut Silent).unwrap(), story);
    assert_eq!(std::fs::metadata(runs.join("mix-1/steps.jsonl")).unwrap().modified().unwrap(), before);
}

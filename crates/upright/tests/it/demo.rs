//! The demo, made small: its table and its claims are those of the runs' own files.

use std::{path::Path, process::Command};

use upright::demo::Demo;
use upright_base::progress::Silent;
use upright_core::metrics::Call;
use upright_engine::Options;
use upright_runs::records::{EvalSet, PerSet};

/// Names the folder of the child that the test runs.
const CACHE: &str = "UPRIGHT_TEST_DEMO";

/// Last value of a key in a run's `evals.jsonl`, read without the program's own reader.
fn last(run: &Path, key: &str) -> f64 {
    let text = std::fs::read_to_string(run.join("evals.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    line[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} in {}", run.display()))
}

fn smallest(run: &Path, key: &str) -> f64 {
    let text = std::fs::read_to_string(run.join("evals.jsonl")).unwrap();
    let values = text.lines().map(|line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()[key]
            .as_f64()
            .unwrap()
    });
    values.fold(f64::INFINITY, f64::min)
}

/// A value of every step, summed over each of the two runs of a method.
fn sum(runs: &Path, name: &str, value: impl Fn(&serde_json::Value) -> f64) -> [f64; 2] {
    [1, 2].map(|seed| {
        let path = runs.join(format!("{name}-{seed}/steps.jsonl"));
        let mut sum = 0.0;
        for line in std::fs::read_to_string(path).unwrap().lines() {
            sum += value(&serde_json::from_str(line).unwrap());
        }
        sum
    })
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_story_is_told_by_the_runs() {
    // The demo's references go to the cache that the environment names: the test runs itself in a child with its own.
    let Some(cache) = std::env::var_os(CACHE) else {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "demo::the_story_is_told_by_the_runs",
                "--nocapture",
            ])
            .env(CACHE, dir.path())
            .env("UPRIGHT_CACHE", dir.path().join("cache"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        let error = String::from_utf8_lossy(&child.stderr).into_owned();
        assert!(
            child.status.success() && text.contains("1 passed"),
            "{text}{error}"
        );
        return;
    };
    let dir = Path::new(&cache);
    let options = Options {
        threads: 2,
        ..Options::default()
    };
    let mut demo = Demo::new(dir, &options).unwrap();
    demo.steps = 4;
    demo.seeds = vec![1, 2];
    let story = demo.tell(&mut Silent).unwrap();
    let runs = dir.join("runs");
    let names = [
        "dpo-sft",
        "sft-dpo",
        "mix",
        "mix-short",
        "alright",
        "maxright",
    ];
    assert_eq!(story.methods.len(), names.len());
    for (compared, name) in story.methods.iter().zip(names) {
        let of = |key: &str| {
            mean(
                [1, 2]
                    .into_iter()
                    .map(|seed| last(&runs.join(format!("{name}-{seed}")), key)),
            )
        };
        for place in EvalSet::ALL {
            let set = place.key();
            let optimum = |objective: &str| {
                smallest(
                    &runs.join(format!("{objective}-alone")),
                    &format!("{set}/loss/{objective}"),
                )
            };
            let (sft, dpo) = (
                of(&format!("{set}/loss/sft")),
                of(&format!("{set}/loss/dpo")),
            );
            assert!(
                (compared.sft[place].mean - sft).abs() < 1e-12,
                "{name} {set}"
            );
            assert!(
                (compared.dpo[place].mean - dpo).abs() < 1e-12,
                "{name} {set}"
            );
            assert!(
                (compared.sft_gap[place].mean - (sft - optimum("sft"))).abs() < 1e-9,
                "{name} {set}"
            );
            assert!(
                (compared.dpo_gap[place].mean - (dpo - optimum("dpo"))).abs() < 1e-9,
                "{name} {set}"
            );
        }
    }
    // Every claim, asked again of the files: the two seeds are pairs, and half the difference of two values is the standard
    // error of their mean.
    let values =
        |name: &str, key: &str| [1, 2].map(|seed| last(&runs.join(format!("{name}-{seed}")), key));
    let call = |pairs: &[[f64; 2]]| {
        let away = |[a, b]: &[f64; 2]| (a + b) / 2.0;
        let close = |pair: &[f64; 2]| away(pair).abs() <= (pair[0] - pair[1]).abs();
        if pairs.iter().any(|pair| !close(pair) && away(pair) > 0.0) {
            Call::No
        } else if pairs.iter().any(close) {
            Call::TooCloseToCall
        } else {
            Call::Yes
        }
    };
    let less = |a: [f64; 2], b: [f64; 2]| [a[0] - b[0], a[1] - b[1]];
    let joint = ["alright", "maxright"];
    // At equal tokens: within a tenth of those of ALRIGHT.
    let tokens = |name: &str| sum(&runs, name, |line| line["tokens"].as_f64().unwrap());
    let mut level = Vec::new();
    for name in names {
        let ratio = mean(tokens(name).into_iter()) / mean(tokens("alright").into_iter());
        if (0.9..=1.1).contains(&ratio) {
            level.push(name);
        }
    }
    assert!(
        level.contains(&"mix-short") && !level.contains(&"mix"),
        "{level:?}"
    );
    for eval_set in EvalSet::ALL {
        let set = eval_set.key();
        let gap = |name: &str, objective: &str| values(name, &format!("{set}/gap/{objective}"));
        let distance = |name: &str| values(name, &format!("{set}/ideal_distance"));
        for name in names {
            let (sft, dpo, far) = (gap(name, "sft"), gap(name, "dpo"), distance(name));
            assert!(
                (0..2).all(|i| (sft[i].hypot(dpo[i]) - far[i]).abs() < 1e-12),
                "{name} {set}"
            );
        }
        // Whether every arm in `some` ends nearer than every arm in `others`.
        let nearer = |some: &[&str], others: &[&str]| {
            let mut pairs = Vec::new();
            for name in some {
                for other in others.iter().filter(|other| *other != name) {
                    pairs.push(less(distance(name), distance(other)));
                }
            }
            call(&pairs)
        };
        let told = |claim: &upright_report::Claim| claim.verdicts[0].holds[eval_set];
        let forgets = [
            call(&joint.map(|name| less(gap(name, "dpo"), gap("dpo-sft", "dpo")))),
            call(&joint.map(|name| less(gap(name, "sft"), gap("sft-dpo", "sft")))),
        ];
        assert_eq!(
            [told(&story.claims[0]), told(&story.claims[1])],
            forgets.map(Some),
            "{set}"
        );
        let mut asked = 0;
        for claim in &story.claims[2..story.claims.len() - 1] {
            let steps = ["dpo-sft", "sft-dpo", "mix", "alright", "maxright"];
            let arms = if claim.text.ends_with(" at equal tokens")
                || claim.text.contains(" at equal tokens,")
            {
                &level[..]
            } else {
                assert!(claim.text.contains(" at equal steps"), "{}", claim.text);
                &steps[..]
            };
            let expected = if claim.text.contains("nearest") {
                nearer(&["maxright"], arms)
            } else {
                let own: Vec<&str> = joint
                    .into_iter()
                    .filter(|name| arms.contains(name))
                    .collect();
                nearer(&own, &["dpo-sft", "sft-dpo"])
            };
            assert_eq!(told(claim), Some(expected), "{set}: {claim:?}");
            asked += 1;
        }
        // Nearer and nearest at equal steps, and one of them at equal tokens.
        assert!(asked >= 3, "{:?}", story.claims);
    }
    let busy = |name: &str| {
        sum(&runs, name, |line| {
            line["seconds"].as_f64().unwrap() * line["utilization"].as_f64().unwrap()
        })
    };
    let excess = |name: &str| {
        let (own, one, other) = (busy(name), busy("dpo-sft"), busy("sft-dpo"));
        [0, 1].map(|i| own[i] / ((one[i] + other[i]) / 2.0) - 1.25)
    };
    let cheap = call(&[
        excess("alright"),
        excess("maxright"),
        excess("mix").map(|excess| -excess),
    ]);
    let last = story.claims.last().unwrap();
    assert_eq!(last.verdicts[0].holds, PerSet::both(Some(cheap)));
    assert!(story.claims.iter().all(|claim| claim.verdicts.len() == 1));
    assert_eq!(story.answers.len(), 3);
    // The page has all arms, and two answers of the base and of every method.
    let page = std::fs::read_to_string(demo.report(&mut Silent).unwrap()).unwrap();
    assert_eq!(
        (page.matches("<svg ").count(), page.matches("<h3>").count()),
        (7, 2 * 7)
    );
    let letters = [
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("\"", "&quot;"),
        ("'", "&#39;"),
    ];
    let answer = letters
        .iter()
        .fold(story.answers[1].1.clone(), |text, (raw, safe)| {
            text.replace(raw, safe)
        });
    let names: Vec<&str> = page
        .split("<h3>")
        .skip(1)
        .map(|rest| rest.split("</h3>").next().unwrap())
        .collect();
    assert!(
        names.contains(&"sft, then dpo, seed 1") && page.contains(&answer),
        "{names:?} {answer}"
    );

    // Told again, nothing is repeated: the runs' files are as they were.
    let before = std::fs::metadata(runs.join("mix-1/steps.jsonl"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(demo.tell(&mut Silent).unwrap(), story);
    assert_eq!(
        std::fs::metadata(runs.join("mix-1/steps.jsonl"))
            .unwrap()
            .modified()
            .unwrap(),
        before
    );
}

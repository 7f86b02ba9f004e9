//! Tokens: what a run trained on and probed, and comparisons at equal tokens.

use upright_core::metrics::Call::{No, Yes};
use upright_report::{Arm, Claim, Report};

use super::{
    folders::{Csv, Run, Study, run},
    near, write,
};

/// A run on 100 tokens per step.
fn level(method: &str) -> Run {
    run(method).tokens(100)
}

/// Mix on 200 tokens per step.
fn mix() -> Run {
    run("mix").tokens(200)
}

fn sequential() -> Run {
    level("sequential").stages(&[(1, 4), (0, 4)])
}

/// ALRIGHT, MAXRIGHT and Sequential on as many tokens, and Mix on twice as many. The ideal point is
/// (0, 0) on training rows.
fn study() -> Study {
    let study = alone();
    add(&study, "dpo-sft", &sequential(), 2.0);
    add(&study, "alright", &level("alright"), 0.6);
    add(&study, "maxright", &level("maxright"), 0.5);
    add(&study, "mix", &mix(), 0.3);
    study
}

/// Both objectives alone.
fn alone() -> Study {
    let study = Study::new();
    study.add("sft-alone", &run("mix").weights(1.0, 0.0).ending(0.0, 4.0));
    study.add("dpo-alone", &run("mix").weights(0.0, 1.0).ending(1.0, 0.0));
    study
}

/// Two seeds of a run that ends at about a DPO loss.
fn add(study: &Study, name: &str, settings: &Run, dpo: f64) {
    for seed in [1u64, 2] {
        let own = settings.clone().seed(seed);
        study.add(
            &format!("{name}-{seed}"),
            &own.ending(0.0, dpo + 0.001 * seed as f64),
        );
    }
}

fn read(study: &Study) -> Report {
    Report::read(&[study.path()]).unwrap()
}

#[track_caller]
fn arm<'r>(report: &'r Report, label: &str) -> &'r Arm {
    let labels: Vec<&str> = report.arms.iter().map(|arm| &arm.label[..]).collect();
    let found = report.arms.iter().find(|arm| arm.label == label);
    found.unwrap_or_else(|| panic!("{label} in {labels:?}"))
}

fn texts(report: &Report) -> Vec<&str> {
    report.claims.iter().map(|claim| &claim.text[..]).collect()
}

#[track_caller]
fn claim<'r>(report: &'r Report, words: &str) -> &'r Claim {
    let found = report
        .claims
        .iter()
        .find(|claim| claim.text.contains(words));
    found.unwrap_or_else(|| panic!("{words} in {:?}", texts(report)))
}

/// The labels of the arms of the only comparison at equal tokens.
#[track_caller]
fn level_arms(report: &Report) -> Vec<&str> {
    assert_eq!(report.levels.len(), 1, "{:?}", report.levels);
    let mut labels = Vec::new();
    for index in &report.levels[0].arms {
        labels.push(&report.arms[*index].label[..]);
    }
    labels
}

#[track_caller]
fn contains(text: &str, words: &str) {
    assert!(text.contains(words), "{words}: {text}");
}

#[test]
fn tokens_trained_on_and_only_probed_are_counted() {
    let study = Study::new();
    study.add("alright", &run("alright"));
    for (seed, probed) in [(1, 30), (2, 50)] {
        let own = level("maxright").seed(seed).probing(probed);
        study.add(&format!("maxright-{seed}"), &own);
    }
    let report = read(&study);
    let alright = arm(&report, "alright");
    // 100, 110, .. 170.
    near(alright.tokens.unwrap().mean, 1080.0);
    near(alright.probed_tokens.unwrap().mean, 0.0);
    let maxright = arm(&report, "maxright");
    near(maxright.tokens.unwrap().mean, 800.0);
    near(maxright.probed_tokens.unwrap().mean, 320.0);
    near(maxright.probed_tokens.unwrap().error.unwrap(), 80.0);
    assert_eq!(report.runs[1].probed_tokens, 240);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["arms"][1]["probed_tokens"]["mean"], 320.0);
    assert_eq!(json["arms"][1]["tokens"]["mean"], 800.0);
    write(&study);
    let cost = Csv::read(&study.path().join("report/tables"), "cost");
    near(cost.number("maxright", "tokens trained on"), 800.0);
    near(cost.number("maxright", "tokens only probed"), 320.0);
    near(cost.number("alright", "tokens only probed"), 0.0);
}

#[test]
fn half_batches_of_mix_are_a_method_of_their_own() {
    let study = study();
    add(&study, "half", &level("mix").half_batches(), 0.7);
    let report = read(&study);
    let half = arm(&report, "mix, half batches");
    assert_eq!(half.role.joint().unwrap().form.name, "mix-half");
    assert_eq!(half.runs.len(), 2);
    assert_eq!(arm(&report, "mix").runs.len(), 2);
    // It took as many steps as the others, so its cost is compared with Sequential.
    assert!(half.cost_increase.is_some());
    assert_eq!(serde_json::to_value(&half.role).unwrap(), "mix-half");
    let page = write(&study);
    contains(&page, "Mix with half batches");
    contains(&page, "half a batch of every objective");
    contains(&page, "4 to 8 per step");
}

/// Mix is nearest with twice the tokens; with as many tokens as the others, it is not.
#[test]
fn the_nearest_differs_at_equal_steps_and_at_equal_tokens() {
    let study = study();
    add(&study, "short", &mix().lasting(4), 0.9);
    add(&study, "half", &level("mix").half_batches(), 0.8);
    let report = read(&study);
    let steps = claim(
        &report,
        "MAXRIGHT ends nearest to the ideal point at equal steps",
    );
    let tokens = claim(
        &report,
        "MAXRIGHT ends nearest to the ideal point at equal tokens",
    );
    assert_eq!(steps.verdicts.len(), 1);
    assert_eq!(tokens.verdicts.len(), 1);
    assert_eq!(steps.verdicts[0].holds.training, Some(No));
    assert_eq!(tokens.verdicts[0].holds.training, Some(Yes));
    let others = "nearer than Sequential (dpo, then sft), Mix and ALRIGHT";
    contains(&steps.text, others);
    let others = "nearer than Sequential (dpo, then sft), Mix, Mix with half batches and ALRIGHT";
    contains(&tokens.text, others);
    // Numbers at equal steps come with their tokens.
    let because = &steps.verdicts[0].because.training;
    contains(
        because,
        "\u{201c}mix, steps 8\u{201d} 0.301 ± 0.001 on 1600 tokens",
    );
    contains(because, "0.502 ± 0.001 on 800 tokens");
    let because = &tokens.verdicts[0].because.training;
    contains(because, "\u{201c}mix, steps 4\u{201d} 0.90");
    contains(because, "\u{201c}mix, half batches\u{201d} 0.80");
    contains(because, "; each on about 800 tokens");
    // The other claim has the same arms in both comparisons.
    let nearer = claim(&report, "nearer to the ideal point than");
    contains(&nearer.text, "at equal steps and at equal tokens");
    // Costs are compared at equal steps alone.
    let costs = texts(&report)
        .iter()
        .filter(|text| text.contains("cost"))
        .count();
    assert_eq!(costs, 1);
    let expected = [
        "dpo, then sft",
        "mix, steps 4",
        "mix, half batches",
        "alright",
        "maxright",
    ];
    assert_eq!(level_arms(&report), expected);
    assert_eq!(report.levels[0].set_by, ["alright"]);
    near(report.levels[0].tokens, 800.0);
    let page = write(&study);
    for words in [
        "at equal steps, \u{201c}mix, steps 8\u{201d} ends nearest to the ideal point (distance \
         0.332 on 1600 tokens",
        "at equal tokens (about 800 tokens), \u{201c}maxright\u{201d} ends nearest to the ideal point \
         (distance 0.552,",
        "Mix trained on 2.0 times as many tokens",
        "Claims on the distance are tested at equal tokens too",
    ] {
        contains(&page, words);
    }
}

/// Without a Mix that trained on as many tokens as the others, no text mentions equal tokens.
#[test]
fn a_report_without_another_mix_says_nothing_of_equal_tokens() {
    let study = study();
    let report = read(&study);
    assert!(report.levels.is_empty());
    for text in texts(&report) {
        assert!(!text.contains("at equal"), "{text}");
    }
    assert!(!write(&study).contains("equal tokens"));
    // The price of Mix is said all the same.
    let nearest = claim(&report, "MAXRIGHT ends nearest");
    contains(&nearest.verdicts[0].because.training, "on 1600 tokens");
}

#[test]
fn a_tenth_of_the_tokens_of_alright_is_level() {
    for (tokens, level) in [(180, true), (179, false), (220, true), (221, false)] {
        let study = study();
        let short = run("mix").tokens(tokens).lasting(4);
        add(&study, "short", &short, 0.4);
        assert_eq!(!read(&study).levels.is_empty(), level, "{tokens}");
    }
    // Another learning rate is another comparison, and so are other weights.
    let hot = mix().with("learning-rate = 0.001", "learning-rate = 0.01");
    for other in [hot, mix().weights(0.25, 0.75)] {
        let study = study();
        add(&study, "short", &other.lasting(4), 0.4);
        assert!(read(&study).levels.is_empty());
    }
}

/// Each weight has a comparison of its own, and the summary has all weights in one sentence.
#[test]
fn weights_are_compared_one_by_one_at_equal_tokens() {
    let study = alone();
    for (lambda, dpo) in [(0.25, 2), (0.75, 6)] {
        let at = |own: Run| own.weights(1.0 - lambda, lambda);
        let split = sequential().stages(&[(1, dpo), (0, 8 - dpo)]);
        add(&study, &format!("dpo-sft-{lambda}"), &split, 2.0);
        let alright = at(level("alright"));
        add(&study, &format!("alright-{lambda}"), &alright, 0.6);
        add(&study, &format!("mix-{lambda}"), &at(mix()), 0.3);
        let short = at(mix()).lasting(4);
        add(&study, &format!("short-{lambda}"), &short, 0.9 + lambda);
    }
    let report = read(&study);
    assert_eq!(report.levels.len(), 2);
    for level in &report.levels {
        assert_eq!(level.arms.len(), 3, "{level:?}");
    }
    let page = write(&study);
    // The nearest of all is named once per comparison, and short runs of Mix are no comparison.
    assert_eq!(page.matches("ends nearest to the ideal point (").count(), 2);
    contains(&page, "at equal tokens (about 800 tokens), \u{201c}alright");
    let fronts = Csv::read(&study.path().join("report/tables"), "fronts");
    let methods: Vec<&str> = fronts.rows.iter().map(|row| &row[0][..]).collect();
    let expected = [
        "dpo, then sft, steps 8",
        "mix, steps 4",
        "mix, steps 8",
        "alright, steps 8",
    ];
    assert_eq!(methods, expected);
}

#[test]
fn sequential_sets_the_tokens_without_alright() {
    let study = alone();
    add(&study, "dpo-sft", &sequential(), 2.0);
    add(&study, "maxright", &run("maxright").tokens(150), 0.5);
    add(&study, "half", &level("mix").half_batches(), 0.8);
    let report = read(&study);
    // MAXRIGHT trained on too many tokens to be level.
    let expected = ["dpo, then sft", "mix, half batches"];
    assert_eq!(level_arms(&report), expected);
    assert_eq!(report.levels[0].set_by, ["dpo, then sft"]);
    let words =
        "at equal tokens (about 800 tokens), \u{201c}mix, half batches\u{201d} ends nearest";
    contains(&write(&study), words);
}

#[test]
fn distances_are_drawn_over_tokens_and_seconds() {
    let study = study();
    add(&study, "short", &mix().lasting(4), 0.9);
    write(&study);
    let tables = study.path().join("report/tables");
    let distances = Csv::read(&tables, "distances");
    let column = |name: &str, label: &str| -> Vec<f64> {
        let at = distances.column(name);
        let mut values = Vec::new();
        for row in &distances.rows {
            if row[0] == label {
                values.push(row[at].parse().unwrap());
            }
        }
        values
    };
    let tokens = |label: &str| column("tokens trained on", label);
    assert_eq!(column("step", "mix, steps 8"), [0.0, 4.0, 8.0]);
    assert_eq!(tokens("mix, steps 8"), [0.0, 800.0, 1600.0]);
    assert_eq!(tokens("mix, steps 4"), [0.0, 800.0]);
    assert_eq!(tokens("alright"), [0.0, 400.0, 800.0]);
    // 0.1 s per step and a wave that depends on the seed.
    let seconds = |steps: usize| -> f64 {
        let wave = |step: usize, seed: usize| ((step * 7 + seed * 3) % 5) as f64;
        let mut sum = 0.0;
        for step in 0..steps {
            sum += 0.1 + 0.001 * (wave(step, 1) + wave(step, 2)) / 2.0;
        }
        sum
    };
    let found = column("seconds of training steps", "alright");
    for (found, steps) in found.iter().zip([0, 4, 8]) {
        near(*found, seconds(steps));
    }
    // The distance is that of the results, and of the start: (1, 5) from the ideal point.
    let far = column("training rows distance", "alright");
    near(far[0], 26f64.sqrt());
    near(far[2], 0.6015);
    for figure in ["distance-tokens", "distance-seconds"] {
        let svg = study.path().join(format!("report/figures/{figure}.svg"));
        assert!(svg.exists(), "{figure}");
    }
    // A step without the numbers adds nothing, and nothing panics.
    for seed in [1, 2] {
        study.edit(&format!("alright-{seed}/steps.jsonl"), |text| {
            let text = text.replace("\"tokens\"", "\"other\"");
            text.replace("\"seconds\"", "\"was\"")
        });
    }
    write(&study);
    let distances = Csv::read(&tables, "distances");
    near(distances.number("alright", "tokens trained on"), 0.0);
}

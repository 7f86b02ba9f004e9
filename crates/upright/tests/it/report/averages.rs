//! Averaged adapters: arms of the same runs, compared among themselves.

use upright_core::{metrics::Call, optimizer::Iterate};
use upright_report::{Arm, Report};

use super::{
    folders::{Csv, Run, Study, run},
    near, write,
};

/// Both objectives alone, Sequential and ALRIGHT. The last iterate of ALRIGHT ends farther from the
/// ideal point, (0, 0), than Sequential. Its average ends nearer.
fn study() -> Study {
    let study = Study::new();
    let alone = |sft: f64, dpo: f64| run("mix").weights(sft, dpo);
    study.add("sft-alone", &alone(1.0, 0.0).ending(0.0, 4.0));
    study.add("dpo-alone", &alone(0.0, 1.0).ending(1.0, 0.0));
    let sequential = run("sequential").stages(&[(1, 4), (0, 4)]);
    add(&study, "dpo-sft", &sequential, 1.0, 0.9);
    add(&study, "alright", &run("alright"), 1.5, 0.5);
    study
}

/// Two seeds of a run with the DPO losses of its last iterate and of its average.
fn add(study: &Study, name: &str, settings: &Run, last: f64, average: f64) {
    for seed in [1u64, 2] {
        let own = settings.clone().seed(seed);
        let shift = 0.01 * seed as f64;
        let own = own.ending(0.0, last + shift);
        study.add(
            &format!("{name}-{seed}"),
            &own.averaging(0.0, average + shift),
        );
    }
}

fn read(study: &Study) -> Report {
    Report::read(&[study.path()]).unwrap()
}

fn labels(report: &Report) -> Vec<&str> {
    report.arms.iter().map(|arm| &arm.label[..]).collect()
}

#[track_caller]
fn arm<'r>(report: &'r Report, label: &str) -> &'r Arm {
    let found = report.arms.iter().find(|arm| arm.label == label);
    found.unwrap_or_else(|| panic!("{label} in {:?}", labels(report)))
}

#[test]
fn a_run_with_an_average_is_in_two_arms_with_the_same_cost() {
    let study = study();
    let report = read(&study);
    let expected = [
        "sft alone",
        "dpo alone",
        "dpo, then sft",
        "dpo, then sft, averaged",
        "alright",
        "alright, averaged",
    ];
    assert_eq!(labels(&report), expected);
    let last = arm(&report, "alright");
    let averaged = arm(&report, "alright, averaged");
    assert_eq!(last.iterate, Iterate::Last);
    assert_eq!(averaged.iterate, Iterate::Average);
    assert_eq!(last.runs, averaged.runs);
    assert_eq!(last.seconds, averaged.seconds);
    assert_eq!(last.tokens, averaged.tokens);
    near(last.ideal_distance.training.unwrap().mean, 1.515);
    near(averaged.ideal_distance.training.unwrap().mean, 0.515);
    // Each is held against Sequential of its kind.
    assert_eq!(last.against, ["dpo, then sft"]);
    assert_eq!(averaged.against, ["dpo, then sft, averaged"]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["arms"][4]["iterate"], "last");
    assert_eq!(json["arms"][5]["iterate"], "average");
}

#[test]
fn averages_are_compared_with_averages() {
    let study = study();
    let report = read(&study);
    let claim = report
        .claims
        .iter()
        .find(|claim| claim.text.contains("nearer to the ideal point"))
        .unwrap();
    let mut found = Vec::new();
    for verdict in &claim.verdicts {
        found.push((&verdict.at[..], verdict.holds.training));
    }
    let expected = [
        ("last iterate", Some(Call::No)),
        ("averaged", Some(Call::Yes)),
    ];
    assert_eq!(found, expected);
    let because = &claim.verdicts[1].because.training;
    let words = "\u{201c}alright, averaged\u{201d} 0.515 ± 0.005 versus \u{201c}dpo, then sft, \
                 averaged\u{201d} 0.915 ± 0.005";
    assert!(because.contains(words), "{because}");
    let page = write(&study);
    for words in [
        "<strong>Averaged.</strong>",
        "(last iterate), \u{201c}dpo, then sft\u{201d} ends nearest",
        "(averaged), \u{201c}alright, averaged\u{201d} ends nearest",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // Their paths are in the tables, and what they cost is drawn once.
    let tables = study.path().join("report/tables");
    let distances = Csv::read(&tables, "distances");
    assert_eq!(distances.cell("alright, averaged", "step"), "0");
    for table in ["decisions", "cost"] {
        for row in Csv::read(&tables, table).rows {
            assert!(!row[0].contains("averaged"), "{table}: {row:?}");
        }
    }
}

/// The last iterate does not depend on the average: runs with and without one are one arm.
#[test]
fn last_iterates_with_and_without_an_average_are_one_arm() {
    let study = study();
    study.add("alright-3", &run("alright").seed(3).ending(0.0, 1.53));
    let exporting = run("alright")
        .seed(4)
        .ending(0.0, 1.54)
        .averaging(0.0, 0.54)
        .with("held-out", "export-iterate = \"average\"\nheld-out");
    study.add("alright-4", &exporting);
    let report = read(&study);
    assert_eq!(arm(&report, "alright").runs.len(), 4);
    assert_eq!(arm(&report, "alright, averaged").runs.len(), 3);
    // The same seed with and without an average is a duplicate of the last iterate alone.
    study.add("again-1", &run("alright").seed(1).ending(0.0, 1.51));
    let report = read(&study);
    assert_eq!(arm(&report, "alright").repeated.len(), 1);
    assert!(arm(&report, "alright, averaged").repeated.is_empty());
    assert_eq!(arm(&report, "alright, averaged").runs.len(), 3);
    // A response of a run is that of the iterate that the run exported.
    let answers = r#"[{"prompt": "?", "answers": [
        {"run": "runs/alright-4", "text": "a"}, {"run": "runs/alright-3", "text": "b"}]}]"#;
    study.write("answers.json", answers);
    let report = read(&study);
    let named: Vec<&str> = report.answers[0]
        .answers
        .iter()
        .map(|answer| &answer.run[..])
        .collect();
    assert_eq!(named, ["alright, averaged, seed 4", "alright, seed 3"]);
}

/// An average that an evaluation lacks is missing, and nothing else is.
#[test]
fn a_missing_average_is_left_out() {
    let study = study();
    study.edit("alright-2/evals.jsonl", |text| {
        text.replace("average/", "other/")
    });
    let report = read(&study);
    assert_eq!(arm(&report, "alright").runs.len(), 2);
    assert_eq!(arm(&report, "alright, averaged").runs.len(), 1);
    write(&study);
    // One loss of one run.
    study.edit("alright-1/evals.jsonl", |text| {
        text.replace("average/fit/loss/dpo", "other")
    });
    let report = read(&study);
    let averaged = arm(&report, "alright, averaged");
    assert!(averaged.ideal_distance.training.is_none());
    assert!(averaged.ideal_distance.held_out.is_some());
    write(&study);
    // No run has one.
    study.edit("alright-1/evals.jsonl", |text| {
        text.replace("average/", "other/")
    });
    assert!(!labels(&read(&study)).contains(&"alright, averaged"));
    write(&study);
    // An unfinished run has what it evaluated.
    let cut = run("maxright").averaging(0.0, 0.4).stopped_after(4);
    study.add("maxright", &cut);
    let report = read(&study);
    assert!(arm(&report, "maxright, averaged").unfinished);
    write(&study);
    // A loss that is no number is damage, as it is without the prefix.
    study.edit("maxright/evals.jsonl", |text| {
        text.replace(
            "\"average/fit/loss/sft\":",
            "\"average/fit/loss/sft\":\"x\",\"y\":",
        )
    });
    assert_eq!(read(&study).damaged.len(), 1);
}

#[test]
fn one_run_with_an_average_is_one_run() {
    let study = Study::new();
    let own = run("alright").ending(0.3, 0.4).averaging(0.2, 0.3);
    study.add("run", &own);
    let page = write(&study);
    assert!(page.contains("<h1>One run on \u{201c}small\u{201d}: alright</h1>"));
}

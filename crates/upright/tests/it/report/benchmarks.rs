//! Scores of benchmarks, as in Table 1 of the paper.

use std::fs;

use serde_json::{Value, json};
use upright_core::metrics::Call::{No, TooCloseToCall, Yes};
use upright_report::{Claim, Report};

use crate::snapshots::check;

use super::{
    folders::{Csv, Run, Study, mean_and_error, run},
    near, write,
};

/// Every method at three lambdas, with two seeds.
fn study() -> Study {
    let study = Study::new();
    study.add("sft-alone", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    for (lambda, dpo) in [(0.25, 2), (0.5, 4), (0.75, 6)] {
        for seed in [1, 2] {
            let add = |name: &str, settings: Run| {
                study.add(&format!("{name}-{lambda}-{seed}"), &settings.seed(seed));
            };
            let at = |method: &str| run(method).weights(1.0 - lambda, lambda);
            let split = run("sequential").stages(&[(1, dpo), (0, 8 - dpo)]);
            add("sequential", split);
            add("mix", at("mix"));
            add("alright", at("alright"));
            add("maxright", at("maxright"));
        }
    }
    study
}

/// The score of a run on 400 questions.
fn score(name: &str, value: f64) -> Value {
    json!({"run": format!("runs/{name}"), "value": value, "error": 2.5, "count": 400})
}

fn benchmark(name: &str, title: &str, scores: &[Value]) -> Value {
    json!({"name": name, "title": title, "unit": "%", "higher_is_better": true, "about": "", "scores": scores})
}

/// The scores of a method at all lambdas, each with the shifts of two seeds.
fn by_lambda(name: &str, values: [f64; 3], shifts: [f64; 2]) -> Vec<Value> {
    let mut scores = Vec::new();
    for (lambda, value) in [0.25, 0.5, 0.75].into_iter().zip(values) {
        for (seed, shift) in shifts.into_iter().enumerate() {
            let name = format!("{name}-{lambda}-{}", seed + 1);
            scores.push(score(&name, value + shift));
        }
    }
    scores
}

/// The means of the paper's Table 1. Seeds differ by about half a percent.
fn paper() -> Study {
    let study = study();
    let base = |value: f64| json!({"run": "base", "of": "abc", "value": value, "error": 2.25, "count": 400});
    let mut mmlu = vec![base(71.5)];
    mmlu.extend(by_lambda(
        "sequential",
        [73.18, 72.80, 72.68],
        [-0.25, 0.25],
    ));
    mmlu.extend(by_lambda("mix", [73.45, 73.40, 72.29], [0.2, -0.2]));
    mmlu.extend(by_lambda("alright", [74.66, 72.65, 75.50], [-0.3, 0.3]));
    mmlu.extend(by_lambda("maxright", [72.35, 73.42, 74.24], [0.25, -0.25]));
    for entry in &mut mmlu[1..] {
        let value = entry["value"].as_f64().unwrap() - 71.5;
        entry["difference"] = json!({"value": value, "error": 1.5});
    }
    let mut wins = vec![base(50.0)];
    wins.extend(by_lambda(
        "sequential",
        [57.19, 65.62, 59.38],
        [-0.25, 0.25],
    ));
    wins.extend(by_lambda("mix", [81.88, 84.22, 88.42], [0.2, -0.2]));
    wins.extend(by_lambda("alright", [88.28, 85.78, 87.34], [-0.3, 0.3]));
    wins.extend(by_lambda("maxright", [86.56, 86.09, 83.75], [0.25, -0.25]));
    wins[1]["missing"] = json!(4);
    (wins[1]["low"], wins[1]["high"]) = (json!(56.5), json!(57.5));
    let mut file = vec![
        benchmark("mmlu", "MMLU (1-shot)", &mmlu),
        benchmark("win-rate", "Win rate", &wins),
    ];
    file[0]["about"] = json!("Multiple-choice questions of 57 subjects.");
    study.write("benchmarks.json", &Value::from(file).to_string());
    study
}

fn claim(report: &Report, words: &str) -> Claim {
    let found = report
        .claims
        .iter()
        .find(|claim| claim.text.contains(words));
    found
        .unwrap_or_else(|| panic!("{words} in {:?}", report.claims))
        .clone()
}

#[test]
fn the_table_of_the_paper_has_a_row_per_method_and_a_column_per_lambda() {
    let study = paper();
    let page = write(&study);
    let tables = study.path().join("report/tables");
    let markdown = fs::read_to_string(tables.join("benchmarks.md")).unwrap();
    check("benchmarks", &markdown);
    // The CSV has every digit.
    let csv = Csv::read(&tables, "benchmarks");
    let column = "Win rate (%) lambda 0.25";
    let (mean, error) = mean_and_error(&[57.19 - 0.25, 57.19 + 0.25]);
    near(csv.number("dpo, then sft", column), mean);
    near(
        csv.number("dpo, then sft", &format!("{column} error")),
        error,
    );
    assert_eq!(
        csv.cell("base", "MMLU (1-shot) (%) no lambda error"),
        "2.25"
    );
    // All numbers, one row per arm and benchmark.
    let scores = Csv::read(&tables, "scores");
    assert_eq!(scores.rows.len(), 2 * 13);
    let row = "dpo 2, then sft 6";
    near(scores.number(row, "difference to base"), 73.18 - 71.5);
    near(scores.number(row, "difference to base error"), 0.25);
    assert_eq!(scores.cell(row, "error over"), "seeds");
    assert_eq!(scores.cell("base", "error over"), "questions");
    let wins = scores
        .rows
        .iter()
        .find(|cells| cells[0] == row && cells[1] == "Win rate (%)")
        .unwrap();
    let cell = |name: &str| &wins[scores.column(name)][..];
    assert_eq!(cell("missing verdicts number"), "4");
    let [lost, won] = ["lost", "won"].map(|what| {
        let name = format!("missing verdicts score if {what}");
        cell(&name).parse::<f64>().unwrap()
    });
    near(lost, (56.5 + 57.44) / 2.0);
    near(won, (57.5 + 57.44) / 2.0);
    // The section comes last but one, and has its figure and its files.
    let [fronts, benchmarks, runs] =
        ["fronts", "benchmarks", "runs"].map(|id| page.find(&format!("id=\"{id}\"")).unwrap());
    assert!(fronts < benchmarks && benchmarks < runs);
    for file in [
        "figures/benchmarks.svg",
        "tables/benchmarks.csv",
        "tables/scores.md",
    ] {
        assert!(page.contains(&format!("href=\"{file}\"")), "{file}");
        assert!(study.path().join("report").join(file).is_file(), "{file}");
    }
    for words in [
        "MMLU (1-shot): Multiple-choice questions of 57 subjects.",
        "Win rate: 4 verdicts are missing.",
        "lambda 0.25 is sft 6, dpo 2; lambda 0.5 is sft 4, dpo 4",
        "mean over the seeds of an arm, with the standard error over seeds",
        "On Win rate, compared with Sequential: \u{201c}mix\u{201d}, \u{201c}alright\u{201d} and \
         \u{201c}maxright\u{201d} are clearly better.",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // Without the file there is no section, and the files of the earlier report go.
    fs::remove_file(study.path().join("benchmarks.json")).unwrap();
    assert!(!write(&study).contains("id=\"benchmarks\""));
    for file in [
        "figures/benchmarks.svg",
        "tables/benchmarks.csv",
        "tables/scores.md",
    ] {
        assert!(!study.path().join("report").join(file).exists(), "{file}");
    }
}

#[test]
fn the_claims_of_the_paper_on_benchmarks_are_tested() {
    let report = Report::read(&[paper().path()]).unwrap();
    let wins = claim(
        &report,
        "On Win rate, ALRIGHT and MAXRIGHT score better than Sequential",
    );
    assert_eq!(wins.call(), Some(Yes));
    assert_eq!(
        (wins.verdicts.len(), wins.verdicts[0].small.seeds),
        (3, Some(2))
    );
    // By the paper's own numbers, neither method is better than both baselines everywhere.
    let mmlu = claim(
        &report,
        "On MMLU (1-shot), ALRIGHT and MAXRIGHT score better than Sequential",
    );
    assert!(
        mmlu.text.ends_with("(dpo, then sft) and Mix"),
        "{}",
        mmlu.text
    );
    let calls: Vec<_> = mmlu
        .verdicts
        .iter()
        .map(|verdict| verdict.holds.held_out)
        .collect();
    assert_eq!(calls, [Some(No), Some(No), Some(Yes)]);
    assert!(
        mmlu.verdicts[0]
            .because
            .held_out
            .contains("\u{201c}alright lambda 0.25\u{201d} 74.66 ± 0.30")
    );
}

/// With one seed the error is over questions, and two of them decide.
#[test]
fn one_seed_is_judged_by_the_questions() {
    let study = Study::new();
    study.add("sequential", &run("sequential").stages(&[(1, 4), (0, 4)]));
    study.add("alright", &run("alright"));
    let file = |alright: f64, error: Value| {
        let mut scores = [score("sequential", 50.0), score("alright", alright)];
        scores[1]["error"] = error;
        let file = Value::from(vec![benchmark("win-rate", "Win rate", &scores)]);
        study.write("benchmarks.json", &file.to_string());
    };
    // The error of the difference is 3.5.
    for (alright, call, words, best) in [
        (
            56.9,
            TooCloseToCall,
            "no method can be told apart from Sequential",
            false,
        ),
        (57.2, Yes, "\u{201c}alright\u{201d} is clearly better", true),
        (42.8, No, "\u{201c}alright\u{201d} is clearly worse", true),
    ] {
        file(alright, json!(2.5));
        let page = write(&study);
        let report = Report::read(&[study.path()]).unwrap();
        let claim = claim(&report, "ALRIGHT scores better");
        assert_eq!((claim.call(), claim.mark()), (Some(call), String::new()));
        assert!(page.contains(words), "{words}");
        assert!(page.contains("judged by the errors over questions"));
        let markdown = study.path().join("report/tables/benchmarks.md");
        let markdown = fs::read_to_string(markdown).unwrap();
        assert_eq!(markdown.contains("**"), best, "{markdown}");
        // One lambda: one column.
        assert!(
            markdown.contains("| model | Win rate (%), score |"),
            "{markdown}"
        );
    }
    // A bare mean decides the claim, says so, and is not highlighted.
    file(90.0, Value::Null);
    let page = write(&study);
    assert!(page.contains("Some scores have no known error"));
    let report = Report::read(&[study.path()]).unwrap();
    assert!(!claim(&report, "ALRIGHT scores").mark().is_empty());
    let markdown = fs::read_to_string(study.path().join("report/tables/benchmarks.md")).unwrap();
    assert!(!markdown.contains("**"), "{markdown}");
}

#[test]
fn a_loss_is_better_when_it_is_lower() {
    let study = Study::new();
    study.add("sequential", &run("sequential").stages(&[(1, 4), (0, 4)]));
    study.add("alright", &run("alright"));
    let scores = [
        json!({"run": "runs/sequential", "value": 1.5, "error": 0.01, "count": 9}),
        json!({"run": "runs/alright", "value": 1.25, "error": 0.01, "count": 9}),
    ];
    let file = json!([{"name": "loss", "higher_is_better": false, "scores": scores}]);
    study.write("benchmarks.json", &file.to_string());
    let page = write(&study);
    assert!(page.contains("\u{201c}alright\u{201d} is clearly better"));
    assert!(page.contains("Lower is better."));
    let markdown = fs::read_to_string(study.path().join("report/tables/benchmarks.md")).unwrap();
    assert!(
        markdown.contains("| alright | **1.250 ± 0.010** |"),
        "{markdown}"
    );
}

/// Mix with half the steps trains on as many tokens.
#[test]
fn a_mix_of_another_length_is_compared_at_equal_tokens() {
    let study = Study::new();
    let sequential = run("sequential").stages(&[(1, 4), (0, 4)]);
    study.add("sequential", &sequential.tokens(100));
    study.add("alright", &run("alright").tokens(100));
    study.add("mix", &run("mix").lasting(4).tokens(200));
    let scores = [
        score("sequential", 50.0),
        score("alright", 60.0),
        score("mix", 40.0),
    ];
    let file = Value::from(vec![benchmark("mmlu", "MMLU", &scores)]);
    study.write("benchmarks.json", &file.to_string());
    let words = "On MMLU, compared with Sequential: \u{201c}alright, steps 8\u{201d} is clearly \
                 better; \u{201c}mix, steps 4\u{201d} is clearly worse.";
    let page = write(&study);
    assert!(page.contains(words), "{page}");
}

/// Sequential at weights of its own is not in the column of another lambda.
#[test]
fn arms_without_a_lambda_of_the_others_have_rows_of_their_own() {
    let study = Study::new();
    for lambda in [0.1, 0.9] {
        study.add(
            &format!("mix-{lambda}"),
            &run("mix").weights(1.0 - lambda, lambda),
        );
    }
    for dpo in [2, 4, 6] {
        let split = run("sequential").stages(&[(1, dpo), (0, 8 - dpo)]);
        study.add(&format!("sequential-{dpo}"), &split);
    }
    study.add("adapter", &run("mix").measuring("/adapters/mine"));
    study.add("sft-alone", &run("mix").weights(1.0, 0.0));
    let names = [
        "mix-0.1",
        "mix-0.9",
        "sequential-2",
        "sequential-4",
        "sequential-6",
        "adapter",
        "sft-alone",
    ];
    let scores = names.map(|name| score(name, 50.0));
    let file = Value::from(vec![benchmark("mmlu", "", &scores)]);
    study.write("benchmarks.json", &file.to_string());
    write(&study);
    let tables = study.path().join("report/tables");
    let csv = Csv::read(&tables, "benchmarks");
    let rows: Vec<&str> = csv.rows.iter().map(|row| &row[0][..]).collect();
    let expected = [
        "sft alone",
        "dpo 2, then sft 6",
        "dpo 4, then sft 4",
        "dpo 6, then sft 2",
        "mix",
        "adapter mine",
    ];
    assert_eq!(rows, expected);
    assert_eq!(csv.number("dpo 4, then sft 4", "mmlu (%) no lambda"), 50.0);
    assert_eq!(csv.number("mix", "mmlu (%) lambda 0.9"), 50.0);
    assert_eq!(csv.cell("mix", "mmlu (%) no lambda"), "");
}

#[test]
fn scores_outside_the_report_are_left_out() {
    let study = study();
    study.write("runs/damaged/plan.toml", "[plan]");
    study.write("old/run/plan.toml", "[plan]");
    study.write(
        "study.toml",
        "runs = [\"runs/mix-0.5-1\", \"runs/damaged\"]",
    );
    let names = ["mix-0.5-1", "mix-0.5-2", "damaged"];
    let file = Value::from(vec![benchmark(
        "mmlu",
        "MMLU",
        &names.map(|name| score(name, 50.0)),
    )]);
    study.write("benchmarks.json", &file.to_string());
    let report = Report::read(&[study.path()]).unwrap();
    let scores = &report.benchmarks[0];
    assert_eq!((scores.arms.len(), scores.left_out), (1, 2));
    assert!(write(&study).contains("MMLU: 2 scores of runs outside this report are not shown."));
    // The same folder twice is no contradiction.
    let twice = [study.path(), study.path()];
    assert_eq!(Report::read(&twice).unwrap().benchmarks[0].arms.len(), 1);
}

/// A base is another model if its hash is another, also where only one of them was scored.
#[test]
fn bases_of_the_same_name_are_told_apart() {
    let base = |of: &str, value: f64| json!({"run": "base", "of": of, "value": value, "count": 9});
    let studies = [("a", 1.0), ("b", 2.0)].map(|(of, value)| {
        let study = study();
        let mut file = vec![benchmark("mmlu", "MMLU", &[base(of, value)])];
        if of == "b" {
            file.push(benchmark("win-rate", "Win rate", &[base(of, 3.0)]));
        }
        study.write("benchmarks.json", &Value::from(file).to_string());
        study
    });
    let report = Report::read(&studies.each_ref().map(Study::path)).unwrap();
    let names = |benchmark: usize| {
        let mut names = Vec::new();
        for of in &report.benchmarks[benchmark].references {
            names.push((&of.name[..], of.score.sample.spread.mean));
        }
        names
    };
    assert_eq!(names(0), [("base", 1.0), ("base (2)", 2.0)]);
    assert_eq!(names(1), [("base (2)", 3.0)]);
}

#[test]
fn damaged_files_of_scores_are_refused_by_name() {
    let mut many = Vec::new();
    for number in 0..10_001 {
        many.push(json!({"run": format!("m{number}"), "value": 1, "count": 1}));
    }
    let of = |scores: &[Value]| Value::from(vec![benchmark("mmlu", "", scores)]).to_string();
    let twice = [score("mix-0.5-1", 1.0), score("./mix-0.5-1", 1.0)];
    for (text, part) in [
        ("[{\"name\": 1}]".to_owned(), "invalid type"),
        ("[".to_owned(), "EOF"),
        (
            of(&[score("mix-0.5-1", 1.0)]).replace("400", "1e999"),
            "out of range",
        ),
        (of(&[score("gone", 1.0)]), "mmlu: runs/gone: no such run"),
        (of(&[score("mix-0.5-1", 1e13)]), "value is not between"),
        (of(&twice), "runs/./mix-0.5-1 has two scores"),
        (of(&many), "10001 scores"),
    ] {
        let study = study();
        study.write("benchmarks.json", &text);
        let error = Report::read(&[study.path()]).unwrap_err();
        assert!(error.message.contains("benchmarks.json: "), "{error:?}");
        assert!(error.message.contains(part), "{part}: {error:?}");
        assert!(!error.hint.is_empty(), "{error:?}");
    }
    // Two folders with different benchmarks of one name.
    let studies = [true, false].map(|higher| {
        let study = study();
        let file = json!([{"name": "mmlu", "higher_is_better": higher, "scores": []}]);
        study.write("benchmarks.json", &file.to_string());
        study
    });
    let error = Report::read(&studies.each_ref().map(Study::path)).unwrap_err();
    assert!(
        error.message.contains("mmlu: title, unit or direction"),
        "{error:?}"
    );
}

/// Many models, under hostile names.
#[test]
fn many_hostile_names_are_text() {
    let study = study();
    let mut scores = vec![score("mix-0.25-1", 1.0), score("mix-0.5-1", 1.0)];
    for number in 1..2_000 {
        scores.push(
            json!({"run": format!("<b>|{number}"), "value": -1e12, "error": 1e12, "count": 1}),
        );
    }
    let mut file = benchmark("mmlu", "<script>\n|", &scores);
    (file["about"], file["unit"]) = (json!("<img src=x>"), json!("<i>"));
    study.write("benchmarks.json", &Value::from(vec![file]).to_string());
    let page = write(&study);
    for raw in ["<script", "<img", "<b>", "<i>", "NaN", "inf,"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("&lt;b&gt;|1999"));
    assert_eq!(
        Csv::read(&study.path().join("report/tables"), "benchmarks")
            .rows
            .len(),
        2_000
    );
}

//! Benchmarks of a study: taken once, kept by model, and shown in the report.

use std::fs;

use serde_json::{Value, json};

use super::Judge;
use crate::fixture::{Done, Place, preference};

/// A study of a tiny model with every benchmark.
fn study(place: &Place, judge: &Judge) -> String {
    place.edit("model/config.json", |config| {
        config.insert("max_position_embeddings".into(), json!(8192));
    });
    let from =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-data/tests/it/mmlu_data");
    for split in ["dev", "test"] {
        for entry in fs::read_dir(from.join(split)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            place.write(&format!("mmlu/{split}/{name}"), fs::read(&path).unwrap());
        }
    }
    place.rows("pairs.jsonl", &(30..34).map(preference).collect::<Vec<_>>());
    format!(
        "[settings]\nmodel = 'model'\nsft = 'sft.jsonl'\ndpo = 'dpo.jsonl'\nsft-template = 'raw'\n\
         dpo-template = 'raw'\nsteps = 4\nlora-rank = 2\nmax-length = 128\neval-rows = 4\nthreads = 2\n\
         learning-rate = 0.01\n\
         [[sweep]]\nmethods = ['mix', 'alright']\nlambdas = [0.25, 0.75]\nfront = 'none'\n\
         [evaluate.mmlu]\ndata = 'mmlu'\nsubjects = 'anatomy,sociology'\nshots = 1\nlimit = 3\n\
         [evaluate.win-rate]\nprompts = 'pairs.jsonl'\nmax-tokens = 5\njudge-model = 'scripted'\n\
         judge-price = '1,1'\njudge-url = 'http://{}/v1'\n\
         [evaluate.sets.others]\nobjective = 'dpo'\ndata = 'pairs.jsonl'\n",
        judge.0.address
    )
}

#[test]
fn a_study_takes_benchmarks_once_and_its_report_shows_the_papers_table() {
    let (place, judge) = (Place::new(), Judge::polite());
    let text = study(&place, &judge);
    place.write("study.toml", &text);
    let plan = Done::good(place.command("experiment study.toml --out out --dry-run --json")).json()
        [0]
    .clone();
    let benchmarks = plan["benchmarks"].as_array().unwrap();
    let names: Vec<&Value> = benchmarks.iter().map(|plan| &plan["benchmark"]).collect();
    assert_eq!(names, ["mmlu", "win-rate", "others"]);
    // The base and four runs; two subjects of three questions; four prompts in both orders.
    assert_eq!(
        (&benchmarks[0]["models"], &benchmarks[0]["questions"]),
        (&json!(5), &json!(6))
    );
    assert_eq!(
        (&benchmarks[1]["judge_calls"], judge.asked()),
        (&json!(40), 0)
    );
    assert!(benchmarks[1]["cost_usd"].as_f64().unwrap() > 0.0);
    let listed = Done::good(place.command("experiment study.toml --out out --dry-run")).stdout;
    assert!(
        listed.contains("win-rate: 5 models, 4 questions each; 40 requests to the judge"),
        "{listed}"
    );

    Done::good(place.command("experiment study.toml --out out"));
    let asked = judge.asked();
    assert!((8..=40).contains(&asked), "{asked}");
    let read = || -> Value { serde_json::from_slice(&place.read("out/benchmarks.json")).unwrap() };
    let found = read();
    for benchmark in found.as_array().unwrap() {
        let scores = benchmark["scores"].as_array().unwrap();
        assert_eq!(scores.len(), 5, "{benchmark}");
        assert!(
            scores[0]["run"].as_str().unwrap().starts_with("base"),
            "{benchmark}"
        );
        assert_eq!(scores[0]["difference"], Value::Null);
        assert!(scores[1]["difference"]["value"].is_number(), "{benchmark}");
    }
    assert_eq!(found[0]["title"], "MMLU (1-shot)");
    assert_eq!(found[2]["higher_is_better"], false);
    let table = String::from_utf8(place.read("out/report/tables/benchmarks.md")).unwrap();
    assert!(
        table.contains("MMLU (1-shot)") && table.contains("Win rate"),
        "{table}"
    );

    // Nothing is taken twice.
    Done::good(place.command("experiment study.toml --out out"));
    assert_eq!((judge.asked(), read()), (asked, found.clone()));
    let plan = Done::good(place.command("experiment study.toml --out out --dry-run --json"));
    for benchmark in plan.json()[0]["benchmarks"].as_array().unwrap() {
        assert_eq!(benchmark["finished"], 5, "{benchmark}");
    }
    // A lost score is computed again, from known answers and replies.
    let lost = fs::read_dir(place.path("out/benchmarks/win-rate"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    fs::remove_file(lost.path()).unwrap();
    Done::good(place.command("experiment study.toml --out out"));
    assert_eq!((judge.asked(), read()), (asked, found));
    // The base answers with the template of the preference rows, so another template is another score.
    place.write(
        "study.toml",
        text.replace("dpo-template = 'raw'", "dpo-template = 'user-assistant'"),
    );
    Done::good(place.command("experiment study.toml --out out"));
    for benchmark in ["win-rate", "others"] {
        let kept = fs::read_dir(place.path(&format!("out/benchmarks/{benchmark}"))).unwrap();
        assert_eq!(
            kept.count(),
            10,
            "{benchmark}: five models with each template"
        );
    }
    // A study without benchmarks has no scores of an earlier file.
    place.write("study.toml", text.split("[evaluate").next().unwrap());
    Done::good(place.command("experiment study.toml --out out"));
    assert!(!place.path("out/benchmarks.json").exists());
}

#[test]
fn a_benchmark_that_fails_loses_no_other_and_the_page_is_written() {
    let place = Place::new();
    let judge = Judge::new(|_, _| {
        Some((
            401,
            String::new(),
            json!({"error": {"message": "who are you?"}}).to_string(),
        ))
    });
    place.write("study.toml", study(&place, &judge));
    let done = Done::of(place.command("experiment study.toml --out out"));
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.error().contains("who are you?"), "{done:?}");
    let found: Value = serde_json::from_slice(&place.read("out/benchmarks.json")).unwrap();
    let names: Vec<&Value> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["mmlu", "others"]);
    assert!(place.path("out/report/report.html").exists());
    for (old, new, part) in [
        ("'mmlu'\nsubjects", "'nowhere'\nsubjects", "nowhere"),
        (
            "prompts = 'pairs.jsonl'",
            "prompts = 'sft.jsonl'",
            "sft.jsonl",
        ),
        (
            "objective = 'dpo'",
            "objective = 'ppo'",
            "there is no objective `ppo`",
        ),
        ("'1,1'", "'1'", "judge-price must be two numbers"),
        (
            "max-tokens = 5",
            "max-tokens = 5\nmax-cost = 0.0000001",
            "max-cost is 0.0000001",
        ),
    ] {
        place.write("study.toml", study(&place, &judge).replace(old, new));
        let done = Done::of(place.command("experiment study.toml --out other"));
        assert_eq!(done.code, Some(2), "{new}: {done:?}");
        assert!(done.error().contains(part), "{new}: {done:?}");
    }
}

//! Every preference loss in real runs.

use crate::fixture::{Done, Place};
use serde_json::Value;

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

/// Lines of a file of records.
fn records(place: &Place, name: &str) -> Vec<Value> {
    let text = String::from_utf8(place.read(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What is trained falls, what is recorded adds up, and nobody scores a reference that no loss compares with.
#[test]
fn every_preference_loss_trains() {
    let place = Place::new();
    let flags = "!--sft --lora-rank 4 --eval-every 30 --steps 30 --learning-rate 5e-3 --held-out 0.2 --json";
    for loss in ["sigmoid", "ipo", "rpo", "orpo", "simpo"] {
        let compares = !["orpo", "simpo"].contains(&loss);
        let done = Done::good(place.train(&format!("{flags} --dpo-loss {loss} --out {loss}")));
        assert_eq!(
            done.stderr.contains("reference log-probabilities")
                || done.stderr.contains("reference: "),
            compares
        );
        let summary = &done.json()[0]["objectives"][0];
        let at = |key: &str, set: usize| {
            summary[key][set]
                .as_f64()
                .unwrap_or_else(|| panic!("{key} of {summary}"))
        };
        assert!(at("end", 1) < 0.7 * at("start", 1), "{loss}: {summary}");
        assert!(
            at("rewards_accuracy", 1) == 1.0 && at("rewards_accuracy", 0) > 0.5,
            "{loss}: {summary}"
        );
        for step in records(&place, &format!("{loss}/steps.jsonl")) {
            let sum = match loss {
                "rpo" => number(&step, "dpo_loss") + number(&step, "nll_loss"),
                "orpo" => number(&step, "nll_loss") - 0.1 * number(&step, "log_odds_ratio"),
                _ => continue,
            };
            assert!(
                (sum - number(&step, "loss/dpo")).abs() < 1e-12,
                "{loss}: {step}"
            );
        }
    }
    // A reference for nothing is not trained, and said to be for nothing.
    let done =
        Done::good(place.train("!--sft --dpo-loss orpo --reference train:chosen --out nothing"));
    assert!(
        done.stderr.contains("--reference is ignored") && !done.stderr.contains("training it in"),
        "{done:?}"
    );
}

/// `eval loss` from the log-probabilities and lengths that it prints.
#[test]
fn eval_loss_has_every_preference_loss() {
    let place = Place::new();
    place.adapter("adapter", "llama");
    let mean = |row: &Value, name: &str| number(&row["logp"], name) / number(&row["tokens"], name);
    let softplus = |x: f64| x.exp().ln_1p();
    let odds = |log_p: f64| log_p - (-log_p.exp()).ln_1p();
    let ratio =
        |row: &Value, name: &str| number(&row["logp"], name) - number(&row["reference"], name);
    let dpo =
        |row: &Value, beta: f64| softplus(-beta * (ratio(row, "chosen") - ratio(row, "rejected")));
    type Loss<'a> = &'a dyn Fn(&Value) -> f64;
    let losses: [(&str, Loss<'_>); 4] = [
        ("orpo", &|row| {
            let (chosen, rejected) = (mean(row, "chosen"), mean(row, "rejected"));
            -chosen + 0.1 * softplus(odds(rejected) - odds(chosen))
        }),
        ("simpo --beta 3 --dpo-gamma 0.5", &|row| {
            softplus(0.5 - 3.0 * (mean(row, "chosen") - mean(row, "rejected")))
        }),
        ("rpo --reference none --dpo-alpha 0.5", &|row| {
            dpo(row, 0.1) - 0.5 * mean(row, "chosen")
        }),
        ("sigmoid --reference none --beta 0.3", &|row| dpo(row, 0.3)),
    ];
    for (words, loss) in losses {
        let words =
            format!("eval loss --model model --adapter adapter --dpo dpo.jsonl --dpo-loss {words}");
        let rows = Done::good(place.command(&format!("{words} --per-row"))).json();
        for row in &rows {
            assert!(
                (number(row, "loss") - loss(row)).abs() < 1e-12,
                "{words}: {row}, {}",
                loss(row)
            );
        }
        let totals = &Done::good(place.command(&format!("{words} --json"))).json()[0];
        let mean = rows.iter().map(|row| number(row, "loss")).sum::<f64>() / rows.len() as f64;
        assert!(
            (number(totals, "loss") - mean).abs() < 1e-12
                && totals["rewards/accuracies"].is_number(),
            "{totals}"
        );
    }
}

/// One loss compares with the reference, which is trained on its chosen responses, the other does not; metrics that both
/// have are told apart by the objective's name.
#[test]
fn losses_with_and_without_a_reference_run_together() {
    let place = Place::new();
    let objectives = [
        ("talk", "sft", "sft"),
        ("taste", "rpo", "dpo"),
        ("odds", "orpo", "dpo"),
    ];
    let text = objectives.map(|(name, loss, data)| {
        format!("[[objective]]\nname = '{name}'\nloss = '{loss}'\ndata = '{data}.jsonl'\n")
    });
    place.write("run.toml", text.concat());
    let flags = "!--sft !--dpo --config run.toml --method mix --reference train:chosen --json";
    let done = Done::good(place.train(flags));
    assert!(
        done.stderr.contains("reference: training it in"),
        "{done:?}"
    );
    let metrics = ["rewards/accuracies", "nll_loss", "logps/chosen"];
    for (name, prefix) in [("steps.jsonl", ""), ("evals.jsonl", "fit/")] {
        for record in records(&place, &format!("run/{name}")) {
            let has = |key: String| record[format!("{prefix}{key}")].is_number();
            for name in ["taste", "odds"] {
                assert!(
                    metrics.iter().all(|metric| has(format!("{metric}/{name}"))),
                    "{record}"
                );
            }
            assert!(
                has("dpo_loss".into()) && has("log_odds_ratio".into()) && !has("nll_loss".into()),
                "{record}"
            );
        }
    }
    let summary = &done.json()[0]["objectives"];
    let accuracy = |i: usize| summary[i]["rewards_accuracy"][1].is_number();
    assert_eq!([0, 1, 2].map(accuracy), [false, true, true], "{summary}");
    let plan = String::from_utf8(place.read("run/plan.toml")).unwrap();
    assert_eq!(
        (
            plan.matches("\nalpha = 1.0").count(),
            plan.matches("\ngamma").count()
        ),
        (1, 0),
        "{plan}"
    );
}

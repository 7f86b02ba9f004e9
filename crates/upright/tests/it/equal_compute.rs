//! Studies that compare Mix with ALRIGHT at equal steps and at equal tokens.

use serde_json::{Map, Value};

use crate::runs_fixture::study::{SETTINGS, Study};

const SWEEP: &str = "
[[sweep]]
methods = ['mix', 'alright', 'compromise']
mix = ['steps', 'tokens', 'half']
lambdas = [0.5, 0.25]
front = 'none'
";

fn sum(steps: &[Map<String, Value>], key: &str) -> f64 {
    let mut sum = 0.0;
    for step in steps {
        sum += step.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    }
    sum
}

#[test]
fn mix_is_compared_at_equal_steps_and_at_equal_tokens() {
    let study = Study::new();
    let settings = SETTINGS
        .replace("steps = 8", "steps = 40\naverage = 'polynomial'")
        .replace("dpo-batch = 3", "dpo-batch = 2");
    study.write("study.toml", &format!("seeds = [1]\n{settings}\n{SWEEP}"));
    let done = study.json("study.toml --out out");
    let steps = |part: &str| study.fixture.steps(&study.folder(&done, part));
    for lambda in ["0.5", "0.25"] {
        let full = steps(&format!("mix-lambda-{lambda}-seed-1"));
        let tokens = steps(&format!("mix-tokens-lambda-{lambda}-seed-1"));
        let half = steps(&format!("mix-half-lambda-{lambda}-seed-1"));
        assert_eq!((full.len(), half.len()), (40, 40));
        // Tokens of a step of ALRIGHT, by its weights, of those of a step of Mix.
        let alright = steps(&format!("alright-lambda-{lambda}-seed-1"));
        let mut means = [0.0; 2];
        for (mean, name) in means.iter_mut().zip(["sft", "dpo"]) {
            let key = format!("loss/{name}");
            let of: Vec<_> = alright
                .iter()
                .filter(|step| step.contains_key(&key))
                .cloned()
                .collect();
            *mean = sum(&of, "tokens") / of.len() as f64;
        }
        let lambda: f64 = lambda.parse().unwrap();
        let share = ((1.0 - lambda) * means[0] + lambda * means[1]) / (means[0] + means[1]);
        let expected = 40.0 * share;
        assert!(
            (tokens.len() as f64 - expected).abs() < 1.5,
            "{} steps at lambda {lambda}, expected {expected}",
            tokens.len()
        );
        let ratio = sum(&tokens, "tokens") / sum(&full, "tokens");
        assert!((ratio - share).abs() < 0.05, "{ratio}, {share}");
        let ratio = sum(&half, "tokens") / sum(&full, "tokens");
        assert!((0.4..0.6).contains(&ratio), "{ratio}");
    }
    let evals = study
        .fixture
        .evals(&study.folder(&done, "mix-half-lambda-0.5-seed-1"));
    assert!(
        evals
            .last()
            .unwrap()
            .contains_key("average/fit/ideal_distance")
    );
}

/// Every form is a job of its own, with its setting in the plan of its run.
#[test]
fn draws_and_powers_are_compared() {
    let study = Study::new();
    let sweep =
        "methods = ['alright', 'compromise']\ndraws = ['random', 'balanced']\npower = [1, 3]";
    let text =
        format!("seeds = [1]\n{SETTINGS}\n[[sweep]]\nlambdas = [0.5]\n{sweep}\nfront = 'none'\n");
    study.write("study.toml", &text);
    let done = study.json("study.toml --out out");
    for (part, setting) in [
        ("alright-lambda-0.5-seed-1", ""),
        ("alright-balanced-lambda-0.5-seed-1", "draws = \"balanced\""),
        ("compromise-lambda-0.5-p-1-seed-1", "power = 1.0"),
        ("compromise-lambda-0.5-p-3-seed-1", "power = 3.0"),
    ] {
        let folder = study.fixture.path(&study.folder(&done, part));
        let plan = std::fs::read_to_string(folder.join("plan.toml")).unwrap();
        assert!(plan.contains(setting), "{part}: {plan}");
        assert_eq!(plan.contains("draws"), setting.contains("draws"), "{part}");
    }
}

#[test]
fn forms_of_mix_that_are_unknown_doubled_or_without_mix_are_refused() {
    let study = Study::new();
    for (sweep, expected) in [
        (
            "methods = ['mix']\nmix = ['third']",
            "mix must be one of steps, tokens, half, found `third`",
        ),
        (
            "methods = ['mix']\nmix = ['half', 'half']",
            "mix names `half` twice",
        ),
        (
            "methods = ['alright']\nmix = 'half'",
            "mix is given, but mix is not among the methods",
        ),
        (
            "methods = ['mix']\nmix = 'half'\nsettings = { sft-batch = 3 }",
            "must be even with mix-batches half, found `3`",
        ),
        (
            "methods = ['alright']\nseeds = [1, 2]",
            "seeds must be among the seeds of the study, found `2`",
        ),
        (
            "methods = ['alright']\nsettings = { draws = 'balanced' }",
            "draws is not a setting of a study",
        ),
        (
            "methods = ['alright']\npower = [2]",
            "power is given, but compromise is not among the methods",
        ),
        (
            "methods = ['alright']\ndraws = ['even']",
            "draws must be one of random, balanced, found `even`",
        ),
        (
            "methods = ['compromise']\npower = [0.5]",
            "power must be a number from 1 to 100, found `0.5`",
        ),
        (
            "methods = ['mix']\nsettings = { mix-batches = 'half' }",
            "mix-batches is not a setting of a study",
        ),
    ] {
        let text = format!("seeds = [1]\n{SETTINGS}\n[[sweep]]\nlambdas = [0.5]\n{sweep}\n");
        study.write("study.toml", &text);
        let ended = study.run("study.toml --out out --dry-run");
        assert_eq!(ended.code, Some(2), "{sweep}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

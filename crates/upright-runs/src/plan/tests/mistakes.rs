//! Every mistake gets one message that names the key, the value found, and a value that would work.

use super::{BASE, BOTH, Place};
use crate::plan::Plan;
use crate::settings::Config;
use upright_base::ErrorKind;

fn assert_wrong(config: &Config, parts: &[&str]) {
    let error = Plan::from_config(config)
        .map(|_| ())
        .expect_err(&format!("{parts:?} is accepted"));
    assert_eq!(error.kind, ErrorKind::Input);
    let message = format!("{error}\n{}", error.hint);
    assert!(
        parts.iter().all(|part| message.contains(part)),
        "{parts:?} is not all in: {message}"
    );
}

#[test]
fn every_bad_value_is_named_with_its_key() {
    let place = Place::new();
    let counts = [
        "lora-rank",
        "sft-rows",
        "dpo-rows",
        "sft-batch",
        "dpo-batch",
        "max-length",
        "min-prompt",
        "probe-every",
        "reference-batch",
        "steps",
        "eval-every",
        "eval-rows",
        "checkpoint-every",
        "keep",
        "threads",
        "token-budget",
    ];
    let positive = [
        "lora-alpha",
        "beta",
        "learning-rate",
        "epochs",
        "reference-epochs",
        "reference-learning-rate",
    ];
    for key in counts.iter().chain(&positive) {
        for value in ["0", "-5", "'abc'", "nan", "inf", "''"] {
            let quoted = format!("`{}`", value.trim_matches('\'').replace("nan", "NaN"));
            assert_wrong(
                &place.config(&format!("{BOTH}{key} = {value}")),
                &[key, &quoted],
            );
        }
    }
    for key in counts {
        assert_wrong(
            &place.config(&format!("{BOTH}{key} = 1.5")),
            &[key, "`1.5`", "whole number"],
        );
    }
    for key in [
        "weight-decay",
        "clip",
        "warmup",
        "held-out",
        "label-smoothing",
        "seed",
        "lambda",
    ] {
        assert_wrong(
            &place.config(&format!("{BOTH}{key} = -0.1")),
            &[key, "`-0.1`"],
        );
    }
    for key in ["method", "schedule", "too-long", "recompute", "dpo-loss"] {
        assert_wrong(
            &place.config(&format!("{BOTH}{key} = 'zebra'")),
            &[key, "`zebra`", "be one of", ", "],
        );
    }
}

#[test]
fn other_mistakes_name_what_was_found_and_what_would_work() {
    let place = Place::new();
    let table: &[(&str, &[&str])] = &[
        (
            "lambda = 1.5",
            &["lambda must lie in [0, 1], found `1.5`", "0 is SFT alone"],
        ),
        ("lambda = nan", &["lambda", "`NaN`"]),
        (
            "method = 'allright'",
            &[
                "sequential, mix, alright, maxright",
                "`allright`",
                "did you mean `alright`?",
            ],
        ),
        (
            "schedule = 'cosin'",
            &["constant, linear, cosine", "did you mean `cosine`?"],
        ),
        ("held-out = 1", &["held-out", "`1`", "below 1"]),
        ("label-smoothing = 0.5", &["label-smoothing", "`0.5`"]),
        (
            "label-smoothing = 0.1\ndpo-loss = 'ipo'",
            &[
                "label-smoothing must be left out: the loss ipo does not take it, found `0.1`",
                "dpo, rpo, simpo",
            ],
        ),
        (
            "label-smoothing = 0.1\ndpo-loss = 'orpo'",
            &["label-smoothing must be left out", "orpo", "`0.1`"],
        ),
        (
            "dpo-alpha = 2",
            &[
                "dpo-alpha must be left out: the loss dpo does not take it, found `2`",
                "losses that take it: rpo",
            ],
        ),
        (
            "dpo-alpha = 2\ndpo-loss = 'orpo'",
            &["dpo-alpha must be left out: the loss orpo", "`2`"],
        ),
        (
            "dpo-gamma = 0\ndpo-loss = 'rpo'",
            &[
                "dpo-gamma must be left out",
                "`0`",
                "losses that take it: simpo",
            ],
        ),
        (
            "dpo-alpha = -1\ndpo-loss = 'rpo'",
            &["dpo-alpha must be a number of at least 0, found `-1`"],
        ),
        (
            "dpo-gamma = nan\ndpo-loss = 'simpo'",
            &["dpo-gamma must be a number of at least 0, found `NaN`"],
        ),
        (
            "dpo-loss = 'simop'",
            &[
                "dpo-loss must be one of sigmoid, ipo, rpo, orpo, simpo",
                "did you mean `simpo`?",
            ],
        ),
        (
            "max-length = 100\nmin-prompt = 100",
            &["min-prompt", "below max-length, 100", "`100`"],
        ),
        ("max-length = 1", &["max-length", "at least 2"]),
        (
            "seed = '99999999999999999999'",
            &["seed", "`99999999999999999999`"],
        ),
        (
            "steps = 5\nepochs = 2",
            &["steps 5", "epochs 2", "give one"],
        ),
        (
            "method = 'sequential'\nsteps = 5\nstages = 'sft:3'",
            &["steps 5", "stages sft:3"],
        ),
        (
            "method = 'sequential'\nepochs = 5\nstages = 'sft:3'",
            &["epochs 5", "stages sft:3"],
        ),
        (
            "stages = 'sft:3'",
            &["stages sft:3", "not sequential", "--method sequential"],
        ),
        (
            "method = 'sequential'\nstages = 'sft'",
            &["stages", "`sft`", "dpo:100,sft:3e"],
        ),
        ("method = 'sequential'\nstages = ''", &["stages", "``"]),
        (
            "method = 'sequential'\nstages = []",
            &["stages", "name a stage"],
        ),
        (
            "method = 'sequential'\nstages = 'dop:3'",
            &[
                "objective of stages",
                "`dop`",
                "sft, dpo",
                "did you mean `dpo`?",
            ],
        ),
        (
            "method = 'sequential'\nstages = 'sft:0'",
            &["stages, sft: the length", "`0`"],
        ),
        (
            "method = 'sequential'\nstages = 'sft:3,dpo:-1e'",
            &["stages, dpo: the length", "`-1`"],
        ),
        (
            "method = 'sequential'\nstages = 'sft:3x'",
            &["stages, sft: the length", "`3x`"],
        ),
        (
            "optimum = 'stf=1.5'",
            &["objective of optimum", "`stf`", "did you mean `sft`?"],
        ),
        ("optimum = 'sft'", &["optimum", "`sft`", "NAME=VALUE"]),
        (
            "optimum = { sft = nan }",
            &["optimum", "sft a number", "`NaN`"],
        ),
        (
            "optimum-eval = 'dpo=x'",
            &["optimum-eval", "dpo a number", "`x`"],
        ),
        ("optimum = 'sft=1,sft=2'", &["optimum", "once", "`sft=2`"]),
        ("lora-targets = 'q_proj,'", &["lora-targets", "`q_proj,`"]),
        (
            "lora-targets = ['a', 'b', 'a']",
            &["lora-targets", "once", "`a,b,a`"],
        ),
        (
            "reference = '@/nowhere'",
            &["reference: there is no folder", "nowhere", "train:chosen"],
        ),
        (
            "reference = '@/sft.json'",
            &["reference must be a folder", "sft.json"],
        ),
        (
            "reference = 'train:rejected'",
            &[
                "reference",
                "`train:rejected`",
                "none, train:chosen, train:sft",
            ],
        ),
        (
            "init-adapter = '@/nowhere'",
            &["init-adapter: there is no folder", "nowhere"],
        ),
        (
            "sft-eval = '@/nowhere'",
            &["sft-eval: there is no file", "nowhere"],
        ),
    ];
    for (text, parts) in table {
        assert_wrong(&place.config(&format!("{BOTH}{text}")), parts);
    }
    let table: &[(&str, &[&str])] = &[
        (
            "out = 'x'\nsft = '@/sft.json'",
            &["model is missing", "--model"],
        ),
        (
            "model = '@/model'\nsft = '@/sft.json'",
            &["out is missing", "--out"],
        ),
        (
            "model = '@/nowhere'\nout = 'x'\nsft = '@/sft.json'",
            &["model: there is no folder", "nowhere"],
        ),
        (
            "model = '@/sft.json'\nout = 'x'\nsft = '@/sft.json'",
            &["model must be a folder", "sft.json"],
        ),
        (
            "model = '@/model'\nout = 'x'",
            &["no objective", "--sft FILE, --dpo FILE"],
        ),
        (
            "model = '@/model'\nout = 'x'\nsft = '@/nowhere'",
            &["sft: there is no file", "nowhere"],
        ),
        (
            "model = '@/model'\nout = 'x'\ndpo = '@/model'",
            &["dpo must be a file", "model"],
        ),
        (
            "model = '@/model'\nout = 'x'\nsft = '@/sft.json'\nlambda = 0.5",
            &["lambda must be 0", "`0.5`", "--dpo FILE"],
        ),
        (
            "model = '@/model'\nout = 'x'\ndpo = '@/dpo.jsonl'\nlambda = 0",
            &["lambda must be 1", "`0`", "--sft FILE"],
        ),
        (
            "model = '@/model'\nout = 'x'\ndpo = '@/dpo.jsonl'\nsft-batch = 3",
            &["sft-batch is given", "--sft FILE"],
        ),
        (
            "model = '@/model'\nout = 'x'\nsft = '@/sft.json'\ndpo-loss = 'ipo'",
            &["dpo-loss is given", "--dpo FILE"],
        ),
        (
            "model = '@/model'\nout = 'x'\nsft = '@/sft.json'\ndpo-gamma = 1",
            &["dpo-gamma is given", "--dpo FILE"],
        ),
        (
            "model = '@/model'\nout = 'x'\nsft = '@/sft.json'\nbeta = 0",
            &["beta must be a number above 0", "`0`"],
        ),
        (
            "model = '@/model'\nout = 'x'\ndpo = '@/dpo.jsonl'\nreference = 'train:sft'",
            &["reference", "`train:sft`", "--sft"],
        ),
        (
            "model = '@/model'\nout = 'x'\nsft = '@/sft.json'\nreference = '@/nowhere'",
            &["reference: there is no folder", "nowhere", "train:chosen"],
        ),
        (
            "model = '@/model'\nout = 'x'\nsft = '@/sft.json'\nreference = 'train:rejected'",
            &[
                "reference",
                "`train:rejected`",
                "none, train:chosen, train:sft",
            ],
        ),
    ];
    for (text, parts) in table {
        assert_wrong(&place.config(text), parts);
    }
}

#[test]
fn mistakes_in_a_list_of_objectives_name_the_objective() {
    let place = Place::new();
    let table: &[(&str, [&str; 3], &[&str])] = &[
        (
            "",
            ["weight = 0", "weight = 0", "weight = 0"],
            &[
                "weight must be above 0 for at least one",
                "`a 0, b 0, c 0`",
                "positive",
            ],
        ),
        (
            "",
            ["weight = 0.5", "weight = 0.5", ""],
            &["objective c: weight is missing"],
        ),
        (
            "",
            ["weight = -0.5", "weight = 0.5", "weight = 1"],
            &[
                "objective a: weight must be a number of at least 0",
                "`-0.5`",
            ],
        ),
        (
            "",
            ["beta = 0.1", "", ""],
            &["objective a: beta", "left out", "`0.1`"],
        ),
        ("", ["", "beta = 0", ""], &["objective b: beta", "`0`"]),
        (
            "",
            ["", "", "label-smoothing = 0.1"],
            &["objective c: label-smoothing", "ipo"],
        ),
        (
            "label-smoothing = 0.1",
            [""; 3],
            &["objective c: label-smoothing", "ipo", "`0.1`"],
        ),
        (
            "",
            ["alpha = 1", "", ""],
            &[
                "objective a: alpha must be left out: the loss sft",
                "`1`",
                "rpo",
            ],
        ),
        (
            "",
            ["", "gamma = 0.5", ""],
            &[
                "objective b: gamma must be left out: the loss dpo",
                "`0.5`",
                "simpo",
            ],
        ),
        ("", ["batch = 0", "", ""], &["objective a: batch", "`0`"]),
        (
            "",
            ["", "optimum = 'x'", ""],
            &["objective b: optimum", "`x`"],
        ),
        (
            "",
            ["eval = '@/none.json'", "", ""],
            &["objective a: eval", "none.json"],
        ),
        (
            "sft = '@/sft.json'",
            ["", "", ""],
            &["sft cannot be combined with [[objective]]"],
        ),
        (
            "reference = 'train:chosen'",
            ["", "", "rows = 5"],
            &[
                "reference train:chosen needs one set of preference rows, but these objectives have \
                 different rows: b, c",
                "--reference DIR",
            ],
        ),
        (
            "lambda = 0.5",
            ["", "", ""],
            &["lambda cannot be combined with [[objective]]"],
        ),
        (
            "dpo-loss = 'ipo'",
            ["", "", ""],
            &["dpo-loss cannot be combined with [[objective]]"],
        ),
        (
            "dpo-alpha = 1",
            ["", "", ""],
            &["dpo-alpha cannot be combined with [[objective]]"],
        ),
    ];
    for (top, text, parts) in table {
        assert_wrong(&place.three(top, *text), parts);
    }
    let table: &[(&str, &[&str])] = &[
        (
            "name = 'A b'\nloss = 'sft'\ndata = '@/sft.json'",
            &["name", "`A b`", "lowercase letters"],
        ),
        (
            "name = ''\nloss = 'sft'\ndata = '@/sft.json'",
            &["name", "``"],
        ),
        (
            "loss = 'sft'\ndata = '@/sft.json'",
            &["[[objective]] 1 of 1 has no name"],
        ),
        (
            "name = 'a'\ndata = '@/sft.json'",
            &[
                "objective a: loss is missing",
                "\"ipo\", \"rpo\", \"orpo\", \"simpo\"",
            ],
        ),
        (
            "name = 'a'\nloss = 'sft'",
            &["objective a: data is missing"],
        ),
        (
            "name = 'a'\nloss = 'dop'\ndata = '@/sft.json'",
            &[
                "objective a: loss",
                "sft, dpo, ipo, rpo, orpo, simpo",
                "did you mean `dpo`?",
            ],
        ),
        (
            "name = 'a'\nloss = 'sft'\ndata = '@/none.json'",
            &["objective a: data", "none.json"],
        ),
        (
            "name = 'a'\nloss = 'sft'\ndata = '@/sft.json'\n[[objective]]\nname = 'a'\nloss = 'sft'\ndata = '@/sft.json'",
            &["name must differ", "`a`"],
        ),
    ];
    for (text, parts) in table {
        assert_wrong(
            &place.config(&format!("{BASE}[[objective]]\n{text}")),
            parts,
        );
    }
}

#[test]
fn a_power_below_1_and_unknown_draws_are_refused() {
    let place = Place::new();
    for power in ["0.5", "101", "'two'"] {
        let config = place.config(&format!("{BOTH}method = 'compromise'\npower = {power}"));
        assert_wrong(&config, &["power must be a number from 1 to 100, found"]);
    }
    let config = place.config(&format!("{BOTH}draws = 'even'"));
    assert_wrong(
        &config,
        &["draws must be one of random, balanced, found `even`"],
    );
}

#[test]
fn a_batch_that_cannot_be_halved_and_an_average_that_is_not_kept_are_refused() {
    let place = Place::new();
    let config = place.config(&format!(
        "{BOTH}method = 'mix'\nmix-batches = 'half'\nsft-batch = 1"
    ));
    assert_wrong(
        &config,
        &["sft-batch must be even with mix-batches half, found `1`"],
    );
    // An objective without weight has an order of rows too, which needs a batch.
    let config = place.config(&format!(
        "{BOTH}method = 'mix'\nmix-batches = 'half'\nlambda = 0\ndpo-batch = 1"
    ));
    assert_wrong(
        &config,
        &["dpo-batch must be even with mix-batches half, found `1`"],
    );
    let config = place.config(&format!(
        "{BOTH}method = 'mix'\nmix-batches = 'half'\ndpo-batch = 5"
    ));
    let error = Plan::from_config(&config).unwrap_err();
    assert!(error.hint.contains("give 4 or 6"), "{}", error.hint);
    let config = place.config(&format!("{BOTH}export-iterate = 'average'"));
    assert_wrong(
        &config,
        &["export-iterate average is given, but the run keeps no average"],
    );
    let config = place.config(&format!("{BOTH}average = 'exponential'"));
    assert_wrong(
        &config,
        &["average must be one of none, polynomial, found `exponential`"],
    );
    let config = place.config(&format!("{BOTH}optimum = 'auto,sft=1'"));
    assert_wrong(&config, &["optimum", "`auto`"]);
    let error = Plan::from_config(&config).unwrap_err();
    assert!(error.hint.contains("auto stands alone"), "{}", error.hint);
    let config = place.config(&format!("{BOTH}optimum-eval = 'auto'"));
    let error = Plan::from_config(&config).unwrap_err();
    assert!(error.hint.contains("--optimum auto"), "{}", error.hint);
}

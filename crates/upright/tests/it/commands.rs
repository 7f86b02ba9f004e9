//! The commands as scripts use them: what stands on stdout, and what does not.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use crate::fixture::{Done, Place};
use serde_json::{Value, json};

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

#[test]
fn doctor_tells_what_the_machine_has() {
    let place = Place::new();
    let done = Done::good(place.command("doctor --json"));
    let [line] = &done.json()[..] else {
        panic!("{done:?}")
    };
    assert_eq!(
        keys(line),
        [
            "version",
            "cores",
            "memory_total_bytes",
            "memory_available_bytes",
            "tiers",
            "devices",
            "cuda",
            "cuda_kernels",
            "mpi",
            "nccl",
            "tier",
            "cache",
            "cache_writable",
            "model"
        ]
    );
    assert!(line["cores"].as_u64().unwrap() >= 1);
    assert!(
        line["tiers"]
            .as_array()
            .unwrap()
            .contains(&json!("portable"))
    );
    assert_eq!(
        (&line["tier"], &line["model"]),
        (&json!("portable"), &Value::Null)
    );
    assert_eq!(line["cache"], json!(place.path("cache")));
    assert_eq!(line["cache_writable"], json!(true));
    assert_eq!(std::fs::read_dir(place.path("cache")).unwrap().count(), 0);

    assert!(line["cuda_kernels"].as_u64().unwrap() > 50, "{line}");
    let mut command = place.command("doctor");
    command.env("UPRIGHT_KERNELS", place.path("cache"));
    let lacking = Done::of(command);
    assert_eq!(lacking.code, Some(2), "{lacking:?}");
    assert!(
        lacking.error().contains("UPRIGHT_KERNELS names a folder"),
        "{lacking:?}"
    );

    place.write("file", "");
    let mut command = place.command("doctor --json");
    command.env("UPRIGHT_CACHE", place.path("file"));
    assert_eq!(
        Done::good(command).json()[0]["cache_writable"],
        json!(false)
    );
    let text = Done::good(place.command("doctor")).stdout;
    assert!(
        ["cores", "memory", "tiers", "portable", "cache"]
            .iter()
            .all(|word| text.contains(word)),
        "{text}"
    );
}

#[test]
fn doctor_tells_what_a_model_takes() {
    let place = Place::new();
    let line = &Done::good(place.command("doctor --model model --token-budget 512 --json")).json()
        [0]["model"];
    assert_eq!(
        (&line["model_type"], &line["token_budget"]),
        (&json!("llama"), &json!(512))
    );
    assert!(number(line, "base_bytes") > 100_000.0);
    assert!(number(line, "step_bytes_kept") > number(line, "step_bytes_recomputed"));
    assert!(
        ["fits_kept", "fits_recomputed"]
            .iter()
            .all(|key| [json!(true), Value::Null].contains(&line[key]))
    );
    let text = Done::good(place.command("doctor --model model")).stdout;
    assert!(
        text.contains("llama: 2 layers, hidden 56, vocabulary 200"),
        "{text}"
    );

    let untold = place.path("untold");
    std::fs::create_dir(&untold).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(place.path("model").join(name), untold.join(name)).unwrap();
    }
    for (words, part) in [
        (
            "doctor --model nowhere",
            "model: there is no folder `nowhere`",
        ),
        (
            "doctor --model cache",
            "cache: no config.json in this folder",
        ),
        (
            "doctor --model untold",
            "untold: no tokenizer.json in this folder",
        ),
        (
            "doctor --token-budget -1",
            "token-budget must be a whole number of at least 1, found `-1`",
        ),
    ] {
        let done = Done::of(place.command(words));
        assert_eq!((done.code, &done.stdout[..]), (Some(2), ""), "{done:?}");
        assert!(done.error().contains(part), "{done:?}");
    }
}

#[test]
fn eval_loss_of_instructions() {
    let place = Place::new();
    let done =
        Done::good(place.command("eval loss --model model --sft sft.jsonl --limit 5 --per-row"));
    let rows = done.json();
    assert_eq!(rows.len(), 5);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(keys(row), ["row", "tokens", "logp", "loss"]);
        let loss = -number(&row["logp"], "response") / number(&row["tokens"], "response");
        assert!((number(row, "loss") - loss).abs() < 1e-12, "{row}");
        assert_eq!(row["row"], json!(i));
        assert_eq!(
            (keys(&row["tokens"]), keys(&row["logp"])),
            (vec!["prompt", "response"], vec!["response"])
        );
        assert!(number(&row["logp"], "response") < 0.0);
    }
    // User: Count 0 of the wrens.\nAssistant: and There are 0 wrens. with a space before it and EOS behind it.
    assert_eq!(rows[0]["tokens"], json!({"prompt": 38, "response": 20}));

    // The ids are what the counts count.
    let words = "eval loss --model model --sft sft.jsonl --limit 5 --per-row --ids";
    for (row, plain) in Done::good(place.command(words)).json().iter().zip(&rows) {
        assert_eq!(
            (keys(row), &row["logp"]),
            (vec!["row", "tokens", "logp", "loss", "ids"], &plain["logp"])
        );
        for name in ["prompt", "response"] {
            assert_eq!(
                json!(row["ids"][name].as_array().unwrap().len()),
                plain["tokens"][name]
            );
        }
        assert_eq!(
            row["ids"]["response"].as_array().unwrap().last(),
            Some(&json!(2)),
            "the end of text"
        );
    }

    let totals =
        &Done::good(place.command("eval loss --model model --sft sft.jsonl --limit 5 --json"))
            .json()[0];
    assert_eq!(totals["rows"], json!(5));
    let sum = |what: &str, key: &str| rows.iter().map(|row| number(&row[what], key)).sum::<f64>();
    let loss = -sum("logp", "response") / sum("tokens", "response");
    assert!(
        (number(totals, "loss") - loss).abs() < 1e-12,
        "{totals}: {loss}"
    );
    assert!((number(totals, "logps/response") - sum("logp", "response") / 5.0).abs() < 1e-9);

    // Rows that are too long are cut as in training: 38 and 20 tokens in 40.
    for (flags, lengths) in [
        ("", [20, 20]),
        ("--min-prompt 30", [30, 10]),
        ("--too-long cut-response", [30, 10]),
        ("--too-long cut-response --min-prompt 15", [25, 15]),
    ] {
        let words = format!(
            "eval loss --model model --sft sft.jsonl --limit 1 --per-row --max-length 40 {flags}"
        );
        let tokens = &Done::good(place.command(&words)).json()[0]["tokens"];
        assert_eq!(
            *tokens,
            json!({"prompt": lengths[0], "response": lengths[1]}),
            "{flags}"
        );
    }

    let done =
        Done::good(place.command("eval loss --model model --sft sft.jsonl --template alpaca"));
    assert!(
        done.stdout.contains("rows                 40\n")
            && done.stderr.contains("template alpaca"),
        "{done:?}"
    );
    assert!(
        done.stdout
            .lines()
            .all(|line| line.split_whitespace().count() == 2),
        "{done:?}"
    );
}

#[test]
fn eval_loss_of_preferences() {
    let place = Place::new();
    place.adapter("adapter", "llama");
    let rows =
        Done::good(place.command("eval loss --model model --dpo dpo.jsonl --limit 3 --per-row"))
            .json();
    assert_eq!(rows.len(), 3);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(keys(row), ["row", "tokens", "logp"]);
        assert_eq!(row["row"], json!(i));
        assert_eq!(keys(&row["tokens"]), ["prompt", "chosen", "rejected"]);
        assert_eq!(keys(&row["logp"]), ["chosen", "rejected"]);
    }
    let totals =
        &Done::good(place.command("eval loss --model model --dpo dpo.jsonl --json")).json()[0];
    assert_eq!(
        keys(totals),
        ["rows", "tokens", "scored", "logps/chosen", "logps/rejected"]
    );

    // The policy as its own reference: ln 2, whatever the adapter.
    for both in ["--reference none", "--adapter adapter --reference adapter"] {
        let words = format!("eval loss --model model --dpo dpo.jsonl {both}");
        let totals = &Done::good(place.command(&format!("{words} --json"))).json()[0];
        assert!(
            (number(totals, "loss") - 2f64.ln()).abs() < 1e-12,
            "{totals}"
        );
        assert_eq!(
            (number(totals, "rewards/margins"), totals["rows"].as_u64()),
            (0.0, Some(24))
        );
        for row in
            Done::good(place.command(&format!("{words} --per-row --token-budget 64 --threads 1")))
                .json()
        {
            assert_eq!(keys(&row), ["row", "tokens", "logp", "reference", "loss"]);
            assert_eq!(row["logp"], row["reference"]);
            assert!((number(&row, "loss") - 2f64.ln()).abs() < 1e-12, "{row}");
        }
    }
    // Against the base, every row is -log sigmoid(beta * margin).
    let words = "eval loss --model model --dpo dpo.jsonl --adapter adapter --reference none --beta 0.3 --per-row";
    for row in Done::good(place.command(words)).json() {
        let ratio = |key: &str| number(&row["logp"], key) - number(&row["reference"], key);
        let margin = ratio("chosen") - ratio("rejected");
        assert!(
            margin != 0.0 && (number(&row, "loss") - (-0.3 * margin).exp().ln_1p()).abs() < 1e-12,
            "{row}"
        );
    }
}

#[test]
fn eval_loss_refuses_what_cannot_be() {
    let place = Place::new();
    place.adapter("foreign", "qwen2");
    for (words, parts) in [
        (
            "--dpo dpo.jsonl --beta -0.1",
            ["beta must be a number above 0", "`-0.1`"],
        ),
        (
            "--dpo dpo.jsonl --beta 1",
            [
                "beta has no effect without a reference model",
                "--reference DIR",
            ],
        ),
        (
            "--sft sft.jsonl --beta 1",
            [
                "beta must be left out: the loss sft does not take it",
                "`1`",
            ],
        ),
        (
            "--dpo dpo.jsonl --dpo-loss rpo",
            [
                "dpo-loss has no effect without a reference model",
                "--reference DIR",
            ],
        ),
        (
            "--dpo dpo.jsonl --dpo-loss simop",
            ["sigmoid, ipo, rpo, orpo, simpo, found `simop`", "`simpo`?"],
        ),
        (
            "--dpo dpo.jsonl --dpo-loss orpo --reference none",
            [
                "reference must be left out: the loss orpo uses no reference model",
                "`none`",
            ],
        ),
        (
            "--dpo dpo.jsonl --dpo-gamma 1",
            [
                "dpo-gamma must be left out: the loss dpo does not take it",
                "simpo",
            ],
        ),
        (
            "--dpo dpo.jsonl --limit 0",
            ["limit must be a whole number of at least 1", "`0`"],
        ),
        ("--dpo dpo.jsonl --limit -3", ["limit", "`-3`"]),
        (
            "--dpo dpo.jsonl --max-length 1",
            ["max-length must be a whole number of at least 2", "`1`"],
        ),
        (
            "--dpo dpo.jsonl --max-length 40 --min-prompt 40",
            ["min-prompt must be below max-length, 40", "`40`"],
        ),
        (
            "--dpo dpo.jsonl --too-long cut",
            [
                "too-long must be one of cut-prompt, cut-response, drop",
                "`cut`",
            ],
        ),
        (
            "--sft sft.jsonl --max-length 40 --too-long drop",
            ["sft.jsonl", "longer than the maximum length"],
        ),
        (
            "--dpo dpo.jsonl --threads 100000",
            ["threads must be at most 1024", "hint"],
        ),
        (
            "--dpo dpo.jsonl --threads 0",
            ["threads must be a whole number of at least 1", "`0`"],
        ),
        (
            "--dpo dpo.jsonl --sft sft.jsonl",
            ["one dataset is scored at a time", "run the command twice"],
        ),
        ("", ["--sft <FILE|ID>", "hint"]),
        (
            "--sft sft.jsonl --reference none",
            [
                "reference has no effect on instruction rows",
                "leave --reference out",
            ],
        ),
        (
            "--sft sft.jsonl --template alpacca",
            ["template: unknown template \"alpacca\"", "user-assistant"],
        ),
        (
            "--sft sft.jsonl --adapter nowhere",
            ["adapter: there is no folder `nowhere`", "hint"],
        ),
        (
            "--sft sft.jsonl --adapter model",
            ["model: no adapter_config.json", "this folder holds a model"],
        ),
        (
            "--sft sft.jsonl --adapter foreign",
            ["foreign/adapter_model.safetensors", "hint"],
        ),
        (
            "--sft nowhere.json",
            ["sft: there is no file `nowhere.json`", "hint"],
        ),
        ("--sft dpo.jsonl", ["dpo.jsonl", "pass it with --dpo"]),
    ] {
        let done = Done::of(place.command(&format!("eval loss --model model {words}")));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert_eq!(
            done.stderr.matches("error:").count(),
            1,
            "{words}: {done:?}"
        );
        assert!(
            parts.iter().all(|part| done.error().contains(part)),
            "{words}: {done:?}"
        );
    }
    assert!(!place.path("cache").exists());
}

#[test]
fn train_puts_its_result_and_nothing_else_on_stdout() {
    let place = Place::new();
    let done = Done::good(place.train("--json"));
    let [line] = &done.json()[..] else {
        panic!("{done:?}")
    };
    assert_eq!(
        (&line["method"], &line["steps"], &line["run"]),
        (&json!("alright"), &json!(2), &json!("run"))
    );
    let done = Done::good(place.train("--out table"));
    assert!(
        done.stdout.starts_with(' ') && done.stdout.ends_with("adapter: table/adapter\n"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains("rows to train on") && !done.stdout.contains("rows to train on"),
        "{done:?}"
    );
}

#[test]
fn help_names_every_flag_that_scripts_rely_on() {
    let place = Place::new();
    for words in ["--help", "-h", "help"] {
        let done = Done::good(place.command(words));
        let shown = [
            "train",
            "eval",
            "doctor",
            "2 bad usage or input, 130 stopped by a signal",
        ];
        assert!(
            shown.iter().all(|part| done.stdout.contains(part)),
            "{done:?}"
        );
        assert_eq!(done.stderr, "");
    }
    let train = "model sft dpo sft-template dpo-template sft-rows dpo-rows method lambda stages probe-every optimum \
                 optimum-eval reference reference-epochs reference-batch init-adapter steps epochs sft-batch dpo-batch \
                 max-length lora-rank lora-alpha lora-targets learning-rate beta seed eval-every eval-rows \
                 checkpoint-every threads out resume config json";
    let eval = "model adapter sft dpo template max-length limit per-row reference json";
    for (command, flags) in [
        ("train", train),
        ("eval loss", eval),
        ("doctor", "model json"),
    ] {
        let help = Done::good(place.command(&format!("{command} --help"))).stdout;
        let flags = flags.split_whitespace().map(|flag| format!("--{flag}"));
        let shown: Vec<&str> = help
            .split(|c: char| !(c.is_alphanumeric() || c == '-'))
            .collect();
        let missing: Vec<String> = flags.filter(|flag| !shown.contains(&&flag[..])).collect();
        assert!(missing.is_empty(), "{command} --help lacks {missing:?}");
    }
    assert!(
        Done::good(place.command("--version"))
            .stdout
            .starts_with("upright ")
    );
    for words in ["", "eval", "trian", "eval los"] {
        let done = Done::of(place.command(words));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(!done.stderr.is_empty());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    for words in [
        "doctor",
        "doctor --json",
        "eval loss --model model --sft sft.jsonl --per-row",
        "train --help",
    ] {
        // Gone before the first line, and gone after it.
        for lines in [0, 1] {
            let mut child = place
                .command(words)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
            if lines == 1 {
                stdout.read_line(&mut String::new()).unwrap();
            }
            drop(stdout);
            let mut stderr = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut stderr)
                .unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{words}: {stderr}");
            assert!(
                !stderr.contains("panicked") && !stderr.contains("error"),
                "{words}: {stderr}"
            );
        }
    }
}

/// Time per group of kernels, on a device that has kernels of its own.
#[test]
fn bench_tells_where_a_step_on_a_gpu_spends_its_time() {
    if let Some(why) = upright_emulator::missing() {
        println!("{why}");
        return;
    }
    let place = Place::new();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");
    let bench = |device: &str, json: &str| {
        let words = format!(
            "bench --model {demo}/model --sft {demo}/instructions.jsonl --sft-batch 1 --steps 1 --max-length 48 \
             --threads 2 --device {device} {json}"
        );
        Done::good(place.command(&words))
    };
    let line = &bench("host", "--json").json()[0];
    let mut groups = Vec::new();
    for group in line["kernel_times"]["sft"].as_array().unwrap() {
        assert!(number(group, "milliseconds") >= 0.0 && number(group, "launches") >= 1.0);
        groups.push(group["group"].as_str().unwrap());
    }
    for name in ["attention_backward", "optimizer", "products"] {
        assert!(groups.contains(&name), "{groups:?}");
    }
    let table = bench("host", "").stdout;
    assert!(
        table.contains("kernels of one sft step") && table.contains("attention_forward"),
        "{table}"
    );
    assert!(bench("cpu", "--json").json()[0]["kernel_times"].is_null());
}

#[test]
fn bench_tells_what_steps_take() {
    let place = Place::new();
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let words = "bench --model model --random-weights --sft sft.jsonl --dpo dpo.jsonl --steps 2 --lora-rank 4 --threads 2 --json";
    let line = &Done::good(place.command(words)).json()[0];
    assert_eq!(
        (&line["lora_targets"], &line["batch"]),
        (&json!(["all-linear"]), &json!({"sft": 12, "dpo": 4}))
    );
    assert_eq!(
        (&line["random_weights"], &line["tier"], &line["steps"]),
        (&json!(true), &json!("portable"), &json!(2))
    );
    for objective in ["sft", "dpo"] {
        let cost = &line[objective];
        let [seconds, tokens] =
            ["seconds_per_step", "unique_tokens_per_step"].map(|key| number(cost, key));
        assert!(
            seconds > 0.0 && tokens > 10.0 && number(cost, "operations_per_token") > 1000.0,
            "{cost}"
        );
        // The rate is of the same steps; times are rounded to tenths of a millisecond.
        let rate = number(cost, "unique_tokens_per_second");
        assert!(
            (rate * seconds / tokens - 1.0).abs() < 1e-4 / seconds + 1e-3,
            "{cost}"
        );
        assert!(
            number(cost, "share_of_matrix_rate") > 0.0
                && number(cost, "median_seconds_per_step") > 0.0,
            "{cost}"
        );
    }
    assert!(
        number(line, "peak_gb") > 0.0 && number(&line["matrix_rate"], "large_product_gflops") > 0.0
    );
    assert!(!place.path("cache").join("reference-logps").exists());

    place.model("model", "llama");
    let words = "bench --model model --sft sft.jsonl --dpo dpo.jsonl --sft-batch 3 --steps 3 --methods --threads 2 --json";
    let line = &Done::good(place.command(words)).json()[0];
    let methods = line["methods"].as_array().unwrap();
    let names: Vec<&str> = methods
        .iter()
        .map(|method| method["method"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "sft",
            "dpo",
            "mix",
            "alright",
            "maxright k=1",
            "maxright k=10",
            "maxright k=100",
            "compromise"
        ]
    );
    let of = |i: usize, key: &str| methods[i][key].as_u64().unwrap();
    assert_eq!(
        of(2, "multiply_adds"),
        of(0, "multiply_adds") + of(1, "multiply_adds")
    );
    assert_eq!([4, 5, 6].map(|i| of(i, "probed")), [3, 1, 1]);
    assert!(of(4, "multiply_adds_of_losers") > of(5, "multiply_adds_of_losers"));

    for (words, part) in [
        (
            "bench --model model --sft sft.jsonl --sft-map prompt=x",
            "has no column \"x\"",
        ),
        ("bench --model model", "no rows"),
        ("bench --sft sft.jsonl", "--model"),
        ("bench --kernels --model model", "--kernels"),
        ("bench --model model --sft sft.jsonl --methods", "--dpo"),
        (
            "bench --model model --sft sft.jsonl --steps 0",
            "steps must be",
        ),
        (
            "bench --model model --sft sft.jsonl --dpo-batch 2",
            "dpo-batch",
        ),
        (
            "bench --model cache --random-weights --sft sft.jsonl",
            "no folder",
        ),
    ] {
        let done = Done::of(place.command(words));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(done.error().contains(part), "{words}: {done:?}");
    }
}

//! `upright export`: what goes out is what was trained, whole or not there, and says what it sits on.

use std::fs;

use crate::fixture::{Done, Place};
use safetensors::SafeTensors;
use serde_json::{Value, json};

fn export(place: &Place, words: &str) -> Done {
    Done::of(place.command(&format!("export {words}")))
}

fn exported(place: &Place, words: &str) -> Value {
    Done::good(place.command(&format!("export {words} --json")))
        .json()
        .remove(0)
}

/// Every response's log-probability on the preference rows.
fn logps(place: &Place, words: &str) -> Vec<f64> {
    let words = format!(
        "eval loss {words} --dpo dpo.jsonl --template user-assistant --limit 6 --max-length 128 --per-row --threads 2"
    );
    let rows = Done::good(place.command(&words)).json();
    let of = |row: &Value| ["chosen", "rejected"].map(|name| row["logp"][name].as_f64().unwrap());
    rows.iter().flat_map(of).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).powi(2))
        .sum::<f64>()
        .sqrt()
}

fn list(place: &Place, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(place.path(folder)).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_run_becomes_a_peft_folder() {
    let place = Place::new();
    Done::good(place.train("--checkpoint-every 1"));
    let line = exported(&place, "run --out plain --base-name org/base");
    assert_eq!(
        (&line["kind"], &line["model"]),
        (&json!("adapter"), &json!("model"))
    );
    assert_eq!(
        list(&place, "plain"),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    assert_eq!(
        place.read("plain/adapter_model.safetensors"),
        place.read("run/adapter/adapter_model.safetensors")
    );
    let (mut ours, theirs) = (
        place.read("plain/adapter_config.json"),
        place.read("run/adapter/adapter_config.json"),
    );
    assert_eq!(parse(&ours)["base_model_name_or_path"], json!("org/base"));
    exported(&place, "run/adapter --out again");
    ours = place.read("again/adapter_config.json");
    assert_eq!(ours, theirs);
    // A checkpoint leaves its optimizer behind.
    exported(&place, "run/checkpoints/step-1 --out first");
    assert_eq!(list(&place, "first").len(), 2);
    assert_ne!(
        place.read("first/adapter_model.safetensors"),
        place.read("plain/adapter_model.safetensors")
    );
    // Where an adapter is asked for, a run's folder stands for its own.
    let [a, b] = ["run", "run/adapter"]
        .map(|adapter| logps(&place, &format!("--model model --adapter {adapter}")));
    assert_eq!(a, b);
    for (out, adapter) in [("a", "run"), ("b", "run/adapter")] {
        Done::good(place.train(&format!(
            "--init-adapter {adapter} --reference {adapter} --out {out}"
        )));
    }
    assert_eq!(
        place.read("a/adapter/adapter_model.safetensors"),
        place.read("b/adapter/adapter_model.safetensors")
    );
}

#[test]
fn a_merged_model_says_what_base_and_adapter_say() {
    let place = Place::new();
    place.adapter("adapter", "llama");
    place.write("model/generation_config.json", r#"{"eos_token_id": 2}"#);
    place.write("model/chat_template.jinja", "{{ messages }}");
    place.write("model/LICENSE", "free");
    place.write("model/training_args.bin", "not part of a model");
    place.write("model/modeling_own.py", "class Own: pass");
    place.write("model/other.py", "not named");
    place.edit("model/config.json", |config| {
        let map = json!({"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "missing.C", "AutoModel": "org/x--other.X"});
        config.insert("auto_map".into(), map);
    });
    place.write("adapter/tokenizer.json", "{}");
    let done = export(&place, "adapter --model model --merge --out merged");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stderr
            .contains("adapter/tokenizer.json differs from that of the base"),
        "{done:?}"
    );
    assert!(
        done.stdout.contains("+ adapter    adapter\n")
            && done.stdout.contains("model        merged\n"),
        "{done:?}"
    );
    let copied = [
        "LICENSE",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "modeling_own.py",
    ];
    let made = [
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "upright_merge.json",
    ];
    let mut names = [&copied[..], &made].concat();
    names.sort_unstable();
    assert_eq!(list(&place, "merged"), names);
    for name in copied {
        assert_eq!(
            place.read(&format!("merged/{name}")),
            place.read(&format!("model/{name}"))
        );
    }
    let base = logps(&place, "--model model");
    let adapted = logps(&place, "--model model --adapter adapter");
    let merged = logps(&place, "--model merged");
    // Rounding every weight to bf16 costs a little; nothing like what the adapter does.
    let (cost, effect) = (distance(&merged, &adapted), distance(&base, &adapted));
    assert!(cost < 0.02 * effect && cost > 0.0, "{cost} of {effect}");

    // Other types and sizes are the same model.
    let line = exported(
        &place,
        "adapter --model model --merge --dtype f32 --max-shard-size 1MB --out wide",
    );
    assert_eq!(line["rounding"], json!(0.0));
    assert_eq!(
        parse(&place.read("wide/config.json"))["dtype"],
        json!("float32")
    );
    assert_eq!(distance(&logps(&place, "--model wide"), &merged), 0.0);
    assert_eq!(
        line["fingerprint"],
        parse(&place.read("merged/upright_merge.json"))["fingerprint"]
    );
    let weights = place.read("wide/model.safetensors");
    assert_eq!(
        SafeTensors::deserialize(&weights).unwrap().tensors()[0]
            .1
            .dtype(),
        safetensors::Dtype::F32
    );
}

#[test]
fn an_adapter_that_rounding_drowns_is_merged_with_a_warning() {
    let place = Place::new();
    Done::good(place.train("--learning-rate 1e-5"));
    let done = export(&place, "run --merge --out merged");
    assert!(
        done.code == Some(0)
            && done
                .stderr
                .contains("warning: rounding moves the merged weights "),
        "{done:?}"
    );
    assert!(
        done.stdout.contains("times the change by the adapter\n"),
        "{done:?}"
    );
    let done = export(&place, "run --merge --dtype f32 --out wide");
    assert!(
        done.code == Some(0) && !done.stderr.contains("rounding"),
        "{done:?}"
    );
    assert!(done.stdout.contains("\nrounding     none\n"), "{done:?}");
    assert_eq!(
        exported(&place, "run --out adapter")["rounding"],
        Value::Null
    );
}

#[test]
fn a_chain_of_adapters_is_recorded_and_followed() {
    let place = Place::new();
    Done::good(place.train("--out first --learning-rate 0.02"));
    exported(&place, "first --merge --out merged");
    Done::good(place.train("--out second --model merged --learning-rate 0.02"));
    // The plan and the adapter say what the base was made of.
    let plan = String::from_utf8(place.read("second/plan.toml")).unwrap();
    assert!(
        plan.contains("base-lineage = [") && plan.contains("\"first/adapter ("),
        "{plan}"
    );
    let tensors = place.read("second/adapter/adapter_model.safetensors");
    let metadata = SafeTensors::read_metadata(&tensors)
        .unwrap()
        .1
        .metadata()
        .clone()
        .unwrap();
    let lineage = parse(metadata["upright.base_lineage"].as_bytes());
    assert_eq!(lineage["base"]["name"], json!("model"));
    assert_eq!(
        lineage["merged"][0]["adapters"][0]["name"],
        json!("first/adapter")
    );
    Done::good(place.train("--out second --model merged --learning-rate 0.02 --resume"));

    // An adapter whose base is an adapter: the same model in the end, and the same record of it.
    exported(&place, "second --merge --out through-the-model");
    place.edit("second/adapter/adapter_config.json", |config| {
        config.insert("base_model_name_or_path".into(), json!("first/adapter"));
    });
    let line = exported(&place, "second --merge --out through-the-adapter");
    let names: Vec<_> = line["adapters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["name"].clone())
        .collect();
    assert_eq!(names, ["first/adapter", "second/adapter"]);
    for name in ["model.safetensors", "config.json", "upright_merge.json"] {
        let [a, b] = ["model", "adapter"]
            .map(|through| place.read(&format!("through-the-{through}/{name}")));
        assert_eq!(a, b, "{name}");
    }
    let record = parse(&place.read("through-the-model/upright_merge.json"));
    assert_eq!(record["merged"].as_array().unwrap().len(), 2);
    // Exported alone, it still says what it sits on, and fits nothing else.
    exported(&place, "second --out plain");
    assert_eq!(place.read("plain/adapter_model.safetensors"), tensors);
    let done = export(&place, "second --model model --merge --out wrong");
    assert!(
        done.error()
            .contains("second/adapter: was trained on another base, first/adapter"),
        "{done:?}"
    );
    let done = Done::of(place.train("--out third --init-adapter second/adapter"));
    assert!(
        done.error().contains("was trained on another base"),
        "{done:?}"
    );

    // The record is of these weights and no others.
    fs::copy(
        place.path("model/model.safetensors"),
        place.path("merged/model.safetensors"),
    )
    .unwrap();
    let done = Done::of(place.command("eval loss --model merged --sft sft.jsonl"));
    assert_eq!(done.code, Some(2));
    assert!(
        done.error()
            .contains("merged/upright_merge.json: describes other weights"),
        "{done:?}"
    );
}

#[test]
fn adapters_without_a_fingerprint_that_sit_on_adapters_are_refused_in_training() {
    let place = Place::new();
    place.adapter("below", "llama");
    place.adapter("above", "llama");
    place.edit("below/adapter_config.json", |c| {
        drop(c.insert("base_model_name_or_path".into(), json!("model")));
    });
    place.edit("above/adapter_config.json", |c| {
        drop(c.insert("base_model_name_or_path".into(), json!("below")));
    });
    for flag in ["--init-adapter above", "--reference above"] {
        let done = Done::of(place.train(flag));
        assert_eq!(done.code, Some(2));
        assert!(
            done.error()
                .contains("above: was trained on another adapter, below"),
            "{done:?}"
        );
        assert!(
            done.error()
                .contains("hint: run upright export --merge below --out MERGED"),
            "{done:?}"
        );
    }
    let line = exported(&place, "above --merge --out merged");
    assert_eq!(line["adapters"].as_array().unwrap().len(), 2);
    place.edit("below/adapter_config.json", |c| {
        drop(c.insert("base_model_name_or_path".into(), json!("below")));
    });
    let done = export(&place, "above --merge --out endless");
    assert!(
        done.error().contains("stacked adapters") && done.error().contains("itself"),
        "{done:?}"
    );
}

#[test]
fn a_combination_is_the_sum() {
    let place = Place::new();
    Done::good(place.train("--out first --learning-rate 0.02 --lora-targets q_proj,v_proj"));
    Done::good(place.train(
        "--out second --learning-rate 0.02 --lora-targets all-linear --lora-rank 3 --seed 7",
    ));
    let line = exported(
        &place,
        "--combine first second --weights 0.25,-1.5 --out sum",
    );
    assert_eq!(line["adapters"][1]["weight"], json!(-1.5));
    let config = parse(&place.read("sum/adapter_config.json"));
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(
        config["rank_pattern"]["model.layers.0.mlp.up_proj"],
        json!(3)
    );
    // A sum merged is the merge of the sum, and its record says what was added.
    exported(&place, "sum --merge --dtype f32 --out later");
    exported(
        &place,
        "--merge --combine first second --weights 0.25,-1.5 --dtype f32 --out at-once",
    );
    assert_eq!(
        place.read("later/model.safetensors"),
        place.read("at-once/model.safetensors")
    );
    let record = parse(&place.read("at-once/upright_merge.json"));
    assert_eq!(record["merged"][0]["adapters"].as_array().unwrap().len(), 2);
    // Half of an adapter twice is the adapter.
    exported(
        &place,
        "--combine second second --weights 0.5,0.5 --out same",
    );
    let [one, two] = ["second/adapter", "same"]
        .map(|folder| logps(&place, &format!("--model model --adapter {folder}")));
    assert!(distance(&one, &two) < 1e-3, "{one:?} {two:?}");
}

#[cfg(unix)]
#[test]
fn an_empty_folder_is_filled_also_behind_a_link() {
    let place = Place::new();
    place.adapter("adapter", "llama");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, place.path(name)).unwrap();
    fs::create_dir_all(place.path("disk/models")).unwrap();
    link("disk/models", "link");
    assert_eq!(
        exported(&place, "adapter --model model --merge --out link")["out"],
        json!("link")
    );
    assert!(
        place.path("link").is_symlink() && place.path("disk/models/model.safetensors").is_file()
    );
    assert_eq!(
        list(&place, "disk"),
        ["models"],
        "nothing is left beside it"
    );
    link("nowhere", "lost");
    let nowhere = ["is a broken link", "give --out a new or an empty folder"];
    let mut refusals = vec![
        ("lost", nowhere),
        ("lost/", nowhere),
        ("link", ["link: is not empty", "--out"]),
    ];
    // Mounted on every Linux.
    if cfg!(target_os = "linux") {
        link("/proc", "mount");
        refusals.push((
            "mount",
            [
                "mount: is a mount point",
                "give --out a folder inside it, such as mount/",
            ],
        ));
    }
    for (out, said) in refusals {
        let before = list(&place, ".");
        let done = export(
            &place,
            &format!("adapter --model model --merge --out {out}"),
        );
        assert!(
            done.code == Some(2) && said.iter().all(|part| done.error().contains(part)),
            "{done:?}"
        );
        assert_eq!(list(&place, "."), before, "{out}");
    }
}

#[test]
fn what_cannot_be_exported_leaves_nothing_behind() {
    let place = Place::new();
    place.adapter("adapter", "llama");
    place.adapter("foreign", "qwen2");
    place.model("other", "qwen2");
    place.write("full/notes", "");
    place.write("run/plan.toml", "");
    place.write("run/checkpoints/step-12/state.json", "{}");
    place.write(
        "mlx/adapter_config.json",
        r#"{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}"#,
    );
    place.write("mlx/adapters.safetensors", "");
    for (words, parts) in [
        (
            "adapter --out x",
            &[
                "adapter: was trained on tiny/llama, which is not a folder here",
                "--model DIR",
            ][..],
        ),
        (
            "adapter --model model --out full",
            &["full: is not empty: it holds notes", "--out"],
        ),
        (
            "adapter --model model --out full/notes",
            &["full/notes: is not a folder"],
        ),
        ("nowhere --out x", &["there is no folder `nowhere`", "hint"]),
        (
            "model --out x",
            &["no adapter_config.json", "holds a model"],
        ),
        (
            "run --out x",
            &["run: this run is not finished", "run/checkpoints/step-12"],
        ),
        ("mlx --out x", &["mlx-lm", "mlx_lm.fuse"]),
        (
            "adapter --model other --out x",
            &["adapter/adapter_model.safetensors", "hint"],
        ),
        (
            "adapter adapter --model model --out x",
            &["2 adapters are given", "--combine"],
        ),
        (
            "--combine adapter adapter --model model --out x",
            &["--weights"],
        ),
        (
            "--combine adapter adapter --weights 1 --model model --out x",
            &["one value for each of the 2", "`1`"],
        ),
        (
            "--combine adapter --weights a --model model --out x",
            &["weights must be comma-separated numbers", "`a`"],
        ),
        ("adapter --weights 1 --model model --out x", &["--combine"]),
        ("adapter --model model --dtype f16 --out x", &["--merge"]),
        (
            "adapter --model model --merge --dtype int8 --out x",
            &["dtype must be one of bf16, f16, f32", "`int8`"],
        ),
        (
            "adapter --model model --merge --max-shard-size 5XB --out x",
            &["max-shard-size", "`5XB`", "5GB"],
        ),
        (
            "adapter --model model --merge --base-name a/b --out x",
            &["base-name has no effect"],
        ),
        ("adapter --model model", &["--out <DIR>"]),
    ] {
        let before = list(&place, ".");
        let done = export(&place, words);
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(
            parts.iter().all(|part| done.error().contains(part)),
            "{words}: {done:?}"
        );
        assert_eq!(list(&place, "."), before, "{words}");
    }
    // What a kill left behind is no hindrance.
    place.write(".x.partial/model.safetensors", "half");
    exported(&place, "adapter --model model --merge --out x");
    assert!(!place.path(".x.partial").exists());
}

//! Bad input ends a run before it begins: exit code 2, one message that names the file, row or key, what was found and
//! what would work, and nothing written.

use std::{collections::BTreeMap, fs, io::Write};

use crate::fixture::{Done, Place, instruction, preference};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

/// A mistake: how it is made, the words of the command, and parts of what has to be said about it.
type Case<'a> = (fn(&Place), &'a str, &'a [&'a str]);

const NOTHING: fn(&Place) = |_| ();

/// One error and at most one hint, at the end of stderr.
fn assert_one_message(done: &Done, code: i32, parts: &[&str], case: &str) {
    assert_eq!(done.code, Some(code), "{case}: {done:?}");
    let said: Vec<&str> = done.error().lines().collect();
    assert!(matches!(said[..], [_] | [_, _]), "{case}: {done:?}");
    assert!(
        said.get(1).is_none_or(|line| line.starts_with("hint: ")),
        "{case}: {done:?}"
    );
    assert_eq!(
        done.stderr
            .lines()
            .filter(|line| line.starts_with("error:"))
            .count(),
        1,
        "{case}: {done:?}"
    );
    assert_eq!(done.stdout, "", "{case}");
    for part in parts {
        assert!(
            done.error().contains(part),
            "{case}: {part:?} is not in: {}",
            done.error()
        );
    }
}

fn check(cases: &[Case]) {
    for (prepare, words, parts) in cases {
        let place = Place::new();
        prepare(&place);
        let case = format!("`{words}`, {parts:?}");
        assert_one_message(&Done::of(place.train(words)), 2, parts, &case);
        assert!(
            !place.path("run").exists(),
            "{case}: the output folder was made"
        );
    }
}

/// Rewrites a safetensors file; `change` sees name, shape and bytes of every tensor and says whether it stays.
fn rewrite(
    place: &Place,
    name: &str,
    mut change: impl FnMut(&str, &mut Vec<usize>, &mut Vec<u8>) -> bool,
) {
    let bytes = place.read(name);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, view) in file.tensors() {
        let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
        if change(&name, &mut shape, &mut data) {
            tensors.insert(name, (view.dtype(), shape, data));
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    place.write(name, safetensors::serialize(views, None).unwrap());
}

const WEIGHTS: &str = "model/model.safetensors";
const BF16_NAN: [u8; 2] = [0xc0, 0x7f];

fn cut(place: &Place, name: &str, keep: usize) {
    let bytes = place.read(name);
    place.write(name, &bytes[..keep.min(bytes.len())]);
}

/// A NaN as the first value of one tensor of the model.
fn poison(place: &Place, tensor: &str) {
    rewrite(place, WEIGHTS, |name, _, data| {
        if name == tensor {
            data[..2].copy_from_slice(&BF16_NAN);
        }
        true
    });
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn models() {
    check(&[
        (
            NOTHING,
            "--model nowhere",
            &["model: there is no folder `nowhere`", "hint"],
        ),
        (
            NOTHING,
            "--model sft.jsonl",
            &["model must be a folder, found `sft.jsonl`"],
        ),
        (
            |p| fs::remove_file(p.path(WEIGHTS)).unwrap(),
            "",
            &["model: no model.safetensors", "hint: download"],
        ),
        (
            |p| cut(p, WEIGHTS, 100_000),
            "",
            &[
                "model/model.safetensors: the header promises",
                "found",
                "download is incomplete",
            ],
        ),
        (
            |p| cut(p, WEIGHTS, 50),
            "",
            &[
                "model/model.safetensors: the header should have",
                "the file has 50",
            ],
        ),
        (
            |p| cut(p, WEIGHTS, 0),
            "",
            &["model/model.safetensors: 0 bytes"],
        ),
        (
            |p| p.write(WEIGHTS, "version https://git-lfs.github.com/spec/v1"),
            "",
            &["git-lfs", "git lfs pull"],
        ),
        (
            |p| p.write(WEIGHTS, [&40u64.to_le_bytes()[..], &[b'['; 40]].concat()),
            "",
            &["model/model.safetensors: the safetensors header is not valid"],
        ),
        (
            |p| {
                p.write(
                    WEIGHTS,
                    [&100_000u64.to_le_bytes()[..], &[b'['; 100_000]].concat(),
                );
            },
            "",
            &["model/model.safetensors: the safetensors header is not valid"],
        ),
        (
            |p| {
                rewrite(p, WEIGHTS, |name, _, _| {
                    name != "model.layers.1.mlp.up_proj.weight"
                });
            },
            "",
            &[
                "model/model.safetensors: tensor `model.layers.1.mlp.up_proj.weight` is missing",
                "hint",
            ],
        ),
        (
            |p| {
                rewrite(p, WEIGHTS, |name, shape, _| {
                    if name == "model.layers.0.mlp.up_proj.weight" {
                        shape.reverse();
                    }
                    true
                });
            },
            "",
            &["tensor `model.layers.0.mlp.up_proj.weight` has shape [56, 88], expected [88, 56]"],
        ),
        (
            |p| fs::remove_file(p.path("model/config.json")).unwrap(),
            "",
            &["model: no config.json", "hint"],
        ),
        (
            |p| p.write("model/config.json", "{\"model_type\": "),
            "",
            &["model/config.json: not JSON"],
        ),
        (
            |p| p.write("model/config.json", "[".repeat(100_000)),
            "",
            &["model/config.json: not JSON", "recursion"],
        ),
        (
            |p| {
                p.edit("model/config.json", |config| {
                    drop(config.insert("model_type".into(), json!("mamba")));
                });
            },
            "",
            &[
                "model/config.json: `model_type` is \"mamba\", which is not supported",
                "supported model types: gpt_neox, llama",
            ],
        ),
        (
            |p| {
                p.edit("model/config.json", |config| {
                    drop(config.insert("hidden_size".into(), json!(-56)));
                });
            },
            "",
            &["model/config.json: `hidden_size` is -56, expected a whole number"],
        ),
        (
            |p| fs::remove_file(p.path("model/tokenizer.json")).unwrap(),
            "",
            &["model: no tokenizer.json in this folder", "hint: download"],
        ),
        (
            |p| p.write("model/tokenizer.json", "{}"),
            "",
            &["model/tokenizer.json: not a readable tokenizer"],
        ),
        (
            |p| p.write("model/tokenizer.json", "[".repeat(100_000)),
            "",
            &["model/tokenizer.json: not a readable tokenizer"],
        ),
        (
            |p| {
                let vocab = |file: &mut serde_json::Map<String, Value>| {
                    file["model"]["vocab"]["r"] = json!(4000);
                };
                p.edit("model/tokenizer.json", vocab);
            },
            "",
            &[
                "sft.jsonl: row 0",
                "id 4000 (\"r\")",
                "the model has 200 embeddings",
            ],
        ),
    ]);
}

#[test]
fn weights_that_are_not_finite() {
    // Of a linear, of the embedding (which is the head too), of a norm, of the last norm.
    for tensor in [
        "model.layers.1.self_attn.v_proj.weight",
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.norm.weight",
    ] {
        let place = Place::new();
        poison(&place, tensor);
        let parts = ["model: the first evaluation is not finite", tensor, "hint"];
        assert_one_message(&Done::of(place.train("")), 2, &parts, tensor);
        let parts = ["the log-probability of row ", " is not finite", tensor];
        assert_one_message(
            &Done::of(place.command("eval loss --model model --sft sft.jsonl")),
            2,
            &parts,
            tensor,
        );
        assert!(!place.path("run").exists() && !place.path("cache").exists());
    }
    // The embedding of one rare character: the first row is fine, an evaluated one is not.
    let place = Place::new();
    place.model("model", "llama_linear_rope");
    let row = 4 + usize::from(b'Z' - b' ');
    for shard in [
        "model/model-00001-of-00002.safetensors",
        "model/model-00002-of-00002.safetensors",
    ] {
        rewrite(&place, shard, |name, shape, data| {
            if name == "model.embed_tokens.weight" {
                let at = row * shape[1] * 2;
                data[at..at + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
            }
            true
        });
    }
    let mut rows: Vec<Value> = (0..8).map(instruction).collect();
    rows[5]["instruction"] = json!("Z");
    place.rows("sft.jsonl", &rows);
    let parts = [
        "first evaluation",
        "the loss of sft, NaN,",
        "the model's tensor model.embed_tokens.weight",
    ];
    assert_one_message(
        &Done::of(place.train("!--dpo --eval-rows 8")),
        2,
        &parts,
        "a rare character",
    );
    assert!(!place.path("run").exists());
}

#[test]
fn settings() {
    check(&[
        (
            NOTHING,
            "--lamda 0.5",
            &["unexpected argument '--lamda'", "hint", "'--lambda'"],
        ),
        (NOTHING, "stray", &["unexpected argument 'stray'", "hint"]),
        (NOTHING, "--lambda", &["a value is required for '--lambda"]),
        (
            |p| p.write("run.toml", "lamda = 0.5"),
            "--config run.toml",
            &["run.toml: unknown key `lamda`", "`lambda`"],
        ),
        (
            |p| p.write("run.toml", "steps = true"),
            "--config run.toml !--steps",
            &["run.toml, line 1, `steps = true`"],
        ),
        (
            |p| p.write("run.toml", format!("x = {}", "[".repeat(100_000))),
            "--config run.toml",
            &["run.toml, line 1"],
        ),
        (
            NOTHING,
            "--config nowhere.toml",
            &["config nowhere.toml: cannot read", "hint"],
        ),
        (
            NOTHING,
            "--method allright",
            &[
                "method must be one of sequential, mix, alright, maxright, compromise, found `allright`",
            ],
        ),
        (
            NOTHING,
            "--schedule cosin",
            &[
                "schedule must be one of",
                "found `cosin`",
                "did you mean `cosine`?",
            ],
        ),
        (
            NOTHING,
            "--steps 0",
            &["steps must be a whole number of at least 1, found `0`"],
        ),
        (NOTHING, "--steps -5", &["steps", "`-5`"]),
        (
            NOTHING,
            "--steps 1e15",
            &["the run has 1000000000000000 steps", "hint"],
        ),
        (NOTHING, "!--steps --epochs 1e300", &["steps", "hint"]),
        (
            NOTHING,
            "--lora-rank 0",
            &["lora-rank must be a whole number of at least 1, found `0`"],
        ),
        (NOTHING, "--lora-rank -4", &["lora-rank", "`-4`"]),
        (
            NOTHING,
            "--lora-rank 100000",
            &["LoRA rank is 100000", "hint"],
        ),
        (
            NOTHING,
            "--learning-rate 0",
            &["learning-rate must be a number above 0, found `0`"],
        ),
        (
            NOTHING,
            "--learning-rate -1e-4",
            &["learning-rate", "`-1e-4`"],
        ),
        (NOTHING, "--sft-batch -1", &["sft-batch", "`-1`"]),
        (
            NOTHING,
            "--beta -0.1",
            &["beta must be a number above 0, found `-0.1`"],
        ),
        (
            NOTHING,
            "--lambda 1.5",
            &["lambda must lie in [0, 1], found `1.5`", "hint"],
        ),
        (
            NOTHING,
            "--lambda -0.1",
            &["lambda must lie in [0, 1], found `-0.1`", "hint"],
        ),
        (
            NOTHING,
            "--lambda nan",
            &["lambda must lie in [0, 1], found `nan`", "hint"],
        ),
        (
            NOTHING,
            "--lambda half",
            &["lambda must lie in [0, 1], found `half`", "hint"],
        ),
        (
            NOTHING,
            "--threads 0",
            &["threads must be a whole number of at least 1, found `0`"],
        ),
        (NOTHING, "--threads -2", &["threads", "`-2`"]),
        (
            NOTHING,
            "--threads 100000",
            &["threads must be at most 1024, found `100000`", "cores"],
        ),
        (
            NOTHING,
            "--lora-targets q_prj",
            &[
                "LoRA target `q_prj` is not a linear of this model",
                "q_proj",
            ],
        ),
        (
            NOTHING,
            "--lora-targets lm_head",
            &["LoRA target `lm_head`", "hint"],
        ),
        (
            NOTHING,
            "--sft-template alpacca",
            &[
                "sft-template",
                "\"alpacca\"",
                "templates: alpaca, user-assistant, raw",
            ],
        ),
        (
            NOTHING,
            "--reference nowhere",
            &["reference: there is no folder `nowhere`", "train:chosen"],
        ),
        (
            NOTHING,
            "--reference model",
            &[
                "model: no adapter_config.json in this folder",
                "this folder holds a model",
            ],
        ),
        (NOTHING, "!--out", &["out is missing", "--out DIR"]),
        (
            |p| {
                let objective = |name: &str| {
                    format!(
                        "[[objective]]\nname = '{name}'\nloss = 'sft'\ndata = 'sft.jsonl'\nweight = 0\n"
                    )
                };
                p.write("run.toml", objective("a") + &objective("b"));
            },
            "--config run.toml !--sft !--dpo",
            &[
                "weight must be above 0 for at least one objective, found `a 0, b 0`",
                "hint: give positive weights",
            ],
        ),
    ]);
}

#[test]
fn data() {
    check(&[
        (
            NOTHING,
            "--sft nowhere.json",
            &["sft: there is no file `nowhere.json`"],
        ),
        (
            NOTHING,
            "--sft model",
            &["sft must be a file, found `model`", "hint: it is a folder"],
        ),
        (
            |p| p.write("sft.jsonl", ""),
            "",
            &["sft.jsonl: the file is empty", "hint"],
        ),
        (
            |p| p.write("sft.jsonl", "[]"),
            "",
            &["sft.jsonl: the list of rows is empty", "hint"],
        ),
        (
            |p| {
                p.rows(
                    "sft.jsonl",
                    &[
                        json!({"instruction": "a", "output": ""}),
                        json!({"instruction": "b", "output": " "}),
                    ],
                );
            },
            "",
            &[
                "sft.jsonl: none of 2 rows is usable: 2 empty response",
                "hint",
            ],
        ),
        (
            |p| {
                p.rows(
                    "dpo.jsonl",
                    &[json!({"prompt": "a", "chosen": "b", "rejected": "b"})],
                );
            },
            "",
            &[
                "dpo.jsonl: none of 1 rows is usable: 1 chosen equals rejected",
                "hint",
            ],
        ),
        (
            |p| {
                p.write(
                    "sft.jsonl",
                    format!(
                        "{}\n{}\n{{\"instruction\": \n",
                        instruction(0),
                        instruction(1)
                    ),
                );
            },
            "",
            &["sft.jsonl: broken JSON in line 3, column 16", "hint"],
        ),
        (
            |p| {
                p.write(
                    "sft.jsonl",
                    [
                        b"{\"instruction\": \"a\", \"output\": \"",
                        &[0xff, 0xfe][..],
                        b"\"}\n",
                    ]
                    .concat(),
                );
            },
            "",
            &["sft.jsonl: not UTF-8 at byte", "(line 1)", "hint"],
        ),
        (
            |p| {
                let whole = gzip(&p.read("sft.jsonl"));
                p.write("sft.jsonl.gz", &whole[..whole.len() / 2]);
            },
            "--sft sft.jsonl.gz",
            &["sft.jsonl.gz: the gzip stream is truncated after", "hint"],
        ),
        (
            |p| p.write("sft.jsonl", "[".repeat(100_000)),
            "",
            &["sft.jsonl: line 1", "nested", "hint"],
        ),
        (
            |p| {
                p.write(
                    "sft.jsonl",
                    format!("{{\"instruction\": {}", "[".repeat(100_000)),
                );
            },
            "",
            &["sft.jsonl: line 1", "nested", "hint"],
        ),
        (
            |p| p.write("sft.jsonl", "PAR1"),
            "",
            &["sft.jsonl: not a readable Parquet file", "hint"],
        ),
        (
            |p| p.rows("sft.jsonl", &[json!({"question": "a", "reply": "b"})]),
            "",
            &[
                "sft.jsonl: row 0 (line 1) is in no known dialect: its columns are question, reply",
                "closest",
                "hint",
            ],
        ),
        (
            |p| p.rows("sft.jsonl", &[instruction(0), json!({"instruction": "a"})]),
            "",
            &["sft.jsonl: row 1 (line 2) has no column \"output\"", "hint"],
        ),
        (
            NOTHING,
            "--sft dpo.jsonl",
            &["dpo.jsonl", "--sft", "hint: pass it with --dpo"],
        ),
        (
            |p| p.rows("sft.jsonl", &[json!(["a"])]),
            "",
            &["sft.jsonl: row 0", "hint"],
        ),
        (
            |p| p.rows("sft.jsonl", &[json!({"instruction": "a", "output": 5})]),
            "",
            &["sft.jsonl: row 0 (line 1)", "output", "a number"],
        ),
    ]);
}

#[test]
fn adapters() {
    check(&[
        (
            NOTHING,
            "--init-adapter nowhere",
            &["init-adapter: there is no folder `nowhere`"],
        ),
        (
            |p| p.write("a/notes", ""),
            "--init-adapter a",
            &["a: no adapter_config.json in this folder", "hint"],
        ),
        (
            |p| p.adapter("a", "qwen2"),
            "--init-adapter a",
            &["a/adapter_model.safetensors", "hint"],
        ),
        (
            |p| p.adapter("a", "qwen2"),
            "--reference a",
            &["a/adapter_model.safetensors", "hint"],
        ),
        (
            |p| {
                p.adapter("a", "llama");
                cut(p, "a/adapter_model.safetensors", 900);
            },
            "--init-adapter a",
            &["a/adapter_model.safetensors", "hint"],
        ),
        (
            |p| {
                p.adapter("a", "llama");
                p.edit("a/adapter_config.json", |config| {
                    drop(config.insert("r".into(), json!(3)));
                });
            },
            "--init-adapter a",
            &[
                "a/adapter_model.safetensors: tensor `",
                "has shape",
                "expected",
                "hint",
            ],
        ),
    ]);
}

#[test]
fn an_adapter_of_another_base() {
    let place = Place::new();
    Done::good(place.train("--out first"));
    rewrite(&place, WEIGHTS, |name, _, data| {
        if name.ends_with("0.mlp.up_proj.weight") {
            data.iter_mut().step_by(2).for_each(|byte| *byte ^= 1);
        }
        true
    });
    for flag in ["--init-adapter", "--reference"] {
        let done = Done::of(place.train(&format!("{flag} first/adapter")));
        let parts = [
            "first/adapter: was trained on another base, model: its fingerprint is",
            "the fingerprint of model is",
            "hint",
        ];
        assert_one_message(&done, 2, &parts, flag);
        assert!(!place.path("run").exists());
    }
    // Without a fingerprint there is only a name.
    place.adapter("a", "llama");
    let name = |name: &str| {
        place.edit("a/adapter_config.json", |c| {
            drop(c.insert("base_model_name_or_path".into(), json!(name)));
        });
    };
    for (i, flag) in ["--init-adapter", "--reference"].into_iter().enumerate() {
        name("someone/other");
        let done = Done::good(place.train(&format!("{flag} a --out other-{i}")));
        let warning = "warning: a: says it was trained on someone/other, not on model";
        assert_eq!(done.stderr.matches(warning).count(), 1, "{flag}: {done:?}");
        name("someone/model");
        let done = Done::good(place.train(&format!("{flag} a --out same-{i}")));
        assert!(!done.stderr.contains("warning: a: "), "{done:?}");
    }
}

#[test]
fn output_folders() {
    let place = Place::new();
    place.write("full/notes.txt", "mine");
    assert_one_message(
        &Done::of(place.train("--out full")),
        2,
        &["full: is not empty: it holds notes.txt", "hint"],
        "",
    );
    assert_eq!(fs::read_dir(place.path("full")).unwrap().count(), 1);
    assert_one_message(
        &Done::of(place.train("--out sft.jsonl")),
        2,
        &["sft.jsonl: is not a folder", "hint"],
        "",
    );
    assert_one_message(
        &Done::of(place.train("--out sft.jsonl/a/b")),
        2,
        &["sft.jsonl: is not a folder"],
        "",
    );

    Done::good(place.train(""));
    let before = place.read("run/steps.jsonl");
    assert_one_message(
        &Done::of(place.train("")),
        2,
        &["run: already holds a run", "--resume"],
        "",
    );
    let done = Done::of(place.train("--resume --beta 0.3 --learning-rate 1e-3"));
    let parts = [
        "run: cannot resume with different settings",
        "dpo.beta: 0.1 -> 0.3",
        "learning-rate: ",
        "hint",
    ];
    assert_one_message(&done, 2, &parts, "changed settings");
    place.rows("sft.jsonl", &(1..30).map(instruction).collect::<Vec<_>>());
    let done = Done::of(place.train("--resume"));
    assert_one_message(
        &done,
        2,
        &["run: cannot resume", "the data of sft"],
        "changed data",
    );
    assert_eq!(place.read("run/steps.jsonl"), before);

    // The same tensors, multiplied by something else.
    Done::good(place.train("--reference run/adapter --out second"));
    let config = String::from_utf8(place.read("run/adapter/adapter_config.json")).unwrap();
    let louder = config.replace("\"lora_alpha\": ", "\"lora_alpha\": 1");
    assert_ne!(louder, config);
    place.write("run/adapter/adapter_config.json", &louder);
    let done = Done::of(place.train("--reference run/adapter --out second --resume"));
    assert_one_message(
        &done,
        2,
        &["second: cannot resume", "the reference adapter: "],
        "changed scale",
    );
}

#[test]
fn the_environment() {
    let place = Place::new();
    let with = |key: &str, value: &str| {
        let mut command = place.train("");
        command.env(key, value);
        Done::of(command)
    };
    let parts = [
        "UPRIGHT_CPU=nonsense: unknown tier",
        "portable, avx512 or amx",
    ];
    assert_one_message(&with("UPRIGHT_CPU", "nonsense"), 2, &parts, "");
    for tier in upright_engine::Tier::ALL
        .into_iter()
        .filter(|tier| !tier.available())
    {
        let parts = [
            format!("UPRIGHT_CPU={tier}: this machine cannot run this tier"),
            "unset UPRIGHT_CPU".into(),
        ];
        assert_one_message(
            &with("UPRIGHT_CPU", tier.name()),
            2,
            &parts.each_ref().map(|part| &part[..]),
            "",
        );
    }
    place.write("file", "");
    let parts = ["file", "the cache cannot be written", "set UPRIGHT_CACHE"];
    for cache in ["file", "file/below"] {
        assert_one_message(&with("UPRIGHT_CACHE", cache), 2, &parts, cache);
    }
    let mut command = place.train("--reference train:chosen");
    command.env("UPRIGHT_CACHE", "file");
    assert_one_message(&Done::of(command), 2, &parts, "train:chosen");
    assert!(!place.path("run").exists());
}

#[test]
fn rows_that_teach_nothing_are_dropped_and_named() {
    let place = Place::new();
    let mut rows: Vec<Value> = (0..20).map(instruction).collect();
    rows[3]["output"] = json!("");
    rows[7]["output"] = json!("  \n");
    place.rows("sft.jsonl", &rows);
    let mut rows: Vec<Value> = (0..20).map(preference).collect();
    rows[2]["chosen"] = rows[2]["rejected"].clone();
    rows[4]["rejected"] = json!("");
    place.rows("dpo.jsonl", &rows);
    let done = Done::good(place.train(""));
    for part in [
        "2 dropped, empty response: rows 3, 7",
        "1 dropped, chosen equals rejected: row 2",
        "1 dropped, empty response: row 4",
    ] {
        assert!(
            done.stderr.contains(part),
            "{part:?} is not in: {}",
            done.stderr
        );
    }
}

/// Newest first.
fn checkpoints(place: &Place) -> Vec<usize> {
    let entries = fs::read_dir(place.path("run/checkpoints")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<usize> = names
        .map(|name| name.strip_prefix("step-").unwrap().parse().unwrap())
        .collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps
}

#[test]
fn a_run_that_diverges_stops_and_keeps_what_is_good() {
    for (words, message, keeps) in [
        // Good steps first: the rate climbs to where a forward pass overflows.
        (
            "--learning-rate 1e38 --warmup 40 --clip 0",
            "the loss of ",
            true,
        ),
        // Beyond f32: the update itself is not finite, and no checkpoint may hold it.
        (
            "--learning-rate 1e39",
            "error: step 0: an update by sft and dpo made the adapter not finite",
            false,
        ),
        (
            "--learning-rate 1e39 --init-adapter a !--dpo",
            "error: step 0: an update by sft made the adapter",
            false,
        ),
    ] {
        let place = Place::new();
        place.adapter("a", "llama");
        let words = format!("{words} --steps 60 --method mix --checkpoint-every 1 --keep 2");
        let done = Done::of(place.train(&words));
        let parts = [
            "error: step ",
            message,
            "not finite",
            "hint: lower --learning-rate",
        ];
        assert_one_message(&done, 1, &parts, &words);
        assert_eq!(place.path("run/checkpoints").exists(), keeps, "{words}");
        let kept = if keeps { checkpoints(&place) } else { vec![] };
        assert_eq!(kept.len(), if keeps { 2 } else { 0 }, "{words}: {kept:?}");
        for step in &kept {
            let folder = format!("run/checkpoints/step-{step}");
            let bytes = place.read(&format!("{folder}/adapter_model.safetensors"));
            let file = SafeTensors::deserialize(&bytes).unwrap();
            for (name, tensor) in file.tensors() {
                let mut values = tensor
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                assert!(values.all(f32::is_finite), "{words}: {name} of step {step}");
            }
        }
        if let Some(oldest) = kept.last() {
            let adapter = format!("run/checkpoints/step-{oldest}");
            Done::good(place.command(&format!(
                "eval loss --model model --adapter {adapter} --sft sft.jsonl"
            )));
        }
        assert!(!place.path("run/adapter").exists(), "{words}");
        // Going on is possible, and meets the same end.
        let again = Done::of(place.train(&format!("{words} --resume")));
        assert_one_message(&again, 1, &[done.error().lines().next().unwrap()], &words);
        assert_eq!(
            again.stderr.contains("continuing at step"),
            keeps,
            "{again:?}"
        );
    }
}

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::*;
use crate::adapter::AdapterLayout;
use crate::config::tests::{any_json, refused};
use crate::weights::tests::{config, save};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// An adapter whose values are eighths, exact in any type.
fn adapter(config: &DecoderConfig, lora: &LoraConfig) -> Adapter {
    let layout = Arc::new(AdapterLayout::new(config, lora).unwrap());
    let mut adapter = Adapter::zeros(layout);
    adapter
        .parameters
        .iter_mut()
        .enumerate()
        .for_each(|(i, v)| *v = (i % 29) as f32 / 8.0 - 1.0);
    adapter
}

fn base() -> BaseModel {
    BaseModel {
        name: Some("some/model".into()),
        fingerprint: Some("f00d".into()),
        ..BaseModel::default()
    }
}

fn qv() -> LoraConfig {
    LoraConfig::new(2, 4.0, vec!["q_proj".into(), "v_proj".into()])
}

/// A written folder, to be damaged.
struct Folder {
    dir: tempfile::TempDir,
    model: &'static DecoderConfig,
}

impl Folder {
    fn new() -> Self {
        // Flushing to the disk is slow, so it happens once.
        static WRITTEN: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
        static MODEL: OnceLock<DecoderConfig> = OnceLock::new();
        let model = MODEL.get_or_init(|| config("llama", json!({})));
        let dir = tempfile::tempdir().unwrap();
        let paths = [CONFIG_FILE, TENSOR_FILE].map(|name| dir.path().join(name));
        let written = WRITTEN.get_or_init(|| {
            write(dir.path(), &adapter(model, &qv()), &qv(), &base()).unwrap();
            paths.each_ref().map(|path| fs::read(path).unwrap())
        });
        paths
            .iter()
            .zip(written)
            .for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        Self { dir, model }
    }

    fn read(&self) -> Result<PeftFolder> {
        read(self.dir.path(), self.model)
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir.path().join(CONFIG_FILE)).unwrap()).unwrap()
    }

    fn tensors(&self) -> Tensors {
        let bytes = fs::read(self.dir.path().join(TENSOR_FILE)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let f32s = |data: &[u8]| {
            data.chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect()
        };
        tensors
            .iter()
            .map(|(n, t)| (n.to_owned(), (t.shape().to_vec(), f32s(t.data()))))
            .collect()
    }

    fn with_config(changes: Value) -> Result<PeftFolder> {
        let folder = Self::new();
        let mut config = folder.config();
        config
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        fs::write(folder.dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
        folder.read()
    }

    fn with_tensors(dtype: Dtype, change: impl FnOnce(&mut Tensors)) -> Result<PeftFolder> {
        let folder = Self::new();
        let mut tensors = folder.tensors();
        change(&mut tensors);
        save(&folder.dir.path().join(TENSOR_FILE), &tensors, dtype);
        folder.read()
    }
}

const Q0: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

#[test]
fn what_is_written_is_read() {
    for (kind, targets) in [
        ("gpt_neox", "all-linear"),
        ("llama", "all-linear"),
        ("qwen3", "down_proj"),
    ] {
        let config = config(kind, json!({}));
        let mut lora = LoraConfig::new(3, 5.5, vec![targets.into()]);
        if targets != "all-linear" {
            lora.rank_pattern.insert("1.mlp.down_proj".into(), 5);
            lora.alpha_pattern.insert("0.mlp.down_proj".into(), 2.0);
            lora.use_rslora = true;
        }
        let adapter = adapter(&config, &lora);
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new/adapter");
        write(&dir, &adapter, &lora, &base()).unwrap();
        let folder = read(&dir, &config).unwrap();
        assert_eq!(folder.adapter, adapter);
        assert_eq!(folder.base, base());
        assert_eq!((folder.lora.rank, folder.lora.alpha), (3, 5.5));
        assert_eq!(folder.lora.rank_pattern, lora.rank_pattern);
        // Written again, it has the same bytes, and no other file is left in the folder.
        let bytes = |name: &str| fs::read(dir.join(name)).unwrap();
        let before = (bytes(CONFIG_FILE), bytes(TENSOR_FILE));
        write(&dir, &folder.adapter, &folder.lora, &base()).unwrap();
        assert_eq!(before, (bytes(CONFIG_FILE), bytes(TENSOR_FILE)));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }
}

#[test]
fn the_files_are_those_of_peft() {
    let folder = Folder::new();
    let text = fs::read_to_string(folder.dir.path().join(CONFIG_FILE)).unwrap();
    assert!(text.starts_with(
        "{\n  \"alpha_pattern\": {},\n  \"base_model_name_or_path\": \"some/model\",\n"
    ));
    assert!(text.contains("\"lora_alpha\": 4,\n") && text.contains("\"r\": 2,\n"));
    let Value::Object(config) = folder.config() else {
        panic!()
    };
    assert!(config.keys().is_sorted());
    assert_eq!(config["target_modules"], json!(["q_proj", "v_proj"]));
    assert_eq!(
        (&config["peft_type"], &config["task_type"]),
        (&json!("LORA"), &json!("CAUSAL_LM"))
    );
    assert_eq!(config.len(), 19);
    let bytes = fs::read(folder.dir.path().join(TENSOR_FILE)).unwrap();
    assert!(bytes[8..].starts_with(
        br#"{"__metadata__":{"format":"pt","upright.base_fingerprint":"f00d"},"base"#
    ));
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
    let tensors = folder.tensors();
    assert_eq!(tensors.len(), 8);
    assert_eq!(tensors[Q0].0, [2, 32]);
    assert_eq!(
        tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"].0,
        [16, 2]
    );
}

#[test]
fn other_types_and_names_of_tensors_are_read() {
    let plain = Folder::new().read().unwrap();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let read = Folder::with_tensors(dtype, |_| ()).unwrap();
        assert_eq!(read.adapter, plain.adapter);
        assert_eq!(read.base.fingerprint, None);
    }
    let rename = |from: &'static str, to: &'static str| {
        Folder::with_tensors(Dtype::F32, |t| {
            *t = std::mem::take(t)
                .into_iter()
                .map(|(n, v)| (n.replace(from, to), v))
                .collect();
        })
    };
    assert_eq!(
        rename(".weight", ".default.weight").unwrap().adapter,
        plain.adapter
    );
    assert_eq!(
        rename("model.model.model.", "model.model.")
            .unwrap()
            .adapter,
        plain.adapter
    );
}

#[test]
fn targets_are_kept_or_spelt_out() {
    let targets = |changes| Folder::with_config(changes).map(|folder| folder.lora.targets);
    assert_eq!(
        targets(json!({ "target_modules": ["v_proj", "q_proj", "query"] })).unwrap(),
        ["v_proj", "q_proj"]
    );
    for same in [
        json!({ "target_modules": ".*self_attn.(q|v)_proj" }),
        json!({ "target_modules": r"^(?!.*lm_head).*\.(q_proj|v_proj)" }),
        json!({ "target_modules": "all-linear", "exclude_modules": ["k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] }),
        json!({ "target_modules": "all-linear", "exclude_modules": ".*(k_proj|o_proj|mlp.*)" }),
        json!({ "layers_to_transform": [0, 1, 7] }),
        json!({ "target_modules": null }),
    ] {
        let spelt = targets(same).unwrap();
        assert_eq!(
            (spelt.len(), spelt[0].as_str()),
            (4, "model.layers.0.self_attn.q_proj")
        );
    }
    // Selected modules must have tensors, whatever selects them.
    for (more, module) in [
        (
            json!({ "target_modules": ".*_proj" }),
            "layers.0.self_attn.k_proj",
        ),
        (
            json!({ "target_modules": "all-linear", "exclude_modules": ["k_proj"] }),
            "layers.0.self_attn.o_proj",
        ),
    ] {
        refused(targets(more), &[module, "no tensors"]);
    }
    for (fewer, module) in [
        (
            json!({ "target_modules": "q_proj" }),
            "layers.0.self_attn.q_proj",
        ),
        (
            json!({ "exclude_modules": ["1.self_attn.v_proj"] }),
            "layers.1.self_attn.v_proj",
        ),
        (
            json!({ "layers_to_transform": 1 }),
            "layers.0.self_attn.q_proj",
        ),
        (
            json!({ "layers_to_transform": [0, 1], "layers_pattern": "h" }),
            "layers.0.self_attn.q_proj",
        ),
    ] {
        refused(
            targets(fewer),
            &["target_modules", "does not select", module],
        );
    }
    refused(
        targets(json!({ "target_modules": "(q_proj" })),
        &["target_modules", "not a valid regular expression"],
    );
    refused(
        targets(json!({ "layers_to_transform": ["0"] })),
        &["layers_to_transform", "a layer index"],
    );
    let slow = json!({ "target_modules": r"(?=(.*)*!)(\w+\.)*x\1" });
    assert!(targets(slow).is_err());
    refused(
        targets(json!({ "target_modules": "all-linear" })),
        &["k_proj", "no tensors", CONFIG_FILE],
    );
    refused(
        targets(json!({ "target_modules": ["q_proj"] })),
        &["target_modules", "v_proj"],
    );
    refused(
        targets(json!({ "target_modules": ["q_proj", "v_proj", "up_proj"] })),
        &["layers.0.mlp.up_proj", "no tensors"],
    );
    refused(
        targets(json!({ "target_modules": 3 })),
        &["target_modules", "is 3"],
    );

    // A single layer.
    let folder = Folder::new();
    let mut tensors = folder.tensors();
    tensors.retain(|name, _| name.contains("layers.1"));
    save(&folder.dir.path().join(TENSOR_FILE), &tensors, Dtype::F32);
    refused(folder.read(), &["layers.0.self_attn.q_proj", "no tensors"]);
    let mut config = folder.config();
    for pattern in [
        json!(null),
        json!("layers"),
        json!(["h", "layers"]),
        json!([]),
    ] {
        config["layers_to_transform"] = json!([1]);
        config["layers_pattern"] = pattern;
        fs::write(folder.dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
        let read = folder.read().unwrap();
        assert_eq!(read.adapter.layout.lowest_layer(), 1);
        assert_eq!(
            AdapterLayout::new(folder.model, &read.lora).unwrap(),
            *read.adapter.layout
        );
    }
}

#[test]
fn other_kinds_of_adapter_are_refused_by_name() {
    let cases = [
        (
            json!({ "peft_type": "IA3" }),
            &["adapter_config.json", "peft_type", "IA3", "LORA"][..],
        ),
        (json!({ "peft_type": null }), &["peft_type", "missing"]),
        (json!({ "use_dora": true }), &["use_dora", "DoRA"]),
        (json!({ "bias": "all" }), &["bias", "all"]),
        (json!({ "lora_bias": true }), &["lora_bias"]),
        (
            json!({ "modules_to_save": ["lm_head"] }),
            &["modules_to_save", "lm_head"],
        ),
        (
            json!({ "init_lora_weights": "pissa_niter_4" }),
            &["init_lora_weights", "pissa_niter_4"],
        ),
        (
            json!({ "layer_replication": [[0, 1]] }),
            &["layer_replication"],
        ),
        (json!({ "r": 0 }), &["`r`", "is 0"]),
        (json!({ "r": "2" }), &["`r`", "\"2\"", "whole number"]),
        (
            json!({ "r": 3 }),
            &["q_proj.lora_A.weight", "[2, 32]", "[3, 32]", "rank_pattern"],
        ),
        (
            json!({ "lora_alpha": 1e300 }),
            &["adapter_config.json", "alpha"],
        ),
        (
            json!({ "rank_pattern": { "q_proj(": 2 } }),
            &["rank_pattern.q_proj(", "not a valid regular expression"],
        ),
        (
            json!({ "rank_pattern": { "^q_proj": null } }),
            &["rank_pattern.^q_proj", "missing"],
        ),
        (
            json!({ "use_something_new": true }),
            &["use_something_new", "unknown", "merge_and_unload"],
        ),
        (
            json!({ "newer_config": { "groups": 2 } }),
            &["newer_config", "unknown"],
        ),
        (
            json!({ "rank_pattern": { "v_proj": 4 } }),
            &["v_proj.lora_A.weight", "[2, 32]", "[4, 32]"],
        ),
        (
            json!({ "alpha_pattern": { "q_proj": null } }),
            &["alpha_pattern.q_proj"],
        ),
    ];
    for (changes, words) in cases {
        refused(Folder::with_config(changes), words);
    }
    let harmless = json!({ "lora_dropout": 0.1, "init_lora_weights": "gaussian", "some_new_key": null,
        "modules_to_save": [], "eva_config": { "rho": 2.0 }, "megatron_core": "megatron.core", "qalora_group_size": 16 });
    assert_eq!(Folder::with_config(harmless).unwrap().dropout, 0.1);
}

#[test]
fn patterns_are_regular_expressions_of_which_the_first_counts() {
    let scales = |changes| -> Vec<f32> {
        let folder = Folder::with_config(changes).unwrap();
        // The settings describe the layout, so that the adapter can be written again.
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &folder.adapter, &folder.lora, &base()).unwrap();
        let model = config("llama", json!({}));
        assert_eq!(read(dir.path(), &model).unwrap().adapter, folder.adapter);
        folder
            .adapter
            .layout
            .targets
            .iter()
            .map(|target| target.scale)
            .collect()
    };
    // Rank 2 and alpha 4; the targets are q0, v0, q1, v1.
    let half = |alphas: [f32; 4]| alphas.map(|alpha| alpha / 2.0);
    let sorted = json!({ "alpha_pattern": { "0.self_attn.q_proj": 2, "q_proj": 1 } });
    assert_eq!(scales(sorted), half([2.0, 4.0, 1.0, 4.0]));
    let reversed = json!({ "alpha_pattern": { "q_proj": 1, "0.self_attn.q_proj": 2 } });
    assert_eq!(scales(reversed), half([1.0, 4.0, 1.0, 4.0]));
    let anchored =
        json!({ "alpha_pattern": { "^model.layers.1.self_attn.(q|v)_proj": 8, "v_proj": 6 } });
    assert_eq!(scales(anchored), half([4.0, 6.0, 8.0, 8.0]));
    let ahead = json!({ "alpha_pattern": { r"layers\.(?!0\.)\d+\..*": 8 }, "rank_pattern": { ".*_proj": 2 } });
    assert_eq!(scales(ahead), half([4.0, 4.0, 8.0, 8.0]));
    let rslora = json!({ "alpha_pattern": { "q_proj": 1 }, "use_rslora": true });
    let root = |alpha: f32| (f64::from(alpha) / 2_f64.sqrt()) as f32;
    assert_eq!(scales(rslora), [1.0, 4.0, 1.0, 4.0].map(root));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let with = |change: &dyn Fn(&mut Tensors)| Folder::with_tensors(Dtype::F32, change);
    refused(with(&|t| drop(t.remove(Q0))), &[TENSOR_FILE, Q0, "missing"]);
    refused(
        with(&|t| t.get_mut(Q0).unwrap().0 = vec![32, 2]),
        &[TENSOR_FILE, Q0, "[32, 2]", "[2, 32]"],
    );
    refused(
        with(&|t| t.get_mut(Q0).unwrap().0 = vec![64]),
        &[Q0, "[64]"],
    );
    refused(
        with(&|t| t.get_mut(Q0).unwrap().1[5] = f32::NAN),
        &[Q0, "NaN"],
    );
    let add = |name: &str| with(&move |t| drop(t.insert(name.to_owned(), (vec![1], vec![0.0]))));
    refused(
        add("base_model.model.lm_head.weight"),
        &["base_model.model.lm_head.weight"],
    );
    refused(
        add("base_model.model.lm_head.lora_A.weight"),
        &["lm_head", "adapters on the head", "merge"],
    );
    refused(
        add("base_model.model.model.embed_tokens.lora_A.weight"),
        &["embed_tokens", "adapters on the embedding"],
    );
    refused(
        add("base_model.model.model.vision.lora_A.weight"),
        &["vision", "not a linear"],
    );
    refused(
        add("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"),
        &["layers.9", "2 layers"],
    );
    refused(add(&Q0.replace("lora_A.", "lora_A.default.")), &["twice"]);
    refused(with(&|t| t.clear()), &[TENSOR_FILE, "no tensors"]);
}

#[test]
fn folders_of_other_programs_get_a_fitting_hint() {
    let folder = Folder::new();
    let path = |name: &str| folder.dir.path().join(name);
    fs::rename(path(TENSOR_FILE), path("adapter_model.bin")).unwrap();
    refused(
        folder.read(),
        &["no adapter_model.safetensors", "adapter_model.bin", "PEFT"],
    );
    fs::rename(path("adapter_model.bin"), path("adapters.safetensors")).unwrap();
    refused(folder.read(), &["mlx-lm"]);
    fs::write(
        path(CONFIG_FILE),
        r#"{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}"#,
    )
    .unwrap();
    refused(folder.read(), &["mlx-lm"]);
    fs::write(path(CONFIG_FILE), "{").unwrap();
    refused(folder.read(), &[CONFIG_FILE, "not JSON"]);
    fs::remove_file(path(CONFIG_FILE)).unwrap();
    refused(folder.read(), &["no adapter_config.json"]);
    fs::write(path("config.json"), "{}").unwrap();
    refused(folder.read(), &["holds a model"]);
}

#[test]
fn writing_refuses_what_nobody_could_read() {
    let dir = tempfile::tempdir().unwrap();
    let model = config("llama", json!({}));
    let mut adapter = adapter(&model, &qv());
    for lora in [
        LoraConfig::new(4, 4.0, qv().targets),
        LoraConfig::new(2, 4.0, vec!["q_proj".into()]),
    ] {
        refused(
            write(dir.path(), &adapter, &lora, &BaseModel::default()),
            &["model.layers.0.self_attn"],
        );
    }
    adapter.parameters[3] = f32::INFINITY;
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [dir.path(), &file] {
        let error = write(path, &adapter, &qv(), &BaseModel::default()).unwrap_err();
        assert!(
            error.message.starts_with("not a finite number: inf"),
            "{error}"
        );
        assert!(error.message.contains(Q0), "{error}");
    }
    adapter.parameters[3] = 0.0;
    let error = write(&file, &adapter, &qv(), &BaseModel::default()).unwrap_err();
    assert!(error.message.contains("cannot create"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_folders_never_panic(
        key in prop::sample::select(vec![
            "r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "peft_type", "use_rslora", "bias",
            "lora_dropout", "base_model_name_or_path", "layers_to_transform", "init_lora_weights", "use_dora",
            "exclude_modules", "layers_pattern", "revision", "eva_config",
        ]),
        value in any_json(),
        at in 0_usize..1200,
        to in any::<u8>(),
    ) {
        let _ = Folder::with_config(Value::Object([(key.to_owned(), value)].into_iter().collect()));
        let folder = Folder::new();
        for name in [CONFIG_FILE, TENSOR_FILE] {
            let path = folder.dir.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            fs::write(&path, bytes).unwrap();
            let _ = folder.read();
        }
    }
}

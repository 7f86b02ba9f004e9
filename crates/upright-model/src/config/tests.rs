use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::families::{builtin, gpt_neox::GPT_NEOX};
use upright_base::ErrorKind;

/// A small config of each family, as transformers 4 writes it.
pub(crate) fn sample(model_type: &str) -> Value {
    let mut config = json!({
        "model_type": model_type, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 40, "max_position_embeddings": 64
    });
    match model_type {
        "gpt_neox" => config["rotary_pct"] = json!(0.25),
        "qwen3" => {
            config["num_key_value_heads"] = json!(2);
            config["head_dim"] = json!(16);
        }
        _ => config["num_key_value_heads"] = json!(2),
    }
    config
}

/// The model types of all families.
pub(crate) fn model_types() -> Vec<&'static str> {
    let mut types = Vec::new();
    for family in builtin() {
        types.extend_from_slice(family.model_types);
    }
    types
}

fn read(config: &Value) -> Result<DecoderConfig> {
    read_text(config.to_string())
}

fn read_text(text: impl AsRef<[u8]>) -> Result<DecoderConfig> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    DecoderConfig::read(dir.path())
}

fn with(model_type: &str, changes: Value) -> Result<DecoderConfig> {
    let mut config = sample(model_type);
    config
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    read(&config)
}

/// Asserts an input error that names every word.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Input, "{error}");
    let text = format!("{error}\n{}", error.hint);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * b.abs()
}

#[test]
fn gpt_neox_defaults() {
    let c = with("gpt_neox", json!({})).unwrap();
    assert_eq!(
        (c.family, c.norm, c.norm_eps),
        (&GPT_NEOX, NormKind::Layer, 1e-5)
    );
    assert_eq!((c.kv_heads, c.head_size, c.rotary.dims), (4, 8, 2));
    assert_eq!(
        (c.qkv_bias, c.output_bias, c.mlp_bias, c.tied_head),
        (true, true, true, false)
    );
    assert_eq!(
        (c.residual, c.activation),
        (Residual::Parallel, Activation::Gelu)
    );
    assert_eq!((c.bos, c.eos), (Some(0), Some(2)));
    assert_eq!(c.windows, [None, None]);
    let c = with(
        "gpt_neox",
        json!({ "use_parallel_residual": false, "hidden_act": "gelu_fast" }),
    )
    .unwrap();
    assert_eq!(
        (c.residual, c.activation),
        (Residual::Sequential, Activation::GeluTanh)
    );
}

#[test]
fn llama_family_defaults() {
    let c = with("llama", json!({ "num_key_value_heads": null })).unwrap();
    assert_eq!(
        (c.kv_heads, c.norm, c.norm_eps, c.activation),
        (4, NormKind::Rms, 1e-6, Activation::SwiGlu)
    );
    assert_eq!(
        (c.qkv_bias, c.output_bias, c.mlp_bias, c.qk_norm),
        (false, false, false, false)
    );
    assert_eq!(
        (c.bos, c.eos, c.residual),
        (Some(1), Some(2), Residual::Sequential)
    );
    let c = with(
        "llama",
        json!({ "attention_bias": true, "mlp_bias": true, "head_dim": 10 }),
    )
    .unwrap();
    assert_eq!(
        (c.qkv_bias, c.output_bias, c.mlp_bias, c.head_size),
        (true, true, true, 10)
    );
    let c = with("qwen2", json!({ "tie_word_embeddings": true })).unwrap();
    assert_eq!(
        (c.qkv_bias, c.output_bias, c.mlp_bias, c.tied_head),
        (true, false, false, true)
    );
    assert_eq!((c.bos, c.eos), (None, None));
    let mut bare = sample("qwen3");
    bare.as_object_mut().unwrap().remove("head_dim");
    let c = read(&bare).unwrap();
    assert_eq!((c.head_size, c.qk_norm, c.qkv_bias), (128, true, false));
    let c = with(
        "llama",
        json!({ "eos_token_id": [7, 8], "bos_token_id": null }),
    )
    .unwrap();
    assert_eq!((c.bos, c.eos), (None, Some(7)));
}

#[test]
fn the_dialects_of_transformers_4_and_5_agree() {
    let old = with(
        "llama",
        json!({ "rope_theta": 5e5, "torch_dtype": "bfloat16",
        "rope_scaling": { "type": "linear", "factor": 2.0 } }),
    );
    let new = with(
        "llama",
        json!({ "dtype": "bfloat16",
        "rope_parameters": { "rope_theta": 5e5, "rope_type": "linear", "factor": 2.0 } }),
    );
    let old = old.unwrap();
    assert_eq!(old, new.unwrap());
    assert_eq!(old.rotary.dims, 8);
    assert!(
        near(old.rotary.frequencies[0], 0.5)
            && near(old.rotary.frequencies[2], 0.5 / 5e5_f64.sqrt())
    );

    let old = with(
        "gpt_neox",
        json!({ "rotary_pct": 0.5, "rotary_emb_base": 100 }),
    )
    .unwrap();
    let new = with(
        "gpt_neox",
        json!({ "rotary_pct": null,
        "rope_parameters": { "rope_theta": 100.0, "rope_type": "default", "partial_rotary_factor": 0.5 } }),
    );
    assert_eq!(old, new.unwrap());
    assert_eq!((old.rotary.dims, old.rotary.frequencies.len()), (4, 2));
    assert!(near(old.rotary.frequencies[1], 0.1));
}

#[test]
fn llama3_scaling_keeps_short_waves_and_slows_long_ones() {
    let scaling = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192 });
    let config = json!({ "head_dim": 128, "rope_theta": 5e5, "rope_scaling": scaling });
    let f = with("llama", config).unwrap().rotary.frequencies;
    let plain = |i: i32| 5e5_f64.powf(-f64::from(i) / 64.0);
    assert!(
        near(f[0], 1.0)
            && near(f[20], plain(20))
            && near(f[40], plain(40) / 8.0)
            && near(f[63], plain(63) / 8.0)
    );
    // The value that transformers computes between the two, in f32.
    let wavelength = std::f64::consts::TAU / plain(32);
    let smooth = (8192.0 / wavelength - 1.0) / 3.0;
    assert!(
        (0.0..1.0).contains(&smooth) && near(f[32], plain(32) * ((1.0 - smooth) / 8.0 + smooth))
    );
}

#[test]
fn windows_follow_each_family() {
    assert_eq!(with("mistral", json!({})).unwrap().windows, [Some(4096); 2]);
    assert_eq!(
        with("mistral", json!({ "sliding_window": null }))
            .unwrap()
            .windows,
        [None; 2]
    );
    assert_eq!(
        with("mistral", json!({ "sliding_window": 9 }))
            .unwrap()
            .windows,
        [Some(9); 2]
    );
    assert_eq!(
        with("llama", json!({ "sliding_window": 9 }))
            .unwrap()
            .windows,
        [None; 2]
    );
    assert_eq!(
        with(
            "qwen2",
            json!({ "sliding_window": 9, "max_window_layers": 1 })
        )
        .unwrap()
        .windows,
        [None; 2]
    );
    let on = json!({ "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 1 });
    assert_eq!(with("qwen2", on).unwrap().windows, [None, Some(9)]);
    let listed = json!({ "use_sliding_window": true, "sliding_window": 9,
        "layer_types": ["sliding_attention", "full_attention"] });
    assert_eq!(with("qwen3", listed).unwrap().windows, [Some(9), None]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let cases = [
        (
            "llama",
            json!({ "model_type": "gpt2" }),
            &["config.json", "model_type", "gpt2", "mistral"][..],
        ),
        (
            "llama",
            json!({ "model_type": null }),
            &["model_type", "missing"],
        ),
        (
            "llama",
            json!({ "hidden_size": "32" }),
            &["hidden_size", "\"32\"", "whole number"],
        ),
        (
            "llama",
            json!({ "hidden_size": 0 }),
            &["hidden_size", "is 0", "from 1"],
        ),
        (
            "llama",
            json!({ "hidden_size": -5 }),
            &["hidden_size", "-5"],
        ),
        (
            "llama",
            json!({ "hidden_size": 1e9 as u64 }),
            &["hidden_size", "1000000000", "1048576"],
        ),
        ("llama", json!({ "vocab_size": u64::MAX }), &["vocab_size"]),
        (
            "llama",
            json!({ "num_hidden_layers": null }),
            &["num_hidden_layers", "missing"],
        ),
        (
            "llama",
            json!({ "num_attention_heads": 5 }),
            &["num_key_value_heads", "2", "5"],
        ),
        (
            "llama",
            json!({ "num_attention_heads": 6 }),
            &["hidden_size", "32", "6"],
        ),
        ("llama", json!({ "head_dim": 7 }), &["head_dim", "7", "odd"]),
        (
            "gpt_neox",
            json!({ "head_dim": 16 }),
            &["head_dim", "16", "32 / 4"],
        ),
        (
            "llama",
            json!({ "num_key_value_heads": 3 }),
            &["num_key_value_heads", "3", "4"],
        ),
        (
            "llama",
            json!({ "hidden_act": "gelu" }),
            &["hidden_act", "gelu", "silu"],
        ),
        (
            "gpt_neox",
            json!({ "hidden_act": "relu" }),
            &["hidden_act", "relu", "gelu_new"],
        ),
        (
            "llama",
            json!({ "rms_norm_eps": 0.0 }),
            &["rms_norm_eps", "above 0"],
        ),
        (
            "llama",
            json!({ "attention_bias": "yes" }),
            &["attention_bias", "yes", "true or false"],
        ),
        (
            "llama",
            json!({ "eos_token_id": "</s>" }),
            &["eos_token_id", "</s>", "token id"],
        ),
        (
            "llama",
            json!({ "rope_scaling": { "type": "dynamic", "factor": 2.0 } }),
            &["rope_scaling.type", "dynamic"],
        ),
        (
            "llama",
            json!({ "rope_parameters": { "rope_type": "yarn" } }),
            &["rope_parameters.rope_type", "yarn"],
        ),
        (
            "llama",
            json!({ "rope_scaling": { "type": "linear" } }),
            &["rope_scaling.factor", "missing"],
        ),
        (
            "llama",
            json!({ "rope_scaling": 3 }),
            &["rope_scaling", "an object"],
        ),
        (
            "llama",
            json!({ "rope_theta": 0 }),
            &["rope_theta", "above 0"],
        ),
        (
            "llama",
            json!({ "partial_rotary_factor": 0.5 }),
            &["partial_rotary_factor", "0.5"],
        ),
        (
            "llama",
            json!({ "rope_parameters": { "full_attention": {} } }),
            &["full_attention", "per layer type"],
        ),
        (
            "gpt_neox",
            json!({ "rotary_pct": 0.4 }),
            &["rotary_pct", "0.4", "3"],
        ),
        (
            "gpt_neox",
            json!({ "rotary_pct": 2.0 }),
            &["rotary_pct", "16"],
        ),
        (
            "gpt_neox",
            json!({ "rope_theta": 5 }),
            &["rope_theta", "rotary_emb_base", "10000"],
        ),
        (
            "llama",
            json!({ "quantization_config": { "bits": 4 } }),
            &["quantization_config", "bf16"],
        ),
        ("llama", json!({ "num_experts": 8 }), &["num_experts", "8"]),
        ("qwen2", json!({ "is_causal": false }), &["is_causal"]),
        (
            "mistral",
            json!({ "sliding_window": 0 }),
            &["sliding_window"],
        ),
        (
            "mistral",
            json!({ "layer_types": ["full_attention", "full_attention"] }),
            &["layer_types", "sliding_window"],
        ),
        (
            "qwen2",
            json!({ "layer_types": ["full_attention"] }),
            &["layer_types", "1", "2"],
        ),
        (
            "qwen2",
            json!({ "layer_types": ["full_attention", "mamba"] }),
            &["layer_types", "mamba"],
        ),
        (
            "qwen2",
            json!({ "layer_types": ["full_attention", "sliding_attention"] }),
            &["use_sliding_window"],
        ),
    ];
    for (model_type, changes, words) in cases {
        refused(with(model_type, changes), words);
    }
    let llama3 =
        json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4 });
    refused(
        with("llama", json!({ "rope_scaling": llama3 })),
        &["high_freq_factor", "low_freq_factor"],
    );
}

#[test]
fn damaged_files_are_named() {
    refused(read_text("{\"model_type\": "), &["config.json", "not JSON"]);
    refused(read_text("[1]"), &["[1]", "object"]);
    refused(read_text("[".repeat(100_000)), &["not JSON", "recursion"]);
    let dir = tempfile::tempdir().unwrap();
    refused(DecoderConfig::read(dir.path()), &["no config.json"]);
    refused(
        DecoderConfig::read(Path::new("no/such/folder")),
        &["no/such/folder", "no config.json"],
    );
    std::fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    refused(DecoderConfig::read(dir.path()), &["holds an adapter"]);
    let file = std::fs::File::create(dir.path().join("config.json")).unwrap();
    file.set_len(65 << 20).unwrap();
    refused(
        DecoderConfig::read(dir.path()),
        &["config.json", "68157440 bytes"],
    );
}

/// Any JSON value, not too deep.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..70).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "llama3",
            "linear",
            "sliding_attention",
            "q_proj",
            "é",
            ""
        ])
        .prop_map(Value::from),
    ];
    let keys = vec![
        "rope_type",
        "factor",
        "rope_theta",
        "low_freq_factor",
        "high_freq_factor",
        "q_proj",
        "x",
    ];
    leaf.prop_recursive(2, 12, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(keys.clone()), inner), 0..5).prop_map(
                |pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            ),
        ]
    })
}

const KEYS: &[&str] = &[
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rotary_pct",
    "rotary_emb_base",
    "partial_rotary_factor",
    "sliding_window",
    "use_sliding_window",
    "layer_types",
    "max_window_layers",
    "eos_token_id",
    "attention_bias",
    "original_max_position_embeddings",
    "rms_norm_eps",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_text(bytes);
    }

    #[test]
    fn changed_configs_never_panic(
        kind in prop::sample::select(model_types()),
        changes in prop::collection::vec((prop::sample::select(KEYS.to_vec()), any_json()), 1..4),
    ) {
        let mut config = sample(kind);
        for (key, value) in changes {
            config[key] = value;
        }
        if let Ok(c) = read(&config) {
            prop_assert!(c.heads % c.kv_heads == 0 && c.head_size % 2 == 0 && c.windows.len() == c.layers);
            prop_assert!(c.rotary.dims <= c.head_size && c.rotary.frequencies.len() == c.rotary.dims / 2);
        }
    }
}

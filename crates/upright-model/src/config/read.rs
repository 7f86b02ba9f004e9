//! Reads `config.json` as the model's family declares.

use std::path::Path;

use serde_json::Value;

use super::json::{self, Object};
use super::{DecoderConfig, Residual, rope};
use crate::families::{
    self, Activation, ActivationNames, Family, HeadSize, KvHeads, SlidingWindow, Switch,
};
use upright_base::{Error, Result, file_kind};

/// Keys of related models and forks that change the arithmetic, although names and shapes of the
/// weights may be the same. `null`, `false`, 0, 1 and empty are their neutral values.
const CHANGES_THE_ARITHMETIC: &[&str] = &[
    "add_cross_attention",
    "alibi",
    "attention_multiplier",
    "attn_logit_softcapping",
    "clip_qkv",
    "embedding_multiplier",
    "final_logit_softcapping",
    "is_encoder_decoder",
    "kv_lora_rank",
    "logit_scale",
    "logits_scaling",
    "moe_intermediate_size",
    "n_routed_experts",
    "no_rope_layers",
    "num_experts",
    "num_local_experts",
    "q_lora_rank",
    "qk_layernorm",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "rope_interleave",
    "scale_attn_by_inverse_layer_idx",
    "scale_depth",
    "scale_emb",
    "use_bidirectional_attention",
    "use_qk_norm",
];

fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64().is_some_and(|x| x == 0.0 || x == 1.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

fn refuse_what_would_be_wrong(file: Object<'_>, model_type: &str) -> Result<()> {
    for key in ["quantization_config", "compression_config"] {
        if file.map.get(key).is_some_and(|value| !is_neutral(value)) {
            let hint =
                "use the model's bf16, f16 or f32 weights; quantized weights are not supported";
            return Err(file.error(key, "says that the weights are quantized", hint));
        }
    }
    for key in CHANGES_THE_ARITHMETIC {
        if file.map.get(*key).is_some_and(|value| !is_neutral(value)) {
            let problem = format!(
                "is {}, which is not supported for models of type {model_type}",
                file.shown(key)
            );
            return Err(file.error(
                key,
                &problem,
                "use another model: this is a different architecture under a known model type",
            ));
        }
    }
    if file.flag("is_causal")? == Some(false) {
        return Err(file.wrong("is_causal", "true: only causal models are supported"));
    }
    Ok(())
}

/// See [`DecoderConfig::read`].
pub(super) fn read(dir: &Path, families: &[&'static Family]) -> Result<DecoderConfig> {
    let path = dir.join("config.json");
    file_kind::check_file(&path)?;
    if !path.is_file() {
        let hint = if dir.join("adapter_config.json").is_file() {
            "this folder holds an adapter; give the folder of its base model, or merge the two first: \
             upright export --merge"
        } else {
            "a model is a folder with config.json, tokenizer.json and *.safetensors, as on the Hugging Face Hub"
        };
        return Err(Error::file(dir, "no config.json in this folder", hint));
    }
    let map = json::read_file(&path, "download config.json again")?;
    let file = Object::new(&path, &map);
    let model_type = file
        .text("model_type")?
        .ok_or_else(|| file.missing("model_type"))?;
    let Some(family) = families::find(families, model_type) else {
        let problem = format!("is {}, which is not supported", file.shown("model_type"));
        let supported = families::model_types(families);
        return Err(file.error(
            "model_type",
            &problem,
            format!("supported model types: {supported}"),
        ));
    };
    refuse_what_would_be_wrong(file, model_type)?;

    // Limits far above any model keep every product of sizes within a usize.
    let needed = |key: &str, limit| file.size(key, limit)?.ok_or_else(|| file.missing(key));
    let hidden = needed("hidden_size", 1 << 20)?;
    let layers = needed("num_hidden_layers", 1 << 12)?;
    let heads = needed("num_attention_heads", 1 << 14)?;
    let intermediate = needed("intermediate_size", 1 << 23)?;
    let vocab = needed("vocab_size", 1 << 25)?;
    let max_positions = file
        .size("max_position_embeddings", 1 << 31)?
        .unwrap_or(family.max_positions);
    let kv_heads = kv_heads(file, &family.kv_heads, heads)?;
    if heads % kv_heads != 0 {
        let assumed = if file.has("num_key_value_heads") {
            ""
        } else {
            " (the default for a missing key)"
        };
        let problem =
            format!("is {kv_heads}{assumed}, not a divisor of `num_attention_heads`, {heads}");
        return Err(file.error(
            "num_key_value_heads",
            &problem,
            "set it to a divisor of `num_attention_heads`",
        ));
    }
    let head_size = head_size(file, &family.head_size, hidden, heads)?;
    let rotary = rope::read(file, family, head_size, max_positions)?;

    let norm_eps = file
        .positive(family.norm_eps.key)?
        .unwrap_or(family.norm_eps.default) as f32;
    let qkv_bias = switch(file, &family.qkv_bias)?;
    let output_bias = switch(file, &family.output_bias)?;
    let mlp_bias = switch(file, &family.mlp_bias)?;
    let is_parallel = switch(file, &family.parallel_residual)?;
    Ok(DecoderConfig {
        family,
        model_type: model_type.to_owned(),
        hidden,
        layers,
        heads,
        kv_heads,
        head_size,
        intermediate,
        vocab,
        max_positions,
        norm: family.norm,
        norm_eps,
        rotary,
        windows: windows(file, &family.window, layers)?,
        qk_norm: family.tensors.head_norms.is_some(),
        qkv_bias,
        output_bias,
        mlp_bias,
        residual: if is_parallel {
            Residual::Parallel
        } else {
            Residual::Sequential
        },
        activation: activation(file, &family.activation)?,
        tied_head: file
            .flag("tie_word_embeddings")?
            .unwrap_or(family.tied_head),
        bos: if file.has("bos_token_id") {
            file.token("bos_token_id")?
        } else {
            family.bos
        },
        eos: if file.has("eos_token_id") {
            file.token("eos_token_id")?
        } else {
            family.eos
        },
        dropout: dropout(file)?,
    })
}

fn dropout(file: Object<'_>) -> Result<Vec<(&'static str, f64)>> {
    let mut found = Vec::new();
    for key in ["attention_dropout", "hidden_dropout"] {
        if let Some(share) = file.number(key)?.filter(|share| *share > 0.0) {
            found.push((key, share));
        }
    }
    Ok(found)
}

/// Whether a property of the architecture is on.
fn switch(file: Object<'_>, switch: &Switch) -> Result<bool> {
    match switch {
        Switch::Off => Ok(false),
        Switch::On => Ok(true),
        Switch::Key { key, default } => Ok(file.flag(key)?.unwrap_or(*default)),
    }
}

/// Number of key-value heads. The caller checks that it divides `heads`.
fn kv_heads(file: Object<'_>, form: &KvHeads, heads: usize) -> Result<usize> {
    let key = "num_key_value_heads";
    match form {
        KvHeads::OnePerHead => Ok(heads),
        KvHeads::Key { .. } if file.has(key) => Ok(file.size(key, heads)?.unwrap_or(heads)),
        KvHeads::Key { default } => Ok(default.unwrap_or(heads)),
    }
}

fn head_size(file: Object<'_>, form: &HeadSize, hidden: usize, heads: usize) -> Result<usize> {
    let written = file.size("head_dim", 1 << 14)?;
    let assumed = match form {
        HeadSize::Key { default } if !file.has("head_dim") => *default,
        HeadSize::Key { .. } | HeadSize::Quotient => None,
    };
    let size = match written.or(assumed) {
        Some(size) if matches!(form, HeadSize::Quotient) && size * heads != hidden => {
            let expected =
                format!("`hidden_size` / `num_attention_heads`, {hidden} / {heads}, or nothing");
            return Err(file.wrong("head_dim", &expected));
        }
        Some(size) => size,
        None if !hidden.is_multiple_of(heads) => {
            let problem = format!("is {hidden}, not a multiple of `num_attention_heads`, {heads}");
            return Err(file.error(
                "hidden_size",
                &problem,
                "set `head_dim`, or correct `hidden_size` or `num_attention_heads`",
            ));
        }
        None => hidden / heads,
    };
    if size % 2 != 0 {
        let problem =
            format!("gives heads an odd size, {size}; rotary embedding needs an even head size");
        let key = if written.is_some() {
            "head_dim"
        } else {
            "num_attention_heads"
        };
        return Err(file.error(
            key,
            &problem,
            "set it to a value that gives an even head size",
        ));
    }
    Ok(size)
}

fn activation(file: Object<'_>, names: &ActivationNames) -> Result<Activation> {
    let name = file.text("hidden_act")?.unwrap_or(names.default);
    for (known, activation) in names.known {
        if *known == name {
            return Ok(*activation);
        }
    }
    Err(file.wrong("hidden_act", names.expected))
}

/// The value of `sliding_window`, of which `null` means none.
fn window_size(file: Object<'_>, default: usize) -> Result<Option<usize>> {
    if file.has("sliding_window") {
        file.size("sliding_window", usize::MAX >> 1)
    } else {
        Ok(Some(default))
    }
}

/// Sliding window of every block: a query attends to a key if
/// `query position - key position < window`.
fn windows(file: Object<'_>, form: &SlidingWindow, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match form {
        SlidingWindow::Never => None,
        SlidingWindow::EveryBlock { default } => window_size(file, *default)?,
        SlidingWindow::UpperBlocks { default, .. } => {
            if file.flag("use_sliding_window")?.unwrap_or(false) {
                window_size(file, *default)?
            } else {
                None
            }
        }
    };
    let kinds = file.texts("layer_types")?;
    if let Some(kinds) = &kinds {
        if kinds.len() != layers {
            let problem = format!(
                "lists {} layers, but `num_hidden_layers` is {layers}",
                kinds.len()
            );
            return Err(file.error("layer_types", &problem, "list one type per layer"));
        }
        let known =
            |kind: &&str| matches!(*kind, "full_attention" | "attention" | "sliding_attention");
        if let Some(kind) = kinds.iter().find(|kind| !known(kind)) {
            let hint = "supported layer types: `full_attention`, `sliding_attention`";
            return Err(file.error(
                "layer_types",
                &format!("has a layer of type `{kind}`, which is not supported"),
                hint,
            ));
        }
        if window.is_none() && kinds.contains(&"sliding_attention") {
            let hint = "set `sliding_window` (and for Qwen `use_sliding_window`), or make every layer `full_attention`";
            return Err(file.error(
                "layer_types",
                "has sliding-window layers, but no window is set",
                hint,
            ));
        }
        // Mistral's own class uses the window in every layer and ignores the list; other programs
        // follow the list. Neither is a safe choice.
        if matches!(form, SlidingWindow::EveryBlock { .. })
            && window.is_some()
            && kinds.iter().any(|kind| *kind != "sliding_attention")
        {
            let hint = "remove `layer_types` if every layer uses the window, or set `sliding_window` to null if none does";
            return Err(file.error(
                "layer_types",
                "has layers without a sliding window, but `sliding_window` is set",
                hint,
            ));
        }
    }
    let first = match form {
        SlidingWindow::UpperBlocks { first, .. } => {
            file.count("max_window_layers")?.unwrap_or(*first)
        }
        SlidingWindow::Never | SlidingWindow::EveryBlock { .. } => 0,
    };
    let slides = |layer: usize| match &kinds {
        Some(kinds) => kinds[layer] == "sliding_attention",
        None => layer >= first,
    };
    Ok((0..layers)
        .map(|layer| window.filter(|_| slides(layer)))
        .collect())
}

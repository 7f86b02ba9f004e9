//! `config.json` of the supported families, with the defaults of transformers' config classes.

use std::path::Path;

use serde_json::Value;

use super::json::{self, Object};
use super::{Activation, DecoderConfig, Family, NormKind, Residual, rope};
use upright_base::{Error, Result, file_kind};

/// The defaults of transformers for missing keys.
struct Defaults {
    family: Family,
    kv_heads: Option<usize>,
    head_size: Option<usize>,
    max_positions: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    activation: &'static str,
}

const MODEL_TYPES: &str = "gpt_neox, llama, mistral, qwen2, qwen3";

fn defaults(model_type: &str) -> Option<Defaults> {
    let llama = Defaults {
        family: Family::Llama,
        kv_heads: None,
        head_size: None,
        max_positions: 2048,
        bos: Some(1),
        eos: Some(2),
        activation: "silu",
    };
    let qwen = Defaults {
        kv_heads: Some(32),
        max_positions: 32_768,
        bos: None,
        eos: None,
        ..llama
    };
    Some(match model_type {
        "gpt_neox" => Defaults {
            family: Family::GptNeox,
            bos: Some(0),
            activation: "gelu",
            ..llama
        },
        "llama" => llama,
        "mistral" => Defaults {
            kv_heads: Some(8),
            max_positions: 4096 * 32,
            ..llama
        },
        "qwen2" => qwen,
        "qwen3" => Defaults {
            head_size: Some(128),
            ..qwen
        },
        _ => return None,
    })
}

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
pub(super) fn read(dir: &Path) -> Result<DecoderConfig> {
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
    let Some(defaults) = defaults(model_type) else {
        let problem = format!("is {}, which is not supported", file.shown("model_type"));
        return Err(file.error(
            "model_type",
            &problem,
            format!("supported model types: {MODEL_TYPES}"),
        ));
    };
    refuse_what_would_be_wrong(file, model_type)?;

    // Limits far above any model keep every product of sizes within a usize.
    let needed = |key: &str, limit| file.size(key, limit)?.ok_or_else(|| file.missing(key));
    let family = defaults.family;
    let neox = family == Family::GptNeox;
    let hidden = needed("hidden_size", 1 << 20)?;
    let layers = needed("num_hidden_layers", 1 << 12)?;
    let heads = needed("num_attention_heads", 1 << 14)?;
    let intermediate = needed("intermediate_size", 1 << 23)?;
    let vocab = needed("vocab_size", 1 << 25)?;
    let max_positions = file
        .size("max_position_embeddings", 1 << 31)?
        .unwrap_or(defaults.max_positions);
    let kv_heads = if neox {
        heads
    } else if file.has("num_key_value_heads") {
        file.size("num_key_value_heads", heads)?.unwrap_or(heads)
    } else {
        defaults.kv_heads.unwrap_or(heads)
    };
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
    let head_size = head_size(file, &defaults, hidden, heads)?;
    let rotary = rope::read(file, family, head_size, max_positions)?;

    let eps_key = if neox {
        "layer_norm_eps"
    } else {
        "rms_norm_eps"
    };
    let norm_eps = file
        .positive(eps_key)?
        .unwrap_or(if neox { 1e-5 } else { 1e-6 }) as f32;
    let attention_bias = match model_type {
        "gpt_neox" => file.flag("attention_bias")?.unwrap_or(true),
        "llama" | "qwen3" => file.flag("attention_bias")?.unwrap_or(false),
        _ => false,
    };
    let mlp_bias = match model_type {
        "gpt_neox" => true,
        "llama" => file.flag("mlp_bias")?.unwrap_or(false),
        _ => false,
    };
    let parallel = neox && file.flag("use_parallel_residual")?.unwrap_or(true);
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
        norm: if neox { NormKind::Layer } else { NormKind::Rms },
        norm_eps,
        rotary,
        windows: windows(file, model_type, layers)?,
        qk_norm: model_type == "qwen3",
        qkv_bias: attention_bias || model_type == "qwen2",
        output_bias: attention_bias,
        mlp_bias,
        residual: if parallel {
            Residual::Parallel
        } else {
            Residual::Sequential
        },
        activation: activation(file, &defaults)?,
        tied_head: file.flag("tie_word_embeddings")?.unwrap_or(false),
        bos: if file.has("bos_token_id") {
            file.token("bos_token_id")?
        } else {
            defaults.bos
        },
        eos: if file.has("eos_token_id") {
            file.token("eos_token_id")?
        } else {
            defaults.eos
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

fn head_size(file: Object<'_>, defaults: &Defaults, hidden: usize, heads: usize) -> Result<usize> {
    let written = file.size("head_dim", 1 << 14)?;
    let assumed = if file.has("head_dim") {
        None
    } else {
        defaults.head_size
    };
    let size = match written.or(assumed) {
        Some(size) if defaults.family == Family::GptNeox && size * heads != hidden => {
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

fn activation(file: Object<'_>, defaults: &Defaults) -> Result<Activation> {
    let name = file.text("hidden_act")?.unwrap_or(defaults.activation);
    match (defaults.family, name) {
        (Family::GptNeox, "gelu" | "gelu_python") => Ok(Activation::Gelu),
        // All of these names mean the tanh approximation.
        (
            Family::GptNeox,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate",
        ) => Ok(Activation::GeluTanh),
        (Family::Llama, "silu" | "swish") => Ok(Activation::SwiGlu),
        (Family::GptNeox, _) => Err(file.wrong(
            "hidden_act",
            "gelu, gelu_new, gelu_fast or gelu_pytorch_tanh",
        )),
        (Family::Llama, _) => Err(file.wrong("hidden_act", "silu")),
    }
}

/// Sliding window of every block: a query attends to a key if
/// `query position - key position < window`.
fn windows(file: Object<'_>, model_type: &str, layers: usize) -> Result<Vec<Option<usize>>> {
    let limit = usize::MAX >> 1;
    let window = match model_type {
        "mistral" if !file.has("sliding_window") => Some(4096),
        "mistral" => file.size("sliding_window", limit)?,
        "qwen2" | "qwen3" if file.flag("use_sliding_window")?.unwrap_or(false) => {
            if file.has("sliding_window") {
                file.size("sliding_window", limit)?
            } else {
                Some(4096)
            }
        }
        _ => None,
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
        if model_type == "mistral"
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
    let first = match model_type {
        "qwen2" | "qwen3" => file.count("max_window_layers")?.unwrap_or(28),
        _ => 0,
    };
    let slides = |layer: usize| match &kinds {
        Some(kinds) => kinds[layer] == "sliding_attention",
        None => layer >= first,
    };
    Ok((0..layers)
        .map(|layer| window.filter(|_| slides(layer)))
        .collect())
}

//! Reading a PEFT folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{CONFIG_FILE, FINGERPRINT_KEY, KEY_PREFIX, PeftFolder, TENSOR_FILE};
use crate::adapter::layout::{MAX_RANK, first_match, names_module, regex_character};
use crate::adapter::{ALL_LINEAR, Adapter, AdapterLayout, LinearSpec, LoraConfig, linears};
use crate::config::DecoderConfig;
use crate::config::json::{self, Object};
use crate::weights::file::{Tensor, TensorFile};
use crate::weights::names::names;
use crate::{Error, Result};

const DAMAGED: &str = "download the adapter again, or save it again with PEFT";

/// Initialisations that leave the base weights as they are. The others (PiSSA, OLoRA, LoftQ, ...) move part of them into
/// the adapter, so that it fits no model but a changed one.
const HARMLESS_INITS: &[&str] = &["gaussian", "eva", "orthogonal", "mini_lora"];

/// Keys that make an adapter something else than `scale * B A` on linears, with what they mean.
const OTHER_METHODS: &[(&str, &str)] = &[
    ("use_dora", "DoRA"),
    ("modules_to_save", "whole modules saved beside the adapter"),
    ("lora_bias", "a bias inside the adapter"),
    ("trainable_token_indices", "trained rows of the embedding"),
    ("target_parameters", "adapters on bare parameters"),
    ("layer_replication", "copied layers"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("use_qalora", "QALoRA"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
];

/// See [`super::read()`].
pub(super) fn read(dir: &Path, config: &DecoderConfig) -> Result<PeftFolder> {
    let config_path = dir.join(CONFIG_FILE);
    if !config_path.is_file() {
        let hint = if dir.join("config.json").is_file() {
            "this folder holds a model; an adapter is a folder with adapter_config.json and adapter_model.safetensors"
        } else {
            "an adapter is a folder with adapter_config.json and adapter_model.safetensors, as PEFT saves it"
        };
        return Err(Error::input(dir, format!("no {CONFIG_FILE} in this folder"), hint));
    }
    let map = json::read_file(&config_path, DAMAGED)?;
    let file = Object::new(&config_path, &map);
    refuse_other_kinds(file, dir)?;
    let tensors = dir.join(TENSOR_FILE);
    if !tensors.is_file() {
        let (found, hint) = if dir.join("adapter_model.bin").is_file() {
            (", only adapter_model.bin", "load it with PEFT and save it again: PEFT writes safetensors now")
        } else {
            ("", DAMAGED)
        };
        return Err(Error::input(dir, format!("no {TENSOR_FILE} in this folder{found}"), hint));
    }
    let tensors = TensorFile::open(&tensors)?;
    let pairs = pairs(&tensors, config)?;
    let mut lora = settings(file, pairs.iter().map(|pair| pair.linear.module.as_str()))?;
    lora.targets = targets(file, &pairs, config, &tensors)?;

    let mut parameters = Vec::new();
    for pair in &pairs {
        let rank = lora.rank_of(&pair.linear.module);
        for (tensor, shape) in [(&pair.a, [rank, pair.linear.inputs]), (&pair.b, [pair.linear.outputs, rank])] {
            if tensor.shape != shape {
                let problem = format!("tensor `{}` has shape {:?}, expected {shape:?}", tensor.name, tensor.shape);
                let hint =
                    "the adapter belongs to another model, or `r` and `rank_pattern` are not those of its tensors";
                return Err(Error::input(&tensors.path, problem, hint));
            }
            let values = tensor.to_f32()?;
            if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
                let problem = format!("tensor `{}` holds {bad}", tensor.name);
                return Err(Error::input(
                    &tensors.path,
                    problem,
                    "the training that wrote it diverged; use an earlier one",
                ));
            }
            parameters.extend(values);
        }
    }
    let layout = AdapterLayout::assemble(pairs.into_iter().map(|pair| pair.linear).collect(), &lora);
    Ok(PeftFolder {
        adapter: Adapter { layout: Arc::new(layout), parameters },
        lora,
        base_model: file.text("base_model_name_or_path")?.map(str::to_owned),
        base_fingerprint: tensors.metadata().and_then(|m| m.get(FINGERPRINT_KEY)).cloned(),
        dropout: file.number("lora_dropout")?.unwrap_or(0.0),
    })
}

fn refuse_other_kinds(file: Object<'_>, dir: &Path) -> Result<()> {
    let mlx = dir.join("adapters.safetensors").is_file() && !dir.join(TENSOR_FILE).is_file();
    if mlx || (file.has("lora_parameters") && !file.has("peft_type")) {
        let hint = "train or convert it with PEFT; mlx-lm writes the same file name with another meaning";
        return Err(Error::input(file.path, "an adapter of mlx-lm, expected one of PEFT", hint));
    }
    let plain = "supported is plain LoRA on the model's linears";
    match file.text("peft_type")? {
        Some("LORA") => {}
        Some(_) => return Err(file.wrong("peft_type", "LORA")),
        None => return Err(file.missing("peft_type")),
    }
    if file.text("bias")?.is_some_and(|bias| bias != "none") {
        let problem = format!("is {}: trained biases, which are not supported", file.shown("bias"));
        return Err(file.error("bias", &problem, plain));
    }
    for (key, meaning) in OTHER_METHODS {
        let off = match file.get(key) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        };
        if !off {
            let problem = format!("is {}: {meaning}, which is not supported", file.shown(key));
            return Err(file.error(key, &problem, plain));
        }
    }
    if let Some(Value::String(init)) = file.get("init_lora_weights")
        && !HARMLESS_INITS.contains(&init.to_lowercase().as_str())
    {
        let problem = format!("is {}, which changes the base model's weights", file.shown("init_lora_weights"));
        let hint = "convert it: PEFT's save_pretrained has `path_initial_model_for_weight_conversion` for this";
        return Err(file.error("init_lora_weights", &problem, hint));
    }
    Ok(())
}

/// Ranks, alphas and the like; targets are left empty.
fn settings<'a>(file: Object<'_>, modules: impl Iterator<Item = &'a str> + Clone) -> Result<LoraConfig> {
    let ranks =
        pattern(file, "rank_pattern", "rank_pattern.", modules.clone(), |object, key| object.size(key, MAX_RANK))?;
    let alphas = pattern(file, "alpha_pattern", "alpha_pattern.", modules, |object, key| object.number(key))?;
    let lora = LoraConfig {
        rank: file.size("r", MAX_RANK)?.unwrap_or(8),
        alpha: file.number("lora_alpha")?.unwrap_or(8.0),
        targets: Vec::new(),
        use_rslora: file.flag("use_rslora")?.unwrap_or(false),
        rank_pattern: ranks,
        alpha_pattern: alphas,
    };
    lora.check().map_err(|error| Error::input(file.path, error.to_string(), "mend it, or save the adapter again"))?;
    Ok(lora)
}

fn pattern<'a, 'm, V: Copy + PartialEq>(
    file: Object<'a>,
    key: &str,
    prefix: &'a str,
    mut modules: impl Iterator<Item = &'m str>,
    value: impl Fn(Object<'a>, &str) -> Result<Option<V>>,
) -> Result<BTreeMap<String, V>> {
    let Some(object) = file.object(key, prefix)? else { return Ok(BTreeMap::new()) };
    let mut written = Vec::new();
    for name in object.map.keys() {
        if let Some(c) = regex_character(name) {
            let problem = format!("has the character `{c}` of a regular expression, which is not supported");
            return Err(object.error(name, &problem, "write the end of the module's name, such as `q_proj`"));
        }
        written.push((name, value(object, name)?.ok_or_else(|| object.missing(name))?));
    }
    let sorted: BTreeMap<String, V> = written.iter().map(|(name, value)| ((*name).clone(), *value)).collect();
    // PEFT takes the first key that fits and writes them sorted; a file in another order may mean something else by it.
    let first_written = |module: &str| first_match(written.iter().map(|(name, value)| (*name, value)), module);
    if let Some(module) = modules.find(|module| first_written(module) != first_match(&sorted, module)) {
        let problem = format!("has several values for `{module}` in an order that is not alphabetical");
        return Err(file.error(key, &problem, "keep one key for each module"));
    }
    Ok(sorted)
}

/// A and B of one linear.
struct Pair<'a> {
    linear: LinearSpec,
    a: Tensor<'a>,
    b: Tensor<'a>,
}

/// The adapted linears that the tensors show, sorted by layer, then slot.
fn pairs<'a>(file: &'a TensorFile, config: &DecoderConfig) -> Result<Vec<Pair<'a>>> {
    let mut found: BTreeMap<String, [Option<Tensor<'a>>; 2]> = BTreeMap::new();
    let mut keys = file.names();
    keys.sort_unstable();
    for key in &keys {
        let Some((module, part)) = split_key(key, config) else {
            let hint = "supported are lora_A.weight and lora_B.weight on the model's linears";
            return Err(Error::input(&file.path, format!("tensor `{key}` is no part of a plain LoRA adapter"), hint));
        };
        let slot = &mut found.entry(module).or_default()[part];
        if slot.is_some() {
            return Err(Error::input(&file.path, format!("tensor `{key}` is there twice, under two names"), DAMAGED));
        }
        *slot = file.tensor(key);
    }
    let mut pairs = Vec::new();
    for linear in linears(config) {
        match found.remove(&linear.module) {
            None => {}
            Some([Some(a), Some(b)]) => pairs.push(Pair { linear, a, b }),
            Some([a, _]) => {
                let (there, lacking) = if a.is_some() { ("lora_A", "lora_B") } else { ("lora_B", "lora_A") };
                let problem = format!("tensor `{KEY_PREFIX}{}.{lacking}.weight` is missing", linear.module);
                return Err(Error::input(&file.path, format!("{problem}, though its {there} is there"), DAMAGED));
            }
        }
    }
    if let Some(module) = found.keys().next() {
        let problem = format!("has tensors for `{module}`, which is no linear of this model");
        let hint =
            format!("the adapter belongs to another model than this {} of {} layers", config.model_type, config.layers);
        return Err(Error::input(&file.path, problem, hint));
    }
    if pairs.is_empty() {
        return Err(Error::input(&file.path, "no tensors in this file", DAMAGED));
    }
    Ok(pairs)
}

/// Module name in the whole model, and 0 for A or 1 for B.
fn split_key(key: &str, config: &DecoderConfig) -> Option<(String, usize)> {
    let key = key.strip_prefix(KEY_PREFIX)?;
    // `.default` is the adapter's name in memory, which some programs leave in.
    let key = key.strip_suffix(".weight")?;
    let key = key.strip_suffix(".default").unwrap_or(key);
    let (module, part) = match (key.strip_suffix(".lora_A"), key.strip_suffix(".lora_B")) {
        (Some(module), _) => (module, 0),
        (None, Some(module)) => (module, 1),
        (None, None) => return None,
    };
    // An adapter trained on the base model alone lacks its name.
    let prefix = names(config.family).prefix;
    let whole = if module.starts_with("layers.") { format!("{prefix}{module}") } else { module.to_owned() };
    Some((whole, part))
}

/// The targets that the file names, if they select just what the tensors show; else the modules' names in full.
fn targets(file: Object<'_>, pairs: &[Pair<'_>], config: &DecoderConfig, tensors: &TensorFile) -> Result<Vec<String>> {
    let (written, is_expression) = match file.get("target_modules") {
        Some(Value::String(name)) if name.eq_ignore_ascii_case(ALL_LINEAR) => (vec![ALL_LINEAR.to_owned()], false),
        Some(Value::String(name)) => (vec![name.clone()], true),
        Some(Value::Array(_)) => {
            let list = file.texts("target_modules")?.unwrap_or_default();
            (list.into_iter().map(str::to_owned).collect(), false)
        }
        None => (Vec::new(), true),
        Some(_) => return Err(file.wrong("target_modules", "a list of names, or `all-linear`")),
    };
    let adapted = |module: &str| pairs.iter().any(|pair| pair.linear.module == module);
    let named = |module: &str| written.iter().any(|name| name == ALL_LINEAR || names_module(name, module));
    let all = linears(config);
    // Where the file selects by a regular expression or by layer, the tensors alone say what was meant.
    let narrowed = ["layers_to_transform", "exclude_modules"].iter().any(|key| file.get(key).is_some());
    if !is_expression && !narrowed {
        if let Some(linear) = all.iter().find(|linear| named(&linear.module) && !adapted(&linear.module)) {
            let problem = format!("has no tensors for `{}`, which {CONFIG_FILE} names as a target", linear.module);
            return Err(Error::input(&tensors.path, problem, DAMAGED));
        }
        if let Some(pair) = pairs.iter().find(|pair| !named(&pair.linear.module)) {
            let problem = format!("does not name `{}`, for which there are tensors", pair.linear.module);
            return Err(file.error("target_modules", &problem, DAMAGED));
        }
        let fits = |name: &String| name == ALL_LINEAR || all.iter().any(|linear| names_module(name, &linear.module));
        return Ok(written.into_iter().filter(fits).collect());
    }
    Ok(pairs.iter().map(|pair| pair.linear.module.clone()).collect())
}

//! Reading a PEFT folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::select::{Expression, Selection};
use super::{
    BaseModel, CONFIG_FILE, FINGERPRINT_KEY, KEY_PREFIX, LINEAGE_KEY, PeftFolder, TENSOR_FILE,
};
use crate::adapter::layout::{
    MAX_RANK, first_match, head_or_embedding, names_module, regex_character,
};
use crate::adapter::{ALL_LINEAR, Adapter, AdapterLayout, LinearSpec, LoraConfig, linears};
use crate::config::DecoderConfig;
use crate::config::json::{self, Object};
use crate::weights::file::{Tensor, TensorFile};
use upright_base::{Error, Result, file_kind};

const DAMAGED: &str = "download the adapter again, or save it again with PEFT";
const LACKING: &str = "give the model that the adapter was trained on, if it has fewer layers; otherwise download it again";

/// Initializations that do not change the base weights. The others (PiSSA, OLoRA, LoftQ, ...) move
/// part of the base weights into the adapter, so the adapter only fits the changed base.
const HARMLESS_INITS: &[&str] = &["gaussian", "eva", "orthogonal", "mini_lora"];

/// Keys that make an adapter something else than `scale * B A` on linears, with their meanings.
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

/// Keys that have no effect on a trained adapter, although their names suggest one.
const TRAINING_ONLY: &[&str] = &[
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "velora_config",
    "runtime_config",
    "megatron_config",
];

/// The hint for adapters that are not plain LoRA.
const MERGE_IT: &str = "only plain LoRA on the model's linears is supported; merge this adapter with PEFT \
                        (merge_and_unload(), then save_pretrained(FOLDER)) and give FOLDER as the model";

/// See [`super::read()`].
pub(super) fn read(dir: &Path, config: &DecoderConfig) -> Result<PeftFolder> {
    let (config_path, map, tensors) = open(dir)?;
    let file = Object::new(&config_path, &map);
    let pairs = pairs(&tensors, config)?;
    let selection = Selection::read(file)?;
    let mut lora = settings(file, &pairs)?;
    lora.targets = targets(file, &selection, &pairs, config, &tensors)?;

    let mut parameters = Vec::new();
    for pair in &pairs {
        let rank = lora.rank_of(&pair.linear.module);
        for (tensor, shape) in [
            (&pair.a, [rank, pair.linear.inputs]),
            (&pair.b, [pair.linear.outputs, rank]),
        ] {
            if tensor.shape != shape {
                let problem = format!(
                    "tensor `{}` has shape {:?}, expected {shape:?}",
                    tensor.name, tensor.shape
                );
                let hint = "give the model that the adapter was trained on, or correct `r` and `rank_pattern`";
                return Err(Error::file(&tensors.path, problem, hint));
            }
            let values = tensor.to_f32()?;
            if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
                let problem = format!("tensor `{}` has the value {bad}", tensor.name);
                return Err(Error::file(
                    &tensors.path,
                    problem,
                    "use an earlier checkpoint: the training run diverged",
                ));
            }
            parameters.extend(values);
        }
    }
    let layout =
        AdapterLayout::assemble(pairs.into_iter().map(|pair| pair.linear).collect(), &lora);
    Ok(PeftFolder {
        adapter: Adapter {
            layout: Arc::new(layout),
            parameters,
        },
        lora,
        base: base(file, &tensors)?,
        dropout: file.number("lora_dropout")?.unwrap_or(0.0),
    })
}

/// See [`super::read_base`].
pub(super) fn read_base(dir: &Path) -> Result<BaseModel> {
    let (config_path, map, tensors) = open(dir)?;
    base(Object::new(&config_path, &map), &tensors)
}

fn base(file: Object<'_>, tensors: &TensorFile) -> Result<BaseModel> {
    let metadata = |key: &str| {
        tensors
            .metadata()
            .and_then(|metadata| metadata.get(key))
            .cloned()
    };
    Ok(BaseModel {
        name: file.text("base_model_name_or_path")?.map(str::to_owned),
        revision: file.text("revision")?.map(str::to_owned),
        fingerprint: metadata(FINGERPRINT_KEY),
        lineage: metadata(LINEAGE_KEY),
    })
}

/// Opens both files of a folder, and rejects unsupported kinds of adapter.
fn open(dir: &Path) -> Result<(PathBuf, Map<String, Value>, TensorFile)> {
    let config_path = dir.join(CONFIG_FILE);
    file_kind::check_file(&config_path)?;
    if !config_path.is_file() {
        let hint = if dir.join("config.json").is_file() {
            "this folder holds a model; an adapter is a folder with adapter_config.json and adapter_model.safetensors"
        } else {
            "an adapter is a folder with adapter_config.json and adapter_model.safetensors, as PEFT saves it"
        };
        return Err(Error::file(
            dir,
            format!("no {CONFIG_FILE} in this folder"),
            hint,
        ));
    }
    let map = json::read_file(&config_path, DAMAGED)?;
    refuse_other_kinds(Object::new(&config_path, &map), dir)?;
    let tensors = dir.join(TENSOR_FILE);
    file_kind::check_file(&tensors)?;
    if !tensors.is_file() {
        let (found, hint) = if dir.join("adapter_model.bin").is_file() {
            let hint = "load the adapter with PEFT and save it again, as safetensors: a .bin file is a pickle, which can \
                        run code when it is opened";
            (", only adapter_model.bin", hint)
        } else {
            ("", DAMAGED)
        };
        return Err(Error::file(
            dir,
            format!("no {TENSOR_FILE} in this folder{found}"),
            hint,
        ));
    }
    let tensors = TensorFile::open(&tensors)?;
    Ok((config_path, map, tensors))
}

fn refuse_other_kinds(file: Object<'_>, dir: &Path) -> Result<()> {
    let mlx = dir.join("adapters.safetensors").is_file() && !dir.join(TENSOR_FILE).is_file();
    if mlx
        || (["lora_parameters", "fine_tune_type"]
            .iter()
            .any(|key| file.has(key))
            && !file.has("peft_type"))
    {
        let hint = "merge it with `mlx_lm.fuse` and give the merged folder as the model, or train with PEFT's format; \
                    mlx-lm uses the same file name for another format";
        return Err(Error::file(
            file.path,
            "an mlx-lm adapter, expected a PEFT adapter",
            hint,
        ));
    }
    match file.text("peft_type")? {
        Some("LORA") => {}
        Some(_) => {
            let problem = format!("is {}, expected LORA", file.shown("peft_type"));
            return Err(file.error("peft_type", &problem, MERGE_IT));
        }
        None => return Err(file.missing("peft_type")),
    }
    if file.text("bias")?.is_some_and(|bias| bias != "none") {
        let problem = format!(
            "is {}: trained biases, which are not supported",
            file.shown("bias")
        );
        return Err(file.error("bias", &problem, MERGE_IT));
    }
    let is_off = |value: Option<&Value>| match value {
        None | Some(Value::Bool(false)) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    };
    for (key, meaning) in OTHER_METHODS {
        if !is_off(file.get(key)) {
            let problem = format!("is {}: {meaning}, which is not supported", file.shown(key));
            return Err(file.error(key, &problem, MERGE_IT));
        }
    }
    // Otherwise, a LoRA variant that is newer than this list would be computed as plain LoRA.
    for key in file
        .map
        .keys()
        .filter(|key| !["use_rslora", "use_dora"].contains(&&key[..]))
    {
        let variant = key.starts_with("use_") || key.ends_with("_config");
        if variant && !TRAINING_ONLY.contains(&&key[..]) && !is_off(file.get(key)) {
            let problem = format!(
                "is {}: an unknown setting, which may change the arithmetic",
                file.shown(key)
            );
            return Err(file.error(key, &problem, MERGE_IT));
        }
    }
    if let Some(Value::String(init)) = file.get("init_lora_weights")
        && !HARMLESS_INITS.contains(&init.to_lowercase().as_str())
    {
        let problem = format!(
            "is {}, which changes the base model's weights",
            file.shown("init_lora_weights")
        );
        let hint = "convert the adapter: call PEFT's save_pretrained with `path_initial_model_for_weight_conversion`";
        return Err(file.error("init_lora_weights", &problem, hint));
    }
    Ok(())
}

/// Rank, alpha and patterns; targets stay empty.
fn settings(file: Object<'_>, pairs: &[Pair<'_>]) -> Result<LoraConfig> {
    let ranks = pattern(
        file,
        "rank_pattern",
        "rank_pattern.",
        pairs,
        |object, key| object.size(key, MAX_RANK),
    )?;
    let alphas = pattern(
        file,
        "alpha_pattern",
        "alpha_pattern.",
        pairs,
        |object, key| object.number(key),
    )?;
    let lora = LoraConfig {
        rank: file.size("r", MAX_RANK)?.unwrap_or(8),
        alpha: file.number("lora_alpha")?.unwrap_or(8.0),
        targets: Vec::new(),
        use_rslora: file.flag("use_rslora")?.unwrap_or(false),
        rank_pattern: ranks,
        alpha_pattern: alphas,
    };
    lora.check().map_err(|error| {
        Error::file(
            file.path,
            error.to_string(),
            "correct the value, or save the adapter again",
        )
    })?;
    Ok(lora)
}

/// Reads `rank_pattern` or `alpha_pattern`. Keys are kept if they are plain names with the same
/// meaning in alphabetical order. Otherwise the result lists every matching module by its full
/// name.
fn pattern<'a, V: Copy + PartialEq>(
    file: Object<'a>,
    key: &str,
    prefix: &'a str,
    pairs: &[Pair<'_>],
    value: impl Fn(Object<'a>, &str) -> Result<Option<V>>,
) -> Result<BTreeMap<String, V>> {
    let Some(object) = file.object(key, prefix)? else {
        return Ok(BTreeMap::new());
    };
    let mut written = Vec::new();
    for name in object.map.keys() {
        let value = value(object, name)?.ok_or_else(|| object.missing(name))?;
        written.push((Expression::suffix(object, name, name)?, value));
    }
    // PEFT uses the first key that matches, in the file's order.
    let mut meant = BTreeMap::new();
    for Pair {
        linear, known_as, ..
    } in pairs
    {
        for (expression, value) in &written {
            if expression.fits(known_as)? {
                meant.insert(linear.module.clone(), *value);
                break;
            }
        }
    }
    let sorted: BTreeMap<String, V> = object
        .map
        .keys()
        .cloned()
        .zip(written.iter().map(|(_, value)| *value))
        .collect();
    let plain = object
        .map
        .keys()
        .all(|name| regex_character(name).is_none());
    let module = |pair: &Pair<'_>| {
        first_match(&sorted, &pair.linear.module) == meant.get(&pair.linear.module)
    };
    Ok(if plain && pairs.iter().all(module) {
        sorted
    } else {
        meant
    })
}

/// A and B of one linear.
struct Pair<'a> {
    linear: LinearSpec,
    /// The module's name in the model that PEFT was given; without the prefix if that was the bare
    /// base model.
    known_as: String,
    a: Tensor<'a>,
    b: Tensor<'a>,
}

/// The adapted linears in the tensors, sorted by layer, then slot.
fn pairs<'a>(file: &'a TensorFile, config: &DecoderConfig) -> Result<Vec<Pair<'a>>> {
    let mut found: BTreeMap<String, (&str, [Option<Tensor<'a>>; 2])> = BTreeMap::new();
    let mut keys = file.names();
    keys.sort_unstable();
    for key in &keys {
        let Some((module, part)) = split_key(key) else {
            let hint = "only lora_A.weight and lora_B.weight on the model's linears are supported";
            return Err(Error::file(
                &file.path,
                format!("tensor `{key}` is not part of a plain LoRA adapter"),
                hint,
            ));
        };
        // The tensors of an adapter trained on the bare base model lack the prefix.
        let names = &config.family.tensors;
        let mut whole = format!("{}{module}", names.prefix);
        if !whole.starts_with(&format!("{}.", names.blocks)) {
            module.clone_into(&mut whole);
        }
        let slot = &mut found.entry(whole).or_insert((module, [None, None])).1[part];
        if slot.is_some() {
            return Err(Error::file(
                &file.path,
                format!("tensor `{key}` is present twice, under two names"),
                DAMAGED,
            ));
        }
        *slot = file.tensor(key);
    }
    let mut pairs = Vec::new();
    for linear in linears(config) {
        match found.remove(&linear.module) {
            None => {}
            Some((name, [Some(a), Some(b)])) => pairs.push(Pair {
                linear,
                known_as: name.to_owned(),
                a,
                b,
            }),
            Some((_, [a, _])) => {
                let (there, lacking) = if a.is_some() {
                    ("lora_A", "lora_B")
                } else {
                    ("lora_B", "lora_A")
                };
                let problem = format!(
                    "tensor `{KEY_PREFIX}{}.{lacking}.weight` is missing",
                    linear.module
                );
                return Err(Error::file(
                    &file.path,
                    format!("{problem}, although its {there} is present"),
                    DAMAGED,
                ));
            }
        }
    }
    if let Some(module) = found.keys().next() {
        if let Some(part) = head_or_embedding(module) {
            let tied = if config.tied_head {
                "; in this model the head is the embedding, so adapting one would change the other or untie them"
            } else {
                ""
            };
            let problem =
                format!("has tensors for `{module}`: adapters on {part} are not supported{tied}");
            return Err(Error::file(&file.path, problem, MERGE_IT));
        }
        let problem = format!("has tensors for `{module}`, which is not a linear of this model");
        let hint = format!(
            "give the model that the adapter was trained on; this one is a {} with {} layers",
            config.model_type, config.layers
        );
        return Err(Error::file(&file.path, problem, hint));
    }
    if pairs.is_empty() {
        return Err(Error::file(&file.path, "no tensors in this file", DAMAGED));
    }
    Ok(pairs)
}

/// Module name in the file, and 0 for A or 1 for B.
fn split_key(key: &str) -> Option<(&str, usize)> {
    let key = key.strip_prefix(KEY_PREFIX)?;
    // `.default` is the adapter's name in memory, which some programs do not remove.
    let key = key.strip_suffix(".weight")?;
    let key = key.strip_suffix(".default").unwrap_or(key);
    match (key.strip_suffix(".lora_A"), key.strip_suffix(".lora_B")) {
        (Some(module), _) => Some((module, 0)),
        (None, Some(module)) => Some((module, 1)),
        (None, None) => None,
    }
}

/// The targets that the file names, if nothing narrows them; else full module names. The selection
/// in the file must match the tensors: otherwise an adapter with missing tensors would silently be
/// incomplete.
fn targets(
    file: Object<'_>,
    selection: &Selection,
    pairs: &[Pair<'_>],
    config: &DecoderConfig,
    tensors: &TensorFile,
) -> Result<Vec<String>> {
    let full = || {
        pairs
            .iter()
            .map(|pair| pair.linear.module.clone())
            .collect()
    };
    if !selection.is_given() {
        return Ok(full());
    }
    let prefix = config.family.tensors.prefix;
    let bare = pairs.iter().any(|pair| pair.known_as != pair.linear.module);
    let all = linears(config);
    for linear in &all {
        let module = &linear.module;
        let known_as = if bare {
            module.strip_prefix(prefix).unwrap_or(module)
        } else {
            module
        };
        let adapted = pairs.iter().any(|pair| pair.linear.module == *module);
        match (selection.selects(known_as)?, adapted) {
            (true, false) => {
                let problem = format!(
                    "has no tensors for `{module}`, which {CONFIG_FILE} selects as a target"
                );
                return Err(Error::file(&tensors.path, problem, LACKING));
            }
            (false, true) => {
                let problem = format!("does not select `{module}`, but there are tensors for it");
                return Err(file.error("target_modules", &problem, DAMAGED));
            }
            (true, true) | (false, false) => {}
        }
    }
    let fits = |name: &String| {
        name == ALL_LINEAR || all.iter().any(|linear| names_module(name, &linear.module))
    };
    match selection.plain_names() {
        Some(names) if !bare => Ok(names.into_iter().filter(fits).collect()),
        _ => Ok(full()),
    }
}

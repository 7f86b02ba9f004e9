//! Writing a PEFT folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{BaseModel, CONFIG_FILE, FINGERPRINT_KEY, KEY_PREFIX, LINEAGE_KEY, TENSOR_FILE};
use crate::adapter::layout::names_module;
use crate::adapter::{ALL_LINEAR, Adapter, LoraConfig};
use crate::weights::header::{Entry, header};
use upright_base::{Error, Result, files};

/// See [`super::write()`].
pub(super) fn write(
    dir: &Path,
    adapter: &Adapter,
    lora: &LoraConfig,
    base: &BaseModel,
) -> Result<()> {
    let config = config(adapter, lora, base)?;
    let tensors = tensors(adapter, base)?;
    files::create_dir(dir)?;
    // The config is written last: if it is new, so are the tensors.
    files::write_atomic(&dir.join(TENSOR_FILE), &tensors)?;
    files::write_atomic(&dir.join(CONFIG_FILE), config.as_bytes())
}

/// The text of `adapter_config.json`: PEFT's keys in PEFT's order.
fn config(adapter: &Adapter, lora: &LoraConfig, base: &BaseModel) -> Result<String> {
    lora.check()?;
    let targets = &adapter.layout.targets;
    let all = lora.targets.iter().any(|name| name == ALL_LINEAR);
    for target in targets {
        let module = &target.module;
        let named = all || lora.targets.iter().any(|name| names_module(name, module));
        if !named || lora.rank_of(module) != target.rank || lora.scale_of(module) != target.scale {
            let problem = format!("the adapter on `{module}` does not match its LoRA settings");
            let hint =
                "write the adapter with the settings that its layout was built from".to_owned();
            return Err(Error::input(problem).hint(hint));
        }
    }
    // Every program accepts a list, but only PEFT accepts `all-linear`.
    let mut names: Vec<&str> = match all {
        true => targets
            .iter()
            .filter_map(|target| target.module.rsplit('.').next())
            .collect(),
        false => lora.targets.iter().map(String::as_str).collect(),
    };
    names.sort_unstable();
    names.dedup();
    let alphas: BTreeMap<&str, Value> = lora
        .alpha_pattern
        .iter()
        .map(|(key, a)| (key.as_str(), number(*a)))
        .collect();
    let keys: BTreeMap<&str, Value> = BTreeMap::from([
        ("alpha_pattern", json!(alphas)),
        ("base_model_name_or_path", json!(base.name)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("layers_pattern", Value::Null),
        ("layers_to_transform", Value::Null),
        ("lora_alpha", number(lora.alpha)),
        ("lora_dropout", json!(0.0)),
        ("modules_to_save", Value::Null),
        ("peft_type", json!("LORA")),
        ("r", json!(lora.rank)),
        ("rank_pattern", json!(lora.rank_pattern)),
        ("revision", json!(base.revision)),
        ("target_modules", json!(names)),
        ("task_type", json!("CAUSAL_LM")),
        ("use_dora", json!(false)),
        ("use_rslora", json!(lora.use_rslora)),
    ]);
    Ok(serde_json::to_string_pretty(&keys).expect("strings and numbers become JSON"))
}

/// A whole number without a decimal point, as PEFT writes alpha.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

/// A tensor's shape and its values.
type Part<'a> = ([usize; 2], &'a [f32]);

/// Every tensor of an adapter, by its name in PEFT.
fn parts(adapter: &Adapter) -> BTreeMap<String, Part<'_>> {
    let mut parts = BTreeMap::new();
    for target in &adapter.layout.targets {
        let key = |part: &str| format!("{KEY_PREFIX}{}.lora_{part}.weight", target.module);
        let a = &adapter.parameters[target.a()];
        let b = &adapter.parameters[target.b()];
        parts.insert(key("A"), ([target.rank, target.inputs], a));
        parts.insert(key("B"), ([target.outputs, target.rank], b));
    }
    parts
}

/// See [`super::check_finite`].
pub(super) fn check_finite(adapter: &Adapter) -> Result<()> {
    for (key, (_, values)) in parts(adapter) {
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::not_finite(format!(
                "{bad} in the adapter's tensor `{key}`"
            )));
        }
    }
    Ok(())
}

/// The bytes of `adapter_model.safetensors`.
fn tensors(adapter: &Adapter, base: &BaseModel) -> Result<Vec<u8>> {
    let parts = parts(adapter);
    check_finite(adapter)?;
    let mut metadata = vec![("format", "pt")];
    metadata.extend(
        base.fingerprint
            .as_deref()
            .map(|text| (FINGERPRINT_KEY, text)),
    );
    metadata.extend(base.lineage.as_deref().map(|text| (LINEAGE_KEY, text)));
    let entries = parts.iter().map(|(name, (shape, values))| Entry {
        name,
        dtype: "F32",
        shape,
        bytes: size_of_val(*values),
    });
    let mut bytes = header(&metadata, entries);
    for (_, values) in parts.values() {
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(bytes)
}

//! The files of a model folder besides its config and its weights.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use upright_base::{Error, Result, files};

/// Files that trainers save beside an adapter: a tokenizer and a template, which may differ from
/// the base's.
pub const OF_AN_ADAPTER: [&str; 2] = ["tokenizer.json", "chat_template.jinja"];

/// Whether a file belongs to the tokenizer, the chat template, the generation settings or the
/// license of a model.
pub fn is_companion(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "spiece.model",
        "tekken.json",
        "vocab.json",
        "vocab.txt",
    ];
    let lower = name.to_lowercase();
    let legal = ["license", "notice", "use_policy"]
        .iter()
        .any(|legal| lower.starts_with(legal));
    !name.contains('/') && (NAMES.contains(&name) || name.starts_with("tokenizer") || legal)
}

/// Python files of a model that its config names under `auto_map`, whether they exist or not. Code
/// in another repository, `ORG/NAME--file.Class`, is not included.
///
/// # Errors
/// The config cannot be read, or is not JSON.
pub fn own_code(model: &Path) -> Result<BTreeSet<String>> {
    let path = model.join("config.json");
    let config: Value = serde_json::from_str(&files::read_text(&path)?).map_err(|error| {
        Error::input(format!("{}: broken JSON: {error}", path.display())).hint("download it again")
    })?;
    // A class, or a list of alternatives, some of them null.
    let classes = config["auto_map"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.values())
        .flat_map(|class| match class {
            Value::Array(classes) => &classes[..],
            class => std::slice::from_ref(class),
        });
    let file = |class: &Value| {
        let (file, _) = class.as_str()?.split_once('.')?;
        let plain =
            !file.is_empty() && file.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        plain.then(|| format!("{file}.py"))
    };
    Ok(classes.filter_map(file).collect())
}

/// The Hub id and the commit of a model folder, if it is a snapshot in the cache of the Hugging
/// Face tools: `models--ORG--NAME/snapshots/COMMIT`.
pub fn hub_name(folder: &Path) -> Option<(String, String)> {
    let folder = std::path::absolute(folder).ok()?;
    let commit = folder
        .file_name()?
        .to_str()
        .filter(|name| name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let snapshots = folder
        .parent()
        .filter(|above| above.ends_with("snapshots"))?;
    let repo = snapshots
        .parent()?
        .file_name()?
        .to_str()?
        .strip_prefix("models--")?;
    Some((repo.replace("--", "/"), commit.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn code_is_named_by_the_config_and_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let named = |config: Value| {
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            own_code(dir.path())
                .unwrap()
                .into_iter()
                .collect::<Vec<_>>()
        };
        let map = json!({
            "AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.X", "AutoModelForCausalLM": "modeling_x.Y",
            "AutoTokenizer": ["tokenization_x.Z", null], "AutoProcessor": "org/name--processing.P", "AutoOther": "../up.U",
        });
        assert_eq!(
            named(json!({ "auto_map": map })),
            ["configuration_x.py", "modeling_x.py", "tokenization_x.py"]
        );
        assert!(named(json!({})).is_empty() && named(json!({ "auto_map": "x.X" })).is_empty());
    }

    #[test]
    fn companions_are_told_from_weights_and_notes() {
        assert!(
            [
                "tokenizer.json",
                "tokenizer_config.json",
                "tekken.json",
                "chat_template.jinja",
                "LICENSE.txt"
            ]
            .map(is_companion)
            .iter()
            .all(|y| *y)
        );
        assert!(
            ![
                "config.json",
                "model.safetensors",
                "README.md",
                "onnx/tokenizer.json"
            ]
            .map(is_companion)
            .iter()
            .any(|y| *y)
        );
    }
}

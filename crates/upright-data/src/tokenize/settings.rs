//! Settings of a tokenizer in the files next to `tokenizer.json`, read as transformers 5 reads
//! them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use upright_base::{Error, Result, files};

/// Names of special tokens that every tokenizer may have and chat templates may use.
const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The main configuration file.
pub(super) const CONFIG: &str = "tokenizer_config.json";

/// Classes of transformers that build their own pre-tokenizer, with the configuration's
/// `add_prefix_space`.
const OWN_PREFIX_SPACE: [&str; 3] = ["GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer"];

/// `tokenizer_config.json` with the older `special_tokens_map.json` and `added_tokens.json`. Each may be missing.
#[derive(Default)]
pub(super) struct TokenizerConfig {
    /// Tokens that a file lists with an id, in order of id.
    pub(super) listed: Vec<(u32, AddedToken)>,
    /// Whether that file also has their flags; then it takes precedence over `tokenizer.json`.
    pub(super) listed_with_flags: bool,
    /// The file that lists them, for messages.
    pub(super) listed_in: PathBuf,
    /// Special tokens without an id: the named ones, then the others.
    pub(super) special: Vec<AddedToken>,
    /// Texts of the named special tokens.
    pub(super) texts: Map<String, Value>,
    /// `add_bos_token`.
    pub(super) add_bos: Option<bool>,
    /// The `add_prefix_space` that transformers applies whatever `tokenizer.json` says.
    pub(super) prefix_space: Option<bool>,
}

impl TokenizerConfig {
    /// Reads the files of a model's folder.
    ///
    /// # Errors
    /// A file exists and cannot be read, its JSON is broken, or a listed token has no text or no
    /// id.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let config = read_json(&dir.join(CONFIG))?;
        // The older files are read only if the configuration does not list the added tokens.
        let is_complete = config.get("added_tokens_decoder").is_some();
        let map = if is_complete {
            Value::Null
        } else {
            read_json(&dir.join("special_tokens_map.json"))?
        };
        let merged = merged(&config, &map);
        let listed_in = dir.join(if is_complete {
            CONFIG
        } else {
            "added_tokens.json"
        });
        let listed = if is_complete {
            listed_with_flags(&config["added_tokens_decoder"], &listed_in)?
        } else {
            let special: Vec<AddedToken> = special_tokens(&merged);
            listed_by_text(&read_json(&listed_in)?, &special, &listed_in)?
        };
        let mut texts = Map::new();
        for name in NAMED {
            if let Some(token) = merged.get(name).and_then(special_token) {
                texts.insert(name.to_owned(), Value::from(token.content));
            }
        }
        let class = config["tokenizer_class"].as_str().unwrap_or_default();
        let class = class.strip_suffix("Fast").unwrap_or(class);
        let builds_its_own = OWN_PREFIX_SPACE.contains(&class);
        let prefix_space =
            builds_its_own.then(|| config["add_prefix_space"].as_bool().unwrap_or(false));
        Ok(Self {
            listed,
            listed_with_flags: is_complete,
            listed_in,
            special: special_tokens(&merged),
            texts,
            add_bos: config["add_bos_token"].as_bool(),
            prefix_space,
        })
    }

    /// The text of a named special token.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name)?.as_str()
    }
}

/// A JSON file; null if it is missing.
fn read_json(path: &Path) -> Result<Value> {
    let Some(bytes) = files::read_if_there(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::input(format!("{}: broken JSON: {error}", path.display()))
            .hint("download the file again, or remove it if the tokenizer does not need it")
    })
}

/// The configuration, with the values of the older map instead of its own.
fn merged(config: &Value, map: &Value) -> Map<String, Value> {
    let mut merged = config.as_object().cloned().unwrap_or_default();
    for (key, value) in map.as_object().into_iter().flatten() {
        merged.insert(key.clone(), value.clone());
    }
    merged
}

/// A special token without an id: its text, or an object that describes it.
fn special_token(value: &Value) -> Option<AddedToken> {
    let text = value
        .as_str()
        .or_else(|| value["content"].as_str())
        .filter(|text| !text.is_empty())?;
    let flag = |name: &str| value[name].as_bool().unwrap_or(false);
    let token = AddedToken::from(text, true);
    Some(
        token
            .single_word(flag("single_word"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .normalized(flag("normalized")),
    )
}

/// The special tokens that transformers adds if the tokenizer lacks them, each once: the named
/// ones, those with the model's own names (`image_token`), then the list of others.
fn special_tokens(settings: &Map<String, Value>) -> Vec<AddedToken> {
    let mut tokens: Vec<AddedToken> = Vec::new();
    let mut add = |value: &Value| {
        if let Some(token) = special_token(value)
            && !tokens.iter().any(|known| known.content == token.content)
        {
            tokens.push(token);
        }
    };
    for name in NAMED {
        add(settings.get(name).unwrap_or(&Value::Null));
    }
    for (name, value) in settings {
        if name.ends_with("_token") {
            add(value);
        }
    }
    let empty = |value: &&Value| value.as_array().is_some_and(Vec::is_empty);
    let others = settings
        .get("extra_special_tokens")
        .filter(|value| !value.is_null() && !empty(value));
    match others.or_else(|| settings.get("additional_special_tokens")) {
        Some(Value::Array(values)) => values.iter().for_each(add),
        Some(Value::Object(values)) => values.values().for_each(add),
        _ => {}
    }
    tokens
}

/// `added_tokens_decoder`: an object that describes each token, by id.
fn listed_with_flags(listed: &Value, path: &Path) -> Result<Vec<(u32, AddedToken)>> {
    let wrong = |what: String| {
        Error::input(format!("{}: added_tokens_decoder: {what}", path.display()))
            .hint("download the file again; transformers writes it as {\"0\": {\"content\": \"<s>\", ..}}")
    };
    let Some(entries) = listed.as_object() else {
        return Err(wrong("is not an object".into()));
    };
    let mut tokens = BTreeMap::new();
    for (id, value) in entries {
        let number: u32 = id
            .parse()
            .map_err(|_| wrong(format!("`{id}` is not an id")))?;
        let Some(text) = value["content"].as_str() else {
            return Err(wrong(format!("the token {id} has no text `content`")));
        };
        let flag = |name: &str| value[name].as_bool();
        let special = flag("special").unwrap_or(false);
        let token = AddedToken::from(text, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special));
        tokens.insert(number, token);
    }
    Ok(tokens.into_iter().collect())
}

/// `added_tokens.json`: an id for each text.
fn listed_by_text(
    listed: &Value,
    special: &[AddedToken],
    path: &Path,
) -> Result<Vec<(u32, AddedToken)>> {
    let mut tokens = BTreeMap::new();
    for (text, id) in listed.as_object().into_iter().flatten() {
        let Some(number) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
            return Err(Error::input(format!(
                "{}: the token `{text}` has the id {id}, not a number",
                path.display()
            ))
            .hint("download the file again"));
        };
        let is_special = special.iter().any(|token| token.content == *text);
        tokens.insert(
            number,
            AddedToken::from(text.as_str(), is_special).normalized(!is_special),
        );
    }
    Ok(tokens.into_iter().collect())
}

//! Texts to token ids. Prompt and response are encoded apart, so that the boundary between them is
//! never in doubt.

mod settings;
#[cfg(test)]
pub(super) mod tests;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use self::settings::{CONFIG, TokenizerConfig};
use super::sha256_hex;
use upright_base::{Error, Result, files, quiet};

/// A model's own tokenizer, from its `tokenizer.json`.
pub struct Tokenizer {
    /// The model's folder.
    folder: PathBuf,
    inner: tokenizers::Tokenizer,
    /// Texts of the special tokens by their names in chat templates, such as `bos_token`.
    special_texts: Map<String, Value>,
    /// The beginning-of-sequence token, whether or not the tokenizer adds it.
    bos_id: Option<u32>,
    /// Tokens that are added before a prompt; usually none or one.
    bos: Vec<u32>,
    contested_bos: bool,
    /// Whether texts start with a space, if `tokenizer.json` and its configuration disagree.
    contested_prefix_space: Option<bool>,
    eos: u32,
    /// Whether the tokenizer puts a space before every text, and so also before a response.
    prefixes: bool,
    vocabulary: usize,
    sha256: String,
}

/// Texts to put before a response, so that a tokenizer that puts a space before every text puts it
/// before them. The first one that the tokenizer does not merge with the response is used.
const JOINTS: [&str; 3] = ["\n", ":", "x"];

impl Tokenizer {
    /// Opens the tokenizer of a model's folder. `eos` and `bos` come from the model's
    /// configuration; the tokenizer's own configuration takes precedence.
    ///
    /// # Errors
    /// There is no `tokenizer.json`, it cannot be read, or neither configuration has an
    /// end-of-sequence token.
    pub fn open(dir: &Path, eos: Option<u32>, bos: Option<u32>) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let name = path.display();
        let bytes = files::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::input(format!("{}: no tokenizer.json in this folder", dir.display())).hint(
                    "download the model with its tokenizer.json, or copy the file from the original model",
                )
            }
            _ => Error::input(format!("{name}: cannot be read: {error}")).hint("check the file and its permissions"),
        })?;
        let broken = |what: String| {
            Error::input(format!("{name}: not a readable tokenizer: {what}"))
                .hint("download the file again; it must be in the format of the tokenizers library")
        };
        let mut inner = caught(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(broken)?;
        // Padding and truncation are done elsewhere.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| Error::input(format!("{name}: {error}")))?;

        let settings = TokenizerConfig::read(dir)?;
        add_tokens(&mut inner, &settings, &path)?;
        let contested_prefix_space = settings
            .prefix_space
            .filter(|space| set_prefix_space(&mut inner, *space));
        let eos = named(&inner, &settings, "eos_token", dir)?.or(eos).ok_or_else(|| {
            Error::input(format!("{}: no end-of-sequence token", dir.display()))
                .hint("set \"eos_token\" in tokenizer_config.json, or \"eos_token_id\" in config.json")
        })?;
        let bos = named(&inner, &settings, "bos_token", dir)?.or(bos);
        add_special(&mut inner, &settings, &path)?;
        let mut tokenizer = Self {
            folder: dir.to_owned(),
            inner,
            special_texts: settings.texts,
            bos_id: bos,
            bos: Vec::new(),
            contested_bos: false,
            contested_prefix_space,
            eos,
            prefixes: false,
            vocabulary: usize::MAX,
            sha256: String::new(),
        };
        let leading = tokenizer.leading()?;
        tokenizer.bos = match settings.add_bos {
            Some(false) => Vec::new(),
            Some(true) if leading.is_empty() => bos.into_iter().collect(),
            _ => leading.clone(),
        };
        tokenizer.contested_bos = tokenizer.bos != leading;
        let alone = tokenizer.ids("a")?;
        tokenizer.prefixes = tokenizer.joined("a")?.is_some_and(|ids| ids != alone);
        let decided = json!([
            sha256_hex(&bytes),
            eos,
            bos,
            tokenizer.bos,
            tokenizer.special_texts,
            settings.prefix_space,
            added(&tokenizer.inner)
        ]);
        tokenizer.sha256 = sha256_hex(decided.to_string().as_bytes());
        Ok(tokenizer)
    }

    /// The same tokenizer, which from now on rejects ids that a model with `vocabulary` embeddings
    /// does not have.
    ///
    /// # Errors
    /// The end-of-sequence or beginning-of-sequence token is such an id.
    pub fn for_vocabulary(mut self, vocabulary: usize) -> Result<Self> {
        self.vocabulary = vocabulary;
        self.check(&self.bos)?;
        self.check(&[self.eos])?;
        Ok(self)
    }

    /// Ids of a prompt, with BOS once if the tokenizer adds it.
    ///
    /// # Errors
    /// The text cannot be encoded, or gives an id that the model does not have.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.ids(text)?;
        self.check(&ids)?;
        // A text that starts with BOS as text already has its id.
        Ok(if ids.starts_with(&self.bos) {
            ids
        } else {
            [self.bos.as_slice(), &ids].concat()
        })
    }

    /// Ids of a response after a prompt, without EOS: whether there is room for it is decided
    /// later. EOS as text at the end of the response is removed, so that it is not doubled.
    ///
    /// # Errors
    /// The text cannot be encoded, or gives an id that the model does not have.
    pub fn response(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.continued(text)?;
        while ids.last() == Some(&self.eos) {
            ids.pop();
        }
        Ok(ids)
    }

    /// Ids of a text that follows another: nothing is added before or after it.
    ///
    /// # Errors
    /// The text cannot be encoded, or gives an id that the model does not have.
    pub fn continued(&self, text: &str) -> Result<Vec<u32>> {
        let ids = match self.prefixes {
            false => self.ids(text)?,
            true => self.joined(text)?.ok_or_else(|| {
                Error::input(format!(
                    "the tokenizer puts a space before every text, and merges {:?} with any text before it",
                    text.chars().take(12).collect::<String>()
                ))
                .hint("remove the row from the file, or set add_prefix_space to false in tokenizer.json")
            })?,
        };
        self.check(&ids)?;
        Ok(ids)
    }

    /// Ids of a text that has its own special tokens: no BOS is added.
    ///
    /// # Errors
    /// The text cannot be encoded, or gives an id that the model does not have.
    pub fn verbatim(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.ids(text)?;
        self.check(&ids)?;
        Ok(ids)
    }

    /// Text of ids, special tokens included.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        caught(|| self.inner.decode(ids, false))
            .map_err(|error| Error::failure(format!("the tokenizer cannot decode: {error}")))
    }

    /// The end-of-sequence id.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Tokens that are added before every prompt; may be empty.
    pub fn bos(&self) -> &[u32] {
        &self.bos
    }

    /// Whether `add_bos_token` of `tokenizer_config.json` and `tokenizer.json` disagree about
    /// [`Tokenizer::bos`]. `add_bos_token` is used here. transformers 5 uses only `tokenizer.json`,
    /// older versions mostly `add_bos_token`.
    pub fn contested_bos(&self) -> bool {
        self.contested_bos
    }

    /// Whether texts start with a space, if `add_prefix_space` of `tokenizer_config.json` and
    /// `tokenizer.json` disagree. `add_prefix_space` is used here, as in transformers.
    pub fn contested_prefix_space(&self) -> Option<bool> {
        self.contested_prefix_space
    }

    /// The beginning-of-sequence token, whether or not the tokenizer adds it.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// Whether a token is an added token, such as `<|im_end|>`, and not a piece of text.
    pub fn is_added(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .contains_key(&id)
    }

    /// Texts of the special tokens by their names in chat templates.
    pub fn special_texts(&self) -> &Map<String, Value> {
        &self.special_texts
    }

    /// The model's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// SHA-256 of everything that decides ids: `tokenizer.json`, and the settings of BOS, EOS and
    /// special texts in its configuration or the model's.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.inner, text, false)
            .map_err(|error| error.at(self.folder.join("tokenizer.json").display()))
    }

    /// Ids of a text after the first of [`JOINTS`] that does not merge with it; `None` if all do.
    fn joined(&self, text: &str) -> Result<Option<Vec<u32>>> {
        for joint in JOINTS {
            let whole = self.ids(&format!("{joint}{text}"))?;
            if let Some(ids) = whole.strip_prefix(self.ids(joint)?.as_slice()) {
                return Ok(Some(ids.to_vec()));
            }
        }
        Ok(None)
    }

    /// The ids that the tokenizer itself adds before a text.
    fn leading(&self) -> Result<Vec<u32>> {
        let with = encode(&self.inner, "a", true)
            .map_err(|error| error.at(self.folder.join("tokenizer.json").display()))?;
        let without = self.ids("a")?;
        let start = with
            .windows(without.len().max(1))
            .position(|window| window == without)
            .unwrap_or(0);
        Ok(with[..start].to_vec())
    }

    fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            None => Ok(()),
            Some(&id) => Err(Error::input(format!(
                "the tokenizer gives id {id} ({:?}), but the model has {} embeddings",
                self.inner.id_to_token(id).unwrap_or_default(),
                self.vocabulary
            ))
            .hint("use the tokenizer.json that belongs to this model")),
        }
    }
}

/// Adds the tokens that the files next to `tokenizer.json` list, in order of id, as transformers
/// does.
///
/// # Errors
/// A token would not have its listed id.
fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    settings: &TokenizerConfig,
    path: &Path,
) -> Result<()> {
    let listed_in = settings.listed_in.display();
    let known = inner.get_added_tokens_decoder();
    let mut listed = Vec::new();
    for (id, token) in &settings.listed {
        // For each id, `tokenizer.json` takes precedence over a list without flags.
        if settings.listed_with_flags || !known.contains_key(id) {
            listed.push((*id, token.clone()));
        }
    }
    let tokens: Vec<AddedToken> = listed.iter().map(|(_, token)| token.clone()).collect();
    caught(|| inner.add_tokens(tokens)).map_err(|error| {
        Error::input(format!("{listed_in}: its tokens cannot be added: {error}"))
    })?;
    for (id, token) in &listed {
        let found = inner.token_to_id(&token.content);
        if found != Some(*id) {
            let text = &token.content;
            let found = found.map_or("none".to_owned(), |id| id.to_string());
            return Err(Error::input(format!(
                "{listed_in}: lists the token `{text}` with the id {id}, but with {} its id is {found}",
                path.display()
            ))
            .hint("the files belong to different tokenizers; download all of them from one model"));
        }
    }
    Ok(())
}

/// Adds special tokens that have no id and are not added tokens yet, as transformers does: with the
/// id of the vocabulary, or the next free id.
fn add_special(
    inner: &mut tokenizers::Tokenizer,
    settings: &TokenizerConfig,
    path: &Path,
) -> Result<()> {
    let known = added_texts(inner);
    let missing: Vec<_> = settings
        .special
        .iter()
        .filter(|token| !known.contains(&token.content))
        .cloned()
        .collect();
    caught(|| inner.add_tokens(missing))
        .map(drop)
        .map_err(|error| {
            Error::input(format!(
                "{}: its special tokens cannot be added: {error}",
                path.with_file_name(CONFIG).display()
            ))
        })
}

/// Texts of all added tokens.
fn added_texts(inner: &tokenizers::Tokenizer) -> Vec<String> {
    inner
        .get_added_tokens_decoder()
        .into_values()
        .map(|token| token.content)
        .collect()
}

/// All added tokens with their ids, in order of id.
fn added(inner: &tokenizers::Tokenizer) -> Value {
    let mut tokens: Vec<_> = inner.get_added_tokens_decoder().into_iter().collect();
    tokens.sort_by_key(|(id, _)| *id);
    json!(tokens)
}

/// The id of a special token that the configuration names.
///
/// # Errors
/// No file has the token.
fn named(
    inner: &tokenizers::Tokenizer,
    settings: &TokenizerConfig,
    name: &str,
    dir: &Path,
) -> Result<Option<u32>> {
    let Some(text) = settings.text(name) else {
        return Ok(None);
    };
    match inner.token_to_id(text) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::input(format!("{}: the {name} `{text}` is not a token in tokenizer.json", dir.display()))
            .hint(format!(
                "correct \"{name}\" in {CONFIG}, or list the token with its id in added_tokens_decoder there"
            ))),
    }
}

/// Sets whether byte-level pre-tokenizers put a space before texts; returns whether this changed
/// any of them.
fn set_prefix_space(inner: &mut tokenizers::Tokenizer, space: bool) -> bool {
    let Some(mut pre_tokenizer) = inner.get_pre_tokenizer().cloned() else {
        return false;
    };
    let mut changed = false;
    let mut set = |byte_level: &mut ByteLevel| {
        changed |= byte_level.add_prefix_space != space;
        byte_level.add_prefix_space = space;
    };
    match &mut pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(byte_level) => set(byte_level),
        PreTokenizerWrapper::Sequence(parts) => {
            for part in parts.as_mut() {
                if let PreTokenizerWrapper::ByteLevel(byte_level) = part {
                    set(byte_level);
                }
            }
        }
        _ => {}
    }
    if changed {
        inner.with_pre_tokenizer(Some(pre_tokenizer));
    }
    changed
}

fn encode(inner: &tokenizers::Tokenizer, text: &str, special: bool) -> Result<Vec<u32>> {
    let encoding = caught(|| inner.encode_fast(text, special)).map_err(|error| {
        Error::input(format!("the tokenizer cannot encode a text: {error}"))
            .hint("remove the row from the file; if every row fails, tokenizer.json is damaged")
    })?;
    Ok(encoding.get_ids().to_vec())
}

/// Calls the tokenizers library and turns its panics into errors. Its parts trust each other, so a
/// file with one changed part can make it panic.
fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match quiet::catch(work) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("its parts do not match".to_owned()),
    }
}

//! From a model folder to [`Weights`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::assemble::{Tensors, assemble};
use super::file::{Tensor, TensorFile};
use super::names::is_buffer;
use super::{Matrix, Weights};
use crate::config::DecoderConfig;
use crate::config::json::{self, Object};
use upright_base::{Error, Result, file_kind};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a folder, in one file or many.
pub(crate) struct Source {
    /// The file that lists the tensors, for messages.
    path: PathBuf,
    /// The files, in the order of their names.
    pub(crate) files: Vec<TensorFile>,
    /// File of every tensor.
    pub(crate) places: BTreeMap<String, usize>,
    /// Prefix that the names lack because only the base model was exported.
    pub(crate) lacking: &'static str,
}

/// See [`Weights::open`].
pub(super) fn open(dir: &Path, config: &DecoderConfig) -> Result<Weights> {
    let source = Source::open(dir, config)?;
    let (weights, seen) = assemble(&source, config)?;
    source.refuse_second_head(config)?;
    source.refuse_what_is_left(config, &seen)?;
    Ok(weights)
}

impl Source {
    /// Maps the files of a folder and determines the names of its tensors.
    pub(crate) fn open(dir: &Path, config: &DecoderConfig) -> Result<Self> {
        let single = dir.join(SINGLE);
        let index = dir.join(INDEX);
        file_kind::check_file(&single)?;
        file_kind::check_file(&index)?;
        let (path, files, places) = if single.is_file() {
            let file = TensorFile::open(&single)?;
            let places = file.names().into_iter().map(|name| (name, 0)).collect();
            (single, vec![file], places)
        } else if index.is_file() {
            let (files, places) = shards(dir, &index)?;
            (index, files, places)
        } else {
            return Err(no_weights(dir));
        };
        let names = &config.family.tensors;
        let bare = names
            .embedding
            .strip_prefix(names.prefix)
            .expect("the embedding's name has the prefix");
        let is_bare = !places.contains_key(names.embedding) && places.contains_key(bare);
        let lacking = if is_bare { names.prefix } else { "" };
        Ok(Self {
            path,
            files,
            places,
            lacking,
        })
    }

    /// A tensor by its name in the whole model.
    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let name = name.strip_prefix(self.lacking).unwrap_or(name);
        let found = self
            .places
            .get(name)
            .and_then(|&i| self.files[i].tensor(name));
        found.ok_or_else(|| {
            let hint = "check that config.json and the tensors belong to the same model and no file is missing";
            Error::file(&self.path, format!("tensor `{name}` is missing"), hint)
        })
    }

    /// Name of the head in this folder.
    pub(crate) fn head_name(&self, heads: &[&'static str]) -> Result<&'static str> {
        heads.iter().copied().find(|name| self.places.contains_key(*name)).ok_or_else(|| {
            let problem = format!("tensor `{}` is missing: the model has no head", heads[0]);
            let hint = "if the head is the embedding, set `tie_word_embeddings` to true in config.json; \
                        otherwise export the whole model, not only its base";
            Error::file(&self.path, problem, hint)
        })
    }

    /// Rejects a head that differs from the embedding although the config ties the two. Many files
    /// have both, equal. If they differ, transformers uses the head, and versions before 5 the
    /// embedding.
    pub(crate) fn refuse_second_head(&self, config: &DecoderConfig) -> Result<()> {
        let names = &config.family.tensors;
        let Ok(head) = self.head_name(names.heads) else {
            return Ok(());
        };
        let (head, embedding) = (self.tensor(head)?, self.tensor(names.embedding)?);
        let same = || match head.dtype == embedding.dtype {
            true => Ok(head.bytes() == embedding.bytes()),
            false => Ok(head.to_f32()? == embedding.to_f32()?),
        };
        if !config.tied_head || (head.shape == embedding.shape && same()?) {
            return Ok(());
        }
        let problem = format!(
            "tensor `{}` differs from the embedding, but config.json ties the head to the embedding",
            head.name
        );
        let hint = "set `tie_word_embeddings` to false in config.json if the model has its own head; \
                    otherwise remove the tensor";
        Err(Error::file(&self.path, problem, hint))
    }

    /// Rejects tensors of the decoder that were not read: they would silently have no effect.
    fn refuse_what_is_left(&self, config: &DecoderConfig, seen: &BTreeSet<String>) -> Result<()> {
        let names = &config.family.tensors;
        for name in self.places.keys() {
            let whole = format!("{}{name}", self.lacking);
            let head_bias = names
                .heads
                .iter()
                .any(|head| head.replace(".weight", ".bias") == *name);
            let known = seen.contains(&whole)
                || is_buffer(config.family, &whole)
                || names.heads.contains(&&name[..]);
            if head_bias || (whole.starts_with(names.prefix) && !known) {
                let problem =
                    format!("tensor `{name}` has no place in the model that config.json describes");
                let hint = "check `num_hidden_layers`, `attention_bias` and `mlp_bias` in config.json; \
                            quantized weights and models with extra parts are not supported";
                return Err(Error::file(&self.path, problem, hint));
            }
        }
        Ok(())
    }
}

impl Tensors for Source {
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        self.tensor(name)?.to_matrix(rows, cols)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        tensor.expect(&[len])?;
        tensor.to_f32()
    }

    fn head(&self, names: &[&'static str]) -> Result<&'static str> {
        self.head_name(names)
    }
}

/// Opens the files that an index names.
fn shards(dir: &Path, index: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let hint = format!("download {INDEX} again");
    let map = json::read_file(index, &hint)?;
    let top = Object::new(index, &map);
    let tensors = top
        .object("weight_map", "weight_map.")?
        .ok_or_else(|| top.missing("weight_map"))?;
    let mut shards = BTreeSet::new();
    for name in tensors.map.keys() {
        let shard = tensors.text(name)?.ok_or_else(|| tensors.missing(name))?;
        // An index is foreign input and must not point outside its folder.
        if Path::new(shard)
            .file_name()
            .is_none_or(|file| file != shard)
        {
            return Err(tensors.wrong(name, "the name of a file in the same folder"));
        }
        shards.insert(shard);
    }
    for shard in &shards {
        file_kind::check_file(&dir.join(shard))?;
    }
    let missing: Vec<String> = shards
        .iter()
        .filter(|shard| !dir.join(shard).is_file())
        .map(|shard| shard.escape_debug().to_string())
        .collect();
    if !missing.is_empty() {
        let problem = format!(
            "{} of {} files missing: {}",
            missing.len(),
            shards.len(),
            missing.join(", ")
        );
        return Err(Error::file(
            dir,
            problem,
            "download the missing files into the folder",
        ));
    }
    let files = shards
        .iter()
        .map(|shard| TensorFile::open(&dir.join(shard)))
        .collect::<Result<Vec<_>>>()?;
    let order: BTreeMap<&str, usize> = shards
        .iter()
        .enumerate()
        .map(|(i, shard)| (*shard, i))
        .collect();
    let mut places = BTreeMap::new();
    for name in tensors.map.keys() {
        let place = order[tensors.text(name)?.unwrap_or_default()];
        if files[place].tensor(name).is_none() {
            let problem = format!("tensor `{name}` is missing, although {INDEX} lists it here");
            return Err(Error::file(
                &files[place].path,
                problem,
                "download the file and the index again",
            ));
        }
        places.insert(name.clone(), place);
    }
    Ok((files, places))
}

/// The error for a folder without safetensors, with a hint that fits its other files.
fn no_weights(dir: &Path) -> Error {
    let names: Vec<String> = std::fs::read_dir(dir)
        .map(|entries| {
            entries
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    let mut others: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| is_weights(name))
        .collect();
    others.sort_unstable();
    let hint = match others.first().and_then(|name| name.rsplit('.').next()) {
        Some("bin" | "pt" | "pth") => {
            "convert it to safetensors: in Python, AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        }
        Some("gguf") => {
            "download the safetensors files that the GGUF was made from; GGUF files are not supported"
        }
        Some("safetensors") => {
            "rename the file to model.safetensors if its tensors have the names of transformers"
        }
        _ => "download model.safetensors, or model.safetensors.index.json with all its files",
    };
    let found = if others.is_empty() {
        String::new()
    } else {
        format!(", only {}", others.join(", "))
    };
    Error::file(
        dir,
        format!("no {SINGLE} and no {INDEX} in this folder{found}"),
        hint,
    )
}

fn is_weights(name: &str) -> bool {
    let extension = name.rsplit('.').next().unwrap_or_default();
    matches!(extension, "bin" | "pt" | "pth" | "gguf" | "safetensors")
        && name != "training_args.bin"
}

//! Exports runs and adapters to folders that other tools load: a PEFT adapter, a weighted sum of
//! adapters, or a merged model.

mod chain;
mod folder;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use upright_model::{
    adapter::{self, Adapter, LoraConfig},
    merge::{Merge, MergeOptions, MergedFiles},
    peft::{self, BaseModel},
    weights::Float,
};

use chain::Chain;
use folder::{Partial, copy_companions};
use upright_base::{Error, Result, files, progress::Progress};
use upright_hub::Hub;
use upright_model::{
    identity,
    lineage::{self, MergedAdapter},
    model_files::OF_AN_ADAPTER,
};

/// The value of [`MergedFiles::rounding`] above which a warning is printed.
const MUCH_ROUNDING: f64 = 0.5;

/// What to export.
#[derive(Clone, Debug)]
pub struct Export {
    /// Folders of runs, checkpoints or adapters, each with its weight. Several are added, weighted.
    pub adapters: Vec<(PathBuf, f64)>,
    /// The model that the adapters were trained on; none: the base that they name.
    pub model: Option<PathBuf>,
    /// Base model name in the exported adapter; none: the name in the adapter itself.
    pub base_name: Option<String>,
    /// The folder to create.
    pub out: PathBuf,
    /// The Hub, for models and adapters that are not local folders.
    pub hub: Hub,
}

/// The result of an export.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exported {
    /// The folder.
    pub out: PathBuf,
    /// `adapter` or `model`.
    pub kind: &'static str,
    /// The base model at the bottom of the chain.
    pub model: PathBuf,
    /// The adapters above the model that the result contains, from bottom to top.
    pub adapters: Vec<MergedAdapter>,
    /// Names of the files written, sorted.
    pub files: Vec<String>,
    /// Fingerprint of the merged model, or of the adapter's base.
    pub fingerprint: String,
    /// For a merged model, the change by rounding relative to the change by the adapter
    /// ([`MergedFiles::rounding`]).
    pub rounding: Option<f64>,
}

/// The requested sum of adapters, with the chain of their base.
struct Sum {
    chain: Chain,
    adapter: Adapter,
    lora: LoraConfig,
    base: BaseModel,
    parts: Vec<MergedAdapter>,
}

impl Export {
    /// Writes the adapter, or the sum of adapters, as a PEFT folder.
    pub fn adapter(&self, observer: &mut dyn Progress) -> Result<Exported> {
        let partial = Partial::begin(&self.out)?;
        let Sum {
            chain,
            adapter,
            lora,
            base,
            parts,
        } = self.sum(observer)?;
        let base = match &self.base_name {
            Some(name) => BaseModel {
                name: Some(name.clone()),
                revision: None,
                ..base
            },
            None => base,
        };
        peft::write(partial.path(), &adapter, &lora, &base)?;
        let fingerprint = base.fingerprint.unwrap_or_default();
        partial.finish()?;
        let files = vec![peft::CONFIG_FILE.to_owned(), peft::TENSOR_FILE.to_owned()];
        Ok(self.exported("adapter", &chain, parts, files, fingerprint))
    }

    /// Merges the adapter, or the sum of adapters, and all adapters below it into the model.
    /// Weights keep the types in the model's files unless `dtype` is given. No weight file is
    /// larger than `max_shard_bytes`.
    pub fn merged_model(
        &self,
        dtype: Option<Float>,
        max_shard_bytes: u64,
        observer: &mut dyn Progress,
    ) -> Result<Exported> {
        if self.base_name.is_some() {
            return Err(Error::input(
                "base-name has no effect on a merged model, which needs no base",
            )
            .hint("remove --base-name or --merge"));
        }
        let partial = Partial::begin(&self.out)?;
        let Sum {
            chain,
            adapter,
            parts,
            ..
        } = self.sum(observer)?;
        let below = chain.links.len() - 1;
        let mut adapters = chain.adapters();
        adapters[below] = &adapter;
        let merge = Merge::open(&chain.model, &chain.config, &adapters)?;
        let fingerprint = identity::of_merge(&merge, adapters.len(), dtype, observer)?;

        let options = MergeOptions {
            dtype,
            max_shard_bytes,
        };
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000) as usize;
        let stop = observer.stop();
        let mut begun = false;
        let written = merge.write(partial.path(), &options, &mut |done, total| {
            if !begun {
                observer.begin("merging (MB)", megabytes(total));
                begun = true;
            }
            observer.advance(megabytes(done), "");
            !stop.is_requested()
        });
        if begun {
            observer.end();
        }
        let Some(written) = written? else {
            return Err(Error::interrupted(
                "before the merged model was complete; nothing of it was kept",
            ));
        };
        let MergedFiles {
            names: mut files,
            rounding,
            ..
        } = written;
        if rounding > MUCH_ROUNDING {
            observer.note(&format!(
                "warning: rounding moves the merged weights {rounding:.2} times as far as the \
                 adapter does; --dtype f32 and an unmerged adapter do not lose precision"
            ));
        }
        files.extend(copy_companions(&chain.model, partial.path(), observer)?);
        note_other_tokenizer(&chain, observer)?;
        write_config(&chain.model, partial.path(), dtype)?;
        let lineage = chain.lineage(below, &parts, &fingerprint, observer)?;
        let text =
            serde_json::to_string_pretty(&lineage).expect("strings and numbers become JSON") + "\n";
        files::write_atomic(&partial.path().join(lineage::FILE), text.as_bytes())?;
        files.extend(["config.json".to_owned(), lineage::FILE.to_owned()]);
        files.sort();
        partial.finish()?;
        let exported = self.exported(
            "model",
            &chain,
            parts,
            files,
            fingerprint.as_str().to_owned(),
        );
        Ok(Exported {
            rounding: Some(rounding),
            ..exported
        })
    }

    fn exported(
        &self,
        kind: &'static str,
        chain: &Chain,
        parts: Vec<MergedAdapter>,
        files: Vec<String>,
        fingerprint: String,
    ) -> Exported {
        let below = chain.links[..chain.links.len() - 1]
            .iter()
            .map(|link| MergedAdapter {
                name: link.folder.display().to_string(),
                sha256: link.sha256.clone(),
                weight: 1.0,
            });
        let adapters = below.chain(parts).collect();
        Exported {
            out: self.out.clone(),
            kind,
            model: chain.model.clone(),
            adapters,
            files,
            fingerprint,
            rounding: None,
        }
    }

    /// Computes the adapter to export: the only one, or the sum.
    fn sum(&self, observer: &mut dyn Progress) -> Result<Sum> {
        let follow = |(path, _): &(PathBuf, f64)| {
            Chain::follow(path, self.model.as_deref(), &self.hub, observer)
        };
        let mut chains = self
            .adapters
            .iter()
            .map(follow)
            .collect::<Result<Vec<_>>>()?;
        let part = |(chain, (_, weight)): (&Chain, &(PathBuf, f64))| {
            let top = chain.top();
            MergedAdapter {
                name: top.folder.display().to_string(),
                sha256: top.sha256.clone(),
                weight: *weight,
            }
        };
        let parts: Vec<MergedAdapter> = chains.iter().zip(&self.adapters).map(part).collect();
        let base = chains[0].base(observer)?;
        let (adapter, lora) = match &chains[..] {
            [alone] if self.adapters[0].1 == 1.0 => (
                alone.top().peft.adapter.clone(),
                alone.top().peft.lora.clone(),
            ),
            all => {
                for other in &all[1..] {
                    let theirs = other.base(observer)?.fingerprint;
                    if theirs != base.fingerprint {
                        let (first, second) =
                            (all[0].top().folder.display(), other.top().folder.display());
                        return Err(Error::input(format!("{first} and {second} have different base models"))
                            .hint("only adapters of the same base model can be added; merge one of them into its model first"));
                    }
                }
                let weights = self.adapters.iter().map(|(_, weight)| *weight);
                let adapters: Vec<(&Adapter, f64)> = all
                    .iter()
                    .map(|chain| &chain.top().peft.adapter)
                    .zip(weights)
                    .collect();
                adapter::combine(&all[0].config, &adapters)?
            }
        };
        Ok(Sum {
            chain: chains.swap_remove(0),
            adapter,
            lora,
            base,
            parts,
        })
    }
}

/// Writes the model's config, with another dtype if one is given.
fn write_config(model: &Path, into: &Path, dtype: Option<Float>) -> Result<()> {
    let (from, to) = (model.join("config.json"), into.join("config.json"));
    let text = files::read_text(&from)?;
    let Some(dtype) = dtype else {
        return files::write_atomic(&to, text.as_bytes());
    };
    let broken = |what: String| Error::input(format!("{}: {what}", from.display()));
    let mut config: Value =
        serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let Some(keys) = config.as_object_mut() else {
        return Err(broken("is not a JSON object".into()));
    };
    // transformers 5 calls it dtype, and also accepts the older name.
    let key = if keys.contains_key("dtype") {
        "dtype"
    } else {
        "torch_dtype"
    };
    keys.insert(key.into(), dtype.torch_name().into());
    let text = serde_json::to_string_pretty(&config).expect("it was JSON") + "\n";
    files::write_atomic(&to, text.as_bytes())
}

/// Warns if the tokenizer beside the adapter differs from the base model's, which the merged model
/// gets. Some trainers save a changed tokenizer beside the adapter.
fn note_other_tokenizer(chain: &Chain, observer: &mut dyn Progress) -> Result<()> {
    for name in OF_AN_ADAPTER {
        let (own, theirs) = (chain.model.join(name), chain.top().folder.join(name));
        if theirs.is_file() && (!own.is_file() || files::sha256(&own)? != files::sha256(&theirs)?) {
            observer.note(&format!(
                "warning: {} differs from that of the base, which the merged model uses; copy it over if it is intended",
                theirs.display()
            ));
        }
    }
    Ok(())
}

/// Parses a size, such as `5GB`, `500MB`, `2GiB`, or a number of bytes.
pub fn parse_size(text: &str) -> Result<u64> {
    let wrong = || {
        Error::input(format!(
            "max-shard-size must be a size of at least 1 MB, found `{text}`"
        ))
        .hint("such as 5GB, 500MB or 2GiB")
    };
    let text = text.trim();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KIB" => 1024.0,
        "MIB" => 1024.0 * 1024.0,
        "GIB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if (1e6..1e18).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let sizes =
            ["5GB", "1.5 GB", "2GiB", "500mb", "1000000"].map(|text| parse_size(text).unwrap());
        assert_eq!(
            sizes,
            [
                5_000_000_000,
                1_500_000_000,
                2 << 30,
                500_000_000,
                1_000_000
            ]
        );
        for text in [
            "",
            "GB",
            "5TB",
            "-1GB",
            "0",
            "999999",
            "1e9",
            "nan",
            "9999999999GB",
        ] {
            assert!(
                parse_size(text)
                    .unwrap_err()
                    .message
                    .contains("max-shard-size"),
                "{text}"
            );
        }
    }
}

//! What a model was merged from. A merged folder records this in its own file, and an adapter
//! trained on that model records it again, so that nobody has to guess which adapters an adapter
//! builds on.

use std::path::Path;

use crate::weights::Fingerprint;
use serde::{Deserialize, Serialize};

use upright_base::{Error, Result, files};

/// The file in a merged model's folder.
pub const FILE: &str = "upright_merge.json";

/// The history of a merged model: its base and all merges, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Fingerprint of the result.
    pub fingerprint: String,
    /// The base of the first merge.
    pub base: Base,
    /// The merges, in order.
    pub merged: Vec<Step>,
}

/// A model that is not the result of a merge, as far as is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Folder or Hub id.
    pub name: String,
    /// Commit of the Hub id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Fingerprint of the weights.
    pub fingerprint: String,
}

/// One merge: an adapter, or a weighted sum of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The adapters of the sum.
    pub adapters: Vec<MergedAdapter>,
}

/// An adapter in a sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergedAdapter {
    /// Folder or Hub id.
    pub name: String,
    /// SHA-256 of the tensor file.
    pub sha256: String,
    /// Weight in the sum; 1 for a single adapter.
    pub weight: f64,
}

impl Lineage {
    /// Reads the lineage of the model in a folder, if the model was merged.
    pub fn read(model: &Path) -> Result<Option<Self>> {
        let path = model.join(FILE);
        let Some(bytes) = files::read_if_there(&path)? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|error| {
            Error::input(format!("{}: {error}", path.display()))
                .hint("merge the model again, or remove the file")
        })
    }

    /// Rejects weights other than those that the lineage describes.
    pub fn check(&self, model: &Path, fingerprint: &Fingerprint) -> Result<()> {
        if fingerprint.matches(&self.fingerprint) {
            return Ok(());
        }
        let path = model.join(FILE);
        Err(Error::input(format!(
            "{}: describes other weights than the ones in this folder",
            path.display()
        ))
        .hint("merge the model again; if its weights were changed on purpose, remove the file"))
    }

    /// The lineage as one line of JSON, for the adapters trained on the model.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers become JSON")
    }

    /// One line for the base and one for every merge.
    pub fn lines(&self) -> Vec<String> {
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
        let revision = self
            .base
            .revision
            .as_ref()
            .map_or(String::new(), |revision| format!("@{revision}"));
        let mut lines = vec![format!(
            "{}{revision} ({})",
            self.base.name,
            short(&self.base.fingerprint)
        )];
        lines.extend(self.merged.iter().map(|step| {
            let weight = |part: &MergedAdapter| {
                if part.weight == 1.0 {
                    String::new()
                } else {
                    format!("{} * ", part.weight)
                }
            };
            let part = |part: &MergedAdapter| {
                format!("{}{} ({})", weight(part), part.name, short(&part.sha256))
            };
            step.adapters
                .iter()
                .map(part)
                .collect::<Vec<_>>()
                .join(" + ")
        }));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(seed: u64) -> Fingerprint {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright/demo/model");
        Fingerprint::of_random(&crate::config::DecoderConfig::read(&model).unwrap(), seed)
    }

    #[test]
    fn it_is_read_as_written_and_tells_other_weights() {
        let part = |name: &str, weight| MergedAdapter {
            name: name.into(),
            sha256: "0123456789abcdef".into(),
            weight,
        };
        let lineage = Lineage {
            fingerprint: fingerprint(1).as_str().into(),
            base: Base {
                name: "org/base".into(),
                revision: Some("main".into()),
                fingerprint: "f0".into(),
            },
            merged: vec![
                Step {
                    adapters: vec![part("sft", 1.0)],
                },
                Step {
                    adapters: vec![part("a", 0.5), part("b", -0.25)],
                },
            ],
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Lineage::read(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join(FILE), lineage.to_json()).unwrap();
        assert_eq!(Lineage::read(dir.path()).unwrap(), Some(lineage.clone()));
        lineage.check(dir.path(), &fingerprint(1)).unwrap();
        let error = lineage.check(dir.path(), &fingerprint(2)).unwrap_err();
        assert!(
            error
                .message
                .contains("upright_merge.json: describes other weights"),
            "{error}"
        );
        let sum = "0.5 * a (0123456789ab) + -0.25 * b (0123456789ab)";
        assert_eq!(
            lineage.lines(),
            ["org/base@main (f0)", "sft (0123456789ab)", sum]
        );
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(
            Lineage::read(dir.path())
                .unwrap_err()
                .message
                .contains("upright_merge.json")
        );
    }
}

//! Ids of repositories on the Hub, as users write them.

use std::path::Path;

use upright_base::{
    Result,
    missing::{is_missing, missing},
};

/// `ORG/NAME[@REVISION][:PART]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// `ORG/NAME`.
    pub repo: String,
    /// A branch, a tag or a commit; `None` for `main`.
    pub revision: Option<String>,
    /// For a dataset: a split, a folder with a split, or a file.
    pub part: Option<String>,
}

/// Endings of file names: a misspelled path should not be taken for a repository.
const FILE_ENDINGS: [&str; 9] = [
    ".json",
    ".jsonl",
    ".ndjson",
    ".gz",
    ".parquet",
    ".csv",
    ".txt",
    ".safetensors",
    ".toml",
];

impl Id {
    /// Parses an id; `None` for anything that looks like a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, part) = match text.split_once(':') {
            Some((head, part)) => (head, Some(part)),
            None => (text, None),
        };
        let (repo, revision) = match head.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (head, None),
        };
        let (organisation, name) = repo.split_once('/')?;
        let word = |word: &str| {
            let first = word
                .chars()
                .next()
                .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            first
                && word.len() <= 96
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let plain = |text: &str| {
            !text.is_empty()
                && !text.contains("..")
                && !text.contains("//")
                && text
                    .chars()
                    .all(|c| c.is_ascii_graphic() && !"\\?#%<>|\"*".contains(c))
        };
        let is_file = revision.is_none()
            && part.is_none()
            && FILE_ENDINGS.iter().any(|ending| name.ends_with(ending));
        let fits = word(organisation)
            && word(name)
            && !repo.contains("--")
            && !repo.contains("..")
            && !is_file;
        let fits = fits && revision.is_none_or(plain) && part.is_none_or(plain);
        fits.then(|| Self {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
            part: part.map(str::to_owned),
        })
    }
}

/// What an argument should name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A model.
    Model,
    /// An adapter, which may lie in a run folder.
    Adapter,
    /// Rows.
    Rows,
    /// A dataset of many files in folders.
    DatasetFolder,
}

impl Wanted {
    /// What is at a local path of this kind.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Model | Self::Adapter | Self::DatasetFolder => "folder",
            Self::Rows => "file",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Model => {
                "give the folder that holds config.json, tokenizer.json and the .safetensors files, or a Hub id, \
                 ORG/NAME (with @REVISION if a folder ORG exists here)"
            }
            Self::Adapter => "give a PEFT adapter folder, a run folder, or a Hub id, ORG/NAME",
            Self::Rows => "",
            Self::DatasetFolder => "give a folder, or a Hub id, ORG/NAME",
        }
    }
}

/// The Hub id in the argument `name`. `None` if the argument is an existing path, which takes
/// precedence.
///
/// # Errors
/// The argument can only be a path, and nothing is there: it has no form of an id, ends like a file
/// of rows, or begins with an existing folder.
pub fn id_of(name: &str, wanted: Wanted, given: &Path) -> Result<Option<Id>> {
    if !is_missing(given) {
        return Ok(None);
    }
    let id = given.to_str().and_then(Id::parse).filter(|id| {
        let organization = id.repo.split('/').next().unwrap_or_default();
        id.revision.is_some() || !Path::new(organization).is_dir()
    });
    match id {
        Some(id) => Ok(Some(id)),
        None => Err(missing(name, wanted.kind(), given, wanted.hint())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_paths_are_told_apart() {
        let id = |repo: &str, revision: Option<&str>, part: Option<&str>| {
            Some(Id {
                repo: repo.into(),
                revision: revision.map(str::to_owned),
                part: part.map(str::to_owned),
            })
        };
        assert_eq!(Id::parse("org/name"), id("org/name", None, None));
        assert_eq!(
            Id::parse("org/Na.me-1_0@v1.0:train"),
            id("org/Na.me-1_0", Some("v1.0"), Some("train"))
        );
        assert_eq!(
            Id::parse("org/name@refs/pr/3:a/b.jsonl"),
            id("org/name", Some("refs/pr/3"), Some("a/b.jsonl"))
        );
        assert_eq!(
            Id::parse("org/name:test"),
            id("org/name", None, Some("test"))
        );
        for path in [
            "name",
            "./org/name",
            "/org/name",
            "../name",
            "~/name",
            "a/b/c",
            "org/",
            "/name",
            "data/rows.jsonl",
            "data/rows.json.gz",
            "org/name@",
            "org/name:",
            "org/name@../x",
            "org/name:../x",
            "a--b/c",
            "a/b..c",
            "C:/x",
            "a b/c",
            "org/name@a b",
            "",
            ":",
            "@",
            "org\\name/x",
        ] {
            assert_eq!(Id::parse(path), None, "{path}");
        }
    }

    #[test]
    fn paths_are_missing_before_the_hub_is_asked() {
        let of = |text: &str| id_of("sft", Wanted::Rows, Path::new(text));
        assert_eq!(of("src/lib.rs").unwrap(), None, "an existing path");
        assert_eq!(
            of("organization/name").unwrap().unwrap().repo,
            "organization/name"
        );
        for path in [
            "src/name",
            "nowhere",
            "./org/name",
            "../org/name",
            "/org/name",
            "~/name",
            "a/b/c",
            "org/rows.jsonl",
            "org/rows.csv",
            "org/rows.toml",
        ] {
            let error = of(path).unwrap_err();
            assert_eq!(error.message, format!("sft: there is no file `{path}`"));
            assert!(!error.hint.is_empty() || path.starts_with('/'), "{path}");
        }
        assert_eq!(
            of("src/ib.rs").unwrap_err().hint,
            "did you mean `src/id.rs`?"
        );
        let error = id_of("model", Wanted::Model, Path::new("gpt2")).unwrap_err();
        assert_eq!(error.message, "model: there is no folder `gpt2`");
        assert!(error.hint.contains("ORG/NAME"), "{}", error.hint);
    }
}

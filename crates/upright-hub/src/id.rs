//! Ids of repositories on the Hub, as users write them.

use std::path::Path;

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

    /// Parses an id, unless a local path is meant: an existing path takes precedence, and so does
    /// any path below an existing folder.
    pub fn not_local(path: &Path) -> Option<Self> {
        let id = Self::parse(path.to_str()?)?;
        let organisation = id.repo.split('/').next()?;
        (!path.exists() && !Path::new(organisation).exists()).then_some(id)
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
        assert_eq!(
            Id::not_local(Path::new("src/name")),
            None,
            "src is a folder here"
        );
        assert!(Id::not_local(Path::new("organisation/name")).is_some());
    }
}

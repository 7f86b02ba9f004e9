//! The layout of the Hugging Face cache, `models--ORG--NAME/{refs,snapshots,blobs}`. Sharing the
//! cache means that no two programs download the same file.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use upright_base::{Error, Result, files};

/// Kinds of repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RepoKind {
    Model,
    Dataset,
}

impl RepoKind {
    /// Name in messages and folders.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }
}

/// One repository's part of the cache.
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, kind: RepoKind, repo: &str) -> Self {
        let name = format!("{}s--{}", kind.name(), repo.replace('/', "--"));
        Self {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    /// The commit of a revision when it was last resolved; a commit is its own commit.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let known = files::read_text(&self.folder.join("refs").join(revision)).ok();
        let commit = known.map_or_else(|| revision.to_owned(), |text| text.trim().to_owned());
        is_commit(&commit).then_some(commit)
    }

    /// Stores the commit of a revision, if it changed.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.folder.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit)
        {
            return Ok(());
        }
        files::create_dir(path.parent().unwrap_or(&path))?;
        files::write_atomic(&path, commit.as_bytes())
    }

    /// Folder with the files of a commit, under their names.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Path of the bytes with this ETag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Path of the lock for downloading these bytes, the same as in the Hugging Face tools.
    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// Links bytes to their file name in a commit.
    pub(super) fn link(&self, etag: &str, commit: &str, name: &str) -> Result<()> {
        let pointer = self.snapshot(commit).join(name);
        files::create_dir(pointer.parent().unwrap_or(&pointer))?;
        // A link whose bytes are gone.
        let _ = fs::remove_file(&pointer);
        let up = "../".repeat(2 + name.matches('/').count());
        link(
            Path::new(&format!("{up}blobs/{etag}")),
            &self.blob(etag),
            &pointer,
        )
        .map_err(|error| Error::io(&pointer, "link", error))
    }

    /// Names of the cached files of a commit, sorted.
    pub(super) fn names(&self, commit: &str) -> Vec<String> {
        fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = format!("{prefix}{}", entry.file_name().display());
                if entry.path().is_dir() {
                    walk(&entry.path(), &format!("{name}/"), names);
                } else if entry.path().is_file() {
                    names.push(name);
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.snapshot(commit), "", &mut names);
        names.sort();
        names
    }
}

#[cfg(unix)]
fn link(relative: &Path, _blob: &Path, pointer: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, pointer)
}

/// Links need a privilege on other systems; the Hugging Face tools copy files there too.
#[cfg(not(unix))]
fn link(_relative: &Path, blob: &Path, pointer: &Path) -> std::io::Result<()> {
    fs::copy(blob, pointer).map(|_| ())
}

/// Whether text is a commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a file name from outside stays inside its target folder.
pub(super) fn is_inside(name: &str) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    !name.is_empty()
        && !name.contains('\\')
        && !name.contains("//")
        && Path::new(name).components().all(plain)
}

#[cfg(test)]
mod tests {
    use upright_model::model_files::hub_name;

    use super::*;

    #[test]
    fn snapshots_know_their_names() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let cache = RepoCache::new(Path::new("/cache"), RepoKind::Model, "org/name");
        let folder = cache.snapshot(commit);
        assert_eq!(
            folder,
            Path::new("/cache/models--org--name/snapshots").join(commit)
        );
        assert_eq!(hub_name(&folder), Some(("org/name".into(), commit.into())));
        for other in [
            "/cache/models--org--name/snapshots/main",
            "/models/org--name",
            "name",
            "/",
        ] {
            assert_eq!(hub_name(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn names_from_elsewhere_stay_inside() {
        assert!(
            ["a", "a/b.json", ".gitattributes"]
                .into_iter()
                .all(is_inside)
        );
        assert!(
            ![
                "",
                "/a",
                "../a",
                "a/../../b",
                "a/..",
                "./a",
                "a\\..\\b",
                "a//b"
            ]
            .into_iter()
            .any(is_inside)
        );
    }
}

//! Rows from one source: a file, or the files of a split on the Hub, with their share among other
//! sources.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::rows::{self, ColumnMap, RowKind, Rows};
use super::{sha256_hex, source};
use upright_base::{Error, Result};

/// A file of rows, or several files that count as one: the first row of each follows the last row
/// of the file before it.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// The file, or all files of a split, in order. At least one.
    pub shards: Vec<PathBuf>,
    /// Its share of the rows of an epoch, relative to the other files'; `None` for as many rows as
    /// it has.
    pub share: Option<f64>,
}

impl DataFile {
    /// Name in messages.
    pub fn name(&self) -> String {
        let first = self
            .shards
            .first()
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        match self.shards.len() {
            0 | 1 => first,
            several => format!("{first} and {} more", several - 1),
        }
    }

    /// Its rows, numbered through all shards, and the SHA-256 of its bytes; for several shards, the
    /// SHA-256 of their hashes.
    ///
    /// # Errors
    /// A shard cannot be read or understood, or is not in the dialect of the first.
    pub fn read(&self, map: &ColumnMap, kind: RowKind) -> Result<(Rows, String)> {
        self.read_first(map, kind, usize::MAX)
            .map(|(rows, sha256, _)| (rows, sha256))
    }

    /// Like [`DataFile::read`], for the first `most` rows; also returns whether there may be more.
    ///
    /// # Errors
    /// As for [`DataFile::read`].
    pub fn read_first(
        &self,
        map: &ColumnMap,
        kind: RowKind,
        most: usize,
    ) -> Result<(Rows, String, bool)> {
        let (mut all, mut hashes, mut before): (Option<Rows>, Vec<String>, usize) =
            (None, Vec::new(), 0);
        let mut more = false;
        for path in &self.shards {
            if before >= most {
                more = true;
                hashes.push(sha256_hex(&source::bytes(path)?));
                continue;
            }
            let mut source = source::read_first(path, most - before)?;
            more |= source.more;
            map.apply(path, &mut source.rows)?;
            source.rows.iter_mut().for_each(|row| row.index += before);
            match &mut all {
                None => all = Some(rows::read(path, &source.rows, kind)?),
                Some(all) => all.add(path, &source.rows, kind)?,
            }
            before += source.rows.len();
            hashes.push(source.sha256);
        }
        let mut all = all.ok_or_else(|| Error::input("no data file is given"))?;
        if hashes.len() > 1 {
            // Lines count within a shard, row numbers through all shards.
            all.rows.iter_mut().for_each(|row| row.line = None);
        }
        Ok((all, identity(hashes), more))
    }
}

/// Identifies files by content: one file by its hash, several by the hash of their hashes in order.
fn identity(mut hashes: Vec<String>) -> String {
    if hashes.len() == 1 {
        hashes.remove(0)
    } else {
        sha256_hex((hashes.join("\n") + "\n").as_bytes())
    }
}

impl From<PathBuf> for DataFile {
    fn from(path: PathBuf) -> Self {
        Self {
            shards: vec![path],
            share: None,
        }
    }
}

impl From<Vec<PathBuf>> for DataFile {
    fn from(shards: Vec<PathBuf>) -> Self {
        Self {
            shards,
            share: None,
        }
    }
}

impl From<&str> for DataFile {
    /// `FILE` or `FILE:SHARE`; the text after the last colon is a share if it is a number.
    fn from(text: &str) -> Self {
        let parts = text
            .rsplit_once(':')
            .and_then(|(path, share)| Some((path, share.parse::<f64>().ok()?)));
        let (path, share) = parts.map_or((text, None), |(path, share)| (path, Some(share)));
        Self {
            shards: vec![path.into()],
            share,
        }
    }
}

impl fmt::Display for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        self.share
            .iter()
            .try_for_each(|share| write!(f, ":{share}"))
    }
}

/// Shards in a plan. A single file is written as its name, followed by its share.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shards {
    files: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
}

impl Serialize for DataFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.shards.len() {
            1 => serializer.collect_str(self),
            _ => Shards {
                files: self.shards.clone(),
                share: self.share,
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DataFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a file name, or { files = [names] }")]
        enum Written {
            One(String),
            Several(Shards),
        }
        match Written::deserialize(deserializer)? {
            Written::One(text) => Ok(Self::from(&text[..])),
            Written::Several(Shards { files, .. }) if files.is_empty() => {
                Err(de::Error::custom("files is empty"))
            }
            Written::Several(Shards { files, share }) => Ok(Self {
                shards: files,
                share,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_or_many;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Written {
        #[serde(with = "one_or_many")]
        data: Vec<DataFile>,
        eval: Option<DataFile>,
    }

    #[test]
    fn files_and_shards_survive_a_plan() {
        let one = |text: &str| DataFile::from(text);
        let two = DataFile {
            shards: vec!["a/0".into(), "a/1".into()],
            share: Some(0.5),
        };
        for (data, eval) in [
            (vec![one("x.json")], None),
            (vec![one("x.json:0.25"), one("y:1")], Some(one("z"))),
            (
                vec![two.clone(), one("y:1")],
                Some(vec!["e/0".into(), "e/1".into()].into()),
            ),
            (vec![DataFile { share: None, ..two }], None),
        ] {
            let written = Written { data, eval };
            let text = toml::to_string(&written).unwrap();
            assert_eq!(toml::from_str::<Written>(&text).unwrap(), written, "{text}");
        }
        // As in plans of earlier versions.
        let old: Written =
            toml::from_str("data = [\"a.json:0.5\", \"b.json:0.5\"]\neval = \"c.json\"").unwrap();
        assert_eq!(
            old,
            Written {
                data: vec![one("a.json:0.5"), one("b.json:0.5")],
                eval: Some(one("c.json"))
            }
        );
        for wrong in [
            "data = 5",
            "data = { files = [] }",
            "data = { files = ['a'], rows = 3 }",
            "data = [[1]]",
        ] {
            assert!(toml::from_str::<Written>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shards_are_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        write(
            "0",
            "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"c\", \"answer\": \" \"}\n",
        );
        write("1", "[{\"question\": \"d\", \"answer\": \"e\"}]");
        write(
            "2",
            "{\"question\": null, \"answer\": \"e\", \"prompt\": \"p\", \"completion\": \"x\"}",
        );
        let both = DataFile::from(vec![path("0"), path("1")]);
        let read = |file: &DataFile| file.read(&ColumnMap::default(), RowKind::Instruction);
        let (rows, sha256) = read(&both).unwrap();
        assert_eq!(
            rows.rows.iter().map(|row| row.place()).collect::<Vec<_>>(),
            ["row 0", "row 2"]
        );
        assert_eq!(rows.dropped[0].rows, [1]);
        let hash = |name: &str| read(&path(name).into()).unwrap().1;
        assert_eq!(
            sha256,
            sha256_hex(format!("{}\n{}\n", hash("0"), hash("1")).as_bytes())
        );
        assert!(both.name().ends_with("0 and 1 more"), "{}", both.name());
        // A shard whose first row matches another dialect is read like the other shards.
        let (rows, _) = read(&vec![path("0"), path("2")].into()).unwrap();
        assert_eq!(
            (rows.dialect, rows.rows.len(), rows.dropped.len()),
            ("question-answer", 1, 2)
        );
        assert_eq!(
            rows.unread,
            ["prompt", "completion"],
            "which only the later shard has"
        );
        write("2", "\n{\"prompt\": \"p\", \"completion\": \"x\"}");
        let error = read(&vec![path("0"), path("2")].into()).unwrap_err();
        assert!(
            error
                .message
                .contains("2: row 2 (line 2) has no column \"question\""),
            "{error}"
        );
    }
}

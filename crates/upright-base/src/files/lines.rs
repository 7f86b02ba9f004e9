//! Append-only files of whole lines.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use super::read;
use crate::{Error, Result};

/// Appends whole lines to a file, each flushed, so that a run killed at any moment leaves at most one torn line at the end.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens a file for appending. First truncates it after the leading lines for which `keep`
    /// holds; a torn last line is never kept.
    pub fn open(path: &Path, keep: impl Fn(&str) -> bool) -> Result<Self> {
        let text = match read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(path, "read", error)),
        };
        let mut kept = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match std::str::from_utf8(line) {
                Ok(line) if line.ends_with('\n') && keep(line.trim_end()) => kept += line.len(),
                _ => break,
            }
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|file| {
                file.set_len(kept as u64)?;
                Ok(file)
            });
        let file = file.map_err(|error| Error::io(path, "open", error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Appends one line.
    pub fn push(&mut self, line: &str) -> Result<()> {
        let bytes = format!("{line}\n");
        self.file
            .write_all(bytes.as_bytes())
            .map_err(|error| Error::io(&self.path, "write", error))
    }

    /// Syncs the appended lines to disk.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|error| Error::io(&self.path, "write", error))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_survive_a_torn_end_and_can_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("steps.jsonl");
        fs::write(&path, "0\n1\n2\n3").unwrap();
        Lines::open(&path, |line| line.parse::<u32>().unwrap() < 2)
            .unwrap()
            .push("new")
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0\n1\nnew\n");
        Lines::open(&path, |_| true).unwrap().push("more").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0\n1\nnew\nmore\n");
    }
}

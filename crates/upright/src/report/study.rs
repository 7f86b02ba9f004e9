//! What may lie beside the runs: `study.toml`, which says what they are for, and `answers.json`, what models answered.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, files};

/// `study.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Title of the page.
    #[serde(default)]
    pub title: Option<String>,
    /// What the runs are for, in a paragraph.
    #[serde(default)]
    pub about: Option<String>,
}

/// A prompt with the answers of several models: an entry of `answers.json` (Section D.6 of the paper).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// The prompt.
    pub prompt: String,
    /// The answers, side by side.
    pub answers: Vec<Answer>,
}

/// What one model answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The run's folder, seen from the folder of `answers.json`; anything else is a name, such as `base` or `chosen`.
    pub run: String,
    /// The answer.
    pub text: String,
}

/// Name of the file that says what runs are for.
pub const STUDY: &str = "study.toml";
/// Name of the file of answers.
pub const ANSWERS: &str = "answers.json";

/// The first study file among the folders; nothing said where there is none.
pub(super) fn study(folders: &[PathBuf]) -> Result<Study> {
    let Some(path) = folders.iter().map(|folder| folder.join(STUDY)).find(|path| path.exists()) else {
        return Ok(Study::default());
    };
    toml::from_str(&files::read_text(&path)?).map_err(|error| {
        Error::input(format!("{}: {}", path.display(), error.message()))
            .hint("it may have the keys title and about, both texts")
    })
}

/// The answers beside some runs, each run's folder made whole.
pub(super) fn answers(folder: &Path) -> Result<Vec<Answers>> {
    let path = folder.join(ANSWERS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&files::read_text(&path)?).map_err(|error| {
        Error::input(format!("{}: {error}", path.display()))
            .hint("it is a list of {\"prompt\": .., \"answers\": [{\"run\": .., \"text\": ..}]}")
    })
}

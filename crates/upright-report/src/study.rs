//! What may lie beside the runs: `study.toml`, which says what they are for, and `answers.json`, what models answered.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use upright_base::{Error, Result, files};

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
    /// The runs that are meant, seen from the folder of `study.toml`; none: all that are found below it.
    #[serde(default)]
    pub runs: Option<Vec<PathBuf>>,
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
    /// What the model is known by where its name does not say which it is: a study's base.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
}

/// Name of the file that says what runs are for.
pub const STUDY: &str = "study.toml";
/// Name of the file of answers.
pub const ANSWERS: &str = "answers.json";

/// The first study file among the folders; nothing said where there is none.
pub(super) fn study(folders: &[PathBuf]) -> Result<Study> {
    folders
        .iter()
        .find(|folder| folder.join(STUDY).exists())
        .map_or_else(|| Ok(Study::default()), |folder| read(folder))
}

/// The runs that a folder's study file means, if it says so.
pub(super) fn listed(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !folder.join(STUDY).exists() {
        return Ok(None);
    }
    let whole = |runs: Vec<PathBuf>| runs.into_iter().map(|run| folder.join(run)).collect();
    Ok(read(folder)?.runs.map(whole))
}

fn read(folder: &Path) -> Result<Study> {
    let path = folder.join(STUDY);
    toml::from_str(&files::read_text(&path)?).map_err(|error| {
        Error::input(format!("{}: {}", path.display(), error.message()))
            .hint("it may have the keys title and about, both texts, and runs, a list of folders")
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

//! Optional files beside the runs: `study.toml` (title and purpose) and `answers.json` (model
//! responses).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use upright_base::{Error, Result, files};

/// The content of `study.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Title of the page.
    #[serde(default)]
    pub title: Option<String>,
    /// The purpose of the runs, in one paragraph.
    #[serde(default)]
    pub about: Option<String>,
    /// Folders of the runs, relative to the folder of `study.toml`; none: all runs below that
    /// folder.
    #[serde(default)]
    pub runs: Option<Vec<PathBuf>>,
}

/// A prompt with the responses of several models: an entry of `answers.json` (Section D.6 of the
/// paper).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// The prompt.
    pub prompt: String,
    /// The responses, one per model.
    pub answers: Vec<Answer>,
}

/// The response of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The run folder, relative to the folder of `answers.json`. Any other text is a name, such as
    /// `base` or `chosen`.
    pub run: String,
    /// The response.
    pub text: String,
    /// Identifies the model if its name is ambiguous: the base of a study.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
}

/// Name of the file that describes the study.
pub const STUDY: &str = "study.toml";
/// Name of the file with the responses.
pub const ANSWERS: &str = "answers.json";

/// Reads the first study file among the folders; the default if there is none.
pub(crate) fn study(folders: &[PathBuf]) -> Result<Study> {
    folders
        .iter()
        .find(|folder| folder.join(STUDY).exists())
        .map_or_else(|| Ok(Study::default()), |folder| read(folder))
}

/// The runs that a folder's study file lists, if it lists any.
pub(crate) fn listed(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
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
            .hint("allowed keys: title (string), about (string) and runs (list of folders)")
    })
}

/// Reads the responses beside some runs.
pub(crate) fn answers(folder: &Path) -> Result<Vec<Answers>> {
    let path = folder.join(ANSWERS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&files::read_text(&path)?).map_err(|error| {
        Error::input(format!("{}: {error}", path.display()))
            .hint("expected a list of {\"prompt\": .., \"answers\": [{\"run\": .., \"text\": ..}]}")
    })
}

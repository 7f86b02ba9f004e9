//! The `[evaluate]` table of a study: which benchmarks its models take.

use std::path::PathBuf;

use clap::{Args, Command};
use serde::Deserialize;
use toml::Table;
use upright_base::{Error, Result};

use super::super::keys::{self, read};
use crate::{
    mmlu::MmluSettings,
    win_rate::{AnswerSettings, JudgeSettings},
};

/// The benchmarks of a study.
#[derive(Clone, Debug, Default)]
pub struct Benchmarks {
    /// MMLU.
    pub mmlu: Option<MmluSettings>,
    /// The win rate against chosen responses.
    pub win_rate: Option<WinRateSettings>,
    /// Losses on more rows.
    pub sets: Vec<RowSet>,
}

/// A win rate's prompts, answers and judge.
#[derive(Clone, Debug, Default)]
pub struct WinRateSettings {
    /// Preference rows.
    pub prompts: PathBuf,
    /// Which prompts are answered, and how.
    pub answers: AnswerSettings,
    /// The judge.
    pub judge: JudgeSettings,
}

/// Rows on which an objective's loss is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSet {
    /// Its name.
    pub name: String,
    /// Name of the objective that gives loss and template.
    pub objective: String,
    /// The rows.
    pub data: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Written {
    mmlu: Option<Table>,
    win_rate: Option<Table>,
    sets: Table,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Prompts {
    prompts: PathBuf,
}

/// Keys of settings that are also flags, each with its help.
pub fn keys_of<A: Args>() -> Vec<(String, String)> {
    let command = A::augment_args(Command::new("settings"));
    let mut keys = Vec::new();
    for argument in command.get_arguments() {
        if let Some(name) = argument.get_long() {
            let help = argument.get_help().map(ToString::to_string);
            keys.push((name.to_owned(), help.unwrap_or_default()));
        }
    }
    keys
}

/// Keys of `[evaluate.win-rate]` that are no flags of its settings.
const PROMPTS: &str = "prompts";

/// Settings of a win rate that a study decides.
const DECIDED: [&str; 1] = ["replies"];

/// Keys of `win-rate`, each with its help.
pub fn win_rate_keys() -> Vec<(String, String)> {
    let mut all = vec![(
        PROMPTS.to_owned(),
        "Preference rows: models answer their prompts, and a judge compares the answers with the \
         chosen responses"
            .to_owned(),
    )];
    all.extend(keys_of::<AnswerSettings>());
    all.extend(keys_of::<JudgeSettings>());
    all.retain(|(name, _)| !DECIDED.contains(&&name[..]));
    all
}

impl Benchmarks {
    /// Reads the table.
    ///
    /// # Errors
    /// A key is unknown or missing, or a value has the wrong type or range.
    pub fn parse(table: &Table, place: &str) -> Result<Self> {
        let written: Written = read(table, &keys::EVALUATE.map(|(key, _)| key), place)?;
        let mut all = Self::default();
        if let Some(table) = &written.mmlu {
            let place = format!("{place} mmlu");
            let known = keys_of::<MmluSettings>();
            let mmlu: MmluSettings = read(table, &names(&known), &place)?;
            if mmlu.data.as_os_str().is_empty() {
                return Err(missing(&place, "data", "cais/mmlu"));
            }
            mmlu.checked().map_err(|error| error.at(&place))?;
            all.mmlu = Some(mmlu);
        }
        if let Some(table) = &written.win_rate {
            let place = format!("{place} win-rate");
            let known = win_rate_keys();
            let prompts: Prompts = read(table, &names(&known), &place)?;
            if prompts.prompts.as_os_str().is_empty() {
                return Err(missing(&place, "prompts", "pairs.jsonl"));
            }
            let settings = WinRateSettings {
                prompts: prompts.prompts,
                answers: read(table, &names(&known), &place)?,
                judge: read(table, &names(&known), &place)?,
            };
            settings.check().map_err(|error| error.at(&place))?;
            all.win_rate = Some(settings);
        }
        for (name, value) in &written.sets {
            let place = format!("{place} sets.{name}");
            let Some(table) = value.as_table() else {
                return Err(Error::input(format!("{place}: must be a table"))
                    .hint("such as NAME = { objective = \"dpo\", data = \"rows.jsonl\" }"));
            };
            all.sets.push(row_set(name, table, &place)?);
        }
        Ok(all)
    }

    /// Whether there is no benchmark.
    pub fn is_empty(&self) -> bool {
        self.mmlu.is_none() && self.win_rate.is_none() && self.sets.is_empty()
    }
}

impl WinRateSettings {
    /// Checks what can be checked without models, rows and the judge's key.
    fn check(&self) -> Result<()> {
        self.answers.sampling()?;
        self.answers.limit()?;
        self.answers.batch()?;
        self.answers.map()?;
        self.answers.template()?;
        let judge = self.judge.keyless();
        judge.judge(self.answers.as_in_paper).map(|_| ())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct WrittenSet {
    objective: String,
    data: PathBuf,
}

fn row_set(name: &str, table: &Table, place: &str) -> Result<RowSet> {
    let written: WrittenSet = read(table, &keys::ROW_SET.map(|(key, _)| key), place)?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_plain) || ["mmlu", "win-rate"].contains(&name) {
        return Err(Error::input(format!(
            "{place}: the name must have only lowercase letters, digits, - and _, and not be mmlu or win-rate"
        )));
    }
    if written.objective.is_empty() {
        return Err(missing(place, "objective", "dpo"));
    }
    if written.data.as_os_str().is_empty() {
        return Err(missing(place, "data", "rows.jsonl"));
    }
    Ok(RowSet {
        name: name.to_owned(),
        objective: written.objective,
        data: written.data,
    })
}

fn names(keys: &[(String, String)]) -> Vec<&str> {
    keys.iter().map(|(name, _)| &name[..]).collect()
}

fn missing(place: &str, key: &str, example: &str) -> Error {
    Error::input(format!("{place}: {key} is missing"))
        .hint(format!("such as {key} = \"{example}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Benchmarks> {
        Benchmarks::parse(&text.parse().unwrap(), "[evaluate]")
    }

    #[test]
    fn tables_are_read() {
        let all = parse(
            "mmlu = { data = 'cais/mmlu', shots = 1, limit = 5 }\n\
             win-rate = { prompts = 'p.jsonl', judge-url = 'http://localhost:1/v1', judge-model = 'j', max-tokens = 8 }\n\
             sets.village = { objective = 'sft', data = 'v.jsonl' }",
        )
        .unwrap();
        assert_eq!(all.mmlu.unwrap().checked().unwrap().shots, 1);
        let win_rate = all.win_rate.unwrap();
        assert_eq!(win_rate.prompts, PathBuf::from("p.jsonl"));
        assert_eq!(win_rate.answers.sampling().unwrap().max_tokens, 8);
        assert_eq!(all.sets[0].objective, "sft");
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("mmul = {}", "unknown key `mmul`"),
            ("mmlu = {}", "data is missing"),
            ("mmlu = { data = 'd', shot = 1 }", "unknown key `shot`"),
            ("mmlu = { data = 'd', shots = 9 }", "shots must be"),
            ("win-rate = {}", "prompts is missing"),
            ("win-rate = { prompts = 'p' }", "judge-url is missing"),
            (
                "win-rate = { prompts = 'p', judge-url = 'http://a', judge-model = 'm', temperature = -1 }",
                "temperature must be",
            ),
            (
                "win-rate = { prompts = 'p', judge-url = 'http://a', judge-model = 'm', replies = 'x' }",
                "unknown key `replies`",
            ),
            ("sets.a = 3", "must be a table"),
            ("sets.a = { data = 'd' }", "objective is missing"),
            (
                "sets.mmlu = { objective = 'sft', data = 'd' }",
                "the name must",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }
}

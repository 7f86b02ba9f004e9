//! Reads the TOML file of a config and merges the flags into it.

use std::path::Path;

use toml::Table;

use upright_base::suggest::nearest;

use super::declared::{Declared, OfLosses, OfMethods, OfObjective};
use super::{Config, FILE, List, ObjectiveConfig, peers};
use crate::trackers::NONE;
use upright_base::{Error, Result, files};

/// Settings of the length of a run. A flag for one of them replaces whichever the file has.
const LENGTHS: [&str; 3] = ["steps", "epochs", "stages"];

impl Config {
    /// Completes the flags with the settings of the `--config` file. Flags that resume a run
    /// without `--config` and `--model` are completed with the settings the run was started with.
    pub fn resolve(self) -> Result<Self> {
        match (&self.config, &self.out) {
            (Some(path), _) => {
                let settings = Self::read(path)?;
                self.over(settings)
            }
            (None, Some(out)) if self.resume && self.model.is_none() => {
                let settings = Self::started(out)?;
                self.over(settings)
            }
            _ => Ok(self),
        }
    }

    /// Reads the settings that the run in a folder was started with. Their paths are relative to
    /// the folder it was started in.
    fn started(out: &Path) -> Result<Self> {
        let file = out.join(FILE);
        if !file.is_file() {
            return Err(Error::input(format!(
                "{}: no run to resume: {FILE} is missing",
                out.display()
            ))
            .hint("start a run with --model DIR, or repeat the command that started it"));
        }
        let settings = Self::read(&file)?;
        if settings.out.is_none() {
            let message = format!(
                "{}: is empty or damaged: it does not name the folder of the run",
                file.display()
            );
            return Err(Error::input(message).hint(
                "put the file back, or repeat the command that started the run, with --resume",
            ));
        }
        let place = |path: &Path| std::fs::canonicalize(path).ok();
        if settings.out.as_deref().and_then(place) != place(out) {
            let then = settings.out.unwrap_or_default();
            let message = format!(
                "{}: was started with --out {}, in another folder",
                out.display(),
                then.display()
            );
            return Err(Error::input(message).hint(format!(
                "its paths are relative to that folder: resume there, or give --config {} if they are \
                 valid here",
                files::quoted(&file)
            )));
        }
        Ok(settings)
    }

    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path).map_err(|error| {
            let message = format!("config {}", error.message);
            Error { message, ..error }.hint("give a TOML file")
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Parses TOML text; messages call it `name`.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let table: Table = text.parse().map_err(|error| located(&error, text, name))?;
        let unknown = |key: &str, known: &[String], place: &str| {
            let found = Error::input(format!("{name}: unknown key `{key}`{place}"));
            if let Some(answer) = peers::answer(key) {
                // Answers name flags; keys have no dashes in front.
                return found.hint(answer.replace("--", ""));
            }
            match nearest(key, known.iter().map(String::as_str)) {
                Some(close) => found.hint(format!("did you mean `{close}`?")),
                None => found.hint(format!("known keys: {}", known.join(", "))),
            }
        };
        let known = Self::keys();
        if let Some(key) = table.keys().find(|key| !known.contains(key)) {
            return Err(unknown(key, &known, ""));
        }
        check_types::<OfMethods>(&table, text, name)?;
        check_types::<OfLosses>(&table, text, name)?;
        let objectives = table
            .get("objective")
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten();
        let known = ObjectiveConfig::keys();
        for objective in objectives.filter_map(toml::Value::as_table) {
            if let Some(key) = objective.keys().find(|key| !known.contains(key)) {
                return Err(unknown(key, &known, " in an [[objective]]"));
            }
            check_types::<OfObjective>(objective, text, name)?;
        }
        toml::from_str(text).map_err(|error| located(&error, text, name))
    }

    /// Merges two configs: settings of this one take precedence over the other.
    pub fn over(self, other: Self) -> Result<Self> {
        let unfit = |error: &dyn std::fmt::Display| Error::input(format!("config: {error}"));
        let upper = Table::try_from(&self).map_err(|error| unfit(&error))?;
        let mut table = Table::try_from(&other).map_err(|error| unfit(&error))?;
        if LENGTHS.iter().any(|key| upper.contains_key(*key)) {
            table.retain(|key, _| !LENGTHS.contains(&key));
        }
        // A list of trackers replaces both forms of the other config.
        if self.report_to.is_some() {
            table.remove("tensorboard");
        }
        let names_none = |list: &List| list.0.iter().any(|name| name == NONE);
        if self.tensorboard && other.report_to.as_ref().is_some_and(names_none) {
            table.remove("report-to");
        }
        table.extend(upper);
        let merged: Self = table.try_into().map_err(|error| unfit(&error))?;
        Ok(Self {
            config: self.config,
            ..merged
        })
    }

    /// The config as a TOML file.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::input(format!("config: {error}")))
    }

    /// Keys of the TOML file.
    pub fn keys() -> Vec<String> {
        let mut keys = flags::<Self>();
        keys.retain(|key| key != "config");
        keys.push("objective".into());
        keys
    }
}

impl ObjectiveConfig {
    /// Keys of an `[[objective]]`.
    pub fn keys() -> Vec<String> {
        flags::<Self>()
    }
}

/// Checks that settings of methods and losses are numbers or text. Other fields check their types themselves.
///
/// # Errors
/// The first that is not, with its line.
fn check_types<D: Declared>(table: &Table, text: &str, name: &str) -> Result<()> {
    for flag in D::flags() {
        let key = &flag.key;
        let Some(value) = table.get(key) else {
            continue;
        };
        if value.is_integer() || value.is_float() || value.is_str() {
            continue;
        }
        let is_here = |line: &&str| {
            let rest = line.trim_start().strip_prefix(&key[..]);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let number = text.lines().position(|line| is_here(&line));
        let place = number.map_or(String::new(), |number| format!(", line {}", number + 1));
        return Err(Error::input(format!(
            "{name}{place}, `{key} = {value}`: expected a number or text"
        )));
    }
    Ok(())
}

fn flags<T: clap::Args>() -> Vec<String> {
    let command = T::augment_args(clap::Command::new("upright"));
    command
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

/// A TOML error with the number and the text of its line.
pub fn located(error: &toml::de::Error, text: &str, name: &str) -> Error {
    let message = error.message().trim().replace('\n', "; ");
    let Some(span) = error.span() else {
        return Error::input(format!("{name}: {message}"));
    };
    let start = span.start.min(text.len());
    let number = text
        .bytes()
        .take(start)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1;
    let line: String = text
        .lines()
        .nth(number - 1)
        .unwrap_or("")
        .trim()
        .chars()
        .take(80)
        .collect();
    Error::input(format!("{name}, line {number}, `{line}`: {message}"))
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn flags(words: &str) -> Config {
        let command = Config::augment_args(clap::Command::new("train").no_binary_name(true));
        Config::from_arg_matches(&command.get_matches_from(words.split_whitespace())).unwrap()
    }

    fn read(text: &str) -> Config {
        Config::parse(text, "run.toml").unwrap()
    }

    fn wrong(text: &str) -> String {
        let error = Config::parse(text, "run.toml").unwrap_err();
        assert_eq!(error.kind, upright_base::ErrorKind::Input);
        format!("{error}\n{}", error.hint)
    }

    #[test]
    fn every_flag_is_a_key_and_reads_the_same() {
        let written = flags(
            "--model m --sft a.json --lambda -0.1 --steps -5 --learning-rate -1e-3 --lora-targets q_proj,v_proj \
             --stages dpo:100,sft:3e --optimum sft=1.49,dpo=0.06 --seed 7 --resume --too-long drop",
        );
        let file = read(
            "model = 'm'\nsft = 'a.json'\nlambda = -0.1\nsteps = -5\nlearning-rate = -1e-3\n\
             lora-targets = ['q_proj', 'v_proj']\nstages = 'dpo:100,sft:3e'\noptimum = { sft = 1.49, dpo = 0.06 }\n\
             seed = 7\nresume = true\ntoo-long = 'drop'",
        );
        assert_eq!(
            read(&written.to_toml().unwrap()),
            read(&file.to_toml().unwrap())
        );
        let keys = Config::keys();
        assert!(
            keys.iter().any(|key| key == "objective") && !keys.iter().any(|key| key == "config")
        );
        assert!(keys.len() > 40 && keys.iter().all(|key| !key.contains('_')));
    }

    #[test]
    fn negative_numbers_reach_our_own_checks() {
        Config::augment_args(clap::Command::new("train")).debug_assert();
        for text in ["-1", "-0.1", "-1e-3", "-inf", "-x"] {
            let config = flags(&format!(
                "--learning-rate {text} --steps {text} --seed={text}"
            ));
            assert_eq!(config.learning_rate.unwrap().to_string(), text);
            assert_eq!(
                (
                    config.steps.unwrap().to_string(),
                    config.seed.unwrap().to_string()
                ),
                (text.into(), text.into())
            );
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = read(
            "model = 'm'\nlambda = 0.2\nsteps = 10\njson = true\n[[objective]]\nname = 'a'\nrows = 5",
        );
        let merged = flags("--lambda 0.7 --epochs 2").over(file).unwrap();
        assert_eq!(merged.lambda.unwrap().real(), Some(0.7));
        assert_eq!(
            (merged.steps, merged.epochs.unwrap().real()),
            (None, Some(2.0))
        );
        assert_eq!(merged.model, Some("m".into()));
        assert!(merged.json && !merged.resume);
        assert_eq!(merged.objective[0].rows.as_ref().unwrap().whole(), Some(5));
    }

    #[test]
    fn a_list_of_trackers_replaces_both_forms() {
        let quiet = flags("--report-to none").over(read("tensorboard = true"));
        assert!(!quiet.unwrap().tensorboard);
        let loud = flags("--tensorboard")
            .over(read("report-to = 'none'"))
            .unwrap();
        assert_eq!((loud.tensorboard, loud.report_to), (true, None));
    }

    #[test]
    fn a_file_is_found_through_its_flag() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, "lambda = 0.25\nseed = 3").unwrap();
        let config = flags(&format!("--config {} --seed 4", path.display()))
            .resolve()
            .unwrap();
        assert_eq!(
            (config.lambda.unwrap().real(), config.seed.unwrap().whole()),
            (Some(0.25), Some(4))
        );
        std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        assert!(Config::read(&path).unwrap_err().message.contains("UTF-8"));
        assert!(
            Config::read(&folder.path().join("none.toml"))
                .unwrap_err()
                .message
                .contains("none.toml")
        );
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let table = [
            (
                "lamda = 0.5",
                vec!["run.toml", "`lamda`", "did you mean `lambda`?"],
            ),
            (
                "learning_rate = 1",
                vec!["`learning_rate`", "did you mean `learning-rate`?"],
            ),
            ("zebra = 1", vec!["`zebra`", "known keys: out,"]),
            ("lr = 1e-4", vec!["`lr`", "\nuse learning-rate"]),
            (
                "gradient_accumulation_steps = 4",
                vec!["no accumulation is needed"],
            ),
            (
                "[[objective]]\nweigth = 1",
                vec!["`weigth` in an [[objective]]", "did you mean `weight`?"],
            ),
            ("config = 'x'", vec!["`config`"]),
            (
                "sft = 'a'\nmodel = 5",
                vec!["line 2", "`model = 5`", "path"],
            ),
            ("steps = true", vec!["line 1", "`steps = true`", "a number"]),
            ("steps = [1]", vec!["`steps = [1]`", "a number"]),
            ("model = 'a", vec!["line 1", "model"]),
            (
                "model = 'a'\nmodel = 'b'",
                vec!["line 2", "model", "duplicate"],
            ),
            ("objective = 3", vec!["objective = 3"]),
            (
                "sft = 'a'\nbeta = true",
                vec!["run.toml, line 2", "`beta = true`", "a number or text"],
            ),
            (
                "probe-every = [1]",
                vec!["line 1", "`probe-every = [1]`", "a number or text"],
            ),
            (
                "[[objective]]\nname = 'a'\ngamma = {}",
                vec!["line 3", "`gamma = {}`"],
            ),
        ];
        for (text, parts) in table {
            let message = wrong(text);
            assert!(
                parts.iter().all(|part| message.contains(part)),
                "{text}: {message}"
            );
        }
    }
}

//! Reads a folder of MMLU in one of two layouts: `dev/NAME_dev.csv` and `test/NAME_test.csv`, as
//! published by the authors, or `NAME/dev*` and `NAME/test*` with the rows of `cais/mmlu` in
//! Parquet or JSON Lines.

use std::path::{Path, PathBuf};

use csv::ReaderBuilder;
use serde_json::Value;

use super::{Question, Subject, SubjectName, prompt::LETTERS};
use crate::source::{self, RawRow};
use upright_base::{Error, Result, counted, files};

/// The two splits that are read.
const SPLITS: [&str; 2] = ["dev", "test"];

/// Endings of the files of `cais/mmlu`.
const ENDINGS: [&str; 5] = [".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz"];

const LAYOUTS: &str = "a folder of MMLU holds dev/NAME_dev.csv and test/NAME_test.csv, or a folder NAME with dev and test \
                       files (.parquet or .jsonl) for every subject";

/// Reads subjects from a folder.
///
/// # Errors
/// A file is missing or cannot be read, or a row has other columns than MMLU's; the message names
/// file, row and value.
pub fn read(folder: &Path, names: &[&'static SubjectName]) -> Result<Vec<Subject>> {
    let is_csv = SPLITS.iter().any(|split| folder.join(split).is_dir());
    check_files(folder, names, is_csv)?;
    let mut subjects = Vec::with_capacity(names.len());
    for &about in names {
        let [dev, test] = SPLITS.map(|split| {
            if is_csv {
                csv_rows(&csv_path(folder, about, split))
            } else {
                cais_rows(&folder.join(about.name), split)
            }
        });
        subjects.push(Subject {
            about,
            dev: dev?,
            test: test?,
        });
    }
    for subject in &subjects {
        if subject.test.is_empty() {
            let name = subject.about.name;
            return Err(Error::file(
                folder,
                format!("{name} has no test rows"),
                LAYOUTS,
            ));
        }
    }
    Ok(subjects)
}

/// Selects the files of subjects from the file names of a repository in the layout of `cais/mmlu`.
///
/// # Errors
/// A subject has no file of a split.
pub fn files_of(repo: &str, names: &[String], subjects: &[&SubjectName]) -> Result<Vec<String>> {
    let mut chosen = Vec::new();
    for subject in subjects {
        let prefix = format!("{}/", subject.name);
        let inside: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix))
            .collect();
        for split in SPLITS {
            let found = of_split(&inside, split)
                .map_err(|error| error.at(format!("{repo}/{}", subject.name)))?;
            if found.is_empty() {
                return Err(
                    Error::input(format!("{repo}: has no file {prefix}{split}-*.parquet"))
                        .hint("give the id of a dataset with the files of cais/mmlu, or a folder"),
                );
            }
            for name in found {
                chosen.push(format!("{prefix}{name}"));
            }
        }
    }
    Ok(chosen)
}

fn csv_path(folder: &Path, subject: &SubjectName, split: &str) -> PathBuf {
    folder
        .join(split)
        .join(format!("{}_{split}.csv", subject.name))
}

/// Rejects a folder in which a subject lacks a file. A mean over fewer subjects than requested
/// would not be MMLU.
fn check_files(folder: &Path, names: &[&'static SubjectName], is_csv: bool) -> Result<()> {
    let mut missing: Vec<String> = Vec::new();
    let mut complete: Vec<&str> = Vec::new();
    for subject in names {
        let before = missing.len();
        for split in SPLITS {
            if is_csv {
                if !csv_path(folder, subject, split).exists() {
                    missing.push(format!("{split}/{}_{split}.csv", subject.name));
                }
            } else if split_files(&folder.join(subject.name), split)?.is_empty() {
                missing.push(format!("{}/{split}.jsonl or .parquet", subject.name));
            }
        }
        if missing.len() == before {
            complete.push(subject.name);
        }
    }
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let lacking = names.len() - complete.len();
    let problem = match lacking {
        1 => format!("has no {first}"),
        _ => format!(
            "has no {first}; files of {lacking} of {} subjects are missing",
            names.len()
        ),
    };
    let hint = if complete.is_empty() {
        LAYOUTS.to_owned()
    } else {
        format!(
            "to score only the subjects that are there, use --subjects {}",
            complete.join(",")
        )
    };
    Err(Error::file(folder, problem, hint))
}

fn csv_rows(path: &Path) -> Result<Vec<Question>> {
    const HINT: &str =
        "use the CSV files of MMLU as published: question, four answers, letter; no header";
    let name = path.display();
    let bytes = files::read(path).map_err(|error| Error::unreadable(path, "read", error))?;
    let text = source::text(path, &bytes)?;
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut questions = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let record = record
            .map_err(|error| Error::input(format!("{name}: row {index}: {error}")).hint(HINT))?;
        let fields: Vec<&str> = record.iter().collect();
        let &[question, a, b, c, d, letter] = fields.as_slice() else {
            let found = counted(fields.len(), "column");
            return Err(
                Error::input(format!("{name}: row {index} has {found}, expected 6")).hint(HINT),
            );
        };
        let Some(answer) = LETTERS.iter().position(|known| *known == letter) else {
            return Err(Error::input(format!(
                "{name}: row {index}: the answer must be A, B, C or D, found `{letter}`"
            ))
            .hint(HINT));
        };
        questions.push(Question {
            question: question.to_owned(),
            choices: [a, b, c, d].map(str::to_owned),
            answer,
        });
    }
    Ok(questions)
}

/// Names of the files of a split in a subject's folder, sorted.
fn split_files(folder: &Path, split: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        names.extend(entry.file_name().into_string());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    of_split(&names, split).map_err(|error| error.at(folder.display()))
}

/// The names of a split's files, sorted: one file, or numbered shards.
fn of_split(names: &[&str], split: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in names {
        let word = name.split(['-', '.']).next().unwrap_or_default();
        if word == split && ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            found.push((*name).to_owned());
        }
    }
    found.sort();
    let are_shards = found.iter().all(|name| name.contains("-of-"));
    if found.len() > 1 && !are_shards {
        return Err(Error::input(format!(
            "the split {split} has several files: {}",
            found.join(", ")
        ))
        .hint("keep one of them"));
    }
    Ok(found)
}

fn cais_rows(folder: &Path, split: &str) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for name in split_files(folder, split)? {
        let path = folder.join(name);
        for row in source::read(&path)?.rows {
            questions.push(cais_row(&row).map_err(|what| {
                Error::input(format!("{}: {}: {what}", path.display(), row.place())).hint(
                    "rows of cais/mmlu have question (text), choices (four texts) and answer (0 to 3)",
                )
            })?);
        }
    }
    Ok(questions)
}

/// A row of `cais/mmlu`; the error says what is wrong with it.
fn cais_row(row: &RawRow) -> std::result::Result<Question, String> {
    let column = |name: &str| {
        row.columns.get(name).ok_or_else(|| {
            let names: Vec<&str> = row.columns.keys().map(String::as_str).collect();
            format!("has no column \"{name}\", only {}", names.join(", "))
        })
    };
    let question = match column("question")? {
        Value::String(text) => text.clone(),
        other => {
            return Err(format!(
                "question must be text, found {}",
                source::type_name(other)
            ));
        }
    };
    let mut choices = Vec::new();
    match column("choices")? {
        Value::Array(list) => {
            for choice in list {
                match choice {
                    Value::String(text) => choices.push(text.clone()),
                    other => {
                        return Err(format!(
                            "a choice must be text, found {}",
                            source::type_name(other)
                        ));
                    }
                }
            }
        }
        other => {
            return Err(format!(
                "choices must be a list, found {}",
                source::type_name(other)
            ));
        }
    }
    let count = choices.len();
    let choices = <[String; 4]>::try_from(choices)
        .map_err(|_| format!("has {}, expected 4", counted(count, "choice")))?;
    let answer = column("answer")?;
    match answer.as_u64() {
        Some(index @ 0..=3) => Ok(Question {
            question,
            choices,
            answer: index as usize,
        }),
        _ => Err(format!("answer must be 0, 1, 2 or 3, found `{answer}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::choose;
    use super::*;

    fn place(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn anatomy(dir: &tempfile::TempDir) -> Result<Vec<Subject>> {
        read(dir.path(), &choose(Some("anatomy")).unwrap())
    }

    const ROW: &str = "\"What is \"\"it\"\",\nthen? \", one,\"two\r\",three,4,C\n";

    #[test]
    fn csv_fields_are_verbatim() {
        let dir = place(&[
            ("dev/anatomy_dev.csv", "q,a,b,c,d,D\n"),
            ("test/anatomy_test.csv", ROW),
        ]);
        let subject = &anatomy(&dir).unwrap()[0];
        assert_eq!((subject.about.name, subject.dev.len()), ("anatomy", 1));
        assert_eq!(subject.dev[0].answer, 3);
        let question = &subject.test[0];
        assert_eq!(question.question, "What is \"it\",\nthen? ");
        assert_eq!(question.choices, [" one", "two\r", "three", "4"]);
        assert_eq!(question.answer, 2);
    }

    #[test]
    fn the_rows_of_the_hub_are_the_same() {
        let row = r#"{"question": "q?", "subject": "anatomy", "choices": ["a", "b", "c", " d"], "answer": 3}"#;
        let csv = place(&[
            ("dev/anatomy_dev.csv", "q?,a,b,c, d,D\n"),
            ("test/anatomy_test.csv", "q?,a,b,c, d,D\nq?,a,b,c, d,D\n"),
        ]);
        let jsonl = place(&[
            ("README.md", ""),
            ("anatomy/dev.jsonl", row),
            ("anatomy/test-00000-of-00002.jsonl", row),
            ("anatomy/test-00001-of-00002.jsonl", row),
            ("anatomy/validation.jsonl", "broken"),
        ]);
        assert_eq!(anatomy(&jsonl).unwrap(), anatomy(&csv).unwrap());
        let twice = place(&[
            ("anatomy/dev.jsonl", row),
            ("anatomy/test.jsonl", row),
            ("anatomy/test.parquet", row),
        ]);
        let error = anatomy(&twice).unwrap_err();
        assert!(
            error
                .message
                .ends_with("anatomy: the split test has several files: test.jsonl, test.parquet"),
            "{error}"
        );
    }

    #[test]
    fn bad_rows_are_named() {
        let csv = |text: &str| {
            let dir = place(&[
                ("dev/anatomy_dev.csv", "q,a,b,c,d,D\n"),
                ("test/anatomy_test.csv", text),
            ]);
            let message = anatomy(&dir).unwrap_err().message;
            message
                .rsplit_once("anatomy_test.csv: ")
                .map_or(message.clone(), |(_, rest)| rest.to_owned())
        };
        assert_eq!(
            csv("q,a,b,c,d,A\nq,a,b,c,A\n"),
            "row 1 has 5 columns, expected 6"
        );
        assert_eq!(csv("only\n"), "row 0 has 1 column, expected 6");
        assert_eq!(
            csv("question,A,B,C,D,answer\n"),
            "row 0: the answer must be A, B, C or D, found `answer`"
        );
        assert!(csv("").ends_with("anatomy has no test rows"));
        let json = |row: &str| {
            let dir = place(&[("anatomy/dev.jsonl", row), ("anatomy/test.jsonl", row)]);
            let message = anatomy(&dir).unwrap_err().message;
            message
                .rsplit_once("(line 1): ")
                .map_or(message.clone(), |(_, rest)| rest.to_owned())
        };
        assert_eq!(
            json(r#"{"question": "q"}"#),
            "has no column \"choices\", only question"
        );
        assert_eq!(
            json(r#"{"question": 1, "choices": [], "answer": 0}"#),
            "question must be text, found a number"
        );
        assert_eq!(
            json(r#"{"question": "q", "choices": ["a"], "answer": 0}"#),
            "has 1 choice, expected 4"
        );
        assert_eq!(
            json(r#"{"question": "q", "choices": ["a", "b", "c", "d"], "answer": 4}"#),
            "answer must be 0, 1, 2 or 3, found `4`"
        );
    }

    #[test]
    fn missing_files_are_named() {
        let dir = place(&[
            ("dev/anatomy_dev.csv", ""),
            ("dev/virology_dev.csv", ""),
            ("test/anatomy_test.csv", ""),
        ]);
        let error = read(dir.path(), &choose(Some("anatomy,virology")).unwrap()).unwrap_err();
        assert!(
            error.message.ends_with(": has no test/virology_test.csv"),
            "{error}"
        );
        assert!(error.hint.ends_with("--subjects anatomy"), "{}", error.hint);
        let error = read(dir.path(), &choose(None).unwrap()).unwrap_err();
        assert!(
            error.message.ends_with(
                "has no dev/abstract_algebra_dev.csv; files of 56 of 57 subjects are missing"
            ),
            "{error}"
        );
        let empty = place(&[]);
        assert!(
            anatomy(&empty)
                .unwrap_err()
                .hint
                .contains("dev/NAME_dev.csv")
        );
    }

    #[test]
    fn files_of_a_repository_are_chosen_by_subject() {
        let names = [
            "README.md",
            "anatomy/dev-00000-of-00001.parquet",
            "anatomy/test-00000-of-00001.parquet",
            "anatomy/validation-00000-of-00001.parquet",
            "virology/dev-00000-of-00001.parquet",
        ]
        .map(str::to_owned);
        let of = |list: &str| files_of("org/mmlu", &names, &choose(Some(list)).unwrap());
        assert_eq!(of("anatomy").unwrap(), names[1..3]);
        assert_eq!(
            of("virology").unwrap_err().message,
            "org/mmlu: has no file virology/test-*.parquet"
        );
    }
}

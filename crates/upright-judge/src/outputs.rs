//! Pairs of answers, and AlpacaEval's files of answers.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use serde_json::{Map, Value};
use upright_base::{Error, Result, files};

/// An instruction with the answers that the judge compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The instruction.
    pub instruction: String,
    /// The answer to compare with: AlpacaEval's `output_1`.
    pub reference: String,
    /// The model's answer: AlpacaEval's `output_2`.
    pub output: String,
}

/// The answers in one of AlpacaEval's files: a JSON list of objects with `instruction`, `output` and
/// `generator`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Name of the model that answered.
    pub generator: String,
    /// Instructions and answers, in order.
    pub rows: Vec<(String, String)>,
}

/// Name of a model in a file that names none, or several.
const UNNAMED: &str = "Current model";

impl Outputs {
    /// Reads a file: a JSON list, or one object per line.
    ///
    /// # Errors
    /// The file is not JSON, or a row lacks a field, or an instruction appears twice.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let rows = rows(path, &text)?;
        let mut outputs = Self {
            generator: String::new(),
            rows: Vec::with_capacity(rows.len()),
        };
        let mut seen = HashMap::new();
        let mut names = BTreeSet::new();
        for (index, row) in rows.iter().enumerate() {
            let field = |name: &str| -> Result<String> {
                match row.get(name).and_then(Value::as_str) {
                    Some(text) => Ok(text.to_owned()),
                    None => Err(Error::file(
                        path,
                        format!("row {index}: `{name}` must be a string"),
                        "expected AlpacaEval's format: a JSON list of {\"instruction\": .., \"output\": .., \
                         \"generator\": ..}",
                    )),
                }
            };
            let instruction = field("instruction")?;
            if let Some(first) = seen.insert(instruction.clone(), index) {
                return Err(Error::file(
                    path,
                    format!("rows {first} and {index} have the same instruction"),
                    "remove one of them: rows are paired by their instruction",
                ));
            }
            if let Some(name) = row.get("generator").and_then(Value::as_str) {
                names.insert(name.to_owned());
            }
            outputs.rows.push((instruction, field("output")?));
        }
        if outputs.rows.is_empty() {
            return Err(Error::file(path, "has no rows", "give a list of answers"));
        }
        // AlpacaEval's rule: a name counts if the whole file has it.
        outputs.generator = match names.pop_first() {
            Some(name) if names.is_empty() => name,
            _ => UNNAMED.to_owned(),
        };
        Ok(outputs)
    }

    /// The pairs of the instructions that both files have, in the order of `reference`, as in
    /// AlpacaEval.
    ///
    /// # Errors
    /// The files share no instruction.
    pub fn pairs(&self, reference: &Self) -> Result<Vec<Pair>> {
        let mut answers = HashMap::new();
        for (instruction, answer) in &self.rows {
            answers.insert(instruction, answer);
        }
        let mut pairs = Vec::new();
        for (instruction, answer) in &reference.rows {
            if let Some(output) = answers.get(instruction) {
                pairs.push(Pair {
                    instruction: instruction.clone(),
                    reference: answer.clone(),
                    output: (*output).clone(),
                });
            }
        }
        if pairs.is_empty() {
            return Err(Error::input(format!(
                "the answers of {} and {} share no instruction",
                self.generator, reference.generator
            ))
            .hint("both files must answer the same instructions, letter for letter"));
        }
        Ok(pairs)
    }
}

/// The objects in a file.
fn rows(path: &Path, text: &str) -> Result<Vec<Map<String, Value>>> {
    let broken = |line: Option<usize>, why: String| {
        let place = line.map_or_else(String::new, |line| format!("line {line}: "));
        Error::file(
            path,
            format!("{place}broken JSON: {why}"),
            "expected AlpacaEval's format: a JSON list of objects, or one object per line",
        )
    };
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| broken(None, error.to_string()));
    }
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if !line.trim().is_empty() {
            let row = serde_json::from_str(line);
            rows.push(row.map_err(|error| broken(Some(index + 1), error.to_string()))?);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Outputs> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outputs.json");
        std::fs::write(&path, text).unwrap();
        Outputs::read(&path)
    }

    #[test]
    fn files_are_joined_by_instruction_in_the_order_of_the_reference() {
        let outputs = read(
            r#"[{"instruction": "a", "output": "1", "generator": "m", "dataset": "x"},
                {"instruction": "only here", "output": "2", "generator": "m"},
                {"instruction": "b", "output": " 3\n", "generator": "m"}]"#,
        );
        let reference = read(
            "{\"instruction\": \"b\", \"output\": \"r\"}\n\n{\"instruction\": \"a\", \"output\": \"q\"}",
        );
        let (outputs, reference) = (outputs.unwrap(), reference.unwrap());
        assert_eq!(
            (&outputs.generator[..], &reference.generator[..]),
            ("m", UNNAMED)
        );
        let pairs = outputs.pairs(&reference).unwrap();
        let shown: Vec<(&str, &str, &str)> = pairs
            .iter()
            .map(|pair| (&pair.instruction[..], &pair.reference[..], &pair.output[..]))
            .collect();
        assert_eq!(shown, [("b", "r", " 3\n"), ("a", "q", "1")]);
    }

    #[test]
    fn damaged_files_are_refused_with_the_row() {
        for (text, part) in [
            ("[1]", "broken JSON"),
            (
                "{\"instruction\": \"a\", \"output\": \"b\"}\n{",
                "line 2: broken JSON",
            ),
            ("[]", "has no rows"),
            ("", "has no rows"),
            (r#"[{"instruction": "a"}]"#, "row 0: `output`"),
            (
                r#"[{"instruction": 3, "output": "b"}]"#,
                "row 0: `instruction`",
            ),
            (
                r#"[{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "c"}]"#,
                "rows 0 and 1",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
            assert!(!error.hint.is_empty(), "{text}");
        }
        let a = read(r#"[{"instruction": "a", "output": "b"}]"#).unwrap();
        let b = read(r#"[{"instruction": "A", "output": "b"}]"#).unwrap();
        assert!(
            a.pairs(&b)
                .unwrap_err()
                .message
                .contains("share no instruction")
        );
    }
}

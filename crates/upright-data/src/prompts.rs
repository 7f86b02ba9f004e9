//! Prompts to generate responses for: rows of any dialect, with or without responses, or plain text
//! with one prompt per line.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::conversation::{Prompt, Row};
use super::rows::{self, ColumnMap, Dropped, RowKind};
use super::source::{self, Format};
use upright_base::{Error, Result};

/// Prompts in file order, at least one, and the rows that have none. `name` is the file in
/// messages.
///
/// # Errors
/// The file is broken, a row has no prompt in a known form, or there is no prompt at all.
pub fn read(name: &Path, bytes: &[u8], map: &ColumnMap) -> Result<(Vec<Row>, Vec<Dropped>)> {
    let bytes = source::unpacked(name, bytes)?;
    let text = match source::format(&bytes) {
        Format::Parquet => None,
        Format::Text => Some(source::text(name, &bytes)?),
    };
    if let Some(prompts) = text.and_then(texts).or_else(|| lines(name, text?)) {
        let prompts = prompts.into_iter().enumerate();
        let rows: Vec<Row> = prompts
            .map(|(index, (line, text))| Row::unanswered(index, line, Prompt::Text(text)))
            .collect();
        if rows.is_empty() {
            return Err(Error::input(format!("{}: no prompts", name.display()))
                .hint("give one prompt per line, or JSON rows"));
        }
        return Ok((rows, Vec::new()));
    }
    let mut raw = source::parse(name, &bytes)?;
    map.apply(name, &mut raw)?;
    let read = rows::read(name, &raw, RowKind::Prompt)?;
    if read.rows.is_empty() {
        return Err(Error::input(format!(
            "{}: none of {} rows has a prompt",
            name.display(),
            raw.len()
        ))
        .hint("check that the prompts are in the columns of this dialect"));
    }
    Ok((read.rows, read.dropped))
}

/// The prompts of several files as one set, numbered through all files.
///
/// # Errors
/// As for [`read`], for the first file that has an error.
pub fn read_files(files: &[PathBuf], map: &ColumnMap) -> Result<(Vec<Row>, Vec<Dropped>)> {
    let (mut rows, mut dropped, mut before) = (Vec::new(), Vec::new(), 0);
    for path in files {
        let (mut more, out) = read(path, &source::bytes(path)?, map)?;
        let count = more.len() + out.iter().map(|entry| entry.rows.len()).sum::<usize>();
        more.iter_mut().for_each(|row| row.index += before);
        rows.extend(more);
        for Dropped { reason, rows } in &out {
            rows.iter()
                .for_each(|row| Dropped::add(&mut dropped, reason, before + row));
        }
        before += count;
    }
    Ok((rows, dropped))
}

type Numbered = (Option<usize>, String);

/// A JSON list of strings.
fn texts(text: &str) -> Option<Vec<Numbered>> {
    let Value::Array(list) = serde_json::from_str(text).ok()? else {
        return None;
    };
    list.into_iter()
        .map(|value| Some((None, value.as_str()?.to_owned())))
        .collect()
}

/// Lines of plain text; `None` if the text is JSON, or its name says so.
fn lines(name: &Path, text: &str) -> Option<Vec<Numbered>> {
    let meant = [".json", ".jsonl", ".ndjson"].iter().any(|end| {
        name.to_string_lossy()
            .trim_end_matches(".gz")
            .ends_with(end)
    });
    let is_json = match text.trim_start().bytes().next() {
        Some(b'{') => true,
        Some(b'[') => {
            meant || serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_array())
        }
        Some(_) => meant,
        None => false,
    };
    let lines = || {
        text.lines()
            .zip(1..)
            .filter(|(line, _)| !line.trim().is_empty())
    };
    (!is_json).then(|| {
        lines()
            .map(|(line, number)| (Some(number), line.to_owned()))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::conversation::{Message, Role};

    use super::*;

    fn prompts(name: &str, text: &str) -> Vec<(Option<usize>, Prompt)> {
        let (rows, _) = read(Path::new(name), text.as_bytes(), &ColumnMap::default()).unwrap();
        rows.into_iter().map(|row| (row.line, row.prompt)).collect()
    }

    fn text(text: &str) -> Prompt {
        Prompt::Text(text.into())
    }

    #[test]
    fn lines_lists_and_rows_are_prompts() {
        assert_eq!(
            prompts("stdin", "[INST] a\n\n {b\n"),
            [(Some(1), text("[INST] a")), (Some(3), text(" {b"))]
        );
        assert_eq!(
            prompts("p.json", "[\"a\", \"b\"]"),
            [(None, text("a")), (None, text("b"))]
        );
        let rows = "{\"prompt\": \"a\", \"chosen\": \"x\"}\n{\"question\": \"b\", \"answer\": \"y\"}\n\
                    {\"messages\": [{\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"z\"}]}";
        let found = prompts("p", rows);
        assert_eq!(found[..2], [(Some(1), text("a")), (Some(2), text("b"))]);
        let Prompt::Messages(turns) = &found[2].1 else {
            panic!("a conversation")
        };
        assert_eq!((turns.len(), turns[0].content.as_str()), (1, "c"));
        let pair = "[{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: x\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: y\"}]";
        assert_eq!(
            prompts("p", pair),
            [(None, text("\n\nHuman: a\n\nAssistant:"))]
        );
        let turns = "[{\"prompt\": \"a\", \"completion\": [{\"role\": \"assistant\", \"content\": \"x\"}]}]";
        assert!(
            matches!(&prompts("p", turns)[0].1, Prompt::Messages(turns) if turns.len() == 1),
            "as in training"
        );
    }

    #[test]
    fn a_row_asks_what_it_trains_on() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let talk = |said: &str| {
            json!([
                turn("user", "a"),
                turn("assistant", "b"),
                turn("user", "c"),
                turn("assistant", said)
            ])
        };
        let answer = |said: &str| json!([turn("assistant", said)]);
        let rows = [
            // UltraChat's.
            (
                RowKind::Instruction,
                json!({"prompt": "a", "prompt_id": "7", "messages": talk("d")}),
            ),
            (
                RowKind::Instruction,
                json!({"prompt": "a", "completion": "b", "messages": talk("d")}),
            ),
            (
                RowKind::Instruction,
                json!({"instruction": "a", "output": "b", "conversations": talk("d")}),
            ),
            (
                RowKind::Instruction,
                json!({"instruction": "a", "conversations": talk("d")}),
            ),
            (
                RowKind::Preference,
                json!({"instruction": "a", "conversations": talk("d"), "chosen": "d", "rejected": "e"}),
            ),
            (
                RowKind::Instruction,
                json!({"question": "a", "answer": "b", "prompt": "c"}),
            ),
            (
                RowKind::Instruction,
                json!({"prompt": "a", "completion": talk("d")}),
            ),
            (
                RowKind::Preference,
                json!({"prompt": "a", "system": "S", "chosen": talk("d"), "rejected": talk("e")}),
            ),
            (
                RowKind::Preference,
                json!({"question": "a", "chosen": answer("d"), "rejected": answer("e")}),
            ),
            (
                RowKind::Preference,
                json!({"prompt": [turn("user", "a")], "chosen": talk("d"), "rejected": talk("e")}),
            ),
            (
                RowKind::Preference,
                json!({"chosen": talk("d"), "rejected": talk("e"), "system": "S"}),
            ),
            (
                RowKind::Preference,
                json!({"prompt": "a", "chosen": "d", "rejected": "e"}),
            ),
        ];
        for (kind, row) in rows {
            let file = format!("{row}\n");
            let trained = rows::read(
                Path::new("p"),
                &source::parse(Path::new("p"), file.as_bytes()).unwrap(),
                kind,
            );
            assert_eq!(
                prompts("p", &file)[0].1,
                trained.unwrap().rows[0].prompt,
                "{row}"
            );
        }
        // Rows that cannot be trained on can still be prompts.
        let alone = |row: Value| prompts("p", &format!("{row}\n")).remove(0).1;
        let asked = Prompt::Messages(vec![Message::new(Role::User, "a")]);
        assert_eq!(alone(json!({"prompt": "a", "chosen": answer("d")})), asked);
        assert_eq!(
            alone(json!({"prompt": "a", "chosen": null, "rejected": answer("d")})),
            asked
        );
        assert_eq!(alone(json!({"prompt": "a", "completion": []})), text("a"));
        assert_eq!(
            alone(json!({"prompt": "a", "completion": ["b", "c"]})),
            text("a")
        );
        assert_eq!(
            alone(json!({"prompt": "a", "chosen": "x", "rejected": ["y", "z"]})),
            text("a")
        );
        assert_eq!(
            alone(json!({"prompt": "a", "chosen": [], "rejected": []})),
            text("a")
        );
        assert_eq!(
            alone(json!({"prompt": "x", "messages": [turn("user", "a")]})),
            asked
        );
    }

    #[test]
    fn several_files_are_counted_through() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = [
            "{\"prompt\": \"a\"}\n{\"prompt\": \"\"}",
            "b\nc",
            "{\"prompt\": \" \"}\n{\"prompt\": \"d\"}",
        ]
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let path = dir.path().join(index.to_string());
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
        let (rows, dropped) = read_files(&files, &ColumnMap::default()).unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.index, row.prompt.asked()))
            .collect();
        assert_eq!(
            found,
            [
                (0, "a".into()),
                (2, "b".into()),
                (3, "c".into()),
                (5, "d".into())
            ]
        );
        assert_eq!(
            dropped,
            [Dropped {
                reason: "empty prompt".into(),
                rows: vec![1, 4]
            }]
        );
    }

    #[test]
    fn what_is_no_prompt_is_named() {
        let complaint = |name: &str, text: &str| {
            read(Path::new(name), text.as_bytes(), &ColumnMap::default())
                .unwrap_err()
                .message
        };
        assert_eq!(complaint("stdin", " \n"), "stdin: no prompts");
        assert!(complaint("p.jsonl", "[INST] a").starts_with("p.jsonl: broken JSON in line 1"));
        assert!(
            complaint("p", "{\"prompt\": \"a\"}\n{\"reply\": \"b\"}")
                .contains("row 1 (line 2) is in no known dialect")
        );
        assert_eq!(
            complaint("p", "{\"prompt\": \" \"}"),
            "p: none of 1 rows has a prompt"
        );
        assert!(complaint("p", "{\"prompt\": 3}").contains("column prompt: expected text"));
    }
}

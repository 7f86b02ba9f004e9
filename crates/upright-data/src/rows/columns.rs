//! Renamed columns: `prompt=question,chosen=good`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use upright_base::suggest::nearest;
use upright_base::{Error, Result};

use super::columns;
use crate::dialects::dialects;
use crate::source::RawRow;

/// For columns of a dialect, the column of the file to use, or none. Empty: no column is renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnMap(Vec<(String, String)>);

impl ColumnMap {
    /// Whether no column is renamed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Renames the columns of every row to their dialect's names. A renamed column replaces a
    /// column of the same name.
    ///
    /// # Errors
    /// A row has no such column.
    pub fn apply(&self, path: &Path, rows: &mut [RawRow]) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        for row in rows {
            let named = || self.0.iter().filter(|(_, column)| !column.is_empty());
            if let Some((name, column)) =
                named().find(|(_, column)| !row.columns.contains_key(column))
            {
                let error = Error::input(format!(
                    "{}: {} has no column {column:?}, which is mapped to {name}: its columns are {}",
                    path.display(),
                    row.place(),
                    columns(&row.columns)
                ));
                return Err(
                    match nearest(column, row.columns.keys().map(String::as_str)) {
                        Some(close) => error.hint(format!("did you mean {name}={close}?")),
                        None => error.hint("use a column that every row has"),
                    },
                );
            }
            let values: Vec<_> = named()
                .map(|(_, column)| row.columns[column].clone())
                .collect();
            for (_, column) in named() {
                row.columns.shift_remove(column);
            }
            for (name, _) in self.0.iter().filter(|(_, column)| column.is_empty()) {
                row.columns.shift_remove(name);
            }
            for ((name, _), value) in named().zip(values) {
                row.columns.insert(name.clone(), value);
            }
        }
        Ok(())
    }
}

impl FromStr for ColumnMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut map: Vec<(String, String)> = Vec::new();
        let needed = |name: &str| {
            let mut dialects = dialects().iter();
            dialects.any(|dialect| dialect.needs.contains(&name))
        };
        let mut known: Vec<&str> = Vec::new();
        for dialect in dialects() {
            known.extend(dialect.columns());
        }
        known.sort_unstable();
        known.dedup();
        for entry in text.split(',') {
            let Some((name, column)) = entry
                .split_once('=')
                .map(|(name, column)| (name.trim(), column.trim()))
            else {
                return Err(Error::input(format!("`{entry}` is not NAME=COLUMN"))
                    .hint("write it like prompt=question,chosen=good"));
            };
            if !known.contains(&name) {
                let error = Error::input(format!("`{entry}`: no dialect has a column {name:?}"));
                return Err(match nearest(name, known.iter().copied()) {
                    Some(close) => error.hint(format!("did you mean {close}={column}?")),
                    None => error.hint(format!("the dialects' columns are {}", known.join(", "))),
                });
            }
            if (column.is_empty() && needed(name)) || map.iter().any(|(other, _)| other == name) {
                return Err(Error::input(format!("`{entry}`: {name} needs one column"))
                    .hint("name each column once"));
            }
            map.push((name.to_owned(), column.to_owned()));
        }
        Ok(Self(map))
    }
}

impl Serialize for ColumnMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl fmt::Display for ColumnMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> = self
            .0
            .iter()
            .map(|(name, column)| format!("{name}={column}"))
            .collect();
        f.write_str(&entries.join(","))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(values: &[serde_json::Value]) -> Vec<RawRow> {
        let row = |(index, value): (usize, &serde_json::Value)| RawRow {
            index,
            line: Some(index + 1),
            columns: value.as_object().unwrap().clone(),
        };
        values.iter().enumerate().map(row).collect()
    }

    #[test]
    fn columns_take_their_dialects_names() {
        let mut found =
            rows(&[json!({"question": "q", "good": "a", "rejected": "old", "bad": "b"})]);
        let map: ColumnMap = "prompt=question, chosen=good,rejected=bad".parse().unwrap();
        assert_eq!(map.to_string(), "prompt=question,chosen=good,rejected=bad");
        map.apply(Path::new("f"), &mut found).unwrap();
        assert_eq!(
            json!(found[0].columns),
            json!({"rejected": "b", "prompt": "q", "chosen": "a"})
        );
        let mut tools = rows(&[
            json!({"messages": [], "tools": "[]"}),
            json!({"messages": []}),
        ]);
        let map: ColumnMap = "tools=".parse().unwrap();
        map.apply(Path::new("f"), &mut tools).unwrap();
        assert_eq!(
            (json!(tools[0].columns), map.to_string().as_str()),
            (json!({"messages": []}), "tools=")
        );
        let mut swapped = rows(&[json!({"chosen": 1, "rejected": 2})]);
        "chosen=rejected,rejected=chosen"
            .parse::<ColumnMap>()
            .unwrap()
            .apply(Path::new("f"), &mut swapped)
            .unwrap();
        assert_eq!(
            json!(swapped[0].columns),
            json!({"chosen": 2, "rejected": 1})
        );
    }

    #[test]
    fn mistakes_name_the_columns_there_are() {
        let complaint = |map: &str| {
            let mut found = rows(&[json!({"question": "q", "b": 1}), json!({"quest": "q"})]);
            let error = map
                .parse::<ColumnMap>()
                .and_then(|map| map.apply(Path::new("f"), &mut found))
                .unwrap_err();
            format!("{} | {}", error.message, error.hint)
        };
        assert_eq!(
            complaint("prompt=qestion"),
            "f: row 0 (line 1) has no column \"qestion\", which is mapped to prompt: its columns are question, b | \
             did you mean prompt=question?"
        );
        assert!(complaint("prompt=question").starts_with("f: row 1 (line 2) has no column"));
        assert!(complaint("promt=question").contains("did you mean prompt=question?"));
        assert!(complaint("zebra=question").contains("the dialects' columns are answer, chosen,"));
        assert!(complaint("prompt").contains("is not NAME=COLUMN"));
        assert!(
            complaint("prompt=a,prompt=b").contains("needs one column")
                && complaint("prompt=").contains("one column")
        );
    }
}

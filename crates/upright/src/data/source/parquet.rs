//! Rows of a Parquet file, as JSON values.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

use super::RawRow;
use crate::{Error, Result};

/// Every row of a file's bytes; `path` is for messages.
pub(super) fn rows(path: &Path, bytes: Vec<u8>) -> Result<Vec<RawRow>> {
    let broken = |what: &str| {
        Error::input(format!("{}: not a Parquet file that can be read: {what}", path.display()))
            .hint("copy or download the file again, or convert it to JSON Lines (.jsonl)")
    };
    // The reader is careful, but a damaged file of its format has many ways to surprise it.
    let read = catch_unwind(AssertUnwindSafe(|| all(bytes)));
    let rows = match read {
        Ok(rows) => rows.map_err(|error| broken(&error.to_string()))?,
        Err(_) => return Err(broken("it is damaged")),
    };
    if rows.is_empty() {
        return Err(Error::input(format!("{}: the file has no rows", path.display())).hint(super::FORMATS));
    }
    Ok(rows.into_iter().enumerate().map(|(index, columns)| RawRow { index, line: None, columns }).collect())
}

fn all(bytes: Vec<u8>) -> parquet::errors::Result<Vec<Map<String, Value>>> {
    let size = bytes.len();
    let reader = SerializedFileReader::new(Bytes::from(bytes))?;
    // A few bytes can promise any number of equal rows. Rows that are worth training on take more than that.
    let metadata = reader.metadata().file_metadata();
    let (promised, most) = (metadata.num_rows(), 64 * size);
    if usize::try_from(promised).ok().is_none_or(|rows| rows > most) {
        return Err(ParquetError::General(format!("it promises {promised} rows in {size} bytes")));
    }
    let rows = reader.get_row_iter(None)?;
    let columns = |row: &Row| row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect();
    rows.map(|row| Ok(columns(&row?))).collect()
}

fn value(field: &Field) -> Value {
    let number = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(yes) => (*yes).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => number((*x).into()),
        Field::Double(x) => number(*x),
        Field::Str(text) => text.as_str().into(),
        // Text of writers that do not say that it is text.
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Group(row) => {
            Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect())
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let key = |field: &Field| match value(field) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(map.entries().iter().map(|(name, field)| (key(name), value(field))).collect())
        }
        // Dates and their like are no part of a dialect; a message can still show them.
        other => other.to_string().into(),
    }
}

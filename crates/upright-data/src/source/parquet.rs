//! Rows of a Parquet file, as JSON values.

use std::fmt::Display;
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Number, Value};

use super::{RawRow, parquet_pages};
use upright_base::{Error, Result, quiet};

/// The first `most` rows of a file's bytes, and whether there are more; `path` is for messages.
pub(super) fn rows(path: &Path, bytes: Vec<u8>, most: usize) -> Result<(Vec<RawRow>, bool)> {
    // The reader is careful, but a damaged file can still make it panic.
    let read = quiet::catch(|| first(path, bytes, most))
        .unwrap_or_else(|_| Err(broken(path, "it is damaged")));
    let (rows, more) = read?;
    if rows.is_empty() {
        return Err(
            Error::input(format!("{}: the file has no rows", path.display())).hint(super::FORMATS),
        );
    }
    let row = |(index, columns)| RawRow {
        index,
        line: None,
        columns,
    };
    Ok((rows.into_iter().enumerate().map(row).collect(), more))
}

fn broken(path: &Path, what: impl Display) -> Error {
    Error::input(format!(
        "{}: not a readable Parquet file: {what}",
        path.display()
    ))
    .hint("copy or download the file again, or convert it to JSON Lines (.jsonl)")
}

/// Columns of a row.
type Columns = Map<String, Value>;

fn first(path: &Path, bytes: Vec<u8>, most: usize) -> Result<(Vec<Columns>, bool)> {
    let wrong = |error: ParquetError| broken(path, error);
    let size = bytes.len();
    let bytes = Bytes::from(bytes);
    let reader = SerializedFileReader::new(bytes.clone()).map_err(wrong)?;
    // A few bytes can claim any number of equal rows. Rows that are worth training on take more
    // space.
    let metadata = reader.metadata().file_metadata();
    let promised = metadata.num_rows();
    if usize::try_from(promised)
        .ok()
        .is_none_or(|rows| rows > 64 * size)
    {
        return Err(broken(
            path,
            format!("it claims {promised} rows in {size} bytes"),
        ));
    }
    let limit = if super::is_unpack_all() {
        usize::MAX
    } else {
        FLOOR + MOST_TIMES * size
    };
    let unpack_too_much = || {
        let what = format!("its {size} bytes unpack to more than {MOST_TIMES} times as many");
        broken(path, what).hint(super::UNPACK_ALL_HINT)
    };
    match parquet_pages::largest(reader.metadata(), &bytes) {
        None => return Err(broken(path, "the header of a page is damaged")),
        Some(largest) if largest > limit as u64 => return Err(unpack_too_much()),
        Some(_) => {}
    }
    let (mut rows, mut held) = (Vec::new(), 0);
    for row in reader.get_row_iter(None).map_err(wrong)? {
        if rows.len() == most {
            return Ok((rows, true));
        }
        let mut columns = Columns::new();
        for (name, field) in row.map_err(wrong)?.get_column_iter() {
            let value = value(field).ok_or_else(|| {
                Error::input(format!(
                    "{}: row {}: column {name:?} is not UTF-8",
                    path.display(),
                    rows.len()
                ))
                .hint("save the texts of the column as UTF-8")
            })?;
            columns.insert(name.clone(), value);
        }
        held += columns.values().map(weight).sum::<usize>();
        if held > limit {
            return Err(unpack_too_much());
        }
        rows.push(columns);
    }
    Ok((rows, false))
}

/// Maximum ratio of the size of a file's texts to the size of the file: about what gzip can do. A
/// text that every row repeats is stored once, so a small file could fill any memory.
const MOST_TIMES: usize = 1000;
/// Size in bytes that is allowed for the texts of a file of any size.
const FLOOR: usize = 16 << 20;

/// Approximate size of a value, in bytes.
fn weight(value: &Value) -> usize {
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(fields) => fields.values().map(weight).sum(),
        _ => 0,
    }
}

/// A field as JSON; `None` if it holds bytes that are not UTF-8.
fn value(field: &Field) -> Option<Value> {
    let number = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    Some(match field {
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
        // Text from writers that do not mark it as text.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).ok()?.into(),
        // Every row has the fields of all rows; null means that this row does not have the field.
        Field::Group(row) => {
            let own = row
                .get_column_iter()
                .filter(|(_, field)| !matches!(field, Field::Null));
            Value::Object(
                own.map(|(name, field)| Some((name.clone(), value(field)?)))
                    .collect::<Option<_>>()?,
            )
        }
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(value).collect::<Option<_>>()?)
        }
        Field::MapInternal(map) => {
            let mut fields = Columns::new();
            for (key, field) in map.entries() {
                let key = match value(key)? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                fields.insert(key, value(field)?);
            }
            Value::Object(fields)
        }
        // Dates and similar types are not part of a dialect; a message can still show them.
        other => other.to_string().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::{Compression, GzipLevel};
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    use parquet::schema::parser::parse_message_type;
    use serde_json::json;

    use super::*;

    /// A file with one text, repeated `times` times.
    fn repeated(text: usize, times: usize) -> Vec<u8> {
        repeated_with(text, times, WriterProperties::default())
    }

    fn repeated_with(text: usize, times: usize, properties: WriterProperties) -> Vec<u8> {
        let schema = parse_message_type("message rows { required binary prompt (UTF8); }").unwrap();
        let mut bytes = Vec::new();
        let mut file =
            SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties)).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = vec![ByteArray::from("x".repeat(text).into_bytes()); times];
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
        bytes
    }

    #[test]
    fn fields_that_only_other_rows_have_are_not_there() {
        let schema = "message rows { optional binary note (UTF8); optional group call { optional binary name (UTF8); \
                      optional group arguments { optional binary city (UTF8); optional int64 days; } } }";
        let mut bytes = Vec::new();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut file =
            SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::default()))
                .unwrap();
        let mut group = file.next_row_group().unwrap();
        // The definition levels of the two rows: that of the text, or of what is above it.
        for (texts, depths) in [(&[][..], [0, 0]), (&["f"], [2, 1]), (&["X"], [3, 2])] {
            let mut column = group.next_column().unwrap().unwrap();
            let texts: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&texts, Some(&depths), None)
                .unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(&[2], Some(&[2, 3]), None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
        let found = rows(Path::new("x.parquet"), bytes, usize::MAX).unwrap().0;
        assert_eq!(
            json!(found[0].columns),
            json!({"note": null, "call": {"name": "f", "arguments": {"city": "X"}}})
        );
        assert_eq!(
            json!(found[1].columns),
            json!({"note": null, "call": {"arguments": {"days": 2}}})
        );
    }

    #[test]
    fn a_small_file_does_not_fill_the_memory() {
        let path = Path::new("x.parquet");
        let fine = repeated(1000, 2000);
        assert!(fine.len() < 10_000);
        assert_eq!(rows(path, fine.clone(), usize::MAX).unwrap().0.len(), 2000);
        let (few, more) = rows(path, fine, 3).unwrap();
        assert_eq!((few.len(), more), (3, true));
        let bomb = repeated(20_000, 4000);
        let error = rows(path, bomb.clone(), usize::MAX).unwrap_err();
        assert!(
            error
                .message
                .contains("unpack to more than 1000 times as many"),
            "{error}"
        );
        assert!(error.hint.contains("--unpack-all"), "{error:?}");
        assert_eq!(rows(path, bomb, 3).unwrap().0.len(), 3);
    }

    /// The first header is the dictionary page's: its type, then its unpacked size, here 2 MB in
    /// four bytes.
    #[test]
    fn a_page_cannot_promise_more_than_the_file_could_hold() {
        let gzip = Compression::GZIP(GzipLevel::default());
        let properties = WriterProperties::builder().set_compression(gzip).build();
        let mut bytes = repeated_with(2_000_000, 2, properties);
        let path = Path::new("x.parquet");
        assert_eq!(rows(path, bytes.clone(), 1).unwrap().0.len(), 1);
        assert_eq!(bytes[4..7], [0x15, 4, 0x15]);
        bytes[7..11].copy_from_slice(&[0xfe, 0xff, 0xff, 0x7f]);
        let error = rows(path, bytes, 1).unwrap_err();
        assert!(
            error.message.contains("unpack to more than 1000 times"),
            "{error}"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let schema =
            Arc::new(parse_message_type("message rows { required binary prompt; }").unwrap());
        let mut bytes = Vec::new();
        let mut file =
            SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::default()))
                .unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = [
            ByteArray::from("Zoë"),
            ByteArray::from(b"\xff\xfea".to_vec()),
        ];
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
        let path = Path::new("x.parquet");
        let (found, _) = rows(path, bytes.clone(), 1).unwrap();
        assert_eq!(found[0].columns["prompt"], "Zoë");
        let error = rows(path, bytes, usize::MAX).unwrap_err();
        assert_eq!(
            error.message,
            "x.parquet: row 1: column \"prompt\" is not UTF-8"
        );
    }
}

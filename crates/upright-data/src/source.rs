//! Files of rows: JSON and JSON Lines, plain or gzipped, and Parquet. The content decides which,
//! not the name.

mod parquet;
mod parquet_pages;

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};

use super::sha256_hex;
use upright_base::{Error, Result, files};

/// One object of a file, not yet parsed as a row.
#[derive(Clone, Debug, PartialEq)]
pub struct RawRow {
    /// Zero-based number of the row in its file.
    pub index: usize,
    /// One-based line on which the row starts; `None` where rows are elements of one JSON list.
    pub line: Option<usize>,
    /// Its columns, in the file's order.
    pub columns: Map<String, Value>,
}

impl RawRow {
    /// Where the row is, for messages: `row 3 (line 4)`.
    pub fn place(&self) -> String {
        place(self.index, self.line)
    }
}

/// `row 3 (line 4)`: rows count from 0 as in every output of the program, lines from 1 as in editors.
pub(super) fn place(index: usize, line: Option<usize>) -> String {
    line.map_or_else(
        || format!("row {index}"),
        |line| format!("row {index} (line {line})"),
    )
}

/// A file's rows and its identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The rows in file order, at least one.
    pub rows: Vec<RawRow>,
    /// SHA-256 of the file's bytes on disk.
    pub sha256: String,
    /// Whether the file may have further rows.
    pub more: bool,
}

const FORMATS: &str = "rows must be in a local file: .json (a list of objects), .jsonl or .ndjson, each also as .gz, or .parquet";
const REFUSED: [&str; 10] = [
    "csv", "tsv", "arrow", "feather", "xlsx", "pkl", "zip", "zst", "xz", "bz2",
];

/// Unpacked size in bytes that is allowed for a compressed file of any size.
const UNPACKED_FLOOR: usize = 64_000_000;

/// Maximum ratio of unpacked to compressed size of a larger file. Text rarely reaches 20.
const UNPACKED_TIMES: usize = 100;

/// Whether compressed files are read whatever their unpacked size.
static UNPACK_ALL: AtomicBool = AtomicBool::new(false);

/// Allows compressed files of any unpacked size from now on: the user trusts them, and has the
/// memory.
pub fn unpack_all() {
    UNPACK_ALL.store(true, Ordering::Relaxed);
}

fn is_unpack_all() -> bool {
    UNPACK_ALL.load(Ordering::Relaxed)
}

const UNPACK_ALL_HINT: &str = "if you trust the file and have the memory, use --unpack-all";

/// Reads every row of a JSON or JSON Lines file, gzipped or not, or of a Parquet file.
///
/// # Errors
/// The file is missing, a folder, empty, truncated, not UTF-8, not JSON, or not objects; the
/// message says where.
pub fn read(path: &Path) -> Result<Source> {
    read_first(path, usize::MAX)
}

/// Reads the first `most` rows of a file. Reads no more than these from JSON Lines and Parquet.
///
/// # Errors
/// As for [`read`].
pub fn read_first(path: &Path, most: usize) -> Result<Source> {
    let bytes = bytes(path)?;
    let (rows, more) = parse_first(path, &bytes, most)?;
    Ok(Source {
        rows,
        sha256: sha256_hex(&bytes),
        more,
    })
}

/// The bytes of a file, unless its name is that of an unsupported format.
///
/// # Errors
/// The file is missing, a folder, or of an unsupported format.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    refuse_by_name(path)?;
    files::read(path).map_err(|error| {
        let name = path.display();
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            _ if path.is_dir() => "is a folder, not a file of rows".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        Error::input(format!("{name}: {what}")).hint(FORMATS)
    })
}

fn refuse_by_name(path: &Path) -> Result<()> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let extension = name
        .strip_suffix(".gz")
        .unwrap_or(&name)
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension);
    if REFUSED.contains(&extension) {
        return Err(unreadable_format(path, extension));
    }
    Ok(())
}

fn unreadable_format(path: &Path, format: &str) -> Error {
    Error::input(format!(
        "{}: .{format} files are not supported",
        path.display()
    ))
    .hint("convert it to JSON Lines (.jsonl): one object per line, one key per column")
}

/// The rows in a file's bytes; `path` is for messages, and decides between two possible errors.
///
/// # Errors
/// As for [`read`].
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<RawRow>> {
    parse_first(path, bytes, usize::MAX).map(|(rows, _)| rows)
}

/// The first `most` rows, and whether there may be more.
fn parse_first(path: &Path, bytes: &[u8], most: usize) -> Result<(Vec<RawRow>, bool)> {
    let name = path.display();
    let bytes = unpacked_first(path, bytes, most)?;
    let text = match format(&bytes) {
        Format::Parquet => return parquet::rows(path, bytes.into_owned(), most),
        Format::Text => text(path, &bytes)?,
    };
    let mut rows = match text.trim_start().bytes().next() {
        None => return Err(Error::input(format!("{name}: the file is empty")).hint(FORMATS)),
        Some(b'{') => by_lines_or_values(path, text, most)?,
        Some(b'[') => by_values(path, text)?,
        Some(_) => {
            let line = line_of(text.as_bytes(), text.len() - text.trim_start().len());
            return Err(Error::input(format!(
                "{name}: line {line} is not JSON: it starts with neither {{ nor ["
            ))
            .hint(FORMATS));
        }
    };
    if rows.is_empty() {
        return Err(Error::input(format!("{name}: the list of rows is empty")).hint(FORMATS));
    }
    let more = rows.len() >= most;
    rows.truncate(most);
    Ok((rows, more))
}

/// Format of a file, by its first bytes.
pub(super) enum Format {
    /// Columns of Apache Parquet.
    Parquet,
    /// JSON, JSON Lines, or lines of plain text.
    Text,
}

/// Format of unpacked bytes.
pub(super) fn format(bytes: &[u8]) -> Format {
    if bytes.starts_with(b"PAR1") {
        Format::Parquet
    } else {
        Format::Text
    }
}

/// Unpacks bytes if they are gzipped.
pub(super) fn unpacked<'b>(path: &Path, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>> {
    unpacked_first(path, bytes, usize::MAX)
}

/// Like [`unpacked`]; of JSON Lines, unpacks only as much as the first `most` rows take.
fn unpacked_first<'b>(path: &Path, bytes: &'b [u8], most: usize) -> Result<Cow<'b, [u8]>> {
    Ok(if bytes.starts_with(&[0x1f, 0x8b]) {
        Cow::Owned(unpack(path, bytes, most)?)
    } else {
        Cow::Borrowed(bytes)
    })
}

/// Bytes as text, without a byte-order mark.
pub(super) fn text<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let (name, line) = (path.display(), line_of(bytes, offset));
        Error::input(format!("{name}: not UTF-8 at byte {offset} (line {line})"))
            .hint("save the file as UTF-8")
    })
}

fn unpack(path: &Path, bytes: &[u8], most: usize) -> Result<Vec<u8>> {
    const CHUNK: u64 = 1 << 20;
    let name = path.display();
    let limit = if is_unpack_all() {
        usize::MAX
    } else {
        UNPACKED_FLOOR.max(bytes.len() * UNPACKED_TIMES)
    };
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut unpacked = Vec::new();
    let mut lines = Lines::default();
    loop {
        let read = (&mut decoder)
            .take(CHUNK)
            .read_to_end(&mut unpacked)
            .map_err(|error| {
                let (what, hint) = match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        ("is truncated".to_owned(), "copy or download the file again")
                    }
                    std::io::ErrorKind::OutOfMemory => (
                        "does not fit into memory".to_owned(),
                        "split the file, or use --rows to read only its first rows",
                    ),
                    _ => (
                        format!("is damaged ({error})"),
                        "copy or download the file again",
                    ),
                };
                let after = unpacked_len(bytes);
                Error::input(format!(
                    "{name}: the gzip stream {what} after {after} bytes of text"
                ))
                .hint(hint)
            })?;
        // One line more than requested shows that the file is not one list in its first line.
        if read == 0 || lines.end_of(&unpacked, most.saturating_add(1)).is_some() {
            break;
        }
        if unpacked.len() > limit {
            return Err(Error::input(format!(
                "{name}: its {} bytes unpack to more than {} MB, at least {} times as many",
                bytes.len(),
                limit / 1_000_000,
                unpacked.len() / bytes.len()
            ))
            .hint(UNPACK_ALL_HINT));
        }
    }
    if let Some(end) = lines.end {
        unpacked.truncate(end);
    }
    Ok(unpacked)
}

/// Counts rows of JSON Lines in a text that grows.
#[derive(Default)]
struct Lines {
    /// Bytes of the counted lines.
    seen: usize,
    rows: usize,
    /// End of the requested rows.
    end: Option<usize>,
    /// Whether the first row is not a JSON value on one line.
    other: bool,
}

impl Lines {
    /// End of the first `wanted` rows; `None` if there are fewer, or the text is not JSON Lines.
    fn end_of(&mut self, text: &[u8], wanted: usize) -> Option<usize> {
        if wanted == usize::MAX {
            return None;
        }
        while !self.other && self.end.is_none() {
            let length = text[self.seen..].iter().position(|&byte| byte == b'\n')?;
            let line = text[self.seen..self.seen + length].trim_ascii();
            if self.rows == 0 && !line.is_empty() {
                let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
                self.other = !line.starts_with(b"{")
                    || serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err();
            }
            self.rows += usize::from(!line.is_empty());
            self.seen += length + 1;
            self.end = (self.rows >= wanted).then_some(self.seen);
        }
        self.end
    }
}

/// Number of bytes that unpack from a broken gzip stream before it breaks.
fn unpacked_len(bytes: &[u8]) -> u64 {
    let mut decoder = MultiGzDecoder::new(bytes);
    let (mut buffer, mut total) = ([0; 8192], 0);
    while let Ok(read @ 1..) = decoder.read(&mut buffer) {
        total += read as u64;
    }
    total
}

/// JSON Lines if the first line is a whole value, else values wherever they end (a list, or objects
/// over several lines).
fn by_lines_or_values(path: &Path, text: &str, most: usize) -> Result<Vec<RawRow>> {
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let (first_index, first) = lines.next().expect("the text is not blank");
    match serde_json::from_str::<Value>(first) {
        Ok(value) if lines.next().is_none() => rows_of(path, vec![(Some(first_index + 1), value)]),
        Ok(_) => by_lines(path, text, most),
        Err(error) => by_values(path, text).map_err(|whole| {
            // The name says which of the two the writer meant, and so which error helps.
            let name = path.to_string_lossy().to_lowercase();
            let lines_meant = name.contains(".jsonl") || name.contains(".ndjson");
            if lines_meant {
                broken(path, first_index + 1, &error)
            } else {
                whole
            }
        }),
    }
}

fn by_lines(path: &Path, text: &str, most: usize) -> Result<Vec<RawRow>> {
    let mut rows = Vec::new();
    for (line, content) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .take(most)
    {
        let value =
            serde_json::from_str(content).map_err(|error| broken(path, line + 1, &error))?;
        rows.push(row(path, rows.len(), Some(line + 1), value)?);
    }
    Ok(rows)
}

fn by_values(path: &Path, text: &str) -> Result<Vec<RawRow>> {
    let mut values = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let (mut line, mut counted) = (1, 0);
    loop {
        let start = stream.byte_offset();
        let start = start + (text.len() - start - text[start..].trim_start().len());
        let Some(value) = stream.next() else { break };
        let value = value.map_err(|error| broken(path, error.line(), &error))?;
        line += text[counted..start].matches('\n').count();
        counted = start;
        values.push((Some(line), value));
    }
    rows_of(path, values)
}

/// Values of a file that is not JSON Lines: one list of rows, `{"data": [rows]}`, or the rows themselves.
fn rows_of(path: &Path, mut values: Vec<(Option<usize>, Value)>) -> Result<Vec<RawRow>> {
    if let [(_, only)] = values.as_mut_slice() {
        let list = match only {
            Value::Array(list) => Some(list),
            Value::Object(columns) => columns.get_mut("data").and_then(Value::as_array_mut),
            _ => None,
        };
        if let Some(list) = list {
            return std::mem::take(list)
                .into_iter()
                .enumerate()
                .map(|(index, value)| row(path, index, None, value))
                .collect();
        }
    }
    values
        .into_iter()
        .enumerate()
        .map(|(index, (line, value))| row(path, index, line, value))
        .collect()
}

fn row(path: &Path, index: usize, line: Option<usize>, value: Value) -> Result<RawRow> {
    match value {
        Value::Object(columns) => Ok(RawRow {
            index,
            line,
            columns,
        }),
        other => Err(Error::input(format!(
            "{}: {} is {}, not an object with named columns",
            path.display(),
            place(index, line),
            type_name(&other)
        ))
        .hint("a row looks like {\"prompt\": \"…\", \"completion\": \"…\"}")),
    }
}

/// Type of a JSON value, for messages.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn broken(path: &Path, line: usize, error: &serde_json::Error) -> Error {
    let name = path.display();
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _)| message);
    if message.contains("recursion limit") {
        return Error::input(format!(
            "{name}: line {line} is nested more than 127 levels deep"
        ))
        .hint("a row is an object of texts or lists of messages: three levels");
    }
    Error::input(format!(
        "{name}: broken JSON in line {line}, column {}: {message}",
        error.column()
    ))
    .hint("each row is one object in double-quoted JSON; in .jsonl, one row per line")
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    1 + bytes[..offset]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gz(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn rows(name: &str, bytes: impl AsRef<[u8]>) -> Vec<RawRow> {
        parse(Path::new(name), bytes.as_ref()).unwrap()
    }

    fn complaint(name: &str, bytes: impl AsRef<[u8]>) -> String {
        let error = parse(Path::new(name), bytes.as_ref()).unwrap_err();
        assert!(!error.hint.is_empty());
        error.message
    }

    fn values(rows: &[RawRow]) -> Vec<i64> {
        rows.iter()
            .map(|row| row.columns["a"].as_i64().unwrap())
            .collect()
    }

    #[test]
    fn every_form_gives_the_same_rows_whatever_the_name() {
        let forms = [
            "[{\"a\": 1}, {\"a\": 2}]",
            "{\"data\": [{\"a\": 1}, {\"a\": 2}]}",
            "{\n  \"data\": [\n{\"a\": 1}, {\"a\": 2}]}",
            "{\"a\": 1}\n{\"a\": 2}\n",
            "\u{feff}\n{\"a\": 1}\r\n\r\n  \n{\"a\": 2}",
            "{\n \"a\": 1\n}\n{\n \"a\": 2\n}\n",
        ];
        for form in forms {
            for name in ["x.json", "x.jsonl", "x.ndjson.gz", "x"] {
                assert_eq!(values(&rows(name, form)), [1, 2], "{form:?} as {name}");
                assert_eq!(
                    values(&rows(name, gz(form))),
                    [1, 2],
                    "{form:?} gzipped as {name}"
                );
            }
        }
    }

    #[test]
    fn rows_know_their_index_and_line() {
        let found = rows("x.jsonl", "\n{\"a\": 1}\n\n{\"a\": 2}\n");
        assert_eq!(
            (found[1].index, found[1].line, found[1].place().as_str()),
            (1, Some(4), "row 1 (line 4)")
        );
        let found = rows("x.json", "{\n\"a\": 1\n}\n\n{\n\"a\": 2}");
        assert_eq!((found[0].line, found[1].line), (Some(1), Some(5)));
        assert_eq!(rows("x.json", "[{\"a\": 1}]")[0].place(), "row 0");
    }

    #[test]
    fn one_object_is_one_row() {
        assert_eq!(values(&rows("x.json", "{\n\"a\": 1\n}")), [1]);
        assert_eq!(
            values(&rows("x.jsonl", "{\"a\": 1, \"data\": \"text\"}")),
            [1]
        );
    }

    #[test]
    fn complaints_name_file_line_and_column() {
        assert_eq!(complaint("x.jsonl", ""), "x.jsonl: the file is empty");
        assert_eq!(
            complaint("x.jsonl", " \n\u{a0}\n"),
            "x.jsonl: the file is empty"
        );
        assert_eq!(complaint("x.jsonl", gz("")), "x.jsonl: the file is empty");
        assert_eq!(
            complaint("x.json", "[]"),
            "x.json: the list of rows is empty"
        );
        assert_eq!(
            complaint("x.jsonl", b"{\"a\": 1}\n{\"a\": \"\xff\"}"),
            "x.jsonl: not UTF-8 at byte 16 (line 2)"
        );
        assert_eq!(
            complaint("x.jsonl", "{\"a\": 1}\n\n{\"a\": }\n"),
            "x.jsonl: broken JSON in line 3, column 7: expected value"
        );
        assert!(
            complaint("x.jsonl", "{\"a\": \n{\"a\": 2}")
                .starts_with("x.jsonl: broken JSON in line 1, column 6:")
        );
        assert!(
            complaint("x.json", "[{\"a\": 1},\n{\"a\" 2}]")
                .starts_with("x.json: broken JSON in line 2, column 6:")
        );
        assert_eq!(
            complaint("x.jsonl", "{\"a\": 1}\n[1]"),
            "x.jsonl: row 1 (line 2) is a list, not an object with named columns"
        );
        assert_eq!(
            complaint("x.json", "[{}, 7]"),
            "x.json: row 1 is a number, not an object with named columns"
        );
        assert_eq!(
            complaint("x.json", "\nprompt;answer"),
            "x.json: line 2 is not JSON: it starts with neither { nor ["
        );
        let deep = format!("{{\"a\": 1}}\n{{\"a\": {}", "[".repeat(100_000));
        assert_eq!(
            complaint("x.jsonl", deep),
            "x.jsonl: line 2 is nested more than 127 levels deep"
        );
        assert_eq!(
            complaint("x.json", "[".repeat(100_000)),
            "x.json: line 1 is nested more than 127 levels deep"
        );
        let whole = gz(&"{\"a\": 1}\n".repeat(50));
        assert!(
            complaint("x.jsonl.gz", &whole[..whole.len() - 9])
                .contains("the gzip stream is truncated after")
        );
        let mut damaged = whole;
        damaged[12] ^= 0xff;
        assert!(complaint("x.jsonl.gz", damaged).contains("the gzip stream is "));
    }

    #[test]
    fn other_formats_are_refused_by_name_or_content() {
        let refused = |path: &str| read(Path::new(path)).unwrap_err();
        assert_eq!(
            refused("rows.arrow").message,
            "rows.arrow: .arrow files are not supported"
        );
        assert!(refused("rows.CSV.gz").hint.contains("JSON Lines"));
        assert!(
            complaint("x.jsonl", b"PAR1\0\0").starts_with("x.jsonl: not a readable Parquet file: ")
        );
    }

    #[test]
    fn files_are_read_with_their_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        let missing = read(&path).unwrap_err();
        assert!(
            missing.message.ends_with("x.jsonl: no such file") && missing.hint.contains(".jsonl")
        );
        assert!(
            read(dir.path())
                .unwrap_err()
                .message
                .ends_with("is a folder, not a file of rows")
        );
        std::fs::write(&path, "{\"a\": 1}\n").unwrap();
        let source = read(&path).unwrap();
        assert_eq!(values(&source.rows), [1]);
        assert_eq!(
            source.sha256,
            "e8c628edc9968ef0c668f54e0ba2636b35503357eb1aca0ddc828aeace432f67"
        );
    }

    #[test]
    fn no_more_rows_are_read_than_are_wanted() {
        let first = |bytes: &[u8], most| {
            let (rows, more) = parse_first(Path::new("x.jsonl"), bytes, most).unwrap();
            (values(&rows), more)
        };
        let broken = "\n{\"a\": 1}\n\n{\"a\": 2}\n{\"a\": 3}\n{\"a\"";
        for bytes in [broken.as_bytes().to_vec(), gz(broken)] {
            assert_eq!(first(&bytes, 1), (vec![1], true));
            assert_eq!(first(&bytes, 2), (vec![1, 2], true));
        }
        let list = "{\"data\": [{\"a\": 1}, {\"a\": 2}]}\n";
        assert_eq!(first(&gz(list), 1), (vec![1], true));
        assert_eq!(first(&gz(list), 3), (vec![1, 2], false));
        assert_eq!(first(&gz("{\n\"a\": 1}\n{\n\"a\": 2}"), 1), (vec![1], true));
        assert_eq!(
            first(&gz("[\n{\"a\": 1},\n{\"a\": 2}]"), 1),
            (vec![1], true)
        );
    }

    #[test]
    fn a_compressed_file_does_not_fill_the_memory() {
        let row = "{\"a\": 1}\n";
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(row.repeat(2).as_bytes()).unwrap();
        for _ in 0..66 {
            encoder.write_all(&[b'\n'; 1_000_000]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let error = parse(Path::new("x.jsonl.gz"), &bomb).unwrap_err();
        assert!(
            error
                .message
                .contains("bytes unpack to more than 64 MB, at least "),
            "{error}"
        );
        assert!(error.hint.contains("--unpack-all"), "{error:?}");
        assert_eq!(
            values(&parse_first(Path::new("x.jsonl.gz"), &bomb, 1).unwrap().0),
            [1]
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Path::new("x.json"), &bytes);
            let mut gzipped = vec![0x1f, 0x8b, 8, 0];
            gzipped.extend(&bytes);
            let _ = parse(Path::new("x.jsonl"), &gzipped);
        }

        #[test]
        fn json_like_text_never_panics(text in r#"[\{\}\[\]",:a0 \n\\é]{0,60}"#) {
            let _ = parse(Path::new("x.jsonl"), text.as_bytes());
            let _ = parse(Path::new("x.json"), text.as_bytes());
        }
    }
}

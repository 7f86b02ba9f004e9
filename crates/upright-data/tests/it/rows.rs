//! Files of rows as users have them, and damaged files, which never cause a panic.

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::json;
use upright_data::{ColumnMap, RowKind, conversation, prompts, rows, source};

const PARQUET: [&str; 5] = ["none", "snappy", "gzip", "zstd", "lz4"];

fn parquet(compression: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/it/parquet/pairs-{compression}.parquet"))
}

#[test]
fn parquet_rows_are_read_in_every_compression() {
    let mut hashes = Vec::new();
    for compression in PARQUET {
        let path = parquet(compression);
        let source = source::read(&path).unwrap();
        let read = rows::read(&path, &source.rows, RowKind::Preference).unwrap();
        assert_eq!(
            (read.dialect, read.rows.len()),
            ("prompt-chosen-rejected", 5),
            "{compression}"
        );
        assert_eq!(read.unread, ["score", "note"]);
        let row = &read.rows[3];
        let asked = conversation::Message::new(conversation::Role::User, "Question 3, é?");
        assert_eq!(row.prompt, conversation::Prompt::Messages(vec![asked]));
        assert_eq!(
            [&row.responses[0].content, &row.responses[1].content],
            ["Good 3.", "Bad 3."]
        );
        assert_eq!(
            (
                source.rows[3].place().as_str(),
                &source.rows[3].columns["score"]
            ),
            ("row 3", &json!(1.5))
        );
        hashes.push(source.sha256);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), PARQUET.len());
}

/// Found by a fuzzer: 4 KB whose page header claims 1.4 GB, in a number of 55 bits that a lenient
/// reader truncates to 32.
#[test]
fn a_damaged_page_header_is_refused_before_its_page_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/parquet/page-size.parquet");
    let error = source::read(&path).unwrap_err();
    assert!(
        error.message.contains("the header of a page is damaged"),
        "{error}"
    );
}

fn read_everything(name: &str, bytes: &[u8]) {
    let path = Path::new(name);
    let _ = prompts::read(path, bytes, &ColumnMap::default());
    let Ok(raw) = source::parse(path, bytes) else {
        return;
    };
    for kind in [
        RowKind::Instruction,
        RowKind::Preference,
        RowKind::Chosen,
        RowKind::Prompt,
    ] {
        let _ = rows::read(path, &raw, kind);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_files_never_panic(
        which in 0..PARQUET.len() + 2, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = match PARQUET.get(which) {
            Some(compression) => fs::read(parquet(compression)).unwrap(),
            None => {
                let text = "{\"prompt\": [{\"role\": \"user\", \"content\": \"é\"}], \"chosen\": \"a\", \"rejected\": \"b\"}\n".repeat(3);
                if which == PARQUET.len() { text.into_bytes() } else { gzip(text.as_bytes()) }
            }
        };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_everything("f", &bytes);
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

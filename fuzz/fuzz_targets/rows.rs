//! Rows of training data: the input is a whole file of JSON, JSON Lines or Parquet, gzipped or not.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use upright_data::rows::{self, ColumnMap, RowKind};
use upright_data::{prompts, source};

fuzz_target!(|file: &[u8]| {
    let path = Path::new("rows.jsonl");
    if let Ok(raw) = source::parse(path, file) {
        for kind in [RowKind::Instruction, RowKind::Preference, RowKind::Chosen] {
            let _ = rows::read(path, &raw, kind);
        }
    }
    let _ = prompts::read(path, file, &ColumnMap::default());
});

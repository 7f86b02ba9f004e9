//! Rows of training data: the input is a whole file of JSON, JSON Lines or Parquet, gzipped or not.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use upright::data::rows::{self, ColumnMap, Kind};
use upright::data::{prompts, source};

fuzz_target!(|file: &[u8]| {
    let path = Path::new("rows.jsonl");
    if let Ok(raw) = source::parse(path, file) {
        for kind in [Kind::Instruction, Kind::Preference, Kind::Chosen] {
            let _ = rows::read(path, &raw, kind);
        }
    }
    let _ = prompts::read(path, file, &ColumnMap::default());
});

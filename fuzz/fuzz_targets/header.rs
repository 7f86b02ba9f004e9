//! The header of a safetensors file: the input is a whole file.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let _ = upright_model::weights::check_header(Path::new("model.safetensors"), file);
});

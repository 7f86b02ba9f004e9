//! `adapter_config.json` of a PEFT folder: the input is the file, beside whole tensors.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use upright_fuzz::{repository, scratch};
use upright_model::config::DecoderConfig;
use upright_model::peft::{self, CONFIG_FILE, TENSOR_FILE};

struct Setup {
    folder: PathBuf,
    config: DecoderConfig,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let model = repository("crates/upright-engine/tests/golden/llama");
    let config = DecoderConfig::read(&model).expect("a model's config");
    let adapter = model.join("adapter");
    peft::read(&adapter, &config).expect("an adapter");
    let folder = scratch();
    fs::copy(adapter.join(TENSOR_FILE), folder.join(TENSOR_FILE)).expect("tensors");
    Setup { folder, config }
});

fuzz_target!(|file: &[u8]| {
    let Setup { folder, config } = &*SETUP;
    fs::write(folder.join(CONFIG_FILE), file).expect("a config's file");
    let _ = peft::read_base(folder);
    let _ = peft::read(folder, config);
});

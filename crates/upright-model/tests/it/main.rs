//! Foreign files cannot make the engine allocate more memory than they justify: whatever a config,
//! an index, a header or an adapter's config says, reading it ends in a value or an error, and
//! takes little memory.

#![allow(
    unsafe_code,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    path::Path,
};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use upright_model::{config::DecoderConfig, peft, weights::Weights};

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// Counts the bytes that the thread holds.
struct Counting;

fn count(change: impl Fn(usize) -> usize) {
    // A thread that exits frees memory after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(change(held.get()));
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain cells of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|held| held + layout.size());
        // SAFETY: the caller guarantees what the system's allocator requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|held| held.saturating_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Maximum memory for reading a file of a few kilobytes: a model of 4,096 blocks has names of that
/// size, and a regular expression may compile to 10 MB.
const MOST_BYTES: usize = 64 << 20;

fn held_by(read: impl FnOnce()) -> usize {
    let before = HELD.with(Cell::get);
    MOST.with(|most| most.set(before));
    read();
    MOST.with(Cell::get) - before
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../upright-engine/tests/golden")
        .join(name)
}

fn object(path: &Path) -> Map<String, Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Malicious values for a size, a list, a name or a pattern.
fn hostile() -> impl Strategy<Value = Value> {
    let texts = vec![
        "",
        "all-linear",
        "lora",
        ".*",
        "(",
        "((((((((((a?){40}){40}){40}){40}){40}){40}){40}",
        "(a*)*(b*)*c$",
        "\\1",
        "(?=(x+x+)+y)",
        "[\\w.]{1,99999}",
        "\u{0}",
        "../../x",
        "q_proj",
        "^.*$|(?!x)",
    ];
    let leaf = prop_oneof![
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(1),
            json!(65_536),
            json!(1 << 20)
        ]),
        prop::sample::select(vec![
            json!(1_u64 << 31),
            json!(1_u64 << 33),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e308)
        ]),
        prop::sample::select(texts).prop_map(Value::from),
        "\\PC{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[a-z_.*()0-9]{0,12}", inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Writes an object with some keys changed.
fn spoil(path: &Path, mut object: Map<String, Value>, changes: &[(String, Value)]) {
    object.extend(changes.iter().cloned());
    fs::write(path, Value::Object(object).to_string()).unwrap();
}

fn changes(from: &Path) -> impl Strategy<Value = Vec<(String, Value)>> + use<> {
    let keys: Vec<String> = object(from).keys().cloned().collect();
    prop::collection::vec((prop::sample::select(keys), hostile()), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn configs(neox in changes(&golden("neox_parallel/config.json")), llama in changes(&golden("llama3_rope/config.json"))) {
        let dir = tempfile::tempdir().unwrap();
        for (name, changes) in [("neox_parallel", &neox), ("llama3_rope", &llama)] {
            spoil(&dir.path().join("config.json"), object(&golden(name).join("config.json")), changes);
            let held = held_by(|| drop(DecoderConfig::read(dir.path())));
            prop_assert!(held < MOST_BYTES, "{held} bytes for {changes:?}");
        }
    }

    #[test]
    fn adapter_configs(changes in changes(&golden("neox_patterns/adapter/adapter_config.json"))) {
        let dir = tempfile::tempdir().unwrap();
        let from = golden("neox_patterns/adapter");
        fs::copy(from.join(peft::TENSOR_FILE), dir.path().join(peft::TENSOR_FILE)).unwrap();
        spoil(&dir.path().join(peft::CONFIG_FILE), object(&from.join(peft::CONFIG_FILE)), &changes);
        let config = DecoderConfig::read(&golden("neox_patterns")).unwrap();
        let held = held_by(|| drop(peft::read(dir.path(), &config)));
        prop_assert!(held < MOST_BYTES, "{held} bytes for {changes:?}");
    }

    #[test]
    fn headers_and_indices(
        name in prop::sample::select(vec!["dtype", "shape", "data_offsets", "__metadata__"]),
        value in hostile(),
        length in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
        map in hostile(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let model = golden("neox_patterns");
        let config = DecoderConfig::read(&model).unwrap();
        let bytes = fs::read(model.join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut tensors: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let first = tensors.keys().next_back().unwrap().clone();
        match name {
            "__metadata__" => drop(tensors.insert(name.into(), value)),
            name => tensors[&first][name] = value,
        }
        let text = Value::Object(tensors).to_string();
        let length = length.unwrap_or(text.len() as u64);
        let file = [&length.to_le_bytes()[..], text.as_bytes(), &bytes[8 + header..]].concat();
        let path = dir.path().join("model.safetensors");
        fs::write(&path, file).unwrap();
        let held = held_by(|| drop(Weights::open(dir.path(), &config)));
        prop_assert!(held < MOST_BYTES, "{held} bytes");
        fs::rename(&path, dir.path().join("part.safetensors")).unwrap();
        let index = json!({ "metadata": map, "weight_map": { (first): map, "x": "part.safetensors" } });
        fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let held = held_by(|| drop(Weights::open(dir.path(), &config)));
        prop_assert!(held < MOST_BYTES, "{held} bytes");
    }
}

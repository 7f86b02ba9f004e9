//! The architecture's rules that neither Cargo nor a lint can check.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Which crates of the workspace each crate may depend on: only those below it. Cargo refuses circles; this refuses every
/// edge that is not in the picture of ARCHITECTURE.md.
const EDGES: [(&str, &[&str]); 19] = [
    ("math", &[]),
    ("base", &[]),
    ("core", &["math"]),
    ("plot", &["base"]),
    ("theory", &["base", "core", "math", "plot"]),
    ("model", &["base", "math"]),
    ("kernels", &["base"]),
    ("emulator", &["kernels"]),
    // The emulator only with the feature `host-device`.
    ("engine", &["base", "emulator", "kernels", "math", "model"]),
    ("data", &["base", "math"]),
    ("ranks", &["base"]),
    ("http", &["base"]),
    ("hub", &["base", "http", "model"]),
    ("runs", &["base", "core", "data", "math", "model"]),
    (
        "train",
        &[
            "base", "core", "data", "engine", "hub", "math", "model", "ranks", "runs",
        ],
    ),
    ("serve", &["base", "data", "engine", "train"]),
    ("judge", &["base", "http", "math"]),
    ("report", &["base", "core", "data", "model", "plot", "runs"]),
    (
        "",
        &[
            "base", "core", "data", "engine", "hub", "judge", "kernels", "math", "model", "plot",
            "ranks", "report", "runs", "serve", "theory", "train",
        ],
    ),
];

/// Words that say nothing, and names of the paper's code that mislead.
const UNUSED_WORDS: [&str; 12] = [
    "rlhf",
    "lambd",
    "loss_0",
    "stale_loss",
    "util",
    "utils",
    "helper",
    "helpers",
    "manager",
    "managers",
    "strategy",
    "strategies",
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder_of(name: &str) -> PathBuf {
    match name {
        "" => crates().join("upright"),
        name => crates().join(format!("upright-{name}")),
    }
}

/// Every Rust file below a folder, with its text.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {}", folder.display());
    found
}

#[test]
fn crates_depend_on_those_below_them_alone() {
    let count = fs::read_dir(crates())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().join("Cargo.toml").exists())
        .count();
    assert_eq!(count, EDGES.len(), "every crate has its line in EDGES");
    for (index, (name, allowed)) in EDGES.iter().enumerate() {
        let manifest = fs::read_to_string(folder_of(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let mut found = Vec::new();
        for dependency in manifest
            .get("dependencies")
            .into_iter()
            .flat_map(|t| t.as_table())
        {
            for key in dependency.keys() {
                found.extend(key.strip_prefix("upright-"));
            }
        }
        assert_eq!(found, *allowed, "the dependencies of upright-{name}");
        let below = |other: &&str| EDGES[..index].iter().any(|(name, _)| name == other);
        assert!(allowed.iter().all(below), "{name} points up");
    }
}

#[test]
fn the_engine_knows_tokens_and_no_objective() {
    for (path, text) in sources(&folder_of("engine").join("src")) {
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            let lower = line.to_lowercase();
            let mut words = lower.split(|c: char| !c.is_alphanumeric());
            let found = words.find(|word| ["sft", "dpo", "template"].contains(word));
            assert_eq!(found, None, "{}: {line}", path.display());
        }
    }
}

/// A file that nobody declares is not compiled, and would rot.
#[test]
fn every_file_is_a_module_and_says_what_it_is_for() {
    for (name, _) in EDGES {
        let all = sources(&folder_of(name).join("src"));
        for (path, text) in &all {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let module = match stem {
                "lib" | "main" => continue,
                "mod" => path
                    .parent()
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap(),
                stem => stem,
            };
            let declares = |text: &String| {
                text.lines().any(|line| {
                    let line = line.trim_end_matches(';');
                    line == format!("mod {module}") || line.ends_with(&format!(" mod {module}"))
                })
            };
            assert!(
                all.values().any(declares),
                "{}: no `mod` declares it",
                path.display()
            );
            let is_test = path.to_str().unwrap().contains("tests");
            let says = text.starts_with("//! ");
            assert!(
                is_test || says,
                "{}: does not begin with `//!`",
                path.display()
            );
        }
    }
}

#[test]
fn some_words_are_not_used_in_names() {
    let items = [
        "fn ", "struct ", "enum ", "trait ", "type ", "mod ", "const ", "static ",
    ];
    for (name, _) in EDGES {
        for (path, text) in sources(&folder_of(name).join("src")) {
            for line in text.lines().map(str::trim_start) {
                let Some(item) = items.iter().find_map(|item| {
                    let (before, after) = line.split_once(item)?;
                    let is_item = before.is_empty() || before.starts_with("pub");
                    is_item.then_some(after)
                }) else {
                    continue;
                };
                let named: String = item
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .flat_map(|c| match c.is_uppercase() {
                        true => vec!['_', c.to_ascii_lowercase()],
                        false => vec![c],
                    })
                    .collect();
                for word in UNUSED_WORDS {
                    let found = format!("_{named}_").contains(&format!("_{word}_"));
                    assert!(!found, "{}: names {word}: {line}", path.display());
                }
            }
        }
    }
}

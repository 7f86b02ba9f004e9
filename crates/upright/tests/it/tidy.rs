//! The architecture's rules that neither Cargo nor a lint can check.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// The floors of the report, lowest first: folders of its sources. A floor uses only floors below
/// it. The files beside these folders are the top floor. A call of a method that a floor above adds
/// to a type, such as `Claim::summary`, is no path and is not seen.
const FLOORS: [&str; 4] = ["read", "compare", "say", "draw"];

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
fn a_floor_of_the_report_uses_only_floors_below_it() {
    let folder = folder_of("report").join("src");
    let mut files = BTreeMap::new();
    let mut edges = BTreeSet::new();
    for (path, text) in sources(&folder) {
        let file = path.strip_prefix(&folder).unwrap();
        let own = floor_of(file);
        *files.entry(own).or_insert(0) += 1;
        for (line, name) in used_at_root(file, &text) {
            let used = floor_named(&name);
            assert!(
                used <= own,
                "{}:{line}: uses crate::{name}, which is above its floor",
                path.display()
            );
            edges.insert((own, used));
        }
    }
    let count = |floor: usize| files.get(&floor).copied().unwrap_or(0);
    assert!(count(FLOORS.len()) > 1, "{files:?}: the top has no files");
    for floor in 0..FLOORS.len() {
        assert!(
            count(floor) > 1,
            "{files:?}: {} has no files",
            FLOORS[floor]
        );
        let is_used = edges
            .iter()
            .any(|(own, used)| *used == floor && *own > floor);
        assert!(is_used, "{edges:?}: no floor uses {}", FLOORS[floor]);
    }
}

#[test]
fn a_path_to_another_floor_is_found_however_it_is_written() {
    let text = "use super::arm::Arm;
use crate::{
    read::{run::Run, study}, // Not crate::page here.
    say::prose,
};
/// Not crate::page here.
pub(crate) fn of(report: &crate::Report) -> super::super::page::Page {
    crate :: draw::figures(report)
}
use crate::{self, folders::{PAGE}};
use crate as house;
use super::super::*;
";
    let found = used_at_root(Path::new("compare/ideal.rs"), text);
    let found: Vec<(usize, &str)> = found
        .iter()
        .map(|(line, name)| (*line, &name[..]))
        .collect();
    let expected = [
        (3, "read"),
        (4, "say"),
        (7, "Report"),
        (7, "page"),
        (8, "draw"),
        (10, "self"),
        (10, "folders"),
        (11, "as"),
        (12, "*"),
    ];
    assert_eq!(found, expected);
    // One `super` leaves a file of a floor, but not a deeper one.
    let text = "use super::prose;";
    assert_eq!(used_at_root(Path::new("say/mod.rs"), text).len(), 1);
    for file in ["say/tables.rs", "say/claims/mod.rs", "say/claims/words.rs"] {
        assert_eq!(used_at_root(Path::new(file), text), []);
    }
    let floors = [
        "read/run.rs",
        "compare/mod.rs",
        "say/a/b.rs",
        "draw/c.rs",
        "page.rs",
    ];
    assert_eq!(
        floors.map(|file| floor_of(Path::new(file))),
        [0, 1, 2, 3, 4]
    );
    assert_eq!(["read", "draw", "Report"].map(floor_named), [0, 3, 4]);
}

/// The floor of a file, given relative to the sources of the report.
fn floor_of(file: &Path) -> usize {
    floor_named(file.iter().next().unwrap().to_str().unwrap())
}

/// The floor with a name. Any other name is of the top floor.
fn floor_named(name: &str) -> usize {
    let found = FLOORS.iter().position(|floor| *floor == name);
    found.unwrap_or(FLOORS.len())
}

/// The names at the root of the crate that the paths in a file begin with, each with its line. A
/// `super` in a module inside the file counts as one of the file, which is stricter.
fn used_at_root(file: &Path, text: &str) -> Vec<(usize, String)> {
    let is_folder = file.file_stem().is_some_and(|stem| stem == "mod");
    let depth = file.iter().count() - usize::from(is_folder);
    let tokens = tokens(text);
    let token = |at: usize| tokens.get(at).map_or("", |(_, token)| token);
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        let mut at = start;
        match token(at) {
            // In `pub(crate)` and `pub(super)` it is no path.
            "crate" | "super" if token(at + 1) == ")" => continue,
            "crate" => at += 1,
            "super" if at > 1 && token(at - 2) == "super" => continue,
            "super" => {
                let mut above = 1;
                while token(at + 1) == "::" && token(at + 2) == "super" {
                    at += 2;
                    above += 1;
                }
                if above < depth {
                    continue;
                }
                at += 1;
            }
            _ => continue,
        }
        if token(at) == "::" {
            at += 1;
        }
        // A name, or a group of paths of which each begins with a name.
        let mut nesting = 0;
        let mut begins = true;
        while at < tokens.len() {
            match token(at) {
                "{" => nesting += 1,
                "}" => nesting -= 1,
                "," => begins = nesting == 1,
                name if begins => {
                    found.push((tokens[at].0, name.to_owned()));
                    begins = false;
                }
                _ => {}
            }
            if nesting == 0 {
                break;
            }
            at += 1;
        }
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// The words and signs of a text outside comments, each with its line. `::` is one sign.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        let mut rest = line.split(" // ").next().unwrap_or_default().trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = match rest.find(|c| !is_word(c)) {
                Some(0) if rest.starts_with("::") => 2,
                Some(0) => first.len_utf8(),
                Some(end) => end,
                None => rest.len(),
            };
            tokens.push((index + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
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

/// A method is its own file and its line in the table. What else names one of the paper's methods is about the paper: the theory, the
/// claims, the demo, and an example in the help.
#[test]
fn few_files_name_a_method() {
    let mut naming = Vec::new();
    for (name, _) in EDGES {
        for (path, text) in sources(&folder_of(name).join("src")) {
            let is_test = path
                .iter()
                .any(|part| part == "tests" || part == "tests.rs");
            if !is_test && text.to_lowercase().contains("maxright") {
                naming.push(path);
            }
        }
    }
    let own = folder_of("core").join("src/methods/maxright.rs");
    assert!(naming.contains(&own), "{naming:?}");
    assert!(naming.len() <= 10, "{naming:#?}");
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

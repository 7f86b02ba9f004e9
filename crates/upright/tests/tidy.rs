//! The architecture's invariants, read off the source files: who may use whom, who may print, where `unsafe` may stand,
//! and which words are not used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A file under a crate's `src/`.
struct Source {
    /// Path inside `src/`, e.g. `cpu/gemm.rs`.
    path: String,
    text: String,
    /// Without comments.
    code: String,
    /// Without comments, strings and tests.
    names: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let names = without_tests(&blank(text, true));
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: blank(text, false),
            names,
        }
    }

    /// `cpu` for `cpu/gemm.rs`, `train` for `train.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("tests/")
    }

    /// How many `super::` lead to the crate's root.
    fn depth(&self) -> usize {
        let parts = self
            .path
            .trim_end_matches(".rs")
            .split('/')
            .filter(|part| !["mod", "lib", "main"].contains(part));
        parts.count()
    }

    /// Names taken from the crate's root: `crate::name`, `crate::{name, ..}`, `super::name` where that is the root.
    fn uses(&self) -> BTreeSet<String> {
        let from_root = |root: &str| {
            self.names
                .match_indices(root)
                .map(|(at, _)| at + root.len())
                .collect::<Vec<_>>()
        };
        let mut starts = from_root("crate::");
        let up = "super::".repeat(self.depth());
        starts.extend(if up.is_empty() {
            Vec::new()
        } else {
            from_root(&up)
        });
        starts
            .into_iter()
            .flat_map(|start| heads(&self.names[start..]))
            .collect()
    }
}

/// `a` of `a::b`, `a` and `c` of `{a::{b, d}, c}`, `*` of a glob.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return words(path)
            .next()
            .filter(|word| path.starts_with(word))
            .map_or(vec!["*".to_owned()], |w| vec![w.into()]);
    };
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    items.push(item);
    items
        .iter()
        .map(|item| item.trim())
        .filter(|item| !item.is_empty())
        .flat_map(heads)
        .collect()
}

/// Identifiers and keywords.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Comments (and, if asked, what strings and characters hold) become spaces; line breaks stay.
fn blank(text: &str, strings: bool) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let raw = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r');
        let (len, hidden) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true)
        } else if rest.starts_with("/*") {
            (block_comment(rest), true)
        } else if raw.is_some_and(|raw| raw.trim_start_matches('#').starts_with('"')) {
            (raw_string(rest), strings)
        } else if c == '"'
            || c == '\'' && (rest.starts_with("'\\") || rest.chars().nth(2) == Some('\''))
        {
            (quoted(rest, c), strings)
        } else {
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            (word.max(c.len_utf8()), false)
        };
        code.extend(
            rest[..len]
                .chars()
                .map(|c| if hidden && c != '\n' { ' ' } else { c }),
        );
        rest = &rest[len..];
    }
    code
}

/// Length of the raw string at the start.
fn raw_string(text: &str) -> usize {
    let start = text.find('"').unwrap();
    let end = format!("\"{}", &"#".repeat(text[..start].matches('#').count()));
    text[start + 1..]
        .find(&end)
        .map_or(text.len(), |at| start + 1 + at + end.len())
}

/// Length of the block comment at the start; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the string or character at the start.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Cuts every item that follows `#[cfg(test)]`. Of code without comments and strings.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let (mut depth, mut end) = (0, rest.len());
        for (i, c) in rest[at..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = at + i + 1;
                break;
            }
        }
        rest = &rest[end..];
    }
    kept + rest
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every Rust file under a crate's `src/`.
fn sources(name: &str) -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/");
                found.push(Source::new(&inside, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = workspace().join("crates").join(name).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 5, "no sources under {}", root.display());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn crates() -> Vec<String> {
    let folders = fs::read_dir(workspace().join("crates")).unwrap();
    folders
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Fails with one line for each thing found in a crate's sources.
fn none(of: &str, find: impl Fn(&Source) -> Vec<String>) {
    let lines = sources(of)
        .iter()
        .flat_map(|s| find(s).into_iter().map(|l| format!("\n{}: {l}", s.path)))
        .collect::<String>();
    assert!(lines.is_empty(), "crates/{of}/src:{lines}");
}

/// Names of the modules that a file declares, in order.
fn declared(source: &Source, code: &str) -> Vec<String> {
    let lines = code
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';'));
    let names = lines.filter_map(|line| {
        line.rsplit_once("mod ")
            .filter(|(before, _)| before.is_empty() || before.ends_with(' '))
    });
    let names: Vec<_> = names
        .filter(|(before, _)| !before.contains('='))
        .map(|(_, name)| name.to_owned())
        .collect();
    assert!(
        names.iter().all(|name| words(name).eq([&name[..]])),
        "{}: {names:?}",
        source.path
    );
    names
}

/// A module uses only modules listed above it in `lib.rs`.
fn reads_downwards(name: &str) {
    let all = sources(name);
    let lib = all.iter().find(|source| source.path == "lib.rs").unwrap();
    let order = declared(lib, &lib.names);
    assert!(order.len() > 5, "{order:?}");
    let place = |module: &str| order.iter().position(|other| other == module);
    none(name, |source| {
        let Some(own) = place(source.module()).filter(|_| !source.is_test()) else {
            return Vec::new();
        };
        let used = source.uses().into_iter();
        used.filter(|used| used == "*" || place(used).is_some_and(|used| used > own))
            .map(|used| {
                format!(
                    "uses crate::{used}, which lib.rs lists below {}",
                    source.module()
                )
            })
            .collect()
    });
}

#[test]
fn the_loop_and_what_it_is_made_of_the_theory_and_the_plots_see_no_model_and_no_data() {
    none("upright", |source| {
        if ![
            "train",
            "methods",
            "objectives",
            "metrics",
            "theory",
            "plot",
        ]
        .contains(&source.module())
        {
            return Vec::new();
        }
        let engine = words(&source.code)
            .filter(|word| *word == "upright_engine")
            .map(|_| "names upright_engine".to_owned());
        let used = source
            .uses()
            .into_iter()
            .filter(|used| ["learner", "data", "*"].contains(&&used[..]));
        engine
            .chain(used.map(|used| format!("uses crate::{used}")))
            .collect()
    });
}

#[test]
fn the_engine_has_never_heard_of_an_objective_or_a_template() {
    none("upright-engine", |source| {
        let parts = words(&source.code).filter(|word| {
            parts(word)
                .iter()
                .any(|part| ["sft", "dpo", "template"].contains(&&part[..]))
        });
        parts.map(|word| format!("says {word}")).collect()
    });
}

#[test]
fn only_the_command_line_prints_or_exits() {
    for name in crates() {
        none(&name, |source| {
            if name == "upright" && ["cli", "main"].contains(&source.module()) || source.is_test() {
                return Vec::new();
            }
            let code: String = source
                .names
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            let calls = [
                "print!",
                "println!",
                "eprint!",
                "eprintln!",
                "dbg!",
                "stdout()",
                "stderr()",
                "process::exit",
                "process::abort",
            ];
            let calls = calls.into_iter().filter(|call| {
                let inside =
                    |at: usize| code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                code.match_indices(call).any(|(at, _)| !inside(at))
            });
            let imports = code.match_indices("process::{").filter(|(at, found)| {
                heads(&code[at + found.len() - 1..])
                    .iter()
                    .any(|head| head == "exit" || head == "abort")
            });
            calls
                .map(str::to_owned)
                .chain(imports.map(|_| "process::{exit}".to_owned()))
                .collect()
        });
    }
}

#[test]
fn unsafe_stands_in_the_engine_alone() {
    for name in crates().iter().filter(|name| *name != "upright-engine") {
        none(name, |source| {
            let root = ["lib.rs", "main.rs"].contains(&&source.path[..])
                || source.path.starts_with("bin/");
            let forbidden = source.code.contains("#![forbid(unsafe_code)]");
            let open = (root && !forbidden).then(|| "lacks #![forbid(unsafe_code)]".to_owned());
            let found = words(&source.names)
                .filter(|word| *word == "unsafe")
                .map(str::to_owned);
            open.into_iter().chain(found).collect()
        });
    }
}

/// Words of a name, in lower case: `stale_loss` and `StaleLoss` are both `stale`, `loss`.
fn parts(name: &str) -> Vec<String> {
    let mut spaced = String::new();
    let mut before = '_';
    for c in name.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            spaced.push('_');
        }
        spaced.push(c);
        before = c;
    }
    spaced
        .to_lowercase()
        .split('_')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn some_words_are_not_used_in_names() {
    const NOT_USED: [&str; 12] = [
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
    for name in crates() {
        none(&name, |source| {
            let code = blank(&source.text, true);
            let path = source.path.trim_end_matches(".rs").split('/');
            // A trait of proptest has one of these for a name.
            let own = words(&code).filter(|word| {
                !(*word == "Strategy" && words(&code).any(|word| word == "proptest"))
            });
            let names: BTreeSet<_> = path.chain(own).collect();
            let not_used = |name: &&str| {
                let name = format!("_{}_", parts(name).join("_"));
                NOT_USED
                    .iter()
                    .any(|word| name.contains(&format!("_{word}_")))
            };
            names
                .into_iter()
                .filter(not_used)
                .map(|name| format!("is or names {name}"))
                .collect()
        });
    }
}

#[test]
fn a_module_of_the_engine_uses_only_those_above_it() {
    reads_downwards("upright-engine");
}

#[test]
fn a_module_of_the_program_uses_only_those_above_it() {
    reads_downwards("upright");
}

/// A file that nobody declares is not compiled, and would rot.
#[test]
fn every_file_is_a_module_and_says_what_it_is_for() {
    for name in crates() {
        let all = sources(&name);
        let mut declares = BTreeMap::new();
        for source in &all {
            let stem = source.path.trim_end_matches(".rs");
            let folder = match stem.rsplit_once('/').unwrap_or(("", stem)) {
                (folder, "mod" | "lib" | "main") => folder.to_owned(),
                _ => stem.to_owned(),
            };
            for module in declared(source, &blank(&source.text, true)) {
                declares.insert(
                    format!("{folder}/{module}")
                        .trim_start_matches('/')
                        .to_owned(),
                    &source.path,
                );
            }
        }
        none(&name, |source| {
            let stem = source.path.trim_end_matches(".rs");
            let root = ["lib", "main"].contains(&stem) || stem.starts_with("bin/");
            let orphan = !root && !declares.contains_key(stem.trim_end_matches("/mod"));
            let silent = !source.is_test() && !source.text.starts_with("//! ");
            let lines = [
                (orphan, "no `mod` declares this file"),
                (silent, "does not begin with a `//!` line"),
            ];
            lines
                .into_iter()
                .filter(|(bad, _)| *bad)
                .map(|(_, line)| line.to_owned())
                .collect()
        });
    }
}

/// What the tests above see of a file.
#[test]
fn sources_are_read_as_rust() {
    let text = r##"//! unsafe
use crate::{data::{order, rows}, Error}; /* a /* nested */ unsafe */
const S: &str = "// unsafe \" crate::learner"; const R: &str = r#"" unsafe"#; const C: [char; 3] = ['"', '\'', '\\'];
fn f<'a>(x: &'a str) -> super::optim::AdamW { println!("{x}") }
#[cfg(test)]
mod tests { use crate::learner; fn g() { unsafe { } } }
fn last() {}
"##;
    let source = Source::new("train.rs", text);
    assert_eq!(
        source.uses().into_iter().collect::<Vec<_>>(),
        ["Error", "data", "optim"]
    );
    assert!(
        !words(&source.names).any(|word| ["unsafe", "nested", "learner", "g"].contains(&word)),
        "{}",
        source.names
    );
    assert!(
        ["println!", "fn last()", "&'a str"]
            .iter()
            .all(|kept| source.names.contains(kept)),
        "{}",
        source.names
    );
    assert!(source.code.contains("// unsafe"), "strings stay in `code`");
    assert_eq!(heads("*;"), ["*"]);
    let deep = Source::new(
        "methods/mix.rs",
        "use super::only; use super::super::data::rows;",
    );
    assert_eq!(deep.uses().into_iter().collect::<Vec<_>>(), ["data"]);
    assert_eq!(parts("StaleLoss_0"), ["stale", "loss", "0"]);
}

//! The documents hold what they promise: commands and settings parse, links lead somewhere, and the README stays short.
//!
//! A command in an `sh` block is parsed up to an appended `--help`, so unknown subcommands, flags and choices fail, and
//! nothing runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use upright::experiment::benchmarks::Benchmarks;
use upright_runs::settings::{Config, ObjectiveConfig};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A document's path below the root of the repository, and its text.
type Document = (String, String);

/// All Markdown files in `folder` and below.
fn documents_in(folder: &str, found: &mut Vec<Document>) {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        };
        if path.is_dir() {
            documents_in(&name, found);
        } else if name.ends_with(".md") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Every document of the repository that a person reads.
fn documents() -> Vec<Document> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            let text = fs::read_to_string(root().join(&name)).unwrap();
            found.push((name, text));
        }
    }
    for folder in ["docs", "tools", "benches"] {
        documents_in(folder, &mut found);
    }
    for name in ["crates/README.md", "fuzz/README.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        found.push((name.to_owned(), text));
    }
    assert!(found.len() > 20, "only {} documents", found.len());
    found
}

/// Documents whose commands and settings are for readers to type. The log has commands of earlier builds.
fn guides() -> Vec<Document> {
    let mut documents = documents();
    documents.retain(|(name, _)| {
        matches!(&name[..], "README.md" | "CONTRIBUTING.md")
            || name.starts_with("docs/guides/")
            || name.starts_with("docs/concepts/")
    });
    documents
}

/// The text with everything in code blocks replaced by empty lines.
fn without_blocks(text: &str) -> String {
    let mut is_block = false;
    let mut kept = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        if !is_fence && !is_block {
            kept.push_str(line);
        }
        is_block ^= is_fence;
        kept.push('\n');
    }
    kept
}

/// The `language` blocks of a document, each with the line of its first line.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open = None;
    for (index, line) in text.lines().enumerate() {
        match (line.trim().strip_prefix("```"), &mut open) {
            (Some(named), None) => open = Some((named.to_owned(), index + 2, String::new())),
            (Some(_), Some(_)) => {
                let (named, start, body) = open.take().unwrap();
                if named == language {
                    found.push((start, body));
                }
            }
            (None, Some((_, _, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// Targets of the links outside code blocks, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in without_blocks(text).lines().enumerate() {
        // Code spans hold brackets that are no links.
        let prose: String = line.split('`').step_by(2).collect();
        for part in prose.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            found.push((index + 1, target.to_owned()));
        }
    }
    found
}

/// Anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in without_blocks(text).lines() {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let mut anchor = String::new();
        for c in heading.trim().to_lowercase().chars() {
            if c.is_alphanumeric() || c == '-' || c == '_' {
                anchor.push(c);
            } else if c == ' ' {
                anchor.push('-');
            }
        }
        found.push(anchor);
    }
    found
}

/// What is wrong with a link of the document `name`.
fn broken(name: &str, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let document = root().join(name);
    let file = if path.is_empty() {
        document
    } else {
        document.parent().unwrap().join(path)
    };
    if !file.exists() {
        return Some(format!("{target} does not exist"));
    }
    if anchor.is_empty() {
        return None;
    }
    let text = fs::read_to_string(&file).unwrap();
    let known = anchors(&text).iter().any(|known| known == anchor);
    (!known).then(|| format!("{target}: no heading has this anchor"))
}

/// The prose of a document in sentences, as counts of words. Headings, tables, pictures and code blocks are left out.
fn sentence_lengths(text: &str) -> Vec<usize> {
    let mut paragraphs = vec![String::new()];
    for line in without_blocks(text).lines() {
        let begins_item = line.starts_with("- ");
        let is_prose = !line.is_empty() && !line.starts_with(['#', '|', '!']);
        if begins_item || !is_prose {
            paragraphs.push(String::new());
        }
        if is_prose {
            let paragraph = paragraphs.last_mut().unwrap();
            paragraph.push_str(line.trim_start_matches("- "));
            paragraph.push(' ');
        }
    }
    let mut lengths = Vec::new();
    for paragraph in paragraphs {
        let mut words = 0;
        for word in paragraph.split_whitespace() {
            words += 1;
            if word
                .trim_end_matches(['*', '`', ')'])
                .ends_with(['.', '?', '!'])
            {
                lengths.push(words);
                words = 0;
            }
        }
        if words > 0 {
            lengths.push(words);
        }
    }
    lengths
}

/// The commands of a document's `sh` blocks: words after the shell's quoting, with the line they begin at. Variables set
/// in front, redirections and comments are left out; pipes and `&&` separate commands.
fn commands(readme: &str) -> Vec<(usize, Vec<String>)> {
    let (mut found, mut fence, mut continued) = (Vec::new(), None, None);
    for (index, line) in readme.lines().enumerate() {
        match (line.trim().strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language.trim()),
            (Some(_), Some(_)) => {
                assert!(
                    continued.is_none(),
                    "line {}: a block ends in a backslash",
                    index + 1
                );
                fence = None;
            }
            (None, Some("sh")) => {
                let (start, mut text) = continued.take().unwrap_or((index + 1, String::new()));
                text.push_str(line.trim().trim_start_matches("$ "));
                if let Some(open) = text.strip_suffix('\\') {
                    continued = Some((start, open.to_owned()));
                } else {
                    found.extend(split(&text).into_iter().map(|words| (start, words)));
                }
            }
            _ => {}
        }
    }
    assert_eq!(fence, None, "a block is not closed");
    found
}

/// Commands of one line of shell.
fn split(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut word, mut quote) = (vec![Vec::new()], None::<String>, None);
    for c in line.chars().chain([' ']) {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            ('#', None) if word.is_none() => break,
            (' ' | '|' | '&' | ';', None) => {
                commands.last_mut().unwrap().extend(word.take());
                if c != ' ' {
                    commands.push(Vec::new());
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote is not closed: {line}");
    commands.last_mut().unwrap().extend(word);
    for command in &mut commands {
        let is_setting = |word: &String| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        };
        command.drain(..command.iter().take_while(|word| is_setting(word)).count());
        if let Some(end) = command
            .iter()
            .position(|word| word.trim_start_matches(['1', '2']).starts_with(['>', '<']))
        {
            command.truncate(end);
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// What is wrong with a command line, asked of the program itself.
fn wrong(program: &str, arguments: &[String], help: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .arg(help)
        .current_dir(folder.path())
        .output()
        .unwrap();
    if !output.status.success() {
        return Some(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let listed: Vec<_> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .collect();
    // `--version`, too, ends the parsing with an answer of its own.
    let flags = arguments
        .iter()
        .filter(|word| word.starts_with("--") && *word != "--version");
    let mut flags = flags.map(|flag| flag.split('=').next().unwrap());
    flags
        .find(|flag| !listed.contains(flag))
        .map(|flag| format!("{flag} is not in the help"))
}

fn wrong_with(words: &[String]) -> Option<String> {
    match &words[0][..] {
        "upright" | "./target/release/upright" | "target/release/upright" => {
            wrong(env!("CARGO_BIN_EXE_upright"), &words[1..], "--help")
        }
        "cargo" => {
            let own = words[1..]
                .iter()
                .position(|word| word == "--")
                .map_or(words.len(), |at| at + 1);
            let after = if own < words.len() {
                &words[own + 1..]
            } else {
                &[]
            };
            if let Some(at) = words.iter().position(|word| word == "--path") {
                let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../..")
                    .join(&words[at + 1])
                    .join("Cargo.toml");
                if !path.exists() {
                    return Some(format!("there is no {}", words[at + 1]));
                }
            }
            if let Some(at) = words.iter().position(|word| word == "--example") {
                let name = &words[at + 1];
                let package = words.iter().position(|word| word == "-p");
                let package = package.map_or("upright", |at| &words[at + 1][..]);
                let examples = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("..")
                    .join(package)
                    .join("examples");
                let is_there =
                    examples.join(name).exists() || examples.join(format!("{name}.rs")).exists();
                if !is_there {
                    return Some(format!("{package} has no example {name}"));
                }
            }
            let runs_upright = words[1] == "run"
                && !after.is_empty()
                && words.iter().all(|word| word != "--example");
            let upright = || {
                runs_upright
                    .then(|| wrong(env!("CARGO_BIN_EXE_upright"), after, "--help"))
                    .flatten()
            };
            // `--help` would open a manual page.
            wrong(env!("CARGO"), &words[1..own], "-h").or_else(upright)
        }
        _ => None,
    }
}

#[test]
fn every_command_in_the_guides_is_understood() {
    let mut wrong = String::new();
    for (name, text) in guides() {
        let commands = commands(&text);
        if name == "README.md" {
            let shows_upright = commands.iter().any(|(_, words)| words[0] == "upright");
            assert!(shows_upright, "README.md shows no `upright` command");
        }
        for (line, words) in commands {
            if let Some(problem) = wrong_with(&words) {
                wrong += &format!("\n{name}:{line}: {}\n{problem}", words.join(" "));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The examples at the end of a command's help, as lines of shell.
fn examples_of(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_upright"))
        .args(command.split(' '))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, examples) = help.split_once("\nExamples:\n").unwrap();
    examples.to_owned()
}

#[test]
fn every_example_in_a_help_is_understood() {
    for (command, count) in [
        ("train", 5),
        ("experiment", 3),
        ("report", 3),
        ("eval loss", 3),
        ("eval mmlu", 3),
        ("eval win-rate", 2),
        ("inspect", 3),
        ("generate", 2),
        ("export", 3),
    ] {
        let examples = examples_of(command);
        let longest = examples.lines().map(str::len).max().unwrap();
        assert!(
            longest <= 90,
            "{command}: a terminal wraps lines of {longest}"
        );
        let begin = format!("upright {command}");
        let mut found = 0;
        for (_, words) in commands(&format!("```sh\n{examples}```\n")) {
            if words[0] == "upright" {
                assert!(words.join(" ").starts_with(&begin), "{command}: {words:?}");
                assert_eq!(wrong_with(&words), None, "{command}: {}", words.join(" "));
                found += 1;
            }
        }
        assert_eq!(found, count, "{command}");
    }
}

#[test]
fn the_help_of_train_lists_every_key_of_an_objective() {
    let output = Command::new(env!("CARGO_BIN_EXE_upright"))
        .args(["train", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = help.split_once("Keys of an [[objective]]").unwrap();
    let mut listed = Vec::new();
    for line in rest.lines().skip(1).take_while(|line| !line.is_empty()) {
        assert!(line.starts_with("  ") && line.len() <= 100, "{line}");
        let mut words = line.split_whitespace();
        listed.push(words.next().unwrap().to_owned());
        assert!(words.next().is_some(), "{line}: a key without a text");
    }
    assert_eq!(listed, ObjectiveConfig::keys());
}

#[test]
fn every_settings_file_in_the_guides_parses() {
    let mut count = 0;
    for (name, text) in guides() {
        for (line, settings) in blocks(&text, "toml") {
            // Settings of a run, or benchmarks of a study.
            let table: toml::Table = settings.parse().unwrap_or_default();
            let parsed = match table.get("evaluate").and_then(|value| value.as_table()) {
                Some(benchmarks) => Benchmarks::parse(benchmarks, &name).map(|_| ()),
                None => Config::parse(&settings, &name).map(|_| ()),
            };
            parsed.unwrap_or_else(|error| panic!("{name}:{line}: {error}"));
            count += 1;
        }
    }
    assert!(count > 0, "the guides show no settings");
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = String::new();
    let mut count = 0;
    for (name, text) in documents() {
        for (line, target) in links(&text) {
            count += 1;
            if let Some(problem) = broken(&name, &target) {
                wrong += &format!("\n{name}:{line}: {problem}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= 90, "{lines} lines");
    let own = readme.lines().position(|line| line == "## Train your own");
    assert!(own.unwrap() < 45, "the reader's own model comes too late");
    let lengths = sentence_lengths(&readme);
    let longest = *lengths.iter().max().unwrap();
    assert!(longest <= 35, "a sentence of {longest} words");
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    assert!(mean < 13.0, "{mean} words per sentence");
    assert!(lengths.len() >= 25, "{} sentences", lengths.len());
}

#[test]
fn broken_links_and_long_sentences_are_found() {
    let text = "# A, `b` c\n\n[x](README.md#no) [y](#a-b-c) `[z](no.md)`\n```sh\n[z](no.md)\n```\n";
    let targets: Vec<_> = links(text).into_iter().map(|(_, target)| target).collect();
    assert_eq!(targets, ["README.md#no", "#a-b-c"]);
    assert_eq!(anchors(text), ["a-b-c"]);
    assert!(broken("README.md", "README.md#no").is_some());
    assert!(broken("README.md", "docs/no.md").is_some());
    assert_eq!(broken("docs/reference.md", "../README.md"), None);
    let prose = "One two three. Four\nfive **six.**\n\n| a |\n- seven eight\n- nine.\n";
    assert_eq!(sentence_lengths(prose), [3, 3, 2, 1]);
}

#[test]
fn what_is_not_understood_is_found() {
    let words = |line: &str| split(line).remove(0);
    for line in [
        "upright no-such-command",
        "upright --no-such-flag",
        "cargo build --no-such-flag",
        "cargo install --path nowhere",
    ] {
        assert!(wrong_with(&words(line)).is_some(), "{line}");
    }
    for line in [
        "upright --version",
        "cargo build --release",
        "cargo test -p upright -- --nocapture",
        "ls --no-such-flag",
    ] {
        assert_eq!(wrong_with(&words(line)), None, "{line}");
    }
}

#[test]
fn blocks_are_read_as_a_shell_reads_them() {
    let readme = "```sh\n# all of it\n$ A=1 upright train --out 'a b' \\\n    --json > x.json  # note\ncargo test && upright doctor | head\n```\n```text\nupright no\n```\n";
    let found: Vec<_> = commands(readme)
        .into_iter()
        .map(|(line, words)| (line, words.join("·")))
        .collect();
    let expected = [
        (3, "upright·train·--out·a b·--json"),
        (5, "cargo·test"),
        (5, "upright·doctor"),
        (5, "head"),
    ];
    assert_eq!(
        found,
        expected.map(|(line, words)| (line, words.to_owned()))
    );
}

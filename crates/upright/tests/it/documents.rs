//! Every `upright` and `cargo` command in README.md's `sh` blocks is one that the program, or cargo, understands: it is
//! parsed up to an appended `--help`, so unknown subcommands, flags and choices fail, and nothing runs.

use std::{fs, path::Path, process::Command};

/// The commands of a README's `sh` blocks: words after the shell's quoting, with the line they begin at. Variables set in
/// front, redirections and comments are left out; pipes and `&&` separate commands.
fn commands(readme: &str) -> Vec<(usize, Vec<String>)> {
    let (mut found, mut fence, mut continued) = (Vec::new(), None, None);
    for (index, line) in readme.lines().enumerate() {
        match (line.trim().strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language.trim()),
            (Some(_), Some(_)) => {
                assert!(
                    continued.is_none(),
                    "README.md:{}: a block ends in a backslash",
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
    assert_eq!(fence, None, "README.md: a block is not closed");
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
            let runs_upright = words[1] == "run" && !after.is_empty();
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
fn every_command_in_the_readme_is_understood() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let commands = commands(&readme);
    assert!(
        commands.iter().any(|(_, words)| words[0] == "upright"),
        "README.md shows no `upright` command in an `sh` block"
    );
    let wrong = commands.iter().filter_map(|(line, words)| {
        wrong_with(words)
            .map(|problem| format!("\nREADME.md:{line}: {}\n{problem}", words.join(" ")))
    });
    let wrong: String = wrong.collect();
    assert!(wrong.is_empty(), "{wrong}");
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

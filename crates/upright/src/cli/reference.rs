//! `upright reference`: every command, flag and config key in Markdown, from the definitions that parse them.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use super::{Cli, EXIT_CODES, print};
use crate::experiment::keys;
use upright_base::Result;
use upright_data::template::sandbox;
use upright_runs::settings::ObjectiveConfig;

/// Runs the command. `docs/reference.md` is its output, which a test keeps true.
pub(super) fn run() -> Result<()> {
    print(&text())
}

fn text() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut text =
        "# Reference\n\nEvery command and flag, as `--help` shows them. Written by `upright reference`; edit the \
                    definitions, not this file.\n"
            .to_owned();
    commands(&cli, "upright", &mut text);
    text += "\n## The TOML file of `--config`\n\nEvery flag of `upright train` but `--config` is a key of the same name; lists \
             may be texts with commas or TOML lists, `NAME=VALUE` lists also tables. In place of `sft` and `dpo` any number of \
             objectives:\n\n| key in `[[objective]]` | |\n|---|---|\n";
    let objective = <ObjectiveConfig as clap::Args>::augment_args(Command::new("objective"));
    rows(
        objective
            .get_arguments()
            .filter_map(|argument| Some((argument.get_long()?, help(argument)))),
        &mut text,
    );
    text += "\n## The TOML file of `upright experiment`\n\nPaths in it start where the command runs. A list of one text may be that \
             text.\n\n| key | |\n|---|---|\n";
    let said = |(key, what): keys::Key| (key, escaped(what));
    rows(keys::STUDY.into_iter().map(said), &mut text);
    text += "\n| key in `[[sweep]]` | |\n|---|---|\n";
    rows(keys::SWEEP.into_iter().map(said), &mut text);
    text += "\n| key in `[baseline.NAME]` | |\n|---|---|\n";
    rows(keys::BASELINE.into_iter().map(said), &mut text);
    text += "\n| key in `[answers]` | |\n|---|---|\n";
    rows(keys::ANSWERS.into_iter().map(said), &mut text);
    text += "\n| not in `[settings]` | instead |\n|---|---|\n";
    rows(keys::DECIDED.into_iter().map(said), &mut text);
    let _ = write!(
        text,
        "\n## Exit codes\n\n{}.\n",
        EXIT_CODES.trim_start_matches("Exit codes: ")
    );
    text
}

/// Lines of a table of keys.
fn rows<'a>(keys: impl Iterator<Item = (&'a str, String)>, text: &mut String) {
    for (key, what) in keys {
        let _ = writeln!(text, "| `{key}` | {what} |");
    }
}

fn commands(command: &Command, path: &str, text: &mut String) {
    for child in command
        .get_subcommands()
        .filter(|child| !["help", sandbox::COMMAND].contains(&child.get_name()))
    {
        let path = format!("{path} {}", child.get_name());
        let about = child
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _ = write!(text, "\n## `{path}`\n\n{}\n", escaped(&about));
        let arguments: Vec<&Arg> = child
            .get_arguments()
            .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
            .collect();
        let mut heading = None;
        for (index, argument) in arguments.iter().enumerate() {
            if index == 0 || argument.get_help_heading() != heading {
                heading = argument.get_help_heading();
                let _ = write!(text, "\n| {} | |\n|---|---|\n", heading.unwrap_or("flag"));
            }
            let _ = writeln!(
                text,
                "| `{}` | {} |",
                flag(argument).replace('|', "\\|"),
                help(argument)
            );
        }
        commands(child, &path, text);
    }
}

/// `--flag VALUE`, or the value of an argument without a flag.
fn flag(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let values: Vec<String> = names.iter().map(ToString::to_string).collect();
    let values = if argument.get_action().takes_values() {
        values.join(" ")
    } else {
        String::new()
    };
    match argument.get_long() {
        Some(long) if values.is_empty() => format!("--{long}"),
        Some(long) => format!("--{long} {values}"),
        None => values,
    }
}

/// What an argument is for, with the default and the values that clap adds where it prints help.
fn help(argument: &Arg) -> String {
    let help = argument
        .get_long_help()
        .or(argument.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut help = help.trim_end_matches('.').to_owned();
    let defaults = argument
        .get_default_values()
        .iter()
        .map(|value| value.display().to_string());
    let values = argument
        .get_possible_values()
        .into_iter()
        .map(|value| value.get_name().to_owned());
    if argument.get_action().takes_values() {
        for (what, listed) in [
            ("default", defaults.collect::<Vec<_>>()),
            ("possible values", values.collect()),
        ] {
            if !listed.is_empty() {
                let _ = write!(help, " [{what}: {}]", listed.join(", "));
            }
        }
    }
    escaped(&help)
}

fn escaped(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .trim_end_matches('.')
        .to_owned()
        + "."
}

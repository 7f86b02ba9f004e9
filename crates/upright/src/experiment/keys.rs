//! The keys of a study file and their meaning. No other keys are accepted; `docs/reference.md`
//! lists them.

use serde::Deserialize;
use toml::Table;
use upright_base::{Error, Result, suggest::nearest};
use upright_core::{
    methods::{self, MIX_BATCHES},
    objectives::{self, DPO},
    settings::Setting,
};
use upright_runs::settings::declared::{self, loss_settings};

/// A key and its meaning.
pub type Key = (&'static str, &'static str);

/// Keys at the top of the file.
pub const STUDY: [Key; 8] = [
    ("title", "Title of the study and of its report"),
    ("about", "Description of the study in a few sentences"),
    (
        "seeds",
        "Seeds of every method, such as [1, 2, 3]; optima use all seeds, the front uses the first \
         [default: 42]",
    ),
    (
        "settings",
        "Settings of every run: keys of a --config file, except those listed below and, in an \
         objective, weight and optima",
    ),
    (
        "sweep",
        "Methods to compare with everything else equal; one or more [[sweep]] tables",
    ),
    (
        "baseline",
        "Settings of baselines, one table for each, such as [baseline.rpo]",
    ),
    ("answers", "Prompts that the trained models answer"),
    (
        "evaluate",
        "Benchmarks that the base models and the trained models take",
    ),
];

/// Keys of a `[[sweep]]` that belong to no setting of a method. A list with one string may be given as that string.
const SWEEP: [Key; 11] = [
    (
        "name",
        "Name of the sweep in messages, and prefix of job names if sweeps differ in model, data or \
         reference: lowercase letters, digits, - and _ [default: sweep-1, sweep-2, ...]",
    ),
    ("methods", "Methods to compare"),
    ("baselines", "Alternatives to compare with"),
    (
        "lambdas",
        "Weights of the preference objective if there is one other objective, each between 0 and \
         1, such as [0.25, 0.5]",
    ),
    (
        "weights",
        "Instead of lambdas, weights of any number of objectives, such as [[0.4, 0.3, 0.3], [2, 1, 1]]; \
         each list is divided by its sum",
    ),
    (
        "orders",
        "Orders of sequential, with steps split by weight, such as [\"dpo,sft\", \"sft,dpo\"] \
         [default: preference objectives first]",
    ),
    (
        "stages",
        "Instead of orders, the stages of sequential for each of the lambdas or weights, such as \
         [\"dpo:1e,sft:5e\"]",
    ),
    (
        "mix",
        "Forms of mix: steps (as many steps as the other methods), tokens (about as many tokens as \
         alright, in fewer steps), half (as many steps, with half batches), such as [\"steps\", \"tokens\"] \
         [default: steps]",
    ),
    (
        "front",
        "Where joint methods stop. With own, all but alright with random draws stop at the ideal point or at the \
         final losses of this study's ALRIGHT runs (first seed). With a folder, all joint methods \
         stop at the ideal point or at the front of the study in that folder. With none, all take \
         all their steps [default: own]",
    ),
    (
        "seeds",
        "Seeds of the sweep, out of those of the study [default: all]",
    ),
    ("settings", "Settings that override those of the study"),
];

/// Keys of a `[[sweep]]` with their texts, settings of methods among them.
pub fn sweep() -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    for (key, text) in SWEEP {
        let more = match key {
            "methods" => format!(", of {}", names(methods::all().iter().map(|m| m.name))),
            "baselines" => format!(
                ": {} train that loss alone on the rows of the only preference objective; sum adds adapters trained on each \
                 objective alone, by the weights",
                names(baselines().iter().copied())
            ),
            _ => String::new(),
        };
        keys.push((key, format!("{text}{more}")));
        if key == "mix" {
            for setting in listed_settings() {
                let default = setting.default();
                let text = format!("List of values. {} [default: {default}]", setting.help);
                keys.push((setting.name, text));
            }
        }
    }
    keys
}

/// The settings of methods that a sweep lists. The forms of Mix have a key of their own.
pub fn listed_settings() -> Vec<&'static Setting> {
    let mut all = methods::settings();
    all.retain(|setting| setting.name != MIX_BATCHES);
    all
}

/// The losses that a study can train alone as a baseline.
pub fn baselines() -> Vec<&'static str> {
    let mut names = Vec::new();
    for loss in objectives::all() {
        if loss.is_preference() && *loss != &DPO {
            names.push(loss.name);
        }
    }
    names
}

/// Keys of a `[baseline.NAME]`, which are keys of an `[[objective]]`.
pub fn baseline() -> Vec<(&'static str, String)> {
    let mut keys = vec![(
        "batch",
        "Pairs per step [default: same as the preference objective]".to_owned(),
    )];
    for setting in loss_settings(true) {
        let name = setting.name;
        let default = declared::defaults(name);
        let default = if name == BETA {
            format!("{default}; with a reference model, same as the preference objective")
        } else {
            default
        };
        keys.push((
            name,
            format!("{} [default: {default}]", declared::help(name)),
        ));
    }
    keys
}

/// The setting that a baseline with a reference model takes from the objective that it replaces: the KL strength.
pub const BETA: &str = "beta";

/// Keys of `[answers]`.
pub const ANSWERS: [Key; 2] = [
    (
        "prompts",
        "Prompts for the base model and the runs of the first seed, answered with greedy decoding",
    ),
    ("max-tokens", "Maximum tokens of a response [default: 64]"),
];

/// Keys of `[evaluate]`.
pub const EVALUATE: [Key; 3] = [
    ("mmlu", "MMLU as upright eval mmlu measures it"),
    (
        "win-rate",
        "How often a judge prefers a model's answers to chosen responses, as upright eval win-rate \
         measures it",
    ),
    (
        "sets",
        "Losses on more rows: a table for each, such as [evaluate.sets.poems]",
    ),
];

/// Keys of `[evaluate.sets.NAME]`.
pub const ROW_SET: [Key; 2] = [
    (
        "objective",
        "Name of the objective whose loss and template are used",
    ),
    (
        "data",
        "The rows: a file or a Hub dataset; as many as eval-rows are used",
    ),
];

/// Settings that the study itself decides, each with a hint.
pub fn decided() -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    for (key, hint) in DECIDED {
        keys.push((key, hint.to_owned()));
        if key != "stages" {
            continue;
        }
        for setting in methods::settings() {
            let hint = if setting.name == MIX_BATCHES {
                "list mix = [\"half\"] in a [[sweep]]".to_owned()
            } else {
                format!("list {} in a [[sweep]]", setting.name)
            };
            keys.push((setting.name, hint));
        }
    }
    keys
}

/// Names in a sentence.
fn names(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<&str> = names.collect();
    match &names[..] {
        [most @ .., last] if !most.is_empty() => format!("{} and {last}", most.join(", ")),
        _ => names.concat(),
    }
}

/// Those of them that belong to no method.
const DECIDED: [Key; 12] = [
    ("out", "--out DIR sets the folder of the whole study"),
    ("resume", "a study always resumes"),
    ("json", "use --json on the command line"),
    ("method", "list methods in a [[sweep]]"),
    ("lambda", "list lambdas in a [[sweep]]"),
    (
        "stages",
        "list stages in a [[sweep]], one for each of its lambdas",
    ),
    (
        "optimum",
        "the study finds the optima by training each objective alone",
    ),
    (
        "optimum-eval",
        "the study finds the optima by training each objective alone",
    ),
    (
        "stop-at",
        "set front to \"own\", \"none\" or the folder of another study in a [[sweep]]",
    ),
    (
        "stop-within",
        "runs of a study stop within 1e-4 of the front, as in the paper",
    ),
    ("seed", "list seeds at the top of the study"),
    ("no-report", "a study writes one report of all its runs"),
];

/// Reads a table, and rejects unknown keys.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    table: &Table,
    known: &[&str],
    place: &str,
) -> Result<T> {
    if let Some(key) = table.keys().find(|key| !known.contains(&&key[..])) {
        let error = Error::input(format!("{place}: unknown key `{key}`"));
        return Err(match nearest(key, known.iter().copied()) {
            Some(close) => error.hint(format!("did you mean `{close}`?")),
            None => error.hint(format!("known keys: {}", known.join(", "))),
        });
    }
    table.clone().try_into().map_err(|error: toml::de::Error| {
        Error::input(format!(
            "{place}: {}",
            error.message().trim().replace('\n', "; ")
        ))
    })
}

//! The objectives of a config: `--sft` and `--dpo`, or any number of `[[objective]]` tables. Both
//! forms become the same list.

use std::path::{Path, PathBuf};

use toml::Table;

use super::ObjectivePlan;
use super::loss::{dpo_loss, loss, of_loss};
use crate::settings::checks::{choice, count, file, no_such, real, value, wrong};
use crate::settings::declared::{Given, loss_settings};
use crate::settings::shared::usual_batch;
use crate::settings::{Config, List, Number, ObjectiveConfig, number_of};
use upright_base::{Error, Result};
use upright_core::objectives::{self, SFT};
use upright_data::{ColumnMap, DataFile, TemplateName, Turns};

/// All objectives, checked and with weights and optima.
pub(super) fn objectives(config: &Config) -> Result<Vec<ObjectivePlan>> {
    let named = list(config)?;
    // The settings of the run are checked even if no loss takes them.
    for shared in loss_settings(true) {
        let written = config.loss_settings.get(shared.name);
        if !shared.is_shared || written.is_none() {
            continue;
        }
        let takers = objectives::settings().into_iter();
        let mut takers = takers.filter(|setting| setting.name == shared.name);
        if !takers.any(|setting| value(shared.name, written, &setting.domain).is_ok()) {
            value(shared.name, written, &shared.domain)?;
        }
    }
    let mut objectives = vec![];
    for (i, objective) in named.iter().enumerate() {
        objectives.push(one(config, i, objective, named.len())?);
        let name = &objectives[i].name;
        if objectives[..i].iter().any(|other| other.name == *name) {
            return Err(wrong("name", "differ between objectives", name));
        }
    }
    weigh(config, &mut objectives)?;
    let mut order: Vec<usize> = (0..objectives.len()).collect();
    order.sort_by_key(|i| !objectives[*i].is_preference());
    order
        .iter()
        .enumerate()
        .for_each(|(rank, i)| objectives[*i].tie_rank = rank);
    for (key, list) in [
        ("optimum", &config.optimum),
        ("optimum-eval", &config.optimum_eval),
    ] {
        if key == "optimum" && is_auto(list.as_ref()) {
            continue;
        }
        for (i, optimum) in losses(key, list.as_ref(), &objectives)? {
            let slot = if key == "optimum" {
                &mut objectives[i].optimum
            } else {
                &mut objectives[i].optimum_eval
            };
            *slot = Some(optimum);
        }
    }
    Ok(objectives)
}

/// The objectives that have flags of their own: `--sft FILE` and `--sft-rows N`.
const SHORTHAND: [&str; 2] = ["sft", "dpo"];

/// The key of an objective's setting, for a flag of one of the [`SHORTHAND`] objectives: `rows` for `sft-rows`.
fn of_objective<'k>(key: &'k str, name: &str) -> Option<&'k str> {
    if key == name {
        return Some("data");
    }
    key.strip_prefix(name)?.strip_prefix('-')
}

/// The settings that are given, as a TOML file has them.
fn given(config: &Config) -> Result<Table> {
    Table::try_from(config).map_err(|error| Error::input(format!("config: {error}")))
}

/// Rejects settings of `--sft` or `--dpo` without the flag itself, or together with
/// `[[objective]]`.
fn refuse_strays(given: &Table) -> Result<()> {
    let is_listed = given.contains_key("objective");
    for key in given.keys() {
        for head in SHORTHAND {
            if of_objective(key, head).is_none() && key != "lambda" {
                continue;
            }
            if is_listed {
                let message = format!("{key} cannot be combined with [[objective]]");
                return Err(Error::input(message).hint(
                    "sft and dpo are shorthand: use either the flags or [[objective]] tables",
                ));
            }
            if key != "lambda" && !given.contains_key(head) {
                let message = format!("{key} is given without data for {head}");
                return Err(
                    Error::input(message).hint(format!("give --{head} FILE, or leave --{key} out"))
                );
            }
        }
    }
    Ok(())
}

/// `--sft` and `--dpo` as objectives of those names, without weights.
fn shorthand(config: &Config, given: &Table) -> Result<Vec<ObjectiveConfig>> {
    let dpo_loss = dpo_loss(config.dpo_loss.as_deref())?;
    let mut objectives = Vec::new();
    for head in SHORTHAND {
        if !given.contains_key(head) {
            continue;
        }
        let mut own = Table::new();
        for (key, value) in given {
            if let Some(key) = of_objective(key, head) {
                own.insert(key.to_owned(), value.clone());
            }
        }
        let loss = if head == "dpo" {
            dpo_loss.name
        } else {
            SFT.name
        };
        own.insert("name".to_owned(), head.into());
        own.insert("loss".to_owned(), loss.into());
        let own = own.try_into();
        objectives.push(own.map_err(|error| Error::input(format!("config: {error}")))?);
    }
    if objectives.is_empty() {
        return Err(
            Error::input("no objective is given").hint("give --sft FILE, --dpo FILE, or both")
        );
    }
    Ok(objectives)
}

/// The objectives as a list, from tables or from flags.
fn list(config: &Config) -> Result<Vec<ObjectiveConfig>> {
    let given = given(config)?;
    refuse_strays(&given)?;
    if config.objective.is_empty() {
        shorthand(config, &given)
    } else {
        Ok(config.objective.clone())
    }
}

/// The same settings with `--sft` and `--dpo` as a list of objectives, and with the loss settings of the run
/// copied to every loss that takes them.
pub fn listed(config: &Config) -> Result<Config> {
    let mut objectives = list(config)?;
    for objective in &mut objectives {
        let loss = match &objective.loss {
            Some(name) => loss("loss", name)?,
            None => &SFT,
        };
        for setting in loss.settings {
            let shared = config.loss_settings.get(setting.name);
            if let Some(shared) = shared.filter(|_| setting.is_shared)
                && objective.settings.get(setting.name).is_none()
            {
                objective.settings.set(setting.name, shared.clone());
            }
        }
    }
    let mut rest = given(config)?;
    rest.retain(|key, _| {
        SHORTHAND
            .iter()
            .all(|head| of_objective(key, head).is_none())
    });
    let rest: Config = rest
        .try_into()
        .map_err(|error| Error::input(format!("config: {error}")))?;
    Ok(Config {
        objective: objectives,
        loss_settings: Given::default(),
        config: config.config.clone(),
        files: config.files.clone(),
        ..rest
    })
}

/// Resolves one objective. Messages call a key `sft-batch` for the flags, and `objective NAME:
/// batch` for a table.
fn one(
    config: &Config,
    i: usize,
    written: &ObjectiveConfig,
    count_of_all: usize,
) -> Result<ObjectivePlan> {
    let listed = !config.objective.is_empty();
    let Some(name) = written.name.clone() else {
        return Err(Error::input(format!(
            "[[objective]] {} of {count_of_all} has no name",
            i + 1
        )));
    };
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(letters) {
        return Err(wrong(
            "name",
            "contain only lowercase letters, digits, - and _",
            &name,
        ));
    }
    let shared = loss_settings(true);
    let is_shared = |of: &str| {
        shared
            .iter()
            .any(|setting| setting.name == of && setting.is_shared)
    };
    let key = |of: &str| match (listed, of) {
        (true, _) => format!("objective {name}: {of}"),
        (false, "data") => name.clone(),
        (false, _) if is_shared(of) => of.to_owned(),
        (false, _) => format!("{name}-{of}"),
    };
    let missing = |of: &str, hint: &str| {
        Error::input(format!("{} is missing", key(of))).hint(hint.to_owned())
    };
    let Some(loss_name) = &written.loss else {
        let mut names = Vec::new();
        for loss in objectives::all() {
            names.push(format!("\"{loss}\""));
        }
        return Err(missing(
            "loss",
            &format!("set loss to one of {}", names.join(", ")),
        ));
    };
    let loss = loss(&key("loss"), loss_name)?;
    if written.data.is_empty() {
        return Err(missing("data", "set data = \"FILE\""));
    }
    let settings = of_loss(
        loss,
        |name| {
            let shared = config.loss_settings.get(name);
            // It is an error if a preference loss does not take a setting of the run, such as label
            // smoothing, unless it is 0; SFT ignores the setting.
            let reaches = |value: &&Number| {
                loss.takes(name) || loss.is_preference() && value.real() != Some(0.0)
            };
            written.settings.get(name).or(shared.filter(reaches))
        },
        key,
    )?;
    let any = |value: &Option<Number>, of: &str| match value {
        Some(value) => real(&key(of), Some(value), 0.0, "be a number", |_| true).map(Some),
        None => Ok(None),
    };
    Ok(ObjectivePlan {
        data: files(&key("data"), &written.data, config)?,
        map: match &written.map {
            Some(map) => map
                .to_string()
                .parse::<ColumnMap>()
                .map_err(|error| error.at(key("map")))?,
            None => ColumnMap::default(),
        },
        eval_data: match &written.eval {
            Some(path) => Some(rows(&key("eval"), path.clone().into(), config)?),
            None => None,
        },
        template: match &written.template {
            Some(name) => Some(template(&key("template"), name)?.to_string()),
            None => None,
        },
        recorded_template: None,
        turns: match &written.turns {
            Some(turns) if loss.is_preference() => {
                return Err(wrong(
                    &key("turns"),
                    "be left out: pairs are compared by their last turns",
                    turns,
                ));
            }
            turns => choice(&key("turns"), turns.as_deref(), Turns::Last)?,
        },
        rows: match &written.rows {
            Some(rows) => Some(count(&key("rows"), Some(rows), 0)?),
            None => None,
        },
        weight: real(
            &key("weight"),
            written.weight.as_ref(),
            f64::NAN,
            "be a number of at least 0",
            |x| x >= 0.0,
        )?,
        batch: count(
            &key("batch"),
            written.batch.as_ref(),
            usual_batch(loss.is_preference()),
        )?,
        settings,
        optimum: any(&written.optimum, "optimum")?,
        optimum_eval: any(&written.optimum_eval, "optimum-eval")?,
        tie_rank: 0,
        loss,
        name,
    })
}

/// The files of a path or of a downloaded Hub dataset. Checks that each exists.
fn rows(key: &str, mut named: DataFile, config: &Config) -> Result<DataFile> {
    if let Some(shards) = config.files.get(&named.shards[0]) {
        named.shards.clone_from(shards);
    }
    named
        .shards
        .iter()
        .try_for_each(|shard| file(key, shard).map(|_| ()))?;
    Ok(named)
}

/// The files of an objective. Checks that each exists, and that either all or none have a share,
/// above 0.
fn files(key: &str, written: &[String], config: &Config) -> Result<Vec<DataFile>> {
    let mut files: Vec<DataFile> = Vec::with_capacity(written.len());
    for text in written {
        let named = DataFile::from(&text[..]);
        // The name of a file may end like a share.
        let found = if Path::new(text).is_file() {
            DataFile::from(PathBuf::from(text))
        } else {
            named
        };
        if found
            .share
            .is_some_and(|share| !(share > 0.0 && share.is_finite()))
        {
            return Err(wrong(key, "have a share above 0 after the colon", text));
        }
        let found = rows(key, found, config)?;
        if files
            .iter()
            .flat_map(|other| &other.shards)
            .any(|other| found.shards.contains(other))
        {
            return Err(
                wrong(key, "name every file once", text).hint("give it a larger share instead")
            );
        }
        files.push(found);
    }
    let shares = files.iter().filter(|file| file.share.is_some()).count();
    match files.as_slice() {
        [_] if shares == 1 => Err(wrong(key, "list several files to use shares", &written[0])
            .hint(format!(
                "remove the share: {}",
                written[0].rsplit_once(':').map_or("", |(name, _)| name)
            ))),
        _ if shares != 0 && shares != files.len() => Err(wrong(
            key,
            "have a share for every file or for none",
            written.join(", "),
        )),
        _ => Ok(files),
    }
}

/// Parses a template name. Whether the model has the template is checked when the model is opened.
pub fn template(key: &str, name: &str) -> Result<TemplateName> {
    let name: TemplateName = name.parse().map_err(|error: Error| error.at(key))?;
    if let TemplateName::File(path) = &name {
        file(key, path)?;
    }
    Ok(name)
}

/// Sets the weights that come from lambda or from the default, and checks the sum.
fn weigh(config: &Config, objectives: &mut [ObjectivePlan]) -> Result<()> {
    if config.objective.is_empty() {
        let lambda = number_of("lambda", config.lambda.as_ref()).map_err(|error| {
            error.hint("lambda is the weight of DPO: 0 is SFT alone, 1 is DPO alone")
        })?;
        if let [alone] = objectives {
            let implied = if alone.is_preference() { 1.0 } else { 0.0 };
            if config.lambda.is_some() && lambda != implied {
                let (other, name) = (
                    if alone.is_preference() { "sft" } else { "dpo" },
                    &alone.name,
                );
                return Err(wrong(
                    "lambda",
                    &format!("be {implied} if {name} is the only objective"),
                    lambda,
                )
                .hint(format!("give --{other} FILE, or leave --lambda out")));
            }
            alone.weight = 1.0;
        } else {
            objectives.iter_mut().for_each(|o| {
                o.weight = if o.is_preference() {
                    lambda
                } else {
                    1.0 - lambda
                }
            });
        }
        return Ok(());
    }
    if objectives.iter().all(|objective| objective.weight.is_nan()) {
        let equal = 1.0 / objectives.len() as f64;
        objectives
            .iter_mut()
            .for_each(|objective| objective.weight = equal);
    }
    if let Some(without) = objectives
        .iter()
        .find(|objective| objective.weight.is_nan())
    {
        return Err(
            Error::input(format!("objective {}: weight is missing", without.name))
                .hint("give a weight to every objective or to none"),
        );
    }
    let written: Vec<f64> = objectives
        .iter()
        .map(|objective| objective.weight)
        .collect();
    let Some(weights) = normalized(&written) else {
        let list: Vec<String> = objectives
            .iter()
            .map(|objective| format!("{} {}", objective.name, objective.weight))
            .collect();
        return Err(wrong(
            "weight",
            "be above 0 for at least one objective",
            list.join(", "),
        )
        .hint("give positive weights, such as 4, 3 and 3; they are divided by their sum"));
    };
    for (objective, weight) in objectives.iter_mut().zip(weights) {
        objective.weight = weight;
    }
    Ok(())
}

/// Divides weights of at least 0 by their sum. Weights that sum to 1, up to rounding, keep their
/// values. `None` if the sum is 0 or too large.
pub fn normalized(weights: &[f64]) -> Option<Vec<f64>> {
    let sum: f64 = weights.iter().sum();
    if (sum - 1.0).abs() <= 1e-6 {
        return Some(weights.to_vec());
    }
    (sum > 0.0 && sum.is_finite()).then(|| weights.iter().map(|weight| weight / sum).collect())
}

/// The value of `--optimum` that has the optima found.
const AUTO: &str = "auto";

/// Whether optima are to be found instead of given.
pub(super) fn is_auto(list: Option<&List>) -> bool {
    list.is_some_and(|list| list.0 == [AUTO])
}

/// Parses `name=value` entries into objective indices and values.
pub(super) fn losses(
    key: &str,
    list: Option<&List>,
    objectives: &[ObjectivePlan],
) -> Result<Vec<(usize, f64)>> {
    let mut found: Vec<(usize, f64)> = vec![];
    for entry in list.into_iter().flat_map(|list| &list.0) {
        let Some((name, value)) = entry.split_once('=') else {
            let hint = match key {
                "optimum" if entry == AUTO => {
                    "auto stands alone: give --optimum auto, or NAME=LOSS for every objective"
                        .to_owned()
                }
                "optimum-eval" if entry == AUTO => {
                    "give --optimum auto, which finds the held-out optima too".to_owned()
                }
                _ => format!("for example --{key} sft=1.49,dpo=0.06"),
            };
            return Err(wrong(key, "be comma-separated NAME=VALUE pairs", entry).hint(hint));
        };
        let names = objectives.iter().map(|objective| objective.name.as_str());
        let Some(i) = names.clone().position(|known| known == name.trim()) else {
            return Err(no_such(&format!("objective of {key}"), name.trim(), names));
        };
        if found.iter().any(|(other, _)| *other == i) {
            return Err(wrong(key, "name every objective once", entry));
        }
        let number = Number::from(value.trim());
        found.push((
            i,
            real(
                key,
                Some(&number),
                0.0,
                &format!("give {} a number", name.trim()),
                |_| true,
            )?,
        ));
    }
    Ok(found)
}

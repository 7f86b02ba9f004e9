//! A study as described by its TOML file: common settings, and sweeps over methods, weights and
//! seeds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{
    benchmarks::Benchmarks,
    forms::{self, MixForm},
    keys::{self, read},
};
use upright_base::{Error, Result, files};
use upright_core::methods::{self, MIX, MethodSpec};
use upright_data::one_or_many;
use upright_runs::plan::{listed, loss::loss, normalized};
use upright_runs::settings::checks::{count, named, no_such, positive, wrong};
use upright_runs::settings::{Config, List, Number, ObjectiveConfig};

/// A study: what to compare, and with which settings.
#[derive(Clone, Debug)]
pub struct Study {
    /// The title.
    pub title: String,
    /// The description, in a few sentences.
    pub about: String,
    /// Seeds of every method. Optima use all seeds; the front uses the first.
    pub seeds: Vec<u64>,
    /// The sweeps.
    pub sweeps: Vec<Sweep>,
    /// Prompts for the trained models (Section D.6).
    pub questions: Option<Questions>,
    /// Benchmarks for the trained models.
    pub benchmarks: Benchmarks,
    /// The text of the file.
    pub text: String,
}

/// Methods that are compared at some weights of the objectives, with everything else equal.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Its name in messages. If sweeps differ in model, data or reference, it is also the prefix of
    /// job names; sweeps that share these use the name of the first.
    pub name: String,
    /// Settings of every run with the objectives listed, without the settings that the sweep
    /// decides.
    pub settings: Config,
    /// The same settings as written in the file.
    pub written: Config,
    /// The methods.
    pub methods: Vec<&'static MethodSpec>,
    /// The baselines.
    pub baselines: Vec<Baseline>,
    /// Weights of the objectives, one list per point of the sweep.
    pub weights: Vec<Vec<f64>>,
    /// Orders of Sequential as indices of objectives; steps are split by weight.
    pub orders: Vec<Vec<usize>>,
    /// Stages of Sequential at each point, instead of `orders`.
    pub stages: Vec<List>,
    /// Forms of Mix.
    pub mix: Vec<MixForm>,
    /// Values of settings of methods, by key. Settings without values have their defaults.
    pub method_settings: BTreeMap<String, Vec<Number>>,
    /// Where joint methods stop.
    pub front: Front,
    /// Seeds of its runs.
    pub seeds: Vec<u64>,
}

/// An alternative to the methods.
#[derive(Clone, Debug)]
pub enum Baseline {
    /// One preference loss on the preference rows; the objectives of the sweep are evaluated too.
    Loss(Box<ObjectiveConfig>),
    /// The weighted sum of adapters trained on each objective alone.
    Sum,
}

/// The reference front at which joint methods stop (Sections D.2 and D.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front {
    /// The final losses of this study's ALRIGHT runs of the first seed.
    Own,
    /// The front of a study in another folder.
    Of(PathBuf),
    /// No front: all runs take all their steps.
    None,
}

/// The prompts for the trained models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// The prompts.
    pub prompts: Vec<String>,
    /// Maximum tokens of a response.
    pub max_tokens: usize,
}

/// Name of the baseline that sums adapters.
const SUM: &str = "sum";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenStudy {
    title: String,
    about: String,
    seeds: Vec<Number>,
    settings: Table,
    sweep: Vec<Table>,
    baseline: BTreeMap<String, Table>,
    answers: Option<Table>,
    evaluate: Table,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenSweep {
    name: Option<String>,
    #[serde(with = "one_or_many")]
    methods: Vec<String>,
    #[serde(with = "one_or_many")]
    baselines: Vec<String>,
    lambdas: Vec<Number>,
    weights: Vec<Vec<Number>>,
    #[serde(with = "one_or_many")]
    orders: Vec<String>,
    #[serde(with = "one_or_many")]
    stages: Vec<String>,
    #[serde(with = "one_or_many")]
    mix: Vec<String>,
    front: Option<String>,
    seeds: Vec<Number>,
    settings: Table,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenQuestions {
    #[serde(with = "one_or_many")]
    prompts: Vec<String>,
    max_tokens: Option<Number>,
}

impl Study {
    /// Reads a study file, and checks what can be checked without models and data.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&files::read_text(path)?, &path.display().to_string())
    }

    /// Reads TOML text; messages refer to it as `name`.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            Error::input(format!("{name}, line {line}: {}", error.message().trim()))
        })?;
        let written: WrittenStudy = read(&table, &keys::STUDY.map(|(key, _)| key), name)?;
        let mut seeds = seeds(&written.seeds).map_err(|error| error.at(name))?;
        if seeds.is_empty() {
            seeds.push(42);
        }
        if written.sweep.is_empty() {
            return Err(Error::input(format!("{name}: there is no [[sweep]]"))
                .hint("a sweep lists what to compare, such as [[sweep]] methods = [\"alright\"] lambdas = [0.5]"));
        }
        for baseline in written.baseline.keys() {
            let used = written
                .sweep
                .iter()
                .filter_map(|sweep| sweep.get("baselines"));
            if !used.into_iter().any(|list| names(list).contains(baseline)) {
                return Err(Error::input(format!(
                    "{name}: [baseline.{baseline}] has no sweep that uses it"
                ))
                .hint(format!(
                    "add baselines = [\"{baseline}\"] to a [[sweep]], or remove the table"
                )));
            }
        }
        let mut sweeps: Vec<Sweep> = Vec::new();
        for (i, table) in written.sweep.iter().enumerate() {
            let place = |called: &str| format!("{name}, {called}");
            let called = match table.get("name").and_then(Value::as_str) {
                Some(called) => format!("sweep {called}"),
                None => format!("[[sweep]] {}", i + 1),
            };
            let mut sweep = sweep(table, i, &written, &place(&called))?;
            if let Some(seed) = sweep.seeds.iter().find(|seed| !seeds.contains(seed)) {
                return Err(
                    wrong("seeds", "be among the seeds of the study", seed).at(place(&called))
                );
            }
            if sweep.seeds.is_empty() {
                sweep.seeds.clone_from(&seeds);
            }
            if sweeps.iter().any(|other| other.name == sweep.name) {
                return Err(wrong("name", "differ between sweeps", &sweep.name).at(name));
            }
            sweeps.push(sweep);
        }
        Ok(Self {
            title: written.title,
            about: written.about,
            seeds,
            sweeps,
            questions: written
                .answers
                .map(|table| questions(&table, name))
                .transpose()?,
            benchmarks: Benchmarks::parse(&written.evaluate, &format!("{name}, [evaluate]"))?,
            text: text.to_owned(),
        })
    }
}

/// Seeds, which must differ.
fn seeds(written: &[Number]) -> Result<Vec<u64>> {
    let mut seeds = Vec::with_capacity(written.len());
    for seed in written {
        let must = "be whole numbers from 0 to 2^63 - 1";
        let whole = seed.whole().ok_or_else(|| wrong("seeds", must, seed))?;
        if seeds.contains(&whole) {
            return Err(wrong("seeds", "differ", whole));
        }
        seeds.push(whole);
    }
    Ok(seeds)
}

/// The strings of a list, or the single string given instead of a list.
fn names(list: &Value) -> Vec<String> {
    match list {
        Value::Array(entries) => entries
            .iter()
            .filter_map(|entry| Some(entry.as_str()?.to_owned()))
            .collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect(),
    }
}

fn questions(table: &Table, name: &str) -> Result<Questions> {
    let place = format!("{name}, [answers]");
    let written: WrittenQuestions = read(table, &keys::ANSWERS.map(|(key, _)| key), &place)?;
    if written.prompts.is_empty()
        || written
            .prompts
            .iter()
            .any(|prompt| prompt.trim().is_empty())
    {
        return Err(
            Error::input(format!("{place}: prompts must be non-empty strings"))
                .hint("such as prompts = [\"What is a heron?\"]"),
        );
    }
    let max_tokens =
        count("max-tokens", written.max_tokens.as_ref(), 64).map_err(|error| error.at(&place))?;
    Ok(Questions {
        prompts: written.prompts,
        max_tokens,
    })
}

/// Settings of a sweep merged over those of the study: as written, and with the objectives listed.
fn settings(upper: &Table, lower: &Table, place: &str) -> Result<[Config; 2]> {
    let config = |table: &Table| -> Result<Config> {
        for (key, instead) in keys::decided() {
            if table.contains_key(key) {
                let message = format!("settings: {key} is not a setting of a study");
                return Err(Error::input(message).hint(instead));
            }
        }
        let text =
            toml::to_string(table).map_err(|error| Error::input(format!("settings: {error}")))?;
        Config::parse(&text, "settings")
    };
    let merged = config(upper)?
        .over(config(lower)?)
        .and_then(|merged| Ok([listed(&merged)?, merged]));
    let [listed, merged] = merged.map_err(|error| error.at(place))?;
    for objective in &listed.objective {
        for (key, given) in [
            ("weight", objective.weight.is_some()),
            ("optimum", objective.optimum.is_some()),
            ("optimum-eval", objective.optimum_eval.is_some()),
        ] {
            if given {
                let name = objective.name.as_deref().unwrap_or_default();
                return Err(Error::input(format!(
                    "{place}: objective {name}: {key} is not a setting of a study"
                ))
                .hint("a sweep lists weights; optima are found by training each objective alone"));
            }
        }
    }
    Ok([merged, listed])
}

fn sweep(table: &Table, index: usize, study: &WrittenStudy, place: &str) -> Result<Sweep> {
    let known = keys::sweep();
    let known: Vec<&str> = known.iter().map(|(key, _)| *key).collect();
    let mut own = table.clone();
    let mut method_settings = Table::new();
    for setting in keys::listed_settings() {
        if let Some(value) = own.remove(setting.name) {
            method_settings.insert(setting.name.to_owned(), value);
        }
    }
    let written: WrittenSweep = read(&own, &known, place)?;
    checked(&written, method_settings, index, study, place).map_err(|error| {
        if error.message.starts_with(place) {
            error
        } else {
            error.at(place)
        }
    })
}

fn checked(
    written: &WrittenSweep,
    mut method_settings: Table,
    index: usize,
    study: &WrittenStudy,
    place: &str,
) -> Result<Sweep> {
    let [as_written, settings] = settings(&written.settings, &study.settings, place)?;
    let name = written
        .name
        .clone()
        .unwrap_or_else(|| format!("sweep-{}", index + 1));
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(letters) {
        return Err(wrong(
            "name",
            "have only lowercase letters, digits, - and _",
            &name,
        ));
    }
    let methods = written
        .methods
        .iter()
        .map(|name| named("methods", name, methods::all(), |method| method.name));
    let methods: Vec<&'static MethodSpec> = methods.collect::<Result<_>>()?;
    let method_settings = forms::take_settings(&mut method_settings, &methods)?;
    let baselines = written
        .baselines
        .iter()
        .map(|name| baseline(name, &settings, study));
    let baselines: Vec<Baseline> = baselines.collect::<Result<_>>()?;
    if methods.is_empty() && baselines.is_empty() {
        return Err(
            Error::input("there is nothing to compare").hint("list methods, baselines, or both")
        );
    }
    let weights = weights(written, &settings.objective)?;
    let sequential = methods.iter().any(|method| method.has_stages);
    for (key, given) in [
        ("orders", !written.orders.is_empty()),
        ("stages", !written.stages.is_empty()),
    ] {
        if given && !sequential {
            return Err(Error::input(format!(
                "{key} is given, but sequential is not among the methods"
            ))
            .hint(format!("add it to methods, or remove {key}")));
        }
    }
    if !written.orders.is_empty() && !written.stages.is_empty() {
        return Err(Error::input("orders and stages are both given").hint("remove one of them"));
    }
    if !written.stages.is_empty() && written.stages.len() != weights.len() {
        return Err(wrong(
            "stages",
            &format!(
                "have one entry for each of the {} weightings",
                weights.len()
            ),
            written.stages.len(),
        )
        .hint("such as lambdas = [0.25, 0.5], stages = [\"dpo:2e,sft:4e\", \"dpo:3e,sft:3e\"]"));
    }
    if !written.mix.is_empty() && !methods.contains(&&MIX) {
        return Err(
            Error::input("mix is given, but mix is not among the methods")
                .hint("add mix to methods, or remove mix"),
        );
    }
    let stages: Vec<List> = written
        .stages
        .iter()
        .map(|text| List::from(&text[..]))
        .collect();
    Ok(Sweep {
        orders: if stages.is_empty() && sequential {
            orders(written, &settings.objective)?
        } else {
            Vec::new()
        },
        name,
        methods,
        baselines,
        weights,
        stages,
        mix: MixForm::parse(&written.mix)?,
        method_settings,
        front: match written.front.as_deref() {
            None | Some("own") => Front::Own,
            Some("none") => Front::None,
            Some(folder) if Path::new(folder).is_dir() => Front::Of(folder.into()),
            Some(other) => {
                return Err(wrong(
                    "front",
                    "be own, none, or the folder of another study",
                    other,
                ));
            }
        },
        seeds: seeds(&written.seeds)?,
        settings,
        written: as_written,
    })
}

/// Whether the rows of an objective are pairs. An unknown loss is rejected later, with the plan.
fn is_preference(objective: &ObjectiveConfig) -> bool {
    let found = objective.loss.as_deref().map(|name| loss("loss", name));
    matches!(found, Some(Ok(loss)) if loss.is_preference())
}

fn name_of(objective: &ObjectiveConfig) -> &str {
    objective.name.as_deref().unwrap_or_default()
}

fn baseline(name: &str, settings: &Config, study: &WrittenStudy) -> Result<Baseline> {
    let own = study.baseline.get(name);
    if name == SUM {
        return match own {
            None => Ok(Baseline::Sum),
            Some(_) => Err(Error::input("[baseline.sum] has no settings")
                .hint("remove the table; the sum uses the weights of the sweep")),
        };
    }
    let mut losses = keys::baselines();
    losses.push(SUM);
    if !losses.contains(&name) {
        return Err(no_such("baselines", name, losses.iter().copied()));
    }
    let pairs: Vec<&ObjectiveConfig> = settings
        .objective
        .iter()
        .filter(|objective| is_preference(objective))
        .collect();
    let [pairs] = pairs[..] else {
        return Err(Error::input(format!(
            "baseline {name} needs exactly one preference objective, found {}",
            pairs.len()
        ))
        .hint("baselines train on the rows of the one preference objective"));
    };
    if settings
        .objective
        .iter()
        .any(|objective| name_of(objective) == name)
    {
        return Err(
            Error::input(format!("baseline {name} has the same name as an objective"))
                .hint("rename the objective"),
        );
    }
    let table = own.cloned().unwrap_or_default();
    let known = keys::baseline();
    let known: Vec<&str> = known.iter().map(|(key, _)| *key).collect();
    let given: ObjectiveConfig = read(&table, &known, &format!("[baseline.{name}]"))?;
    let mut settings = given.settings;
    // By default, a loss with a reference has the KL strength of the objective that it replaces.
    let own_loss = loss("baselines", name)?;
    let is_tied =
        own_loss.reference && own_loss.takes(keys::BETA) && settings.get(keys::BETA).is_none();
    if let Some(beta) = pairs.settings.get(keys::BETA).filter(|_| is_tied) {
        settings.set(keys::BETA, beta.clone());
    }
    Ok(Baseline::Loss(Box::new(ObjectiveConfig {
        name: Some(name.to_owned()),
        loss: Some(name.to_owned()),
        settings,
        batch: given.batch.or_else(|| pairs.batch.clone()),
        ..pairs.clone()
    })))
}

/// The points of the sweep. A lambda is the weight of the preference objective if there are two
/// objectives.
fn weights(written: &WrittenSweep, objectives: &[ObjectiveConfig]) -> Result<Vec<Vec<f64>>> {
    let inside = |key: &str, number: &Number| {
        let found = number.real().filter(|x| *x > 0.0 && *x < 1.0);
        found.ok_or_else(|| {
            wrong(key, "lie between 0 and 1", number)
                .hint("the study also trains each objective alone, to find its optimum")
        })
    };
    let mut all: Vec<Vec<f64>> = Vec::new();
    match (&written.lambdas[..], &written.weights[..]) {
        ([], []) => {
            return Err(
                Error::input("lambdas are missing").hint("such as lambdas = [0.25, 0.5, 0.75]")
            );
        }
        ([_, ..], [_, ..]) => {
            return Err(
                Error::input("lambdas and weights are both given").hint("remove one of them")
            );
        }
        (lambdas, []) => {
            let pairs: Vec<bool> = objectives.iter().map(is_preference).collect();
            if pairs.len() != 2 || pairs[0] == pairs[1] {
                return Err(
                    Error::input("lambdas need one preference objective and one other").hint(
                        "give weights instead, one list per point, in the order of the objectives",
                    ),
                );
            }
            for lambda in lambdas {
                let lambda = inside("lambdas", lambda)?;
                all.push(
                    pairs
                        .iter()
                        .map(|pairs| if *pairs { lambda } else { 1.0 - lambda })
                        .collect(),
                );
            }
        }
        ([], lists) => {
            for list in lists {
                let mut point: Vec<f64> = Vec::with_capacity(list.len());
                for weight in list {
                    point.push(positive("weights", Some(weight), 0.0).map_err(|error| {
                        error
                            .hint("the study also trains each objective alone, to find its optimum")
                    })?);
                }
                match normalized(&point) {
                    Some(point) if point.len() == objectives.len() => all.push(point),
                    _ => {
                        let listed: Vec<String> = list.iter().map(Number::to_string).collect();
                        let must = format!("be {} numbers, one per objective", objectives.len());
                        return Err(wrong("weights", &must, listed.join(", ")));
                    }
                }
            }
        }
    }
    match (1..all.len()).find(|i| all[..*i].contains(&all[*i])) {
        Some(twice) => Err(wrong(
            "lambdas or weights",
            "differ",
            format!("{:?}", all[twice]),
        )),
        None => Ok(all),
    }
}

/// Orders of Sequential, such as `dpo,sft`. By default, preference objectives come first.
fn orders(written: &WrittenSweep, objectives: &[ObjectiveConfig]) -> Result<Vec<Vec<usize>>> {
    let names: Vec<&str> = objectives.iter().map(name_of).collect();
    if written.orders.is_empty() {
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|i| !is_preference(&objectives[*i]));
        return Ok(vec![order]);
    }
    let order = |text: &String| -> Result<Vec<usize>> {
        let List(listed) = List::from(&text[..]);
        let index = |name: &String| {
            let found = names.iter().position(|known| known == name);
            found.ok_or_else(|| no_such("orders", name, names.iter().copied()))
        };
        let order = listed.iter().map(index).collect::<Result<Vec<usize>>>()?;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted != (0..names.len()).collect::<Vec<_>>() {
            return Err(wrong("orders", "name every objective once", text));
        }
        Ok(order)
    };
    written.orders.iter().map(order).collect()
}

#[cfg(test)]
mod tests;

//! The ideal point: every objective at its optimum f*, per setting in which losses can be compared.

use serde::Serialize;

use super::labels;
use crate::read::run::{self, Run};
use upright_core::{metrics::Spread, optimizer::Iterate};
use upright_runs::{
    plan::{ObjectivePlan, ReferencePlan},
    records::{EvalSet, PerSet},
};

/// Runs whose losses can be compared: same base model, reference, rows and losses.
#[derive(Clone, Debug, Serialize)]
pub struct Comparable {
    /// Indices of the report's runs.
    #[serde(skip)]
    pub runs: Vec<usize>,
    /// Name of the base model.
    pub model: String,
    /// The reference policy.
    pub reference: String,
    /// What it measures otherwise than the other settings, with values; empty if it is the only one.
    pub differs: String,
    /// Loss of each objective before the first step of a new adapter.
    pub start: PerSet<Vec<Option<Spread>>>,
    /// Optimum of each objective; none if it is unknown.
    pub ideal: PerSet<Vec<Option<Optimum>>>,
}

/// An optimum with its source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimum {
    /// Its loss.
    pub value: f64,
    /// Its source.
    pub source: Source,
    /// Whether a run that trains the objective alone reached it: a run of the report, or one that
    /// `--optimum auto` took.
    pub trained: bool,
}

/// The source of an optimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Given to the runs.
    Given,
    /// The runs were given different values; this is the smallest.
    Differing,
    /// The lowest loss in any evaluation while the objective was trained alone.
    Alone,
}

/// Whether the losses of two runs can be compared, for the objectives that both have.
fn comparable(a: &Run, b: &Run) -> bool {
    let (plan, other) = (a.plan(), b.plan());
    let (facts, others) = (&a.written.facts, &b.written.facts);
    let rows = |run: &Run| {
        let plan = run.plan();
        (
            plan.max_length,
            plan.min_prompt,
            plan.too_long,
            plan.eval_rows,
        )
    };
    if facts.base != others.base || facts.tokenizer != others.tokenizer || rows(a) != rows(b) {
        return false;
    }
    let shared = plan
        .objectives
        .iter()
        .enumerate()
        .filter_map(|(i, o)| Some((i, b.objective(&o.name)?)));
    let mut needs = (false, false);
    for (i, k) in shared {
        let (mine, theirs) = (&plan.objectives[i], &other.objectives[k]);
        let measures = |o: &ObjectivePlan| (o.loss, o.settings.clone(), o.turns, o.map.clone());
        if measures(mine) != measures(theirs) || facts.data[i] != others.data[k] {
            return false;
        }
        let needed = mine.loss.reference;
        needs = (needs.0 || needed, needs.1 || needed);
    }
    !needs.0 || same_reference(a, b)
}

fn same_reference(a: &Run, b: &Run) -> bool {
    let (mine, theirs) = (a.plan(), b.plan());
    match (&mine.reference, &theirs.reference) {
        (ReferencePlan::Folder(_), ReferencePlan::Folder(_)) => {
            a.written.facts.reference == b.written.facts.reference
        }
        // Training a reference uses the adapter shape and the optimizer of the run.
        (ReferencePlan::Train { .. }, _) => {
            mine.reference == theirs.reference
                && mine.lora == theirs.lora
                && mine.reference_optimizer() == theirs.reference_optimizer()
        }
        (mine, theirs) => mine == theirs,
    }
}

/// An optimum is copied by hand from a table, which rounds to three or four decimals.
const ROUNDING: f64 = 1e-3;

/// How the runs of a setting measure their losses, as keys and values for a reader: everything that
/// [`comparable`] compares. A run may lack an objective that another run has.
fn measures_of(runs: &[Run], group: &[usize]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for run in group {
        for (key, value) in measures(&runs[*run]) {
            if !found.iter().any(|(other, _)| *other == key) {
                found.push((key, value));
            }
        }
    }
    found
}

/// How a run measures its losses, as keys and values for a reader.
fn measures(run: &Run) -> Vec<(String, String)> {
    const SHARED: [&str; 7] = [
        "model",
        "reference",
        "tokenizer",
        "max-length",
        "min-prompt",
        "too-long",
        "eval-rows",
    ];
    const EACH: [&str; 10] = [
        "loss",
        "beta",
        "label-smoothing",
        "alpha",
        "gamma",
        "turns",
        "map",
        "data",
        "held-out data",
        "template used",
    ];
    let plan = run.plan();
    let trains_reference =
        plan.needs_reference() && matches!(plan.reference, ReferencePlan::Train { .. });
    let has_own_rate = plan.reference_optimizer() != plan.optimizer;
    let mut found = Vec::new();
    for (key, value) in labels::comparable_settings(run) {
        let of_reference = key.starts_with("lora.")
            || key.starts_with("optimizer.") && !(has_own_rate && key == "optimizer.learning-rate");
        let asked = match plan
            .objectives
            .iter()
            .find(|o| key.starts_with(&format!("{}.", o.name)))
        {
            Some(objective) => EACH.contains(&&key[objective.name.len() + 1..]),
            None if key == "reference" => plan.needs_reference(),
            None => SHARED.contains(&&key[..]) || (of_reference && trains_reference),
        };
        let file = plan
            .objectives
            .iter()
            .find(|objective| key == format!("{}.data", objective.name))
            .map(|objective| run::file_names(objective).join(" "));
        if asked {
            let value = file.map_or_else(|| value.clone(), |file| format!("{file} {value}"));
            found.push((key, value));
        }
    }
    for (objective, data) in plan.objectives.iter().zip(&run.written.facts.data) {
        let name = &objective.name;
        let hash = data.encoded_sha256.get(..8).unwrap_or("none");
        found.push((format!("{name}.training rows"), data.train_rows.to_string()));
        found.push((format!("{name}.held-out rows"), data.eval_rows.to_string()));
        found.push((format!("{name}.dialect"), data.dialect.clone()));
        found.push((format!("{name}.{ENCODED}"), hash.to_owned()));
    }
    found
}

/// Key of the hash of the encoded rows.
const ENCODED: &str = "encoded rows";

/// Whether a key's value is the hash of something that other keys usually tell apart.
fn is_hash(key: &str) -> bool {
    key.ends_with(ENCODED)
}

impl Comparable {
    /// Groups runs into settings, starting with the runs that have the most objectives.
    pub(crate) fn find(runs: &[Run], objectives: &[String]) -> Vec<Self> {
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(runs[*i].plan().objectives.len()));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for index in order {
            match groups
                .iter_mut()
                .find(|group| comparable(&runs[group[0]], &runs[index]))
            {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort();
        let mut settings: Vec<Self> = groups
            .into_iter()
            .map(|group| Self::of(runs, group, objectives))
            .collect();
        let measured: Vec<_> = settings
            .iter()
            .map(|setting| measures_of(runs, &setting.runs))
            .collect();
        let mut differing = labels::differing_keys(&measured);
        // Hashes say nothing to a reader, if anything else differs.
        if differing.iter().any(|key| !is_hash(key)) {
            differing.retain(|key| !is_hash(key));
        }
        for (setting, measured) in settings.iter_mut().zip(&measured) {
            setting.differs = labels::said(measured, &differing);
        }
        settings
    }

    fn of(runs: &[Run], group: Vec<usize>, objectives: &[String]) -> Self {
        let all = || group.iter().map(|i| &runs[*i]);
        let start = |set: EvalSet, name: &String| {
            let fresh = all().filter(|run| run.plan().init_adapter.is_none());
            let first = |run: &Run| {
                run.loss(
                    run.points.first().filter(|point| point.step == 0)?,
                    Iterate::Last,
                    set,
                    name,
                )
            };
            let losses: Vec<f64> = fresh.filter_map(first).collect();
            (!losses.is_empty()).then(|| Spread::of(&losses))
        };
        let optimum = |set: EvalSet, name: &String| {
            let alone = all().filter(|run| {
                run.is_finished()
                    && run
                        .alone()
                        .is_some_and(|id| run.objective(name) == Some(id))
            });
            // Training the objective alone reached the losses of the averaged adapter too.
            let mut lowest: Option<f64> = None;
            for run in alone {
                for point in &run.points {
                    for iterate in [Iterate::Last, Iterate::Average] {
                        let loss = run.loss(point, iterate, set, name);
                        lowest = lowest.into_iter().chain(loss).reduce(f64::min);
                    }
                }
            }
            if let Some((value, source)) = given(all(), set, name) {
                let found = all().any(|run| run.plan().finds_optima);
                let trained = found || lowest.is_some_and(|lowest| lowest <= value + ROUNDING);
                return Some(Optimum {
                    value,
                    source,
                    trained,
                });
            }
            lowest.map(|value| Optimum {
                value,
                source: Source::Alone,
                trained: true,
            })
        };
        let optima = |set: EvalSet| objectives.iter().map(|name| optimum(set, name)).collect();
        let starts = |set: EvalSet| objectives.iter().map(|name| start(set, name)).collect();
        Self {
            model: runs[group[0]].model(),
            reference: runs[group[0]].reference(),
            differs: String::new(),
            start: PerSet::each(starts),
            ideal: PerSet::each(optima),
            runs: group,
        }
    }

    /// The objectives whose optimum was given and that no run in the report reached by training
    /// the objective alone, on any set of rows.
    pub(crate) fn untrained(&self, objectives: &[String]) -> Vec<String> {
        let mut names = Vec::new();
        for (k, name) in objectives.iter().enumerate() {
            let mut optima = self.ideal.iter().filter_map(|optima| optima[k].as_ref());
            if optima.any(|optimum| !optimum.trained) {
                names.push(name.clone());
            }
        }
        names
    }

    /// The ideal point on a set, if every objective has an optimum.
    pub fn ideal_point(&self, set: EvalSet) -> Option<Vec<f64>> {
        self.ideal[set]
            .iter()
            .map(|optimum| Some(optimum.as_ref()?.value))
            .collect()
    }
}

/// The optimum that the runs were given, with its source; the smallest if they differ.
fn given<'r>(
    runs: impl Iterator<Item = &'r Run>,
    set: EvalSet,
    name: &str,
) -> Option<(f64, Source)> {
    let told = |run: &'r Run| {
        let objective = &run.plan().objectives[run.objective(name)?];
        match set {
            EvalSet::HeldOut => objective.optimum_eval,
            EvalSet::Training => objective.optimum,
        }
    };
    let mut values: Vec<f64> = runs.filter_map(told).collect();
    values.sort_by(f64::total_cmp);
    let (first, last) = (*values.first()?, *values.last()?);
    let source = if first < last {
        Source::Differing
    } else {
        Source::Given
    };
    Some((first, source))
}

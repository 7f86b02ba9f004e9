//! The ideal point: every objective at its optimum f*, per setting in which losses can be compared.

use serde::Serialize;

use super::run::Run;
use upright_core::metrics::Spread;
use upright_runs::plan::{ObjectivePlan, ReferencePlan};

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
    /// Loss of each objective before the first step of a new adapter, on held-out rows and on
    /// training rows.
    pub start: [Vec<Option<Spread>>; 2],
    /// Optimum of each objective, on held-out rows and on training rows; none if it is unknown.
    pub ideal: [Vec<Option<Optimum>>; 2],
}

/// An optimum with its source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimum {
    /// Its loss.
    pub value: f64,
    /// Its source.
    pub source: Source,
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
        let measures = |o: &ObjectivePlan| {
            (
                o.loss,
                o.beta,
                o.label_smoothing,
                o.alpha,
                o.gamma,
                o.turns,
                o.map.clone(),
            )
        };
        if measures(mine) != measures(theirs) || facts.data[i] != others.data[k] {
            return false;
        }
        let needed = mine.loss.spec().reference;
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
                && mine.optimizer == theirs.optimizer
        }
        (mine, theirs) => mine == theirs,
    }
}

impl Comparable {
    /// Groups runs into settings, starting with the runs that have the most objectives.
    pub(super) fn find(runs: &[Run], objectives: &[String]) -> Vec<Self> {
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
        groups
            .into_iter()
            .map(|group| Self::of(runs, group, objectives))
            .collect()
    }

    fn of(runs: &[Run], group: Vec<usize>, objectives: &[String]) -> Self {
        let all = || group.iter().map(|i| &runs[*i]);
        let start = |set: usize, name: &String| {
            let fresh = all().filter(|run| run.plan().init_adapter.is_none());
            let first = |run: &Run| {
                run.loss(
                    run.points.first().filter(|point| point.step == 0)?,
                    set,
                    name,
                )
            };
            let losses: Vec<f64> = fresh.filter_map(first).collect();
            (!losses.is_empty()).then(|| Spread::of(&losses))
        };
        let optimum = |set: usize, name: &String| {
            given(all(), set, name).or_else(|| {
                let alone = all().filter(|run| {
                    run.is_finished()
                        && run
                            .alone()
                            .is_some_and(|id| run.objective(name) == Some(id))
                });
                let losses = alone.flat_map(|run| {
                    run.points
                        .iter()
                        .filter_map(|point| run.loss(point, set, name))
                });
                losses.reduce(f64::min).map(|value| Optimum {
                    value,
                    source: Source::Alone,
                })
            })
        };
        let each = |set: usize| objectives.iter().map(|name| optimum(set, name)).collect();
        let starts = |set: usize| objectives.iter().map(|name| start(set, name)).collect();
        Self {
            model: runs[group[0]].model(),
            reference: runs[group[0]].reference(),
            start: [starts(0), starts(1)],
            ideal: [each(0), each(1)],
            runs: group,
        }
    }

    /// The ideal point on a set, if every objective has an optimum.
    pub fn ideal_point(&self, set: usize) -> Option<Vec<f64>> {
        self.ideal[set]
            .iter()
            .map(|optimum| Some(optimum.as_ref()?.value))
            .collect()
    }
}

/// The optimum that the runs were given; the smallest if they differ.
fn given<'r>(runs: impl Iterator<Item = &'r Run>, set: usize, name: &str) -> Option<Optimum> {
    let told = |run: &'r Run| {
        let objective = &run.plan().objectives[run.objective(name)?];
        if set == 0 {
            objective.optimum_eval
        } else {
            objective.optimum
        }
    };
    let mut values: Vec<f64> = runs.filter_map(told).collect();
    values.sort_by(f64::total_cmp);
    let (first, last) = (*values.first()?, *values.last()?);
    Some(Optimum {
        value: first,
        source: if first < last {
            Source::Differing
        } else {
            Source::Given
        },
    })
}

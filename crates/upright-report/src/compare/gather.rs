//! Groups runs that differ only in their seed into arms, computes their means, and orders the arms.

use super::{
    arm::{Arm, Joint, Outcome, Role},
    budget::{self, Budget},
    ideal::Comparable,
    labels, matching,
    small::Small,
};
use crate::read::{run::Run, sums};
use upright_base::Result;
use upright_core::{
    methods::SEQUENTIAL,
    metrics::{Spread, gap},
    optimizer::Iterate,
};
use upright_runs::{
    plan_record::PlanRecord,
    records::{EvalSet, PerSet},
    settings::Effect,
};

impl Outcome {
    fn of(
        runs: &[Run],
        index: usize,
        iterate: Iterate,
        objectives: &[String],
        setting: &Comparable,
    ) -> Self {
        let run = &runs[index];
        let mut ends = PerSet::<Vec<Option<f64>>>::default();
        let mut gaps = PerSet::<Vec<Option<f64>>>::default();
        let mut ideal_distance = PerSet::<Option<f64>>::default();
        for set in EvalSet::ALL {
            for (name, optimum) in objectives.iter().zip(&setting.ideal[set]) {
                let end = run
                    .points
                    .last()
                    .and_then(|point| run.loss(point, iterate, set, name));
                ends[set].push(end);
                gaps[set].push(
                    end.zip(optimum.as_ref())
                        .map(|(end, optimum)| gap::gap(end, optimum.value)),
                );
            }
            let all: Option<Vec<f64>> = gaps[set].iter().copied().collect();
            ideal_distance[set] = all.map(|gaps| gap::ideal_distance(&gaps));
        }
        let trainings = sums::trainings(runs, run);
        let total = |value: &dyn Fn(&Run) -> Option<f64>| {
            trainings.as_ref()?.iter().map(|run| value(run)).sum()
        };
        let updates = |name: &String| {
            total(&|run| {
                let Some(id) = run.objective(name) else {
                    return Some(0.0);
                };
                Some(run.updates.iter().filter(|step| step[id]).count() as f64)
            })
        };
        Self {
            seed: run.seed,
            ends,
            gaps,
            ideal_distance,
            seconds: total(&|run| Some(run.seconds)),
            busy_seconds: total(&|run| run.busy_seconds),
            tokens: total(&|run| Some(run.tokens as f64)),
            probed_tokens: total(&|run| Some(run.probed_tokens as f64)),
            updates: objectives.iter().map(updates).collect(),
            peak_memory_gb: trainings
                .iter()
                .flatten()
                .filter_map(|run| run.peak_memory_gb)
                .reduce(f64::max),
        }
    }
}

/// Everything that determines the steps of a run, without its seed and its paths.
fn identity(run: &Run) -> Result<String> {
    let mut written = PlanRecord {
        // The averaged adapters are an arm of their own ([`averaged`]).
        plan: run
            .plan()
            .anywhere()
            .without(|effect| effect == Effect::Records),
        facts: run.written.facts.clone(),
    };
    let plan = &mut written.plan;
    plan.seed = 0;
    // Plans record some settings of other methods.
    plan.method_settings = plan.method_settings.of(plan.method.settings);
    let uses_optima = plan.method.uses_optima;
    for objective in &mut plan.objectives {
        objective.optimum = objective.optimum.filter(|_| uses_optima);
    }
    written.facts.base_lineage.clear();
    match run.sum() {
        // The adapters of a sum depend on its seed. Every other evaluated adapter is an arm of its
        // own.
        Some(name) => {
            written.facts.init_adapter.clear();
            Ok(format!("{name}\n{}", written.to_toml()?))
        }
        None => written.to_toml(),
    }
}

/// Splits a group by adapter if it has different adapters under the same name and seed: such sums
/// come from different studies.
fn apart(runs: &[Run], group: Vec<usize>) -> Vec<Vec<usize>> {
    let adapter = |i: usize| &runs[i].written.facts.init_adapter;
    let clash = |a: usize, b: usize| runs[a].seed == runs[b].seed && adapter(a) != adapter(b);
    if !group.iter().any(|a| group.iter().any(|b| clash(*a, *b))) {
        return vec![group];
    }
    let mut found: Vec<Vec<usize>> = Vec::new();
    for index in group {
        match found
            .iter_mut()
            .find(|other| adapter(other[0]) == adapter(index))
        {
            Some(other) => other.push(index),
            None => found.push(vec![index]),
        }
    }
    found
}

impl Arm {
    /// Groups runs into arms, in the order of the page, with labels and relative costs. Also
    /// returns the training budgets.
    pub(super) fn gather(
        runs: &[Run],
        objectives: &[String],
        settings: &[Comparable],
    ) -> Result<(Vec<Self>, Vec<Budget>)> {
        let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            let own = identity(run)?;
            match groups.iter_mut().find(|(other, _)| *other == own) {
                Some((_, group)) => group.push(index),
                None => groups.push((own, vec![index])),
            }
        }
        // Among unfinished runs of one seed, the longest comes first.
        let order = |i: &usize| (runs[*i].seed, std::cmp::Reverse(runs[*i].steps));
        groups
            .iter_mut()
            .for_each(|(_, group)| group.sort_by_key(order));
        let groups = groups.into_iter().flat_map(|(_, group)| apart(runs, group));
        let mut arms: Vec<Self> = groups
            .map(|group| Self::of(runs, group, Iterate::Last, objectives, settings))
            .collect();
        labels::fill_in(&mut arms, runs, objectives);
        for arm in &mut arms {
            arm.method.clone_from(&arm.family);
        }
        for index in 0..arms.len() {
            let averaged = averaged(runs, &arms[index], objectives, settings);
            arms.extend(averaged);
        }
        let order = |a: &Self, b: &Self| {
            // Arms that train an objective alone are ordered by that objective, sequential arms by
            // their first objective.
            let place = |arm: &Self| match &arm.role {
                Role::Alone(name) => (0, objectives.iter().position(|other| other == name)),
                Role::Sequential(names) => (
                    SEQUENTIAL.forms[0].place,
                    objectives.iter().rev().position(|other| *other == names[0]),
                ),
                Role::Joint(joint) => (joint.form.place, None),
                Role::Other(_) => (usize::MAX - 2, None),
                Role::Sum => (usize::MAX - 1, None),
                Role::Measured(_) => (usize::MAX, None),
            };
            let key = (a.setting, place(a)).cmp(&(b.setting, place(b)));
            key.then_with(|| a.role.cmp(&b.role))
                .then_with(|| matching::in_order(&a.weights, &b.weights))
                .then(a.probe_every.cmp(&b.probe_every))
                .then_with(|| a.label.cmp(&b.label))
        };
        arms.sort_by(order);
        let terms = budget::find(&mut arms, runs, objectives);
        matching::compare_costs(&mut arms);
        Ok((arms, terms))
    }

    fn of(
        runs: &[Run],
        group: Vec<usize>,
        iterate: Iterate,
        objectives: &[String],
        settings: &[Comparable],
    ) -> Self {
        let unfinished = !group.iter().any(|i| runs[*i].is_finished());
        let everyone = group.clone();
        let (mut counted, mut repeated): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for index in group
            .into_iter()
            .filter(|i| unfinished || runs[*i].is_finished())
        {
            // A copy or a rerun of a seed would make the error too small.
            let known = counted.iter().any(|i| runs[*i].seed == runs[index].seed);
            if known {
                repeated.push(index);
            } else {
                counted.push(index);
            }
        }
        let group = counted;
        let first = &runs[group[0]];
        let all = || group.iter().map(|i| &runs[*i]);
        let setting = settings
            .iter()
            .position(|setting| setting.runs.contains(&group[0]))
            .unwrap_or(0);
        let outcomes: Vec<Outcome> = group
            .iter()
            .map(|i| Outcome::of(runs, *i, iterate, objectives, &settings[setting]))
            .collect();
        // A mean is over all runs of the arm, or missing.
        let spread = |values: Vec<Option<f64>>| {
            let values: Option<Vec<f64>> = values.into_iter().collect();
            values
                .filter(|values| !values.is_empty())
                .map(|values| Spread::of(&values))
        };
        let over =
            |value: &dyn Fn(&Outcome) -> Option<f64>| spread(outcomes.iter().map(value).collect());
        let each = |value: &dyn Fn(&Outcome, usize) -> Option<f64>| -> Vec<_> {
            (0..objectives.len())
                .map(|k| over(&|outcome| value(outcome, k)))
                .collect()
        };
        let ends = PerSet::each(|set| each(&|outcome, k| outcome.ends[set][k]));
        let gaps = PerSet::each(|set| each(&|outcome, k| outcome.gaps[set][k]));
        let ideal_distance = PerSet::each(|set| over(&|outcome| outcome.ideal_distance[set]));
        let rate = |outcome: &Outcome| {
            let (tokens, seconds) = (outcome.tokens?, outcome.seconds?);
            Some(if seconds > 0.0 { tokens / seconds } else { 0.0 })
        };
        Self {
            label: String::new(),
            family: String::new(),
            method: String::new(),
            sweep: String::new(),
            front_name: String::new(),
            role: role(first, objectives),
            iterate,
            weights: labels::weights(first, objectives),
            probe_every: first
                .plan()
                .method
                .probe_every(&first.plan().method_settings)
                .filter(|_| first.alone().is_none()),
            setting,
            terms: None,
            unfinished,
            planned: first.planned,
            ended_early: all()
                .filter(|run| run.ended_early())
                .map(|run| run.steps)
                .collect(),
            ends,
            gaps,
            ideal_distance,
            updates: each(&|outcome, k| outcome.updates[k]),
            seconds: over(&|outcome| outcome.seconds),
            busy_seconds: over(&|outcome| outcome.busy_seconds),
            tokens: over(&|outcome| outcome.tokens),
            probed_tokens: over(&|outcome| outcome.probed_tokens),
            tokens_per_second: over(&rate),
            utilization: spread(all().map(|run| run.utilization).collect()),
            peak_memory_gb: outcomes
                .iter()
                .filter_map(|outcome| outcome.peak_memory_gb)
                .reduce(f64::max),
            runtime_increase: None,
            cost_increase: None,
            utilization_increase: None,
            against: Vec::new(),
            small: Small::of(&all().collect::<Vec<_>>(), objectives),
            outcomes,
            runs: group,
            all: everyone,
            repeated,
        }
    }
}

/// The arm of the averaged adapters of an arm's runs; none if no run has one. A run without an
/// average is not part of it.
fn averaged(
    runs: &[Run],
    last: &Arm,
    objectives: &[String],
    settings: &[Comparable],
) -> Option<Arm> {
    let mut group = last.all.clone();
    group.retain(|i| runs[*i].has_average());
    if group.is_empty() {
        return None;
    }
    let mut arm = Arm::of(runs, group, Iterate::Average, objectives, settings);
    arm.label = labels::averaged(&last.label);
    arm.family = labels::averaged(&last.family);
    arm.method.clone_from(&last.method);
    arm.sweep = labels::averaged(&last.sweep);
    arm.front_name = labels::averaged(&last.front_name);
    Some(arm)
}

fn role(run: &Run, objectives: &[String]) -> Role {
    let plan = run.plan();
    let name = |id: usize| plan.objectives[id].name.clone();
    // A run that trains on an objective that other runs lack is named by that objective.
    let used = |i: &usize| run.trains_on(*i);
    let foreign = |i: &usize| !objectives.contains(&plan.objectives[*i].name);
    if run.planned == 0 {
        return if run.sum().is_some() {
            Role::Sum
        } else {
            Role::Measured(run.adapter())
        };
    }
    if let Some(id) = run.alone() {
        return if foreign(&id) {
            Role::Other(name(id))
        } else {
            Role::Alone(name(id))
        };
    }
    // Another method with stages stands under its own name.
    if plan.method == &SEQUENTIAL {
        let stages = run.stages.iter().filter_map(|stage| stage.objective);
        return Role::Sequential(stages.map(name).collect());
    }
    match (0..plan.objectives.len()).filter(used).find(foreign) {
        Some(id) => Role::Other(name(id)),
        None => Role::Joint(Joint {
            method: plan.method,
            form: plan.method.form(&plan.method_settings),
        }),
    }
}

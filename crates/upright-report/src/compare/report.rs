//! The report: what the page says, as numbers.

use std::path::Path;

use serde::Serialize;

use super::{
    arm::{Arm, Role},
    fronts::{Best, Front},
    ideal::Comparable,
    level::Level,
    matching,
    scores::Scores,
    verdict::Claim,
};
use crate::read::{Answers, Damaged, Run, Study};
use upright_runs::records::EvalSet;

/// The content of the page, as numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Title and purpose of the runs, if a file beside them states them.
    pub study: Study,
    /// Names of the objectives compared.
    pub objectives: Vec<String>,
    /// The settings in which losses are measured.
    pub settings: Vec<Comparable>,
    /// The training budgets of the arms, by name: the settings in which they differ, or a number if
    /// these are many. Only arms with the same budget are compared.
    pub terms: Vec<String>,
    /// The settings in which each training budget differs from the others.
    pub budgets: Vec<String>,
    /// For each training budget, a number that is equal for budgets that differ only in their
    /// steps.
    #[serde(skip)]
    pub(crate) families: Vec<usize>,
    /// The arms, in the order of the page.
    pub arms: Vec<Arm>,
    /// Which arms are on the front.
    pub best: Best,
    /// Methods over their weights.
    pub fronts: Vec<Front>,
    /// Comparisons at equal tokens, where they differ from those at equal steps.
    pub levels: Vec<Level>,
    /// The paper's claims, tested on the arms.
    pub claims: Vec<Claim>,
    /// Scores of benchmarks, by arm.
    pub benchmarks: Vec<Scores>,
    /// Responses to the same prompts. A run is named by its arm and seed.
    pub answers: Vec<Answers>,
    /// The runs that could be read.
    pub runs: Vec<Run>,
    /// The runs that could not be read, and why.
    pub damaged: Vec<Damaged>,
}

impl Report {
    /// Whether distances to the ideal point can be computed.
    pub(crate) fn has_ideal(&self) -> bool {
        self.settings.iter().any(|setting| {
            EvalSet::ALL
                .iter()
                .any(|set| setting.ideal_point(*set).is_some())
        })
    }

    /// Names a setting: by its model and reference if no other setting has them, else by a number.
    pub(crate) fn setting_name(&self, setting: usize) -> String {
        let of = &self.settings[setting];
        let several = |value: fn(&Comparable) -> &String| {
            self.settings.iter().any(|other| value(other) != value(of))
        };
        let mut words = Vec::new();
        if several(|setting| &setting.model) {
            words.push(format!("on {}", of.model));
        }
        if several(|setting| &setting.reference) {
            words.push(format!("reference {}", of.reference));
        }
        // The page has a legend of numbered settings.
        let twin = |other: &Comparable| other.model == of.model && other.reference == of.reference;
        match self.settings.iter().filter(|other| twin(other)).count() {
            1 if !words.is_empty() => words.join(", "),
            _ => format!("setting {}", setting + 1),
        }
    }

    /// Names the source of a response: the arm and seed if `run` is the path of a run, otherwise
    /// `run`.
    pub(super) fn who(&self, folder: &Path, run: &str) -> String {
        let path = folder.join(run).canonicalize().ok();
        let index = self
            .runs
            .iter()
            .position(|other| path.is_some() && other.path.canonicalize().ok() == path);
        let arm = index.and_then(|index| self.exported_arm(index));
        let arm = arm.map(|arm| &self.arms[arm]);
        match (index, arm) {
            (Some(index), Some(arm)) if arm.all.len() > 1 => {
                format!("{}, seed {}", arm.label, self.runs[index].seed)
            }
            (_, Some(arm)) => arm.label.clone(),
            _ => run.to_owned(),
        }
    }

    /// The index of an arm. Labels are unique.
    pub(crate) fn index(&self, arm: &Arm) -> Option<usize> {
        self.arms.iter().position(|other| other.label == arm.label)
    }

    /// The arm of the iterate that a run exported.
    pub(crate) fn exported_arm(&self, run: usize) -> Option<usize> {
        let exported = self.runs[run].plan().export_iterate;
        let mut own = (0..self.arms.len()).filter(|arm| self.arms[*arm].all.contains(&run));
        own.clone()
            .find(|arm| self.arms[*arm].iterate == exported)
            .or_else(|| own.next())
    }

    /// Whether an arm competes with others. Arms that train one objective alone do not, unless
    /// there are no other arms.
    pub(crate) fn contends(&self, arm: &Arm) -> bool {
        let alone = |arm: &Arm| matches!(arm.role, Role::Alone(_));
        !alone(arm) || self.arms.iter().all(alone)
    }

    /// Whether the runs of an arm end at different steps.
    pub(crate) fn ends_apart(&self, arm: &Arm) -> bool {
        let end = |i: usize| self.runs[i].points.last().map(|point| point.step);
        arm.runs.iter().any(|i| end(*i) != end(arm.runs[0]))
    }

    /// The objectives that the first run of an arm trained on, as first step, end step (exclusive)
    /// and the share of each compared objective in these steps. Equal neighbors are one entry; very
    /// long runs are divided into bins.
    pub(crate) fn decisions(&self, arm: &Arm) -> Vec<(usize, usize, Vec<f64>)> {
        const BINS: usize = 400;
        let run = &self.runs[arm.runs[0]];
        let width = run.steps.div_ceil(BINS).max(1);
        let ids: Vec<Option<usize>> = self
            .objectives
            .iter()
            .map(|name| run.objective(name))
            .collect();
        let mut found: Vec<(usize, usize, Vec<f64>)> = Vec::new();
        for (bin, steps) in run.updates.chunks(width).enumerate() {
            let share = |id: &Option<usize>| {
                let Some(id) = *id else { return 0.0 };
                let of = |step: &Vec<bool>| {
                    if step[id] {
                        1.0 / step.iter().filter(|used| **used).count() as f64
                    } else {
                        0.0
                    }
                };
                steps.iter().map(of).sum::<f64>() / steps.len() as f64
            };
            let shares: Vec<f64> = ids.iter().map(share).collect();
            let (from, to) = (bin * width, bin * width + steps.len());
            match found.last_mut() {
                Some((_, end, before)) if *before == shares => *end = to,
                _ => found.push((from, to, shares)),
            }
        }
        found
    }

    /// Indices of arms that differ only in their probe interval k, by k: one list per method, setting,
    /// budget and weights with several k.
    pub(crate) fn probed(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, arm) in self
            .arms
            .iter()
            .enumerate()
            .filter(|(_, arm)| arm.role.joint().is_some() && arm.probe_every.is_some())
        {
            let like = |other: &Arm| {
                other.role == arm.role
                    && other.comparison() == arm.comparison()
                    && matching::same(&other.weights, &arm.weights)
            };
            match groups.iter_mut().find(|group| like(&self.arms[group[0]])) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        for group in &mut groups {
            group.sort_by_key(|i| self.arms[*i].probe_every);
            group.dedup_by_key(|i| self.arms[*i].probe_every);
        }
        groups.retain(|group| group.len() > 1);
        groups
    }

    /// The methods of [`Report::probed`] in a sentence.
    pub(crate) fn probing(&self) -> String {
        let mut titles: Vec<&str> = Vec::new();
        for group in self.probed() {
            if let Some(joint) = self.arms[group[0]].role.joint()
                && !titles.contains(&joint.form.title)
            {
                titles.push(joint.form.title);
            }
        }
        titles.join(" and ")
    }
}

//! Training budgets: steps, batch size, adapter shape and optimizer. Only arms with the same
//! training budget are compared in verdicts and costs.

use super::{
    arm::{Arm, Comparison, Role},
    fronts::Front,
    labels,
    report::Report,
};
use crate::read::run::Run;
use upright_core::optimizer::Iterate;
use upright_runs::plan::{Plan, PlanSetting};

const STEPS: &str = "steps";

/// A training budget of a report.
pub(super) struct Budget {
    /// Its name: the settings in which it differs from the others, or a number if these are many.
    pub(crate) name: String,
    /// The settings in which it differs from the others, with their values.
    pub(crate) differs: String,
    /// Equal for budgets that differ only in their steps.
    pub(crate) family: usize,
}

/// Assigns every arm its training budget. Returns the budgets.
pub(crate) fn find(arms: &mut [Arm], runs: &[Run], objectives: &[String]) -> Vec<Budget> {
    let mut found: Vec<Vec<(String, String)>> = Vec::new();
    let run = |arm: &Arm| &runs[arm.runs[0]];
    let trains = |arm: &&mut Arm| {
        let all = objectives
            .iter()
            .all(|name| run(arm).objective(name).is_some());
        all && run(arm).planned > 0 && !matches!(arm.role, Role::Alone(_))
    };
    let (by_epochs, by_steps): (Vec<_>, Vec<_>) = arms
        .iter_mut()
        .filter(trains)
        .partition(|arm| run(arm).stages_in_epochs());
    for arm in by_steps {
        let own = given(run(arm), objectives);
        let known = found.iter().position(|other| *other == own);
        arm.terms = Some(known.unwrap_or(found.len()));
        if known.is_none() {
            found.push(own);
        }
    }
    // Epochs of different datasets add up to different step counts at every split, as in the paper.
    // If there is only one length, these arms are compared with it.
    let fixed = found.len();
    for arm in by_epochs {
        let own = given(run(arm), objectives);
        let alike: Vec<usize> = (0..fixed)
            .filter(|i| but_steps(&found[*i]) == but_steps(&own))
            .collect();
        let known = match alike[..] {
            [only] => Some(only),
            _ => found.iter().position(|other| *other == own),
        };
        arm.terms = Some(known.unwrap_or(found.len()));
        if known.is_none() {
            found.push(own);
        }
    }
    let differing = labels::differing_keys(&found);
    let mut budgets = Vec::new();
    for (index, own) in found.iter().enumerate() {
        let differs = labels::said(own, &differing);
        let name = if differing.len() > labels::MOST {
            format!("budget {}", index + 1)
        } else {
            differs.clone()
        };
        let alike = |other: &Vec<(String, String)>| but_steps(other) == but_steps(own);
        let family = found.iter().position(alike).unwrap_or(index);
        budgets.push(Budget {
            name,
            differs,
            family,
        });
    }
    budgets
}

/// A training budget without its steps.
fn but_steps(given: &[(String, String)]) -> Vec<(String, String)> {
    let mut rest = given.to_vec();
    rest.retain(|(key, _)| key != STEPS);
    rest
}

/// The training budget of a run, as settings.
fn given(run: &Run, objectives: &[String]) -> Vec<(String, String)> {
    let mut given = vec![(STEPS.to_owned(), run.planned.to_string())];
    for name in objectives {
        let batch = run
            .objective(name)
            .map(|id| run.plan().objectives[id].batch.to_string());
        given.push((format!("{name}.batch"), batch.unwrap_or_default()));
    }
    // An objective may have any name.
    let rest = Plan {
        objectives: Vec::new(),
        ..run.plan().clone()
    }
    .settings();
    let rest = rest
        .into_iter()
        .filter(|own| own.key.starts_with("optimizer.") || own.key.starts_with("lora."));
    given.extend(rest.map(|PlanSetting { key, value, .. }| {
        (
            key.replace("optimizer.", ""),
            value.trim_matches('"').to_owned(),
        )
    }));
    let begins = &run.written.facts.init_adapter;
    given.extend((!begins.is_empty()).then(|| {
        (
            "init-adapter".to_owned(),
            begins[..begins.len().min(8)].to_owned(),
        )
    }));
    given
}

impl Report {
    /// The training budgets of a setting's arms; a single `None` if no arm has one.
    pub(crate) fn terms_in(&self, setting: usize) -> Vec<Option<usize>> {
        let own = self.arms.iter().filter(|arm| arm.setting == setting);
        let mut found: Vec<Option<usize>> =
            own.map(|arm| arm.terms).filter(Option::is_some).collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { vec![None] } else { found }
    }

    /// Whether training budgets are named by numbers, which need a legend.
    pub(crate) fn has_numbered_budgets(&self) -> bool {
        self.terms != self.budgets
    }

    /// Every setting with each of its training budgets and iterates.
    pub(crate) fn comparisons(&self) -> Vec<Comparison> {
        let mut found = Vec::new();
        for setting in 0..self.settings.len() {
            for terms in self.terms_in(setting) {
                for iterate in self.iterates() {
                    found.push(Comparison {
                        setting,
                        terms,
                        iterate,
                    });
                }
            }
        }
        found
    }

    /// The iterates that the report has arms of.
    pub(crate) fn iterates(&self) -> Vec<Iterate> {
        if self.arms.iter().any(Arm::is_averaged) {
            vec![Iterate::Last, Iterate::Average]
        } else {
            vec![Iterate::Last]
        }
    }

    /// Describes budget, iterate and setting, each only if there are several.
    pub(crate) fn comparison_name(&self, comparison: Comparison) -> String {
        let mut words = Vec::new();
        words.extend(self.budget_name(comparison));
        words.extend(self.iterate_name(comparison.iterate));
        if self.settings.len() > 1 {
            words.push(self.setting_name(comparison.setting));
        }
        words.join(", ")
    }

    /// Names the training budget of a comparison, if its setting has several.
    fn budget_name(&self, comparison: Comparison) -> Option<String> {
        let several = self.terms_in(comparison.setting).len() > 1;
        comparison
            .terms
            .filter(|_| several)
            .map(|terms| self.terms[terms].clone())
    }

    /// Names a front: its method, which names the iterate, with budget and setting as far as there
    /// are several.
    pub(crate) fn front_name(&self, front: &Front) -> String {
        self.method_name(&front.method, front.comparison())
    }

    /// Names a method, with budget and setting as far as there are several.
    pub(crate) fn method_name(&self, method: &str, comparison: Comparison) -> String {
        let mut words = vec![method.to_owned()];
        let budget = self.budget_name(comparison);
        words.extend(budget.filter(|budget| !method.contains(&budget[..])));
        if self.settings.len() > 1 {
            words.push(self.setting_name(comparison.setting));
        }
        words.join(", ")
    }

    /// Names an iterate, if the report has both.
    pub(crate) fn iterate_name(&self, iterate: Iterate) -> Option<String> {
        let name = match iterate {
            Iterate::Last => "last iterate",
            Iterate::Average => "averaged",
        };
        (self.iterates().len() > 1).then(|| name.to_owned())
    }

    /// The group number of an arm; arms of one group are compared with each other. An arm that
    /// takes no step is compared with the arms of its setting if they all have the same budget.
    pub(crate) fn group(&self, arm: &Arm) -> usize {
        let terms = match self.terms_in(arm.setting)[..] {
            [only] => only,
            _ => arm.terms,
        };
        let budget = arm.setting * (self.terms.len() + 1) + terms.map_or(0, |terms| terms + 1);
        2 * budget + usize::from(arm.is_averaged())
    }
}

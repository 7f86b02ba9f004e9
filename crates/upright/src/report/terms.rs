//! What arms are given besides their method: steps, rows a step, the adapter's shape, the optimiser. Verdicts and costs are
//! asked among arms that were given the same.

use super::{
    Report,
    arms::{Arm, Role},
    labels,
    run::Run,
};
use crate::plan::Plan;

/// Gives every arm its terms; returns what tells each of them from the others.
pub(super) fn find(arms: &mut [Arm], runs: &[Run], objectives: &[String]) -> Vec<String> {
    let mut found: Vec<Vec<(String, String)>> = Vec::new();
    for arm in arms {
        let run = &runs[arm.runs[0]];
        let trains = run.planned > 0 && !matches!(arm.role, Role::Alone(_));
        if !trains || objectives.iter().any(|name| run.objective(name).is_none()) {
            continue;
        }
        let own = given(run, objectives);
        let known = found.iter().position(|other| *other == own);
        arm.terms = Some(known.unwrap_or(found.len()));
        if known.is_none() {
            found.push(own);
        }
    }
    let differing = labels::differing_keys(&found);
    let name = |own: &Vec<(String, String)>| {
        let words = own.iter().filter(|(key, _)| differing.contains(key)).map(|(key, value)| format!("{key} {value}"));
        words.collect::<Vec<_>>().join(", ")
    };
    found.iter().map(name).collect()
}

/// What a run was given, as settings.
fn given(run: &Run, objectives: &[String]) -> Vec<(String, String)> {
    let mut given = vec![("steps".to_owned(), run.planned.to_string())];
    for name in objectives {
        let batch = run.objective(name).map(|id| run.plan().objectives[id].batch.to_string());
        given.push((format!("{name}.batch"), batch.unwrap_or_default()));
    }
    // An objective may have any name.
    let rest = Plan { objectives: Vec::new(), ..run.plan().clone() }.settings();
    let rest = rest.into_iter().filter(|(key, _)| key.starts_with("optimiser.") || key.starts_with("lora."));
    given.extend(rest.map(|(key, value)| (key.replace("optimiser.", ""), value)));
    given
}

impl Report {
    /// The terms of a setting's arms; a single none where no arm has any.
    pub(super) fn terms_in(&self, setting: usize) -> Vec<Option<usize>> {
        let own = self.arms.iter().filter(|arm| arm.setting == setting);
        let mut found: Vec<Option<usize>> = own.map(|arm| arm.terms).filter(Option::is_some).collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { vec![None] } else { found }
    }

    /// Every setting with each of its terms.
    pub(super) fn comparisons(&self) -> Vec<(usize, Option<usize>)> {
        let of = |setting: usize| self.terms_in(setting).into_iter().map(move |terms| (setting, terms));
        (0..self.settings.len()).flat_map(of).collect()
    }

    /// Terms and setting in words, as far as there are several.
    pub(super) fn comparison_name(&self, setting: usize, terms: Option<usize>) -> String {
        let mut words: Vec<String> = Vec::new();
        if let (Some(terms), true) = (terms, self.terms_in(setting).len() > 1) {
            words.push(self.terms[terms].clone());
        }
        if self.settings.len() > 1 {
            words.push(self.setting_name(setting));
        }
        words.join(", ")
    }

    /// Arms that are compared with each other have the same number here. One that takes no step is compared with those of
    /// its setting, if they were all given the same.
    pub(super) fn group(&self, arm: &Arm) -> usize {
        let terms = match self.terms_in(arm.setting)[..] {
            [only] => only,
            _ => arm.terms,
        };
        arm.setting * (self.terms.len() + 1) + terms.map_or(0, |terms| terms + 1)
    }
}

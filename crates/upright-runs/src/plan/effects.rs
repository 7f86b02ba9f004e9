//! What the settings of a plan affect, by their keys in `plan.toml`.

use toml::{Table, Value};
use upright_core::{methods, objectives, settings::Domain};

use super::Plan;
use crate::settings::{Accepts, Declaration, Effect, OBJECTIVE, RUN};

/// A setting of a plan as text. Keys of an objective begin with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanSetting {
    /// Its key.
    pub key: String,
    /// Its value in TOML.
    pub value: String,
    /// What it affects.
    pub effect: Effect,
}

/// Keys of a run that no flag sets by itself.
const DERIVED: [(&str, Effect); 5] = [
    // The record of the run has the optima that were found.
    ("finds-optima", Effect::Speed),
    ("reference.folder", Effect::Places),
    ("reference.train.on", Effect::Results),
    ("optimizer.gradient-exponent", Effect::Results),
    ("optimizer.adamw", Effect::Results),
];

/// Keys of an objective that no setting sets by itself.
const DERIVED_OF_OBJECTIVE: [(&str, Effect); 1] = [("tie-rank", Effect::Results)];

/// Whether a key is another, or lies in its table.
fn is_within(key: &str, table: &str) -> bool {
    key == table
        || key
            .strip_prefix(table)
            .is_some_and(|rest| rest.starts_with('.'))
}

/// What a key affects, and the setting that declares it. Keys in tables have the effect of their table unless they have their own.
fn declared(
    key: &str,
    declarations: &'static [Declaration],
    derived: &[(&str, Effect)],
    of_methods_or_losses: &[&str],
) -> Option<(Effect, Option<&'static Declaration>)> {
    if of_methods_or_losses.contains(&key) {
        return Some((Effect::Results, None));
    }
    let mut best: Option<(usize, Effect, Option<&'static Declaration>)> = None;
    for declaration in declarations {
        let Some(own) = declaration.plan_key() else {
            continue;
        };
        if is_within(key, &own) && best.is_none_or(|(length, ..)| own.len() > length) {
            best = Some((own.len(), declaration.effect, Some(declaration)));
        }
    }
    for (own, effect) in derived {
        if is_within(key, own) && best.is_none_or(|(length, ..)| own.len() > length) {
            best = Some((own.len(), *effect, None));
        }
    }
    best.map(|(_, effect, declaration)| (effect, declaration))
}

/// What a key of a run affects; `None` if nothing declares it.
pub(super) fn of_run(key: &str) -> Option<(Effect, Option<&'static Declaration>)> {
    let names: Vec<&str> = methods::settings().iter().map(|own| own.name).collect();
    declared(key, RUN, &DERIVED, &names)
}

/// What a key of an objective affects; `None` if nothing declares it.
pub(super) fn of_objective(key: &str) -> Option<(Effect, Option<&'static Declaration>)> {
    let names: Vec<&str> = objectives::settings().iter().map(|own| own.name).collect();
    declared(key, OBJECTIVE, &DERIVED_OF_OBJECTIVE, &names)
}

type Lookup = fn(&str) -> Option<(Effect, Option<&'static Declaration>)>;

/// Appends the values of a table with their keys. A key that nothing declares affects results.
fn flatten(key: &str, value: &Value, name: &str, find: Lookup, into: &mut Vec<PlanSetting>) {
    if let Value::Table(table) = value {
        for (inner, value) in table {
            let key = if key.is_empty() {
                inner.clone()
            } else {
                format!("{key}.{inner}")
            };
            flatten(&key, value, name, find, into);
        }
        return;
    }
    let effect = find(key).map_or(Effect::Results, |(effect, _)| effect);
    let key = if name.is_empty() {
        key.to_owned()
    } else {
        format!("{name}.{key}")
    };
    into.push(PlanSetting {
        key,
        value: value.to_string(),
        effect,
    });
}

/// Gives the values of some effects a fixed value, in a table and in its tables. Numbers become 0, places become empty, choices
/// become their first name, and other values go.
fn neutralize(prefix: &str, table: &mut Table, find: Lookup, is_left_out: &dyn Fn(Effect) -> bool) {
    let keys: Vec<String> = table.keys().cloned().collect();
    for name in keys {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let found = find(&key);
        let effect = found.map_or(Effect::Results, |(effect, _)| effect);
        let value = &mut table[&name];
        if !is_left_out(effect) {
            if let Value::Table(inner) = value {
                neutralize(&key, inner, find, is_left_out);
            }
            continue;
        }
        let accepts = found.and_then(|(_, declaration)| declaration.map(|own| own.accepts));
        *value = match (&*value, accepts) {
            (Value::Integer(_), _) => Value::Integer(0),
            (Value::String(_), Some(Accepts::Of(Domain::Choice(names)))) => {
                Value::String(names[0].to_owned())
            }
            (Value::String(_) | Value::Array(_) | Value::Table(_), _)
                if effect == Effect::Places =>
            {
                Value::String(String::new())
            }
            _ => {
                table.remove(&name);
                continue;
            }
        };
    }
}

impl Plan {
    /// Every setting.
    pub fn settings(&self) -> Vec<PlanSetting> {
        let mut settings = Vec::new();
        let mut table = Table::try_from(self).unwrap_or_default();
        table.remove("objectives");
        flatten("", &Value::Table(table), "", of_run, &mut settings);
        for objective in &self.objectives {
            let table = Table::try_from(objective).unwrap_or_default();
            flatten(
                "",
                &Value::Table(table),
                &objective.name,
                of_objective,
                &mut settings,
            );
        }
        settings
    }

    /// The plan with fixed values in place of the settings of some effects.
    #[must_use]
    pub fn without(&self, is_left_out: impl Fn(Effect) -> bool) -> Self {
        let mut table = Table::try_from(self).expect("a plan is a table");
        let objectives = table.remove("objectives");
        neutralize("", &mut table, of_run, &is_left_out);
        let mut neutral = Vec::new();
        for objective in objectives
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let mut objective = objective.clone();
            if let Value::Table(table) = &mut objective {
                neutralize("", table, of_objective, &is_left_out);
            }
            neutral.push(objective);
        }
        table.insert("objectives".to_owned(), Value::Array(neutral));
        table
            .try_into()
            .expect("a plan without some settings is a plan")
    }
}

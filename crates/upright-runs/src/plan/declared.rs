//! Settings of methods and losses in plans: parsed from what the user wrote, and read from the records of runs.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use upright_base::{Error, Result};
use upright_core::methods::{self, MIX, MethodSpec};
use upright_core::objectives::{self, LossSpec};
use upright_core::settings::{Domain, Setting, Value, Values};

use super::{ObjectivePlan, Plan};
use crate::settings::Number;
use crate::settings::checks::{value, wrong};
use crate::settings::declared::{Given, OfMethods};

/// The settings of a method. Settings of other methods are checked too.
///
/// # Errors
/// A setting cannot have its value.
pub(super) fn of_method(method: &MethodSpec, given: &Given<OfMethods>) -> Result<Values> {
    let all = methods::settings();
    for setting in &all {
        // The method may declare the same setting with other values.
        if !method.takes(setting.name) {
            value(setting.name, given.get(setting.name), &setting.domain)?;
        }
    }
    Values::planned(method.settings, &all, |setting, _| {
        value(setting.name, given.get(setting.name), &setting.domain)
    })
}

/// Settings of Mix for a run that another run needs, such as one that trains a single objective. They do not depend on the settings
/// of that other run, so that runs with other methods share it.
pub fn plain_mix() -> Values {
    let planned = Values::planned(MIX.settings, &methods::settings(), |setting, is_taken| {
        Ok::<_, Error>(match setting.domain {
            Domain::Count { .. } if !is_taken => Value::Count(1),
            _ => setting.default(),
        })
    });
    planned.expect("defaults are valid")
}

/// The default settings of a loss, as plans have them.
pub fn defaults_of(loss: &LossSpec) -> Values {
    of_loss(loss, |_| None, str::to_owned).expect("defaults are valid")
}

/// The settings of a loss. `written` gives what the user wrote for a setting, and `key` its name in messages.
///
/// # Errors
/// A setting cannot have its value, or is written and the loss does not take it.
pub fn of_loss<'w>(
    loss: &LossSpec,
    written: impl Fn(&str) -> Option<&'w Number>,
    key: impl Fn(&str) -> String,
) -> Result<Values> {
    let all = objectives::settings();
    for setting in &all {
        if let Some(value) = written(setting.name)
            && !loss.takes(setting.name)
        {
            return Err(not_taken(&key(setting.name), value, loss, setting.name));
        }
    }
    Values::planned(loss.settings, &all, |setting, is_taken| {
        if is_taken {
            value(&key(setting.name), written(setting.name), &setting.domain)
        } else {
            Ok(Value::Number(0.0))
        }
    })
}

fn not_taken(key: &str, written: &Number, loss: &LossSpec, setting: &str) -> Error {
    let mut others = Vec::new();
    for other in objectives::all() {
        if other.takes(setting) {
            others.push(other.name);
        }
    }
    wrong(
        key,
        &format!("be left out: the loss {loss} does not take it"),
        written,
    )
    .hint(format!("losses that take it: {}", others.join(", ")))
}

/// The settings in a record, as this build would have planned them.
fn read<E: de::Error>(
    taken: &[Setting],
    all: &[&Setting],
    record: &Values,
    idle: fn(&Setting) -> Value,
) -> std::result::Result<Values, E> {
    for (name, _) in record.recorded() {
        if !all.iter().any(|setting| setting.name == name) {
            return Err(E::custom(format!("unknown field `{name}`")));
        }
    }
    Values::planned(taken, all, |setting, is_taken| {
        let value = match (record.get(setting.name), setting.domain) {
            (None, _) if is_taken => setting.default(),
            (None, _) => idle(setting),
            (Some(Value::Count(count)), Domain::Number { .. }) => Value::Number(*count as f64),
            (Some(value), _) => value.clone(),
        };
        if is_taken && !setting.domain.allows(&value) {
            let name = setting.name;
            return Err(E::custom(format!("{name} cannot be `{value}`")));
        }
        Ok(value)
    })
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut plan = Self::deserialize(deserializer)?;
        plan.method_settings = read(
            plan.method.settings,
            &methods::settings(),
            &plan.method_settings,
            Setting::default,
        )?;
        Ok(plan)
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectivePlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut objective = Self::deserialize(deserializer)?;
        objective.settings = read(
            objective.loss.settings,
            &objectives::settings(),
            &objective.settings,
            |_| Value::Number(0.0),
        )?;
        Ok(objective)
    }
}

impl Serialize for ObjectivePlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

//! Values of declared settings, found by their keys.

use upright_base::Result;
use upright_core::settings::Value;

use super::checks::{self, Choice};
use super::table::{Accepts, Declaration};
use super::{Number, OBJECTIVE, RUN};

/// The declaration of a setting of a run, or of an objective.
///
/// # Panics
/// If there is none: a key in the source is misspelled.
fn declared(key: &str) -> &'static Declaration {
    let mut all = RUN.iter().chain(OBJECTIVE);
    let found = all.find(|declaration| declaration.key() == key);
    found.unwrap_or_else(|| panic!("the setting {key} is declared"))
}

/// The help text of a setting, for other commands that have it.
pub fn help(key: &str) -> String {
    declared(key).described()
}

/// The value of a setting, or its default.
///
/// # Errors
/// The setting cannot have this value.
fn value_of(key: &str, written: Option<&Number>) -> Result<Value> {
    match declared(key).accepts {
        Accepts::Of(domain) => checks::value(key, written, &domain),
        Accepts::Own(_) => panic!("the plan checks the setting {key}"),
    }
}

/// The value of a setting that is a number, or its default.
///
/// # Errors
/// The text is no such number.
pub fn number_of(key: &str, written: Option<&Number>) -> Result<f64> {
    match value_of(key, written)? {
        Value::Number(number) => Ok(number),
        other => panic!("the setting {key} is a number, not {other:?}"),
    }
}

/// The value of a setting that is a whole number, or its default.
///
/// # Errors
/// The text is no such number.
pub fn count_of(key: &str, written: Option<&Number>) -> Result<usize> {
    match value_of(key, written)? {
        Value::Count(count) => Ok(count),
        other => panic!("the setting {key} is a count, not {other:?}"),
    }
}

/// The value of a setting that is one of several names, or its default.
///
/// # Errors
/// The text is none of the names.
pub fn named_of<T: Choice>(key: &str, written: Option<&str>) -> Result<T> {
    match value_of(key, written.map(Number::from).as_ref())? {
        Value::Choice(name) => checks::choice(key, Some(&name), T::ALL[0]),
        other => panic!("the setting {key} is a choice, not {other:?}"),
    }
}

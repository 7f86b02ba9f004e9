//! Checks of single values. A message names the key, the requirement, and the value found.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use upright_core::{
    optimizer::{Average, Curve, Iterate},
    settings::{Domain, Value},
};

use super::Number;
use upright_base::missing::missing;
use upright_base::suggest::nearest;
use upright_base::{Error, Result};
use upright_data::{TooLong, Turns};
use upright_model::Recompute;

/// `key must be ..., found ...`.
pub fn wrong(key: &str, must: &str, found: impl Display) -> Error {
    Error::input(format!("{key} must {must}, found `{found}`"))
}

/// A whole number of at least 1.
pub fn count(key: &str, value: Option<&Number>, default: usize) -> Result<usize> {
    count_from(1, key, value, default)
}

/// A whole number of at least `least`.
pub fn count_from(
    least: usize,
    key: &str,
    value: Option<&Number>,
    default: usize,
) -> Result<usize> {
    let Some(value) = value else {
        return Ok(default);
    };
    let whole = value
        .whole()
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n >= least);
    whole.ok_or_else(|| {
        wrong(
            key,
            &format!("be a whole number of at least {least}"),
            value,
        )
    })
}

/// A finite number that satisfies `fits`; `must` describes the condition in messages.
pub fn real(
    key: &str,
    value: Option<&Number>,
    default: f64,
    must: &str,
    fits: impl Fn(f64) -> bool,
) -> Result<f64> {
    let Some(value) = value else {
        return Ok(default);
    };
    value
        .real()
        .filter(|x| fits(*x))
        .ok_or_else(|| wrong(key, must, value))
}

/// A finite number above 0.
pub fn positive(key: &str, value: Option<&Number>, default: f64) -> Result<f64> {
    real(key, value, default, "be a number above 0", |x| x > 0.0)
}

/// A setting whose value is one of several names.
pub trait Choice: Copy + 'static {
    /// All values, in the order in which messages list them.
    const ALL: &'static [Self];

    /// Name of the value.
    fn name(self) -> &'static str;
}

macro_rules! choices {
    ($($kind:ty),*) => {
        $(impl Choice for $kind {
            const ALL: &'static [Self] = <$kind>::ALL;

            fn name(self) -> &'static str {
                self.name()
            }
        })*
    };
}

choices!(Average, Curve, Iterate, Recompute, TooLong, Turns);

/// A value of a domain, or its default.
///
/// # Errors
/// The domain has no such value.
pub fn value(key: &str, written: Option<&Number>, domain: &Domain) -> Result<Value> {
    let Some(written) = written else {
        return Ok(domain.default());
    };
    match domain {
        Domain::Number { default, range } => {
            real(key, Some(written), *default, range.must, range.fits).map(Value::Number)
        }
        Domain::Count { least, default } => {
            count_from(*least, key, Some(written), *default).map(Value::Count)
        }
        Domain::Choice(names) => {
            let name = written.to_string();
            if !names.contains(&&name[..]) {
                return Err(no_such(key, &name, names.iter().copied()));
            }
            Ok(Value::Choice(name))
        }
    }
}

/// The entry of a table that has this name.
///
/// # Errors
/// There is no such entry. The message lists the names, and the hint suggests the nearest.
pub fn named<T>(
    key: &str,
    value: &str,
    table: &'static [&'static T],
    name: fn(&T) -> &'static str,
) -> Result<&'static T> {
    let found = table.iter().find(|entry| name(entry) == value);
    match found {
        Some(entry) => Ok(entry),
        None => Err(no_such(key, value, table.iter().map(|entry| name(entry)))),
    }
}

/// Parses a name of `T`.
pub fn choice<T: Choice>(key: &str, value: Option<&str>, default: T) -> Result<T> {
    let Some(value) = value else {
        return Ok(default);
    };
    for choice in T::ALL {
        if choice.name() == value {
            return Ok(*choice);
        }
    }
    Err(no_such(
        key,
        value,
        T::ALL.iter().map(|choice| choice.name()),
    ))
}

/// Error for an unknown name. Lists the known names and suggests the nearest.
pub fn no_such<'a>(
    key: &str,
    value: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Error {
    let names: Vec<_> = known.clone().into_iter().collect();
    let error = wrong(key, &format!("be one of {}", names.join(", ")), value);
    match nearest(value, known) {
        Some(close) => error.hint(format!("did you mean `{close}`?")),
        None => error,
    }
}

/// Checks that a file exists.
pub fn file(key: &str, path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return Err(
            wrong(key, "be a file", path.display()).hint("it is a folder; name a file in it")
        );
    }
    if let Some(what) = upright_base::file_kind::other_than_file(path) {
        let hint = format!("it is {what}; copy its contents into a file");
        return Err(wrong(key, "be a file", path.display()).hint(hint));
    }
    path.is_file()
        .then(|| path.to_owned())
        .ok_or_else(|| missing(key, "file", path, ""))
}

/// Checks that a folder exists.
pub fn folder(key: &str, path: &Path, hint: &str) -> Result<PathBuf> {
    if path.is_file() {
        return Err(wrong(key, "be a folder", path.display()).hint(format!("it is a file; {hint}")));
    }
    path.is_dir()
        .then(|| path.to_owned())
        .ok_or_else(|| missing(key, "folder", path, hint))
}

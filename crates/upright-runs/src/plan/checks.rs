//! Checks of single values. A message names the key, the requirement, and the value found.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use upright_core::optimizer::{Average, Curve, Iterate};

use crate::settings::{Number, count_of, named_of};
use upright_base::missing::missing;
use upright_base::suggest::nearest;
use upright_base::{Error, Result};
use upright_data::{TooLong, Truncation, Turns};
use upright_model::{Device, Recompute};

/// `key must be ..., found ...`.
pub fn wrong(key: &str, must: &str, found: impl Display) -> Error {
    Error::input(format!("{key} must {must}, found `{found}`"))
}

/// A whole number of at least 1.
pub fn count(key: &str, value: Option<&Number>, default: usize) -> Result<usize> {
    count_from(1, key, value, default)
}

/// A whole number of at least `least`.
pub fn count_from(least: u64, key: &str, value: Option<&Number>, default: usize) -> Result<usize> {
    let Some(value) = value else {
        return Ok(default);
    };
    let whole = value
        .whole()
        .filter(|n| *n >= least)
        .and_then(|n| usize::try_from(n).ok());
    whole.ok_or_else(|| {
        wrong(
            key,
            &format!("be a whole number of at least {least}"),
            value,
        )
    })
}

/// The truncation settings: max-length, min-prompt, too-long.
pub fn truncation(
    max_length: Option<&Number>,
    min_prompt: Option<&Number>,
    too_long: Option<&str>,
) -> Result<Truncation> {
    let max_length = count_of("max-length", max_length)?;
    let min_prompt = count(
        "min-prompt",
        min_prompt,
        Truncation::usual_min_prompt(max_length),
    )?;
    if min_prompt >= max_length {
        return Err(wrong(
            "min-prompt",
            &format!("be below max-length, {max_length}"),
            min_prompt,
        ));
    }
    Ok(Truncation {
        max_length,
        min_prompt,
        rule: named_of("too-long", too_long)?,
    })
}

/// Default number of rows per step: pairs have two responses.
pub fn usual_batch(is_preference: bool) -> usize {
    if is_preference { 4 } else { 8 }
}

/// Number of threads; one per core by default.
pub fn threads(value: Option<&Number>) -> Result<usize> {
    const MOST: usize = 1024;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match count("threads", value, cores)? {
        threads if threads > MOST => Err(wrong("threads", &format!("be at most {MOST}"), threads)
            .hint(format!("cores of this machine: {cores}"))),
        threads => Ok(threads),
    }
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

/// The device; auto by default.
pub fn device(value: Option<&str>) -> Result<Device> {
    let Some(value) = value else {
        return Ok(Device::Auto);
    };
    value
        .parse()
        .map_err(|_| wrong("device", "be auto, cpu, cuda or cuda:N", value))
}

/// The default maximum of tokens in a pack. A GPU needs more rows to be busy.
pub fn token_budget_of(device: Device) -> usize {
    match device {
        Device::Cuda(_) => 8192,
        Device::Auto | Device::Cpu | Device::Host => 2048,
    }
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

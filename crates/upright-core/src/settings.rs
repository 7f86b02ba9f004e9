//! Settings of methods and losses. A method or a loss declares its settings in its own file. Flags, keys of files, help texts,
//! checks and records follow from the declaration.

use std::fmt;

/// Declares a setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in files and records, in kebab-case. Losses that share a name share its key.
    pub name: &'static str,
    /// Help text without the default. For a setting of a method, a sentence without its period; for a setting of a loss, a noun
    /// phrase that continues with "for" and the names of the losses.
    pub help: &'static str,
    /// Name of the value in help texts, such as `K`.
    pub value_name: &'static str,
    /// The values it can have, and the default.
    pub domain: Domain,
    /// When plans record it.
    pub recorded: Recorded,
    /// For a loss: whether the run has a flag and a key for it, without the name of an objective, which hold for all objectives
    /// whose losses take the setting.
    pub is_shared: bool,
    /// For a method: what stands for the setting in the names of a study's runs, and whether it stands there for the default too.
    pub short: Option<(&'static str, bool)>,
}

/// The values of a [`Setting`].
#[derive(Clone, Copy, Debug)]
pub enum Domain {
    /// A finite number.
    Number {
        /// Value if none is given.
        default: f64,
        /// Which numbers are allowed.
        range: Range,
    },
    /// A whole number.
    Count {
        /// Smallest value.
        least: usize,
        /// Value if none is given.
        default: usize,
    },
    /// One of several names; the first is the default.
    Choice(&'static [&'static str]),
}

/// Which numbers a setting may have.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The condition in words, after "must".
    pub must: &'static str,
    /// The condition.
    pub fits: fn(f64) -> bool,
}

/// Numbers above 0.
pub const ABOVE_0: Range = Range {
    must: "be a number above 0",
    fits: |x| x > 0.0,
};

/// Numbers of at least 0.
pub const FROM_0: Range = Range {
    must: "be a number of at least 0",
    fits: |x| x >= 0.0,
};

/// Shares below one half.
pub const BELOW_HALF: Range = Range {
    must: "be at least 0 and below 0.5",
    fits: |x| (0.0..0.5).contains(&x),
};

/// When a plan records a setting. Cached references, optima and the runs of studies are found by the hash of their plan, so the
/// settings that plans had before this table are recorded as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// By the method or the loss that takes it.
    Taken,
    /// Always, even by methods and losses that do not take it. Losses then record 0, methods the value that was given. Only for
    /// settings that plans had before: another one would change the hash of every plan.
    Always,
    /// By the method or the loss that takes it, if it is not the default.
    Changed,
}

impl Setting {
    const fn new(
        name: &'static str,
        help: &'static str,
        value_name: &'static str,
        domain: Domain,
    ) -> Self {
        Self {
            name,
            help,
            value_name,
            domain,
            recorded: Recorded::Taken,
            is_shared: false,
            short: None,
        }
    }

    /// A setting that is a number.
    pub const fn number(
        name: &'static str,
        help: &'static str,
        value_name: &'static str,
        default: f64,
        range: Range,
    ) -> Self {
        Self::new(name, help, value_name, Domain::Number { default, range })
    }

    /// A setting that is a whole number of at least 1.
    pub const fn count(
        name: &'static str,
        help: &'static str,
        value_name: &'static str,
        default: usize,
    ) -> Self {
        Self::new(name, help, value_name, Domain::Count { least: 1, default })
    }

    /// A setting that is one of several names; the first is the default.
    pub const fn choice(
        name: &'static str,
        help: &'static str,
        value_name: &'static str,
        names: &'static [&'static str],
    ) -> Self {
        Self::new(name, help, value_name, Domain::Choice(names))
    }

    /// The same setting, recorded at other times.
    #[must_use]
    pub const fn recorded(self, recorded: Recorded) -> Self {
        Self { recorded, ..self }
    }

    /// The same setting of a loss, with a flag and a key of the run.
    #[must_use]
    pub const fn shared(self) -> Self {
        Self {
            is_shared: true,
            ..self
        }
    }

    /// The same setting of a method, in the names of a study's runs: `-k-10`. `always` also names the default.
    #[must_use]
    pub const fn short(self, short: &'static str, always: bool) -> Self {
        Self {
            short: Some((short, always)),
            ..self
        }
    }

    /// The default.
    pub fn default(&self) -> Value {
        self.domain.default()
    }
}

impl Domain {
    /// The value if none is given.
    pub fn default(&self) -> Value {
        match self {
            Self::Number { default, .. } => Value::Number(*default),
            Self::Count { default, .. } => Value::Count(*default),
            Self::Choice(names) => Value::Choice(names[0].to_owned()),
        }
    }

    /// Whether a value is one of these.
    pub fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Number { range, .. }, Value::Number(number)) => {
                number.is_finite() && (range.fits)(*number)
            }
            (Self::Count { least, .. }, Value::Count(count)) => count >= least,
            (Self::Choice(names), Value::Choice(name)) => names.contains(&&name[..]),
            _ => false,
        }
    }
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(untagged))]
pub enum Value {
    /// Of [`Domain::Count`]. A whole number in a file is read as a count.
    Count(usize),
    /// Of [`Domain::Number`].
    Number(f64),
    /// Of [`Domain::Choice`].
    Choice(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Choice(name) => f.write_str(name),
        }
    }
}

/// Values of settings by name, in the order of records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(Vec<Entry>);

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    name: String,
    value: Value,
    is_recorded: bool,
}

impl Values {
    /// The defaults of some settings.
    pub fn defaults(settings: &[Setting]) -> Self {
        let mut values = Self::default();
        for setting in settings {
            values.set(setting.name, setting.default());
        }
        values
    }

    /// The values that a plan has: those of the settings in `taken`, and of the settings in `all` that are always recorded.
    /// `value_of` gives the value of a setting, and is told whether it is taken.
    ///
    /// # Errors
    /// The first error of `value_of`.
    pub fn planned<E>(
        taken: &[Setting],
        all: &[&Setting],
        mut value_of: impl FnMut(&Setting, bool) -> Result<Value, E>,
    ) -> Result<Self, E> {
        let mut values = Self::default();
        for setting in all {
            let own = taken.iter().find(|own| own.name == setting.name);
            if setting.recorded == Recorded::Always && values.get(setting.name).is_none() {
                values.set(
                    setting.name,
                    value_of(own.unwrap_or(setting), own.is_some())?,
                );
            }
        }
        for setting in taken {
            if values.get(setting.name).is_none() {
                let value = value_of(setting, true)?;
                let is_recorded =
                    setting.recorded != Recorded::Changed || value != setting.default();
                values.0.push(Entry {
                    name: setting.name.to_owned(),
                    value,
                    is_recorded,
                });
            }
        }
        Ok(values)
    }

    /// The values of some of the settings.
    ///
    /// # Panics
    /// If one of them has no value here.
    #[must_use]
    pub fn of(&self, settings: &[Setting]) -> Self {
        let mut own = Self::default();
        for setting in settings {
            let value = self.get(setting.name);
            own.set(
                setting.name,
                value.expect("a plan has all settings").clone(),
            );
        }
        own
    }

    /// Sets a value. A new name comes last.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.0.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => entry.value = value,
            None => self.0.push(Entry {
                name: name.to_owned(),
                value,
                is_recorded: true,
            }),
        }
    }

    /// The same values with one that is a number.
    #[must_use]
    pub fn with(mut self, name: &str, number: f64) -> Self {
        self.set(name, Value::Number(number));
        self
    }

    /// The value of a setting; `None` if it has none here.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let entry = self.0.iter().find(|entry| entry.name == name)?;
        Some(&entry.value)
    }

    /// The value of a setting that is a number.
    ///
    /// # Panics
    /// If it has no such value here. A method and a loss get all their own settings.
    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Value::Number(number)) => *number,
            other => panic!("the setting {name} is a number, not {other:?}"),
        }
    }

    /// The value of a setting that is a count.
    ///
    /// # Panics
    /// As [`Values::number`].
    pub fn count(&self, name: &str) -> usize {
        match self.get(name) {
            Some(Value::Count(count)) => *count,
            other => panic!("the setting {name} is a count, not {other:?}"),
        }
    }

    /// The value of a setting that is a choice.
    ///
    /// # Panics
    /// As [`Values::number`].
    pub fn choice(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Value::Choice(choice)) => choice,
            other => panic!("the setting {name} is a choice, not {other:?}"),
        }
    }

    /// The names and values that are recorded.
    pub fn recorded(&self) -> impl Iterator<Item = (&str, &Value)> {
        let recorded = self.0.iter().filter(|entry| entry.is_recorded);
        recorded.map(|entry| (&entry.name[..], &entry.value))
    }
}

#[cfg(feature = "serde")]
mod serde_impls {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{Value, Values};

    impl Serialize for Values {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.recorded())
        }
    }

    /// Values of other types are read as text that no setting allows, so that messages can name their setting.
    impl<'de> Deserialize<'de> for Value {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Any;
            impl<'de> de::Visitor<'de> for Any {
                type Value = Value;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a number or a name")
                }
                fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                    Ok(usize::try_from(number).map_or(Value::Number(number as f64), Value::Count))
                }
                fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                    Ok(usize::try_from(number).map_or(Value::Number(number as f64), Value::Count))
                }
                fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                    Ok(Value::Number(number))
                }
                fn visit_str<E>(self, name: &str) -> Result<Value, E> {
                    Ok(Value::Choice(name.to_owned()))
                }
                fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                    Ok(Value::Choice(value.to_string()))
                }
                fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                    while list.next_element::<de::IgnoredAny>()?.is_some() {}
                    Ok(Value::Choice("a list".to_owned()))
                }
                fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                    while map
                        .next_entry::<de::IgnoredAny, de::IgnoredAny>()?
                        .is_some()
                    {}
                    Ok(Value::Choice("a table".to_owned()))
                }
            }
            deserializer.deserialize_any(Any)
        }
    }

    impl<'de> Deserialize<'de> for Values {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Pairs;
            impl<'de> de::Visitor<'de> for Pairs {
                type Value = Values;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("settings of a method or a loss")
                }
                fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                    let mut values = Values::default();
                    while let Some((name, value)) = map.next_entry::<String, Value>()? {
                        values.set(&name, value);
                    }
                    Ok(values)
                }
            }
            deserializer.deserialize_map(Pairs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BETA: Setting =
        Setting::number("beta", "KL strength", "B", 0.1, ABOVE_0).recorded(Recorded::Always);
    const DRAWS: Setting =
        Setting::choice("draws", "How to draw", "DRAWS", &["random", "balanced"])
            .recorded(Recorded::Changed);
    const POWER: Setting = Setting::number("power", "Power", "P", 2.0, FROM_0);
    const EVERY: Setting = Setting::count("probe-every", "Probe every K steps", "K", 10);

    #[test]
    fn plans_have_what_is_taken_and_record_what_they_always_did() {
        let own = [DRAWS, POWER];
        let planned = |draws: &str| {
            Values::planned(&own, &[&BETA, &DRAWS, &POWER, &EVERY], |setting, taken| {
                Ok::<_, ()>(match setting.name {
                    "beta" if !taken => Value::Number(0.0),
                    "draws" => Value::Choice(draws.to_owned()),
                    _ => setting.default(),
                })
            })
            .unwrap()
        };
        let names = |values: &Values| {
            let mut names = Vec::new();
            for (name, value) in values.recorded() {
                names.push(format!("{name} {value}"));
            }
            names.join(", ")
        };
        assert_eq!(names(&planned("random")), "beta 0, power 2");
        assert_eq!(planned("random").choice("draws"), "random");
        assert_eq!(
            names(&planned("balanced")),
            "beta 0, draws balanced, power 2"
        );
        assert_eq!(planned("random").get("probe-every"), None);
    }

    #[test]
    fn values_are_checked_against_their_domain() {
        for (setting, value, allowed) in [
            (BETA, Value::Number(0.5), true),
            (BETA, Value::Number(0.0), false),
            (BETA, Value::Number(f64::NAN), false),
            (BETA, Value::Count(1), false),
            (EVERY, Value::Count(1), true),
            (EVERY, Value::Count(0), false),
            (DRAWS, Value::Choice("balanced".into()), true),
            (DRAWS, Value::Choice("coin".into()), false),
        ] {
            assert_eq!(
                setting.domain.allows(&value),
                allowed,
                "{} {value}",
                setting.name
            );
        }
    }
}

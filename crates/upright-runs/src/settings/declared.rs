//! Settings that methods and losses declare, as the user wrote them. Their flags and keys follow from the declarations.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Command};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use upright_core::methods;
use upright_core::objectives;
use upright_core::settings::Setting;

use super::Number;

/// A flag, which is a key of files too.
pub struct Flag {
    /// Its name.
    pub key: String,
    /// Its help text, with the default.
    pub help: String,
    /// Name of its value in the help.
    pub value_name: &'static str,
    /// Heading in the help.
    pub heading: &'static str,
}

/// A group of settings that methods or losses declare.
pub trait Declared: Clone + Copy + std::fmt::Debug + Default + PartialEq + 'static {
    /// The flags of the group.
    fn flags() -> Vec<Flag>;
}

/// The settings of all methods.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OfMethods;

/// The settings of all preference losses: `--beta`, which holds for all objectives, and `--dpo-alpha` of `--dpo`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OfLosses;

/// The settings of all losses, as keys of an `[[objective]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OfObjective;

/// Prefix of the flags of the preference objective `dpo`.
const DPO: &str = "dpo-";

impl Declared for OfMethods {
    fn flags() -> Vec<Flag> {
        let mut flags = Vec::new();
        for setting in methods::settings() {
            // Several methods may have a setting of one name.
            let mut helps: Vec<&str> = Vec::new();
            for own in methods::all().iter().flat_map(|method| method.settings) {
                if own.name == setting.name && !helps.contains(&own.help) {
                    helps.push(own.help);
                }
            }
            flags.push(Flag {
                key: setting.name.to_owned(),
                help: format!("{} [default: {}]", helps.join("; "), setting.default()),
                value_name: setting.value_name,
                heading: "Method",
            });
        }
        flags
    }
}

impl Declared for OfLosses {
    fn flags() -> Vec<Flag> {
        let mut flags = Vec::new();
        for setting in loss_settings(true) {
            let key = if setting.is_shared {
                setting.name.to_owned()
            } else {
                format!("{DPO}{}", setting.name)
            };
            flags.push(Flag {
                key,
                help: format!(
                    "{} [default: {}]",
                    help(setting.name),
                    defaults(setting.name)
                ),
                value_name: setting.value_name,
                heading: "Preference loss",
            });
        }
        flags
    }
}

impl Declared for OfObjective {
    fn flags() -> Vec<Flag> {
        let mut flags = Vec::new();
        for setting in loss_settings(false) {
            let default = if setting.is_shared {
                format!("the run's {}", setting.name)
            } else {
                defaults(setting.name)
            };
            flags.push(Flag {
                key: setting.name.to_owned(),
                help: format!("{} [default: {default}]", help(setting.name)),
                value_name: setting.value_name,
                heading: "",
            });
        }
        flags
    }
}

/// The settings of the losses, each name once.
pub fn loss_settings(only_preferences: bool) -> Vec<&'static Setting> {
    let mut settings: Vec<&'static Setting> = Vec::new();
    for loss in objectives::all() {
        if only_preferences && !loss.is_preference() {
            continue;
        }
        for setting in loss.settings {
            if !settings.iter().any(|other| other.name == setting.name) {
                settings.push(setting);
            }
        }
    }
    settings
}

/// What a setting of losses is for: "KL strength for dpo, ipo, rpo; odds-ratio weight for orpo".
pub fn help(name: &str) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (loss, setting) in takers(name) {
        match groups.iter_mut().find(|(help, _)| *help == setting.help) {
            Some((_, losses)) => losses.push(loss),
            None => groups.push((setting.help, vec![loss])),
        }
    }
    let mut parts = Vec::new();
    for (help, losses) in groups {
        parts.push(format!("{help} for {}", losses.join(", ")));
    }
    let text = parts.join("; ");
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// The default of a setting of losses: "0.1; 2 for simpo".
pub fn defaults(name: &str) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (loss, setting) in takers(name) {
        let default = setting.default().to_string();
        match groups.iter_mut().find(|(other, _)| *other == default) {
            Some((_, losses)) => losses.push(loss),
            None => groups.push((default, vec![loss])),
        }
    }
    let mut parts = Vec::new();
    for (index, (default, losses)) in groups.into_iter().enumerate() {
        // Most losses have the first default.
        parts.push(if index == 0 {
            default
        } else {
            format!("{default} for {}", losses.join(", "))
        });
    }
    parts.join("; ")
}

/// The losses that take a setting, each with its declaration.
fn takers(name: &str) -> Vec<(&'static str, &'static Setting)> {
    let mut takers = Vec::new();
    for loss in objectives::all() {
        for setting in loss.settings {
            if setting.name == name {
                takers.push((loss.name, setting));
            }
        }
    }
    takers
}

/// Values of a group's settings that the user wrote, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given<D> {
    values: BTreeMap<String, Number>,
    group: PhantomData<D>,
}

impl<D: Declared> Given<D> {
    /// The value of a setting, if it is given.
    pub fn get(&self, key: &str) -> Option<&Number> {
        self.values.get(key)
    }

    /// Sets a value.
    pub fn set(&mut self, key: &str, value: Number) {
        self.values.insert(key.to_owned(), value);
    }

    /// The keys that have a value.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

impl<D: Declared> clap::FromArgMatches for Given<D> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in D::flags() {
            if let Some(value) = matches.get_one::<String>(&flag.key) {
                self.set(&flag.key, Number::from(&value[..]));
            }
        }
        Ok(())
    }
}

impl<D: Declared> clap::Args for Given<D> {
    fn augment_args(mut command: Command) -> Command {
        for flag in D::flags() {
            let mut argument = Arg::new(flag.key.clone())
                .long(flag.key)
                .value_name(flag.value_name)
                .help(flag.help)
                .allow_hyphen_values(true);
            if !flag.heading.is_empty() {
                argument = argument.help_heading(flag.heading);
            }
            command = command.arg(argument);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<D: Declared> Serialize for Given<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values.serialize(serializer)
    }
}

/// Takes the group's keys out of a table, and leaves the others to other fields.
impl<'de, D: Declared> Deserialize<'de> for Given<D> {
    fn deserialize<T: Deserializer<'de>>(deserializer: T) -> Result<Self, T::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        let mut given = Self::default();
        for flag in D::flags() {
            if let Some(value) = table.get(&flag.key) {
                // Values of other types are rejected with the values that do not fit, by their key.
                let text = match value {
                    toml::Value::String(text) => text.clone(),
                    toml::Value::Float(number) => format!("{number:?}"),
                    other => other.to_string(),
                };
                given.set(&flag.key, Number::from(&text[..]));
            }
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_losses_that_take_a_setting() {
        assert_eq!(
            help("beta"),
            "KL strength for dpo, ipo, rpo; odds-ratio weight for orpo; reward scale for simpo"
        );
        assert_eq!(defaults("beta"), "0.1; 2 for simpo");
        assert_eq!(help("gamma"), "Target reward margin for simpo");
    }

    #[test]
    fn flags_of_one_objective_have_its_prefix() {
        let mut keys = Vec::new();
        for flag in OfLosses::flags() {
            keys.push(flag.key);
        }
        assert_eq!(keys, ["beta", "label-smoothing", "dpo-alpha", "dpo-gamma"]);
    }
}

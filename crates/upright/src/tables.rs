//! The tables that a program gives to the command line.

use std::mem::discriminant;

use upright_core::{
    methods::{ALRIGHT, METHODS, MIX, MethodSpec},
    objectives::{DPO, LOSSES, LossSpec, SFT},
    settings::Setting,
};
use upright_data::dialects::{self, Dialect};
use upright_model::families::{self, Family};
use upright_runs::{
    settings::{Declaration, OBJECTIVE, RUN},
    trackers::{TRACKERS, TrackerSpec},
};

/// What the program knows of each kind. The default has the built-in entries; a program of your own adds to them before it calls
/// [`crate::main_with`]. An entry then has flags, keys, help texts and words in reports like the built-in ones.
///
/// ```no_run
/// use upright::Tables;
/// use upright_core::methods::{Form, MethodSpec, Mix};
///
/// static FORMS: [Form; 1] = [Form::new("even", "Even", "Weighs all objectives alike.", "weighs all objectives alike")];
/// static EVEN: MethodSpec = MethodSpec::new("even", &FORMS, |context| {
///     let count = context.weights.len();
///     Box::new(Mix { weights: vec![1.0 / count as f64; count] })
/// });
///
/// let mut tables = Tables::default();
/// tables.methods.push(&EVEN);
/// upright::main_with(&tables);
/// ```
#[derive(Clone)]
pub struct Tables {
    /// Methods, in the order of help texts.
    pub methods: Vec<&'static MethodSpec>,
    /// Losses, in the order of help texts.
    pub losses: Vec<&'static LossSpec>,
    /// Model families.
    pub families: Vec<&'static Family>,
    /// Row dialects. The first one whose columns are there is used.
    pub dialects: Vec<&'static Dialect>,
    /// Trackers of `--report-to`.
    pub trackers: Vec<&'static TrackerSpec>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            methods: METHODS.builtin().to_vec(),
            losses: LOSSES.builtin().to_vec(),
            families: families::builtin().to_vec(),
            dialects: dialects::builtin().to_vec(),
            trackers: TRACKERS.builtin().to_vec(),
        }
    }
}

impl Tables {
    /// Makes these the tables of the process.
    ///
    /// # Panics
    /// If a table was used before, lacks a method or a loss that the program needs, or has entries that cannot be told apart.
    pub(crate) fn install(&self) {
        unique("methods", self.methods.iter().map(|method| method.name));
        unique("losses", self.losses.iter().map(|loss| loss.name));
        unique("families", self.families.iter().map(|family| family.name));
        unique("trackers", self.trackers.iter().map(|tracker| tracker.name));
        for needed in [&MIX, &ALRIGHT] {
            assert!(
                self.methods.contains(&needed),
                "studies and references need the method {needed}"
            );
        }
        for needed in [&SFT, &DPO] {
            assert!(
                self.losses.contains(&needed),
                "sft and dpo need the loss {needed}"
            );
        }
        let of_methods = self.methods.iter().flat_map(|method| method.settings);
        check_settings(of_methods.clone(), RUN, "");
        let of_losses = self.losses.iter().flat_map(|loss| loss.settings);
        check_settings(of_losses.clone(), OBJECTIVE, "");
        check_settings(of_losses.clone().filter(|own| own.is_shared), RUN, "");
        for method in of_methods {
            let mut shared = of_losses.clone().filter(|own| own.is_shared);
            assert!(
                !shared.any(|own| own.name == method.name),
                "{} is a setting of methods and of losses",
                method.name
            );
        }
        check_settings(of_losses.filter(|own| !own.is_shared), RUN, "dpo-");
        METHODS.install(self.methods.clone());
        LOSSES.install(self.losses.clone());
        families::install(self.families.clone());
        dialects::install(self.dialects.clone());
        TRACKERS.install(self.trackers.clone());
    }
}

/// Checks that the settings of methods or losses have no key of a run or of an objective, and that settings of one name have one kind
/// of values. A program's author sees the message, not its user.
fn check_settings(
    settings: impl Iterator<Item = &'static Setting>,
    taken: &[Declaration],
    prefix: &str,
) {
    let mut seen: Vec<&Setting> = Vec::new();
    for setting in settings {
        let key = format!("{prefix}{}", setting.name);
        assert!(
            !taken.iter().any(|own| own.key() == key),
            "{key} is a setting of every run"
        );
        let kind = discriminant(&setting.domain);
        let same = seen.iter().filter(|other| other.name == setting.name);
        for other in same {
            assert!(
                discriminant(&other.domain) == kind,
                "{key} has two kinds of values"
            );
        }
        seen.push(setting);
    }
}

/// Checks that names differ. A program's author sees the message, not its user.
fn unique(table: &str, names: impl Iterator<Item = &'static str>) {
    let mut seen = Vec::new();
    for name in names {
        assert!(!seen.contains(&name), "two {table} have the name {name}");
        seen.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &'static [Setting], prefix: &str) {
        check_settings(settings.iter(), RUN, prefix);
    }

    #[test]
    fn settings_of_one_name_may_belong_to_several_methods() {
        const EVERY: Setting = Setting::count("probe-every", "Probe every K steps", "K", 10);
        check(&[EVERY, EVERY], "");
    }

    #[test]
    #[should_panic(expected = "seed is a setting of every run")]
    fn a_key_of_every_run_is_taken() {
        const SEED: Setting = Setting::count("seed", "Seed", "N", 1);
        check(&[SEED], "");
    }

    #[test]
    #[should_panic(expected = "dpo-rows is a setting of every run")]
    fn a_flag_of_the_preference_objective_is_taken() {
        const ROWS: Setting = Setting::count("rows", "Rows", "N", 1);
        check(&[ROWS], "dpo-");
    }

    #[test]
    #[should_panic(expected = "speed has two kinds of values")]
    fn settings_of_one_name_have_one_kind_of_values() {
        const COUNT: Setting = Setting::count("speed", "Speed", "N", 1);
        const CHOICE: Setting = Setting::choice("speed", "Speed", "NAME", &["slow", "fast"]);
        check(&[COUNT, CHOICE], "");
    }
}

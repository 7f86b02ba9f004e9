//! The table of settings: what the macro [`settings!`] makes of a declaration.

use upright_core::settings::{Domain, Range};

/// What a setting affects. A resumed run may change settings that affect speed or places. Results and data are treated alike: they
/// differ for the reader of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The adapter, apart from its data.
    Results,
    /// Which rows and tokens are trained on or evaluated.
    Data,
    /// What a run records, but no step.
    Records,
    /// How fast the run computes.
    Speed,
    /// Where files are, and which of them are kept. Contents are compared by their hashes.
    Places,
}

impl Effect {
    /// Whether runs with the same results may differ in the setting.
    pub fn is_free(self) -> bool {
        matches!(self, Self::Speed | Self::Places)
    }
}

/// The values that a setting accepts, and its default.
#[derive(Clone, Copy, Debug)]
pub enum Accepts {
    /// Values of a domain.
    Of(Domain),
    /// Anything that the plan understands. The text is the default in words; empty if there is none.
    Own(&'static str),
}

/// Declares a setting.
#[derive(Clone, Copy)]
pub struct Declaration {
    /// Name of its field.
    pub field: &'static str,
    /// The values, and the default.
    pub accepts: Accepts,
    /// What it affects.
    pub effect: Effect,
    /// Its key in `plan.toml`, if that is not its flag. Empty if no key of the plan is this setting's alone.
    pub plan: Option<&'static str>,
    /// Help text without the default.
    pub help: fn() -> String,
}

impl Declaration {
    /// The flag without dashes, and the key in files.
    pub fn key(&self) -> String {
        kebab(self.field)
    }

    /// The key in `plan.toml`; `None` if no key is this setting's alone.
    pub fn plan_key(&self) -> Option<String> {
        match self.plan {
            None => Some(self.key()),
            Some("") => None,
            Some(key) => Some(key.to_owned()),
        }
    }

    /// Help text with the default.
    pub fn described(&self) -> String {
        described(&(self.help)(), self.accepts)
    }
}

/// The key of a field.
pub(super) fn kebab(field: &str) -> String {
    field.replace('_', "-")
}

/// A heading of the help; `None` for settings without one.
pub(super) fn heading(text: &'static str) -> Option<&'static str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A help text with the default.
pub(super) fn described(help: &str, accepts: Accepts) -> String {
    let default = match accepts {
        Accepts::Of(Domain::Number { default, .. }) if default != 0.0 && default < 1e-3 => {
            format!("{default:e}")
        }
        Accepts::Of(domain) => domain.default().to_string(),
        Accepts::Own("") => return help.to_owned(),
        Accepts::Own(words) => words.to_owned(),
    };
    format!("{help} [default: {default}]")
}

/// A number with a default and a range.
pub(super) const fn number(default: f64, range: Range) -> Accepts {
    Accepts::Of(Domain::Number { default, range })
}

/// A whole number of at least `least`, with a default.
pub(super) const fn count(least: usize, default: usize) -> Accepts {
    Accepts::Of(Domain::Count { least, default })
}

/// One of several names; the first is the default.
pub(super) const fn choice(names: &'static [&'static str]) -> Accepts {
    Accepts::Of(Domain::Choice(names))
}

/// Values that the plan checks, with the default in words.
pub(super) const fn own(default: &'static str) -> Accepts {
    Accepts::Own(default)
}

/// Values that the plan checks, without a default.
pub(super) const fn unset() -> Accepts {
    Accepts::Own("")
}

/// Declares a struct of settings and its table. A setting is a line:
///
/// ```text
/// field: type [arguments of clap] [arguments of serde] = values and default, effect in "key of the plan", help;
/// ```
///
/// Without `in`, the key of the plan is the flag. `in ""` says that the plan has no key of its own for the setting, because an
/// objective has it. `own("..")` and `unset()` are settings that the plan checks, with the default in words and without one.
macro_rules! settings {
    (
        $(#[$outer:meta])*
        pub struct $name:ident, $table:ident
        $(
            $heading:literal {
                $(
                    $field:ident: $type:ty [$($arg:tt)*] [$($serde:tt)*]
                        = $accepts:expr, $effect:ident $(in $plan:literal)?, $help:expr;
                )*
            }
        )*
        and { $($rest:tt)* }
    ) => {
        $(#[$outer])*
        pub struct $name {
            $($(
                #[doc = concat!("The setting `", stringify!($field), "` as the user wrote it.")]
                #[arg(
                    long,
                    help_heading = heading($heading),
                    help = table::described(&String::from($help), $accepts),
                    $($arg)*
                )]
                #[serde($($serde)*)]
                pub $field: $type,
            )*)*
            $($rest)*
        }

        #[doc = concat!("The settings in [`", stringify!($name), "`].")]
        pub const $table: &[table::Declaration] = &[
            $($(
                table::Declaration {
                    field: stringify!($field),
                    accepts: $accepts,
                    effect: table::Effect::$effect,
                    plan: settings!(@plan $($plan)?),
                    help: || String::from($help),
                },
            )*)*
        ];
    };
    (@plan) => { None };
    (@plan $plan:literal) => { Some($plan) };
}

pub(super) use settings;

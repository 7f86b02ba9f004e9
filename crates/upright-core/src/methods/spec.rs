//! What a method declares about itself, and how it is built.

use std::fmt;

use crate::{
    settings::{Setting, Values},
    train::Method,
};

/// Name of the setting of the methods that probe all objectives every few steps. A method with [`Cost::OneAndProbes`] declares it.
pub const PROBE_EVERY: &str = "probe-every";

/// A method as the program knows it: its name, its settings, its words, its cost, and how it is built. Every method is a constant
/// in its own file and a line in [`super::METHODS`].
#[derive(Clone, Copy)]
pub struct MethodSpec {
    /// Name in settings and records.
    pub name: &'static str,
    /// Settings that only this method takes.
    pub settings: &'static [Setting],
    /// Whether its decisions depend on the optima of the objectives.
    pub uses_optima: bool,
    /// Whether a wrong optimum may give all steps to one objective.
    pub needs_optima: bool,
    /// Whether it trains on one objective after the other, in stages of its own.
    pub has_stages: bool,
    /// What a step takes.
    pub cost: Cost,
    /// By how much the batch of every objective is divided.
    pub batch_divisor: fn(&Values) -> usize,
    /// Its forms; the first is the default.
    pub forms: &'static [Form],
    /// Builds the method.
    pub build: fn(MethodContext) -> Box<dyn Method>,
}

/// The passes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// A forward and a backward pass of one objective, chosen by weight.
    One,
    /// As [`Cost::One`], and every [`PROBE_EVERY`] steps a forward pass of the other objectives.
    OneAndProbes,
    /// A forward and a backward pass of every objective.
    All,
}

/// A form of a method, which reports compare as an arm of its own: with other values of its settings it may be a method of its own.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Name in records, in kebab-case.
    pub name: &'static str,
    /// Label of its arms, in lower case.
    pub label: &'static str,
    /// Its name in a sentence.
    pub title: &'static str,
    /// What it does, for a reader who has not read the paper: sentences without a subject.
    pub about: &'static str,
    /// What decides a step, as the end of a sentence that begins with the title; empty if it is as in the form before.
    pub decides: &'static str,
    /// Setting and value that make it this form; `None` for the first form.
    pub when: Option<(&'static str, &'static str)>,
    /// Place of its arms in a report: the smallest comes first.
    pub place: usize,
    /// Color and marker of its arms in figures, as numbers of their series.
    pub look: [usize; 2],
}

impl Form {
    /// Series of color and marker of methods that did not choose their own.
    pub const OTHER_LOOK: [usize; 2] = [5, 0];

    /// Place of methods that did not choose their own: after the built-in methods, in the order of their names.
    pub const OTHER_PLACE: usize = 100;

    /// The only form of a method. `name` is its label too.
    pub const fn new(
        name: &'static str,
        title: &'static str,
        about: &'static str,
        decides: &'static str,
    ) -> Self {
        Self {
            name,
            label: name,
            title,
            about,
            decides,
            when: None,
            place: Self::OTHER_PLACE,
            look: Self::OTHER_LOOK,
        }
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Form {}

impl MethodSpec {
    /// A method without settings, which takes one batch of one objective per step. The other fields can be replaced.
    pub const fn new(
        name: &'static str,
        forms: &'static [Form],
        build: fn(MethodContext) -> Box<dyn Method>,
    ) -> Self {
        Self {
            name,
            settings: &[],
            uses_optima: false,
            needs_optima: false,
            has_stages: false,
            cost: Cost::One,
            batch_divisor: |_| 1,
            forms,
            build,
        }
    }

    /// The form of the method with these settings.
    pub fn form(&self, settings: &Values) -> &'static Form {
        for form in self.forms {
            if let Some((name, value)) = form.when
                && settings.choice(name) == value
            {
                return form;
            }
        }
        &self.forms[0]
    }

    /// Whether the method takes a setting.
    pub fn takes(&self, setting: &str) -> bool {
        self.settings.iter().any(|own| own.name == setting)
    }

    /// Steps between probes of all objectives; `None` if the method has no such setting.
    pub fn probe_every(&self, settings: &Values) -> Option<usize> {
        self.takes(PROBE_EVERY).then(|| settings.count(PROBE_EVERY))
    }
}

impl PartialEq for MethodSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for MethodSpec {}

impl fmt::Debug for MethodSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for MethodSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a method may need from the plan. All lists but `stages` have one entry per objective.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodContext {
    /// Weights of the objectives; they sum to 1.
    pub weights: Vec<f64>,
    /// Order among objectives that tie in gap and weight: the smallest rank wins.
    pub tie_ranks: Vec<usize>,
    /// Optimum f* of every objective, on training rows.
    pub optima: Vec<f64>,
    /// Values of [`MethodSpec::settings`].
    pub settings: Values,
    /// Seed of the draws.
    pub seed: u64,
    /// Stages of a method that has them: an objective, and the step at which its stage ends.
    pub stages: Vec<(usize, usize)>,
}

//! The forms of the joint methods that a sweep compares: every listed value of every setting of a method, and Mix at equal steps or
//! tokens.

use std::collections::BTreeMap;

use upright_base::{Error, Result};
use upright_core::{
    methods::{self, MIX, MIX_BATCHES, MethodSpec},
    settings::{Domain, Setting},
};
use upright_runs::{
    plan::Plan,
    settings::{
        Config, Number,
        checks::{no_such, value, wrong},
    },
};

use super::keys::listed_settings;

/// A joint method in one of its forms.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// The method.
    pub(super) method: &'static MethodSpec,
    /// Values of settings of the method. The others have their defaults.
    settings: Vec<(&'static Setting, Number)>,
    /// The form of Mix; [`MixForm::Steps`] for other methods.
    mix: MixForm,
}

impl Form {
    /// A method with the defaults of its settings.
    pub(super) fn plain(method: &'static MethodSpec) -> Self {
        Self {
            method,
            settings: Vec::new(),
            mix: MixForm::Steps,
        }
    }

    /// The forms of a method in a sweep; none for a method with stages. `mix` are the forms of Mix, and `values` the listed values
    /// of settings.
    pub(super) fn of(
        method: &'static MethodSpec,
        mix: &[MixForm],
        values: &BTreeMap<String, Vec<Number>>,
    ) -> Vec<Self> {
        if method.has_stages {
            return Vec::new();
        }
        let mut forms = vec![Self::plain(method)];
        if method == &MIX {
            forms = Vec::new();
            for mix in mix {
                forms.push(Self {
                    mix: *mix,
                    ..Self::plain(method)
                });
            }
        }
        for setting in method.settings {
            let Some(listed) = values.get(setting.name) else {
                continue;
            };
            let mut all = Vec::new();
            for form in &forms {
                for value in listed {
                    let mut form = form.clone();
                    form.settings.push((setting, value.clone()));
                    all.push(form);
                }
            }
            forms = all;
        }
        forms
    }

    /// Whether it is a method with the defaults of its settings.
    pub(super) fn is_plain(&self, method: &MethodSpec) -> bool {
        let mut settings = self.settings.iter();
        self.method == method
            && self.mix == MixForm::Steps
            && settings.all(|(setting, value)| value.to_string() == setting.default().to_string())
    }

    /// What stands before and after the weights in the name of a job.
    pub(super) fn names(&self) -> [String; 2] {
        let mut before = self.method.name.to_owned();
        let mut after = String::new();
        if self.mix != MixForm::Steps {
            before += &format!("-{}", self.mix.name());
        }
        for (setting, value) in &self.settings {
            match setting.domain {
                Domain::Choice(names) if value.to_string() == names[0] => {}
                Domain::Choice(_) => before += &format!("-{value}"),
                Domain::Number { .. } | Domain::Count { .. } => {
                    let short = setting.short.map_or(setting.name, |(short, _)| short);
                    after += &format!("-{short}-{value}");
                }
            }
        }
        [before, after]
    }

    /// Writes the settings of this form. Mix at equal tokens takes `equal_tokens` steps.
    pub(super) fn write_to(&self, config: &mut Config, equal_tokens: usize) {
        match self.mix {
            MixForm::Steps => {}
            MixForm::Tokens => {
                config.steps = Some(Number::from(&equal_tokens.to_string()[..]));
                config.epochs = None;
            }
            MixForm::Half => {
                config
                    .method_settings
                    .set(MIX_BATCHES, Number::from(MixForm::Half.name()));
            }
        }
        for (setting, value) in &self.settings {
            config.method_settings.set(setting.name, value.clone());
        }
    }
}

/// Takes the settings of methods out of a sweep's table, each as a list of values.
///
/// # Errors
/// A value is wrong or is listed twice, or the sweep lacks the method.
pub(super) fn take_settings(
    table: &mut toml::Table,
    methods: &[&'static MethodSpec],
) -> Result<BTreeMap<String, Vec<Number>>> {
    let mut taken = BTreeMap::new();
    for listed in listed_settings() {
        let key = listed.name;
        let written = match table.remove(key) {
            None => Vec::new(),
            Some(toml::Value::Array(values)) => values,
            Some(value) => vec![value],
        };
        if !written.is_empty() && !methods.iter().any(|method| method.takes(key)) {
            let takers = methods::all().iter().filter(|method| method.takes(key));
            let takers: Vec<&str> = takers.map(|method| method.name).collect();
            let takers = takers.join(" or ");
            return Err(Error::input(format!(
                "{key} is given, but {takers} is not among the methods"
            ))
            .hint(format!("add {takers} to methods, or remove {key}")));
        }
        let mut values: Vec<Number> = Vec::new();
        for written in written {
            let text = written.to_string();
            let number: Number = written
                .try_into()
                .map_err(|_| wrong(key, "list numbers or names", text))?;
            for setting in methods.iter().flat_map(|method| method.settings) {
                if setting.name == key {
                    value(key, Some(&number), &setting.domain)?;
                }
            }
            if values.contains(&number) {
                let message = format!("{key} names `{number}` twice");
                return Err(Error::input(message).hint("remove one"));
            }
            values.push(number);
        }
        let names_default = listed.short.is_some_and(|(_, always)| always);
        if values.is_empty() && names_default {
            values.push(Number::from(&listed.default().to_string()[..]));
        }
        if !values.is_empty() {
            taken.insert(key.to_owned(), values);
        }
    }
    Ok(taken)
}

/// A form of Mix. A step of Mix takes a batch of every objective, so at equal steps it costs several
/// times the tokens of a method that takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixForm {
    /// As many steps as the other methods.
    Steps,
    /// About as many tokens as ALRIGHT, in fewer steps.
    Tokens,
    /// As many steps as the other methods, with half of the rows of every objective.
    Half,
}

impl MixForm {
    /// All forms, in the order of the help texts.
    pub const ALL: [Self; 3] = [Self::Steps, Self::Tokens, Self::Half];

    /// Name in study files, and in the names of jobs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Tokens => "tokens",
            Self::Half => "half",
        }
    }

    /// The forms of a sweep, each once; by default only that of the paper.
    ///
    /// # Errors
    /// A name is unknown or is listed twice.
    pub(super) fn parse(written: &[String]) -> Result<Vec<Self>> {
        if written.is_empty() {
            return Ok(vec![Self::Steps]);
        }
        let mut forms = Vec::with_capacity(written.len());
        for name in written {
            let Some(form) = Self::ALL.into_iter().find(|form| form.name() == name) else {
                return Err(no_such("mix", name, Self::ALL.map(Self::name)));
            };
            if forms.contains(&form) {
                return Err(Error::input(format!("mix names `{name}` twice")).hint("remove one"));
            }
            forms.push(form);
        }
        Ok(forms)
    }
}

/// Steps of Mix that train on about as many tokens as `steps` steps of ALRIGHT. `tokens` are the
/// training tokens of every objective, and `rows` its training rows.
///
/// ALRIGHT takes the share `w_i` of its steps on objective i, at `t_i` tokens per batch. A step of
/// Mix takes the batches of all objectives with a weight. So the steps are divided by
/// `sum t_i / sum w_i t_i`.
pub(super) fn steps_at_equal_tokens(
    plan: &Plan,
    weights: &[f64],
    tokens: &[usize],
    rows: &[usize],
    steps: usize,
) -> usize {
    let mut one_step = 0.0;
    let mut mean_step = 0.0;
    for (index, weight) in weights.iter().enumerate() {
        if *weight == 0.0 || rows[index] == 0 {
            continue;
        }
        let per_row = tokens[index] as f64 / rows[index] as f64;
        let per_batch = per_row * plan.objectives[index].batch.min(rows[index]) as f64;
        one_step += per_batch;
        mean_step += weight * per_batch;
    }
    if one_step == 0.0 {
        return steps;
    }
    let equal = (steps as f64 * mean_step / one_step).round() as usize;
    equal.max(1)
}

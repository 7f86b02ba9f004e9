//! The forms of the joint methods that a sweep compares: Mix at equal steps or tokens, ALRIGHT with
//! other draws, MAXRIGHT with other probe intervals, Compromise with other powers.

use upright_base::{Error, Result};
use upright_core::methods::{Draws, MethodKind, MixBatches};
use upright_runs::{
    plan::{
        Plan,
        checks::{choice, no_such},
    },
    settings::{Config, Number},
};

use super::study::Sweep;

/// A joint method in one of its forms.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'s> {
    Mix(MixForm),
    Alright(Draws),
    /// With a probe interval, in steps.
    Maxright(&'s Number),
    /// With a power, or with the default power.
    Compromise(Option<&'s Number>),
}

impl<'s> Form<'s> {
    /// The forms of a method in a sweep; none for Sequential.
    pub(super) fn of(method: MethodKind, sweep: &'s Sweep) -> Vec<Self> {
        match method {
            MethodKind::Sequential => Vec::new(),
            MethodKind::Mix => sweep.mix.iter().copied().map(Form::Mix).collect(),
            MethodKind::Alright => sweep.draws.iter().copied().map(Form::Alright).collect(),
            MethodKind::Maxright => sweep.probe_every.iter().map(Form::Maxright).collect(),
            MethodKind::Compromise if sweep.power.is_empty() => vec![Form::Compromise(None)],
            MethodKind::Compromise => sweep.power.iter().map(Some).map(Form::Compromise).collect(),
        }
    }

    /// The method.
    pub(super) fn method(self) -> MethodKind {
        match self {
            Form::Mix(_) => MethodKind::Mix,
            Form::Alright(_) => MethodKind::Alright,
            Form::Maxright(_) => MethodKind::Maxright,
            Form::Compromise(_) => MethodKind::Compromise,
        }
    }

    /// What stands before and after the weights in the name of a job.
    pub(super) fn names(self) -> [String; 2] {
        let method = self.method().name();
        match self {
            Form::Mix(MixForm::Steps) | Form::Alright(Draws::Random) | Form::Compromise(None) => {
                [method.to_owned(), String::new()]
            }
            Form::Mix(form) => [format!("{method}-{}", form.name()), String::new()],
            Form::Alright(draws) => [format!("{method}-{}", draws.name()), String::new()],
            Form::Maxright(k) => [method.to_owned(), format!("-k-{k}")],
            Form::Compromise(Some(power)) => [method.to_owned(), format!("-p-{power}")],
        }
    }

    /// Writes the settings of this form. Mix at equal tokens takes `equal_tokens` steps.
    pub(super) fn write_to(self, config: &mut Config, equal_tokens: usize) {
        match self {
            Form::Mix(MixForm::Steps) => {}
            Form::Mix(MixForm::Tokens) => {
                config.steps = Some(Number::from(&equal_tokens.to_string()[..]));
                config.epochs = None;
            }
            Form::Mix(MixForm::Half) => {
                config.mix_batches = Some(MixBatches::Half.name().to_owned());
            }
            Form::Alright(draws) => config.draws = Some(draws.name().to_owned()),
            Form::Maxright(k) => config.probe_every = Some(k.clone()),
            Form::Compromise(power) => config.power = power.cloned(),
        }
    }
}

/// The draws of a sweep, each once; by default those of the paper.
///
/// # Errors
/// A name is unknown or is listed twice.
pub(super) fn draws(written: &[String]) -> Result<Vec<Draws>> {
    if written.is_empty() {
        return Ok(vec![Draws::Random]);
    }
    let mut all = Vec::with_capacity(written.len());
    for name in written {
        let draws = choice("draws", Some(name), Draws::Random)?;
        if all.contains(&draws) {
            return Err(Error::input(format!("draws names `{name}` twice")).hint("remove one"));
        }
        all.push(draws);
    }
    Ok(all)
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

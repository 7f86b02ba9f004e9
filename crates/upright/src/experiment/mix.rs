//! The forms of Mix that a sweep compares. A step of Mix takes a batch of every objective, so at
//! equal steps it costs several times the tokens of a method that takes one.

use upright_base::{Error, Result};
use upright_core::methods::MixBatches;
use upright_runs::plan::{Plan, checks::no_such};

/// A form of Mix.
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

    /// Its batches.
    pub(super) fn batches(self) -> MixBatches {
        match self {
            Self::Steps | Self::Tokens => MixBatches::Full,
            Self::Half => MixBatches::Half,
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

//! A claim with its verdicts: whether it holds in each comparison.

use serde::Serialize;

use super::{
    arm::{Arm, Outcome},
    small::Small,
};
use upright_core::metrics::{Call, Spread};
use upright_runs::records::{EvalSet, PerSet};

/// A claim of the paper, tested wherever all the arms that it needs were run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// The claim in words.
    pub text: String,
    /// The verdicts; at least one.
    pub verdicts: Vec<Verdict>,
}

/// The verdict for one comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Weights and setting of the comparison; empty if there is only one.
    pub at: String,
    /// Whether the claim holds. Both entries are equal if the claim does not depend on rows; none
    /// if the rows were not measured.
    pub holds: PerSet<Option<Call>>,
    /// The numbers behind the verdict.
    pub because: PerSet<String>,
    /// Why a number behind the verdict has no error, if so. The means alone then decide, and
    /// another seed may change the verdict.
    pub no_error: Option<NoError>,
    /// The sizes of the samples behind the verdict that are too small for a conclusion.
    pub small: Small,
}

/// Why a number has no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoError {
    /// An arm has one run.
    OneRun,
    /// No two seeds were run at every weight of a front.
    SeedsDiffer,
}

impl Claim {
    /// The call that all verdicts share on all measured rows; `None` if they differ.
    pub fn call(&self) -> Option<Call> {
        common(
            self.verdicts
                .iter()
                .flat_map(|verdict| verdict.holds.into_list()),
        )
    }

    /// The call that all verdicts share on one set of rows; `None` if they differ.
    pub(crate) fn call_on(&self, set: EvalSet) -> Option<Call> {
        common(self.verdicts.iter().map(|verdict| verdict.holds[set]))
    }
}

/// The call that all present entries share; `None` if they differ or if there is none.
fn common(answers: impl Iterator<Item = Option<Call>>) -> Option<Call> {
    let calls: Vec<Call> = answers.flatten().collect();
    let first = *calls.first()?;
    calls.iter().all(|call| *call == first).then_some(first)
}

impl Verdict {
    /// A verdict from differences that are below 0 according to the claim, on each set of rows.
    pub(crate) fn new(
        at: String,
        differences: PerSet<Option<Vec<Spread>>>,
        because: PerSet<String>,
        arms: &[&Arm],
    ) -> Self {
        let holds = PerSet::each(|set| {
            let differences = differences[set].iter().flatten();
            let calls = differences.map(|difference| difference.is_below(0.0));
            Call::all(&calls.collect::<Vec<Call>>())
        });
        let bare = differences
            .iter()
            .flatten()
            .flatten()
            .any(|difference| difference.error.is_none());
        let one_run = arms.iter().any(|arm| arm.runs.len() == 1);
        let reason = if one_run {
            NoError::OneRun
        } else {
            NoError::SeedsDiffer
        };
        let mut small = Small::default();
        for arm in arms {
            small = small.and(arm.small);
        }
        if because.held_out == because.training {
            // A cost does not depend on rows.
            (small.held_out, small.pairs, small.epochs) = (None, false, None);
        } else if holds.held_out.is_none() {
            (small.held_out, small.pairs) = (None, false);
        }
        Self {
            at,
            holds,
            because,
            no_error: bare.then_some(reason),
            small,
        }
    }
}

/// The differences of all pairs of arms, `below` minus `above`; none if a number is missing or if
/// there are no pairs.
pub(crate) fn differences(
    below: &[&Arm],
    above: &[&Arm],
    value: impl Fn(&Outcome) -> Option<f64> + Copy,
) -> Option<Vec<Spread>> {
    let mut found = Vec::new();
    for arm in below {
        for other in above {
            found.push(arm.sample(value)?.less(&other.sample(value)?));
        }
    }
    (!found.is_empty()).then_some(found)
}

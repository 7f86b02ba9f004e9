//! A claim with its verdicts: whether it holds in each comparison, and the words for it.

use serde::Serialize;

use crate::{arm::Arm, small::Small, tables::SET_NAMES};
use upright_core::metrics::{Call, Spread};

/// A claim of the paper, tested wherever all the arms that it needs were run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// The claim in words.
    pub text: String,
    /// The verdicts; at least one.
    pub verdicts: Vec<Verdict>,
}

/// The verdict for one comparison. Arrays hold held-out rows, then training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Weights and setting of the comparison; empty if there is only one.
    pub at: String,
    /// Whether the claim holds. Both entries are equal if the claim does not depend on rows; none
    /// if the rows were not measured.
    pub holds: [Option<Call>; 2],
    /// The numbers behind the verdict.
    pub because: [String; 2],
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

impl NoError {
    /// The reason in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::OneRun => "one run, no error known",
            Self::SeedsDiffer => "no error known, as no two seeds were run at every weight",
        }
    }
}

impl Claim {
    /// The call that all verdicts share on all measured rows; `None` if they differ.
    pub fn call(&self) -> Option<Call> {
        common(self.verdicts.iter().flat_map(|verdict| verdict.holds))
    }

    /// The call that all verdicts share on one set of rows; `None` if they differ.
    fn call_on(&self, set: usize) -> Option<Call> {
        common(self.verdicts.iter().map(|verdict| verdict.holds[set]))
    }

    /// The overall verdict in words.
    pub fn summary(&self) -> String {
        use Call::{No, TooCloseToCall, Yes};
        match self.call() {
            Some(Yes) => return "holds here".into(),
            Some(No) => return "does not hold here".into(),
            Some(TooCloseToCall) => return "too close to call here".into(),
            None => {}
        }
        let (held_out, training) = (SET_NAMES[0], SET_NAMES[1]);
        match (self.call_on(0), self.call_on(1)) {
            (Some(Yes), Some(No)) => format!("holds here on {held_out} only"),
            (Some(No), Some(Yes)) => format!("holds here on {training} only"),
            (Some(Yes), Some(_)) => {
                format!("holds here on {held_out}, too close to call on {training}")
            }
            (Some(_), Some(Yes)) => {
                format!("holds here on {training}, too close to call on {held_out}")
            }
            (Some(No), Some(_)) => {
                format!("does not hold here on {held_out}, too close to call on {training}")
            }
            (Some(_), Some(No)) => {
                format!("does not hold here on {training}, too close to call on {held_out}")
            }
            _ => {
                let any = |wanted: Call| {
                    self.verdicts
                        .iter()
                        .any(|verdict| verdict.holds.contains(&Some(wanted)))
                };
                match (any(Yes), any(No)) {
                    (true, true) => "holds here in part".into(),
                    (true, false) => "holds here in part, too close to call in part".into(),
                    (false, _) => "does not hold here in part, too close to call in part".into(),
                }
            }
        }
    }

    /// A sentence for the overall verdict if it rests on small samples; empty otherwise.
    pub fn caution(&self) -> String {
        let mut small = Small::default();
        for verdict in &self.verdicts {
            small = small.and(verdict.small);
        }
        if small.is_none() {
            return String::new();
        }
        let everywhere = self.verdicts.iter().all(|verdict| !verdict.small.is_none());
        format!(
            "{}{}: treat as an anecdote.",
            if everywhere {
                ""
            } else {
                "In some comparisons "
            },
            small.words()
        )
    }

    /// A note for the overall verdict if numbers without an error decide it; empty otherwise.
    pub fn mark(&self) -> String {
        let reasons: Vec<NoError> = self
            .verdicts
            .iter()
            .filter_map(|verdict| verdict.no_error)
            .collect();
        match reasons.first() {
            None => String::new(),
            Some(first) if reasons.len() == self.verdicts.len() => format!(", {}", first.words()),
            Some(first) => format!(", in some comparisons {}", first.words()),
        }
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
    pub(super) fn new(
        at: String,
        differences: [Option<Vec<Spread>>; 2],
        because: [String; 2],
        arms: &[&Arm],
    ) -> Self {
        let mut holds = [None; 2];
        for (holds, differences) in holds.iter_mut().zip(&differences) {
            let calls = differences
                .iter()
                .flatten()
                .map(|difference| difference.is_below(0.0));
            *holds = Call::all(&calls.collect::<Vec<Call>>());
        }
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
        if because[0] == because[1] {
            // A cost does not depend on rows.
            (small.held_out, small.pairs, small.epochs) = (None, false, None);
        } else if holds[0].is_none() {
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

    /// The call in a word or two; names the rows if the calls on them differ.
    pub fn words(&self) -> String {
        match self.holds {
            [Some(held_out), Some(training)] if held_out != training => {
                format!(
                    "{} on {}, {} on {}",
                    held_out.words(),
                    SET_NAMES[0],
                    training.words(),
                    SET_NAMES[1]
                )
            }
            [Some(call), _] | [None, Some(call)] => call.words().into(),
            [None, None] => String::new(),
        }
    }

    /// The call with its numbers, one line per set of rows; a single line if both are equal.
    pub fn lines(&self) -> Vec<String> {
        let at = if self.at.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.at)
        };
        let mark = self
            .no_error
            .map_or_else(String::new, |reason| format!(", {}", reason.words()));
        let same = self.because[0] == self.because[1] && self.holds[0] == self.holds[1];
        let line = |set: usize| {
            let holds = self.holds[set]?.words();
            let rows = if same {
                String::new()
            } else {
                format!("{}: ", SET_NAMES[set])
            };
            Some(format!("{at}{rows}{holds}{mark} ({})", self.because[set]))
        };
        (0..if same { 1 } else { 2 }).filter_map(line).collect()
    }
}

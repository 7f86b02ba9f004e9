//! The words for a claim's verdicts.

use crate::{
    compare::{Claim, NoError, Small, Verdict},
    say::SET_NAMES,
};
use upright_core::metrics::Call;
use upright_runs::records::{EvalSet, PerSet};

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
    /// The overall verdict in words.
    pub fn summary(&self) -> String {
        use Call::{No, TooCloseToCall, Yes};
        match self.call() {
            Some(Yes) => return "holds here".into(),
            Some(No) => return "does not hold here".into(),
            Some(TooCloseToCall) => return "too close to call here".into(),
            None => {}
        }
        let PerSet { held_out, training } = SET_NAMES;
        let calls = PerSet::each(|set| self.call_on(set));
        match (calls.held_out, calls.training) {
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
                        .any(|verdict| verdict.holds.iter().any(|call| *call == Some(wanted)))
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

impl Verdict {
    /// The call in a word or two; names the rows if the calls on them differ.
    pub fn words(&self) -> String {
        match (self.holds.held_out, self.holds.training) {
            (Some(held_out), Some(training)) if held_out != training => {
                format!(
                    "{} on {}, {} on {}",
                    held_out.words(),
                    SET_NAMES.held_out,
                    training.words(),
                    SET_NAMES.training
                )
            }
            (Some(call), _) | (None, Some(call)) => call.words().into(),
            (None, None) => String::new(),
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
        let same = self.because.held_out == self.because.training
            && self.holds.held_out == self.holds.training;
        let line = |set: EvalSet| {
            let holds = self.holds[set]?.words();
            let rows = if same {
                String::new()
            } else {
                format!("{}: ", SET_NAMES[set])
            };
            Some(format!("{at}{rows}{holds}{mark} ({})", self.because[set]))
        };
        let sets = if same {
            &[EvalSet::HeldOut][..]
        } else {
            &EvalSet::ALL
        };
        sets.iter().filter_map(|set| line(*set)).collect()
    }
}

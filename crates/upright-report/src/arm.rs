//! Runs that differ in their seed alone, as one arm of a comparison: its means and standard errors over its seeds.

use serde::Serialize;
use upright_core::metrics::{Sample, Spread};

/// Arms that are held against each other: a setting, and the terms they have in common.
pub(super) type Comparison = (usize, Option<usize>);

/// What an arm does, as far as a comparison cares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Trains on one of the objectives compared, and no other.
    Alone(String),
    /// One objective after the other, by name.
    Sequential(Vec<String>),
    /// All in every step.
    Mix,
    /// One per step, drawn.
    Alright,
    /// One per step, the one farthest from its optimum.
    Maxright,
    /// Trains on an objective that others lack.
    Other(String),
    /// Adapters that a study trained apart and added, a sum for every seed.
    Sum,
    /// An adapter that was there already, by name.
    Measured(String),
}

/// Runs whose plans are equal but for the seed, and for settings that no step depends on. Lists have one entry for each
/// objective compared; arrays of two are held-out rows and training rows, as in [`upright_runs::records::SETS`].
///
/// What an arm costs is what its training took: of a sum of adapters that of the runs whose adapters it adds up. It is unknown
/// if these are not among the runs, and for an adapter that was there already.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    /// Its name on the page; no two are equal.
    pub label: String,
    /// Its name among arms of the same setting and weights.
    pub family: String,
    /// What it does.
    pub role: Role,
    /// Weights of the objectives compared; for a sequential arm the shares of its steps where those say more.
    pub weights: Vec<f64>,
    /// MAXRIGHT looks at all losses every so many steps.
    pub probe_every: Option<usize>,
    /// Which of the report's settings its losses are measured in.
    pub setting: usize,
    /// Which of the report's terms it was trained on; none for one that trains an objective alone, or takes no step.
    pub terms: Option<usize>,
    /// Whether no run of it is finished: its numbers are those so far.
    pub unfinished: bool,
    /// Steps planned.
    pub planned: usize,
    /// Steps of those of its runs that ended before, at losses that their plan names.
    pub ended_early: Vec<usize>,
    /// Indices of the report's runs behind its means.
    pub runs: Vec<usize>,
    /// Indices of all its runs, unfinished ones too.
    pub all: Vec<usize>,
    /// Indices of runs that repeat a seed of `runs`, and count in no mean.
    pub repeated: Vec<usize>,
    /// Loss after the last step.
    pub ends: [Vec<Option<Spread>>; 2],
    /// Loss after the last step less its optimum.
    pub gaps: [Vec<Option<Spread>>; 2],
    /// Distance to the ideal point.
    pub ideal_distance: [Option<Spread>; 2],
    /// Steps that trained on each objective.
    pub updates: Vec<Option<Spread>>,
    /// Seconds of all steps.
    pub seconds: Option<Spread>,
    /// The same times the share of the processors that was used, if every run recorded it.
    pub busy_seconds: Option<Spread>,
    /// Tokens trained on a second.
    pub tokens_per_second: Option<Spread>,
    /// Median utilization of a run, 0 to 1.
    pub utilization: Option<Spread>,
    /// Most memory any run held, in GB.
    pub peak_memory_gb: Option<f64>,
    /// Seconds against the matching Sequential, in percent (57).
    pub runtime_increase: Option<Spread>,
    /// Busy seconds, or those of the clock where they were not recorded, against the matching Sequential, in percent.
    pub cost_increase: Option<Spread>,
    /// Utilisation against the matching Sequential, in percent (58).
    pub utilization_increase: Option<Spread>,
    /// Labels of the sequential arms it is measured against.
    pub against: Vec<String>,
    /// What each of `runs` came to, in the same order.
    #[serde(skip)]
    pub(super) outcomes: Vec<Outcome>,
}

/// What one run of an arm came to. Lists have one entry for each objective compared; arrays of two are held-out rows and
/// training rows.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    /// Loss after the last step.
    pub(super) ends: [Vec<Option<f64>>; 2],
    /// Loss after the last step less its optimum.
    pub(super) gaps: [Vec<Option<f64>>; 2],
    /// Distance to the ideal point.
    pub(super) ideal_distance: [Option<f64>; 2],
    /// Seconds of all steps of its training.
    pub(super) seconds: Option<f64>,
    /// The same times the share of the processors that was used, if it was recorded.
    pub(super) busy_seconds: Option<f64>,
    /// Tokens that its training trained on.
    pub(super) tokens: Option<f64>,
    /// Steps of its training that updated each objective.
    pub(super) updates: Vec<Option<f64>>,
    /// Most memory that its training held at once, in GB.
    pub(super) peak_memory_gb: Option<f64>,
}

impl Arm {
    /// Whom it is held against.
    pub(super) fn comparison(&self) -> Comparison {
        (self.setting, self.terms)
    }

    /// Whether it weighs all objectives in one run without an order.
    pub fn is_joint(&self) -> bool {
        matches!(self.role, Role::Mix | Role::Alright | Role::Maxright)
    }

    /// Whether it trains one objective after the other.
    pub fn is_sequential(&self) -> bool {
        matches!(self.role, Role::Sequential(_))
    }

    /// A number of its runs by seed; none where a run lacks it.
    pub(super) fn sample(&self, value: impl Fn(&Outcome) -> Option<f64>) -> Option<Sample> {
        let mut by_seed = Vec::new();
        for outcome in &self.outcomes {
            by_seed.push((outcome.seed, value(outcome)?));
        }
        Sample::of(by_seed)
    }

    /// Where it ends on a set, if every objective was measured.
    pub fn end(&self, set: usize) -> Option<Vec<f64>> {
        self.ends[set]
            .iter()
            .map(|end| end.map(|end| end.mean))
            .collect()
    }
}

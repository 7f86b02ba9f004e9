//! Runs that differ only in their seed, as one arm of a comparison with means and standard errors.

use std::cmp::Ordering;

use serde::{Serialize, Serializer};
use upright_core::{
    methods::{Cost, Form, MethodSpec},
    metrics::{Sample, Spread},
    optimizer::Iterate,
};
use upright_runs::records::{EvalSet, PerSet};

use super::small::Small;

/// Identifies arms that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Index of the report's setting.
    pub(crate) setting: usize,
    /// Index of the report's training budget.
    pub(crate) terms: Option<usize>,
    /// The adapters that are compared.
    pub(crate) iterate: Iterate,
}

/// What an arm does, as far as comparisons depend on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Trains on one of the compared objectives and on no other.
    Alone(String),
    /// Trains on one objective after the other, by name.
    Sequential(Vec<String>),
    /// Trains on an objective that other runs lack.
    Other(String),
    /// Adapters that a study trained separately and added, one sum per seed.
    Sum,
    /// An existing adapter, by name.
    Measured(String),
    /// Trains on all objectives jointly, without an order, with a method in one of its forms.
    #[serde(untagged)]
    Joint(Joint),
}

/// A joint method in one of its forms, in the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joint {
    /// The method.
    pub method: &'static MethodSpec,
    /// Its form.
    pub form: &'static Form,
}

impl Ord for Joint {
    fn cmp(&self, other: &Self) -> Ordering {
        let places = self.form.place.cmp(&other.form.place);
        places.then_with(|| self.form.name.cmp(other.form.name))
    }
}

impl PartialOrd for Joint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for Joint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.form.name)
    }
}

impl Role {
    /// Whether it is a joint method in its first form.
    pub fn is(&self, method: &MethodSpec) -> bool {
        self.joint()
            .is_some_and(|joint| joint.form == &method.forms[0])
    }

    /// The joint method; `None` for other roles.
    pub fn joint(&self) -> Option<Joint> {
        match self {
            Self::Joint(joint) => Some(*joint),
            _ => None,
        }
    }
}

/// Runs whose plans are equal except for the seed and for settings that no step depends on. Lists
/// have one entry per compared objective.
///
/// The cost of an arm is the cost of its training; for a sum of adapters, the cost of training the
/// adapters. It is unknown if those runs are not in the report, and for an existing adapter.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    /// Its unique name on the page.
    pub label: String,
    /// Its name among arms with the same setting and weights.
    pub family: String,
    /// Its family without its iterate, for panels that name the iterate.
    #[serde(skip)]
    pub(crate) method: String,
    /// Equal for arms that differ only in their weights. Such arms form one front.
    #[serde(skip)]
    pub(super) sweep: String,
    /// Name of the front that it begins.
    #[serde(skip)]
    pub(crate) front_name: String,
    /// What it does.
    pub role: Role,
    /// The adapter that its losses are of. A run that keeps an average belongs to two arms with the
    /// same costs: its last iterate and its average.
    pub iterate: Iterate,
    /// Weights of the compared objectives; for a sequential arm with stages only, the shares of its
    /// steps.
    pub weights: Vec<f64>,
    /// Probe interval of a method that has one, in steps.
    pub probe_every: Option<usize>,
    /// Index of the report's setting in which its losses are measured.
    pub setting: usize,
    /// Index of the report's training budget; none for an arm that trains an objective alone or
    /// that takes no step.
    pub terms: Option<usize>,
    /// Whether none of its runs is finished. Its numbers are then those so far.
    pub unfinished: bool,
    /// Planned steps.
    pub planned: usize,
    /// Steps of each run that stopped early, at the target losses in its plan.
    pub ended_early: Vec<usize>,
    /// Indices of the report's runs that its means are over.
    pub runs: Vec<usize>,
    /// Indices of all its runs, including unfinished ones.
    pub all: Vec<usize>,
    /// Indices of runs that repeat a seed of `runs` and are excluded from all means.
    pub repeated: Vec<usize>,
    /// Loss after the last step.
    pub ends: PerSet<Vec<Option<Spread>>>,
    /// Loss after the last step minus its optimum.
    pub gaps: PerSet<Vec<Option<Spread>>>,
    /// Distance to the ideal point.
    pub ideal_distance: PerSet<Option<Spread>>,
    /// Number of steps that trained on each objective.
    pub updates: Vec<Option<Spread>>,
    /// Total time of all steps, in seconds.
    pub seconds: Option<Spread>,
    /// `seconds` times the CPU utilization, if every run recorded it.
    pub busy_seconds: Option<Spread>,
    /// Tokens trained on.
    pub tokens: Option<Spread>,
    /// Tokens of batches that were probed and not trained on in the same step.
    pub probed_tokens: Option<Spread>,
    /// Training throughput, in tokens/s.
    pub tokens_per_second: Option<Spread>,
    /// Median CPU utilization of a run, 0 to 1.
    pub utilization: Option<Spread>,
    /// Peak memory of any run, in GB.
    pub peak_memory_gb: Option<f64>,
    /// Increase in wall-clock seconds over the matching Sequential, in percent (57).
    pub runtime_increase: Option<Spread>,
    /// Increase in time over the matching Sequential, in percent, by the measure of the page: busy
    /// seconds, or wall-clock seconds if an arm did not record its utilization.
    pub cost_increase: Option<Spread>,
    /// Increase in utilization over the matching Sequential, in percent (58).
    pub utilization_increase: Option<Spread>,
    /// Labels of the sequential arms that the increases are relative to.
    pub against: Vec<String>,
    /// The sizes of its sample that are too small for a conclusion.
    pub small: Small,
    /// The result of each of `runs`, in the same order.
    #[serde(skip)]
    pub(super) outcomes: Vec<Outcome>,
}

/// The result of one run of an arm. Lists have one entry per compared objective.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// Loss after the last step.
    pub(crate) ends: PerSet<Vec<Option<f64>>>,
    /// Loss after the last step minus its optimum.
    pub(crate) gaps: PerSet<Vec<Option<f64>>>,
    /// Distance to the ideal point.
    pub(crate) ideal_distance: PerSet<Option<f64>>,
    /// Total time of all training steps, in seconds.
    pub(crate) seconds: Option<f64>,
    /// `seconds` times the CPU utilization, if it was recorded.
    pub(crate) busy_seconds: Option<f64>,
    /// Tokens trained on.
    pub(crate) tokens: Option<f64>,
    /// Tokens that were probed and not trained on in the same step.
    pub(crate) probed_tokens: Option<f64>,
    /// Number of training steps on each objective.
    pub(crate) updates: Vec<Option<f64>>,
    /// Peak memory of its training, in GB.
    pub(crate) peak_memory_gb: Option<f64>,
}

/// The distance of a run to the ideal point.
pub(crate) fn distance(set: EvalSet) -> impl Fn(&Outcome) -> Option<f64> + Copy {
    move |outcome: &Outcome| outcome.ideal_distance[set]
}

impl Arm {
    /// The comparison that it belongs to.
    pub(crate) fn comparison(&self) -> Comparison {
        Comparison {
            setting: self.setting,
            terms: self.terms,
            iterate: self.iterate,
        }
    }

    /// Whether it trains on all objectives jointly, without an order.
    pub fn is_joint(&self) -> bool {
        self.role.joint().is_some()
    }

    /// Whether it trains on all objectives in every step.
    pub fn is_mix(&self) -> bool {
        self.role
            .joint()
            .is_some_and(|joint| joint.method.cost == Cost::All)
    }

    /// Whether its losses are of averaged adapters.
    pub fn is_averaged(&self) -> bool {
        self.iterate == Iterate::Average
    }

    /// Whether it trains on one objective after the other.
    pub fn is_sequential(&self) -> bool {
        matches!(self.role, Role::Sequential(_))
    }

    /// A value of its runs, by seed; none if a run lacks it.
    pub(crate) fn sample(&self, value: impl Fn(&Outcome) -> Option<f64>) -> Option<Sample> {
        let mut by_seed = Vec::new();
        for outcome in &self.outcomes {
            by_seed.push((outcome.seed, value(outcome)?));
        }
        Sample::of(by_seed)
    }

    /// Its final mean losses on a set, if every objective was measured.
    pub fn end(&self, set: EvalSet) -> Option<Vec<f64>> {
        self.ends[set]
            .iter()
            .map(|end| end.map(|end| end.mean))
            .collect()
    }
}

//! The records of a run: one per step in `steps.jsonl`, and one per evaluation in `evals.jsonl`. Their keys are written and read
//! here alone.
//!
//! | key | value |
//! |---|---|
//! | `probe/NAME`, `loss/NAME`, `gap/NAME` | of an objective in a step |
//! | `SET/loss/NAME`, `SET/gap/NAME`, `SET/ideal_distance` | of an evaluation; `SET` is `eval` or `fit` |
//! | `average/SET/...` | the same of the averaged adapter |

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};
use upright_core::{LossSpec, objectives, optimizer::Iterate};

/// A JSON object, with its keys in order.
type Line = Map<String, Value>;

const PROBE: &str = "probe/";
const LOSS: &str = "loss/";
const GAP: &str = "gap/";
const IDEAL_DISTANCE: &str = "ideal_distance";
const AVERAGE: &str = "average/";
const STEP: &str = "step";

/// Keys whose values may differ between identical runs. Energy is recorded where the device counts it.
pub const TIMES: [&str; 5] = [
    "seconds",
    "tokens_per_second",
    "utilization",
    "peak_memory_gb",
    "energy_joules",
];

/// The rows that an evaluation measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalSet {
    /// Held-out rows.
    HeldOut,
    /// A fixed sample of the training rows.
    Training,
}

impl EvalSet {
    /// Both sets, in the order of records and tables.
    pub const ALL: [Self; 2] = [Self::HeldOut, Self::Training];

    /// Its name in keys.
    pub fn key(self) -> &'static str {
        match self {
            Self::HeldOut => "eval",
            Self::Training => "fit",
        }
    }
}

/// A value for each [`EvalSet`]. In JSON, a list of two: held-out rows, then training rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerSet<T> {
    /// Of the held-out rows.
    pub held_out: T,
    /// Of the training rows.
    pub training: T,
}

impl<T> PerSet<T> {
    /// Computes the value of each set.
    pub fn each(mut value: impl FnMut(EvalSet) -> T) -> Self {
        Self {
            held_out: value(EvalSet::HeldOut),
            training: value(EvalSet::Training),
        }
    }

    /// The values in order: of the held-out rows, then of the training rows.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.held_out, &self.training].into_iter()
    }

    /// The values as a list: held-out rows, then training rows.
    pub fn into_list(self) -> [T; 2] {
        [self.held_out, self.training]
    }
}

impl<T: Clone> PerSet<T> {
    /// The same value for both sets.
    pub fn both(value: T) -> Self {
        Self {
            held_out: value.clone(),
            training: value,
        }
    }
}

impl<T> Index<EvalSet> for PerSet<T> {
    type Output = T;

    fn index(&self, set: EvalSet) -> &T {
        match set {
            EvalSet::HeldOut => &self.held_out,
            EvalSet::Training => &self.training,
        }
    }
}

impl<T> IndexMut<EvalSet> for PerSet<T> {
    fn index_mut(&mut self, set: EvalSet) -> &mut T {
        match set {
            EvalSet::HeldOut => &mut self.held_out,
            EvalSet::Training => &mut self.training,
        }
    }
}

impl<T: Serialize> Serialize for PerSet<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [&self.held_out, &self.training].serialize(serializer)
    }
}

/// The values of one objective, in a step or on one set of an evaluation. A value whose key is there without a number is NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectiveRecord {
    /// Name in the plan.
    pub name: String,
    /// Loss of a step that was probed before the method decided.
    pub probe: Option<f64>,
    /// Loss of a step that trained on the objective, or loss on a set.
    pub loss: Option<f64>,
    /// The loss minus the optimum, if the optimum is known.
    pub gap: Option<f64>,
    /// Metrics, each under its [`metric_name`].
    pub metrics: Vec<(String, f64)>,
}

impl ObjectiveRecord {
    /// Adds the values to a line, under keys with a prefix.
    fn write(&self, prefix: &str, line: &mut Line) {
        let name = &self.name;
        for (kind, value) in [(PROBE, self.probe), (LOSS, self.loss), (GAP, self.gap)] {
            if let Some(value) = value {
                line.insert(format!("{prefix}{kind}{name}"), json!(value));
            }
        }
        for (metric, value) in &self.metrics {
            line.insert(format!("{prefix}{metric}"), json!(value));
        }
    }
}

/// Reads a key, without its prefix, into the objective that it belongs to. Returns whether it is a key of an objective. The metrics
/// of an objective follow its loss.
fn read_objective(objectives: &mut Vec<ObjectiveRecord>, key: &str, value: &Value) -> bool {
    let number = value.as_f64().unwrap_or(f64::NAN);
    if let Some(name) = key.strip_prefix(PROBE) {
        named(objectives, name).probe = Some(number);
    } else if let Some(name) = key.strip_prefix(LOSS) {
        named(objectives, name).loss = Some(number);
    } else if let Some(name) = key.strip_prefix(GAP) {
        named(objectives, name).gap = Some(number);
    } else if let (true, Some(last)) = (is_metric(key), objectives.last_mut()) {
        last.metrics.push((key.to_owned(), number));
    } else {
        return false;
    }
    true
}

/// The objective of a name, which is added if it is new.
fn named<'o>(objectives: &'o mut Vec<ObjectiveRecord>, name: &str) -> &'o mut ObjectiveRecord {
    let known = objectives
        .iter()
        .position(|objective| objective.name == name);
    let index = known.unwrap_or(objectives.len());
    if known.is_none() {
        objectives.push(ObjectiveRecord {
            name: name.to_owned(),
            ..ObjectiveRecord::default()
        });
    }
    &mut objectives[index]
}

/// The record name of a metric: the name that TRL uses, with the objective appended if several of
/// the run's `losses` have this metric.
pub fn metric_name(
    metric: &str,
    objective: &str,
    losses: impl Iterator<Item = &'static LossSpec>,
) -> String {
    let sharing = losses.filter(|loss| loss.metrics.contains(&metric)).count();
    if sharing > 1 {
        format!("{metric}/{objective}")
    } else {
        metric.to_owned()
    }
}

/// Whether a key is the [`metric_name`] of a metric.
fn is_metric(key: &str) -> bool {
    let without_objective = key.rsplit_once('/').map_or(key, |(metric, _)| metric);
    objectives::all()
        .iter()
        .any(|loss| loss.metrics.contains(&key) || loss.metrics.contains(&without_objective))
}

/// The number of a step in a line.
fn step_of(line: &Line) -> Result<usize, &'static str> {
    let step = line.get(STEP).and_then(Value::as_u64);
    step.and_then(|step| usize::try_from(step).ok())
        .ok_or("has no step")
}

/// One step: a line of `steps.jsonl`. A number that the line lacks is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Map<String, Value>", try_from = "Map<String, Value>")]
pub struct StepRecord {
    /// Number of steps before it.
    pub step: usize,
    /// The method's weights, one per objective of the plan.
    pub weights: Vec<f64>,
    /// The objectives that the step probed or trained on, in the order of the plan.
    pub objectives: Vec<ObjectiveRecord>,
    /// Norm of the gradient before clipping.
    pub grad_norm: Option<f64>,
    /// Learning rate of the update.
    pub learning_rate: Option<f64>,
    /// Tokens trained on.
    pub tokens: Option<u64>,
    /// Tokens that were only probed; the key is left out if there are none.
    pub probed_tokens: u64,
    /// Training throughput, in tokens/s.
    pub tokens_per_second: Option<f64>,
    /// Duration, in seconds.
    pub seconds: Option<f64>,
    /// Share of the device that was busy for this process, from 0 to 1, if the device says so.
    pub utilization: Option<f64>,
    /// Energy of the whole device, in joules, if the device counts it.
    pub energy_joules: Option<f64>,
    /// Peak memory so far, in GB; null in the line if it is unknown.
    pub peak_memory_gb: Option<f64>,
    /// Keys of other builds.
    pub other: Map<String, Value>,
}

impl StepRecord {
    /// Whether the step trained on an objective.
    pub fn has_trained_on(&self, objective: &str) -> bool {
        self.objectives
            .iter()
            .any(|record| record.name == objective && record.loss.is_some())
    }

    /// The line of `steps.jsonl`.
    pub fn line(&self) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert(STEP.into(), json!(self.step));
        if !self.weights.is_empty() {
            line.insert("weights".into(), json!(self.weights));
        }
        for objective in &self.objectives {
            objective.write("", &mut line);
        }
        for (key, value) in [
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
        ] {
            if let Some(value) = value {
                line.insert(key.into(), json!(value));
            }
        }
        if let Some(tokens) = self.tokens {
            line.insert("tokens".into(), json!(tokens));
        }
        if self.probed_tokens > 0 {
            line.insert("probed_tokens".into(), json!(self.probed_tokens));
        }
        for (key, value) in [
            ("tokens_per_second", self.tokens_per_second),
            ("seconds", self.seconds),
            ("utilization", self.utilization),
            ("energy_joules", self.energy_joules),
        ] {
            if let Some(value) = value {
                line.insert(key.into(), json!(value));
            }
        }
        line.insert("peak_memory_gb".into(), json!(self.peak_memory_gb));
        line.extend(self.other.clone());
        line
    }
}

impl From<StepRecord> for Map<String, Value> {
    fn from(record: StepRecord) -> Self {
        record.line()
    }
}

impl TryFrom<Map<String, Value>> for StepRecord {
    type Error = &'static str;

    fn try_from(line: Map<String, Value>) -> Result<Self, &'static str> {
        let mut record = Self {
            step: step_of(&line)?,
            ..Self::default()
        };
        for (key, value) in line {
            match &key[..] {
                STEP => {}
                "weights" => {
                    let weights = value.as_array().into_iter().flatten();
                    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
                    record.weights = weights.map(number).collect();
                }
                "grad_norm" => record.grad_norm = value.as_f64(),
                "learning_rate" => record.learning_rate = value.as_f64(),
                "tokens" => record.tokens = value.as_u64(),
                "probed_tokens" => record.probed_tokens = value.as_u64().unwrap_or(0),
                "tokens_per_second" => record.tokens_per_second = value.as_f64(),
                "seconds" => record.seconds = value.as_f64(),
                "utilization" => record.utilization = value.as_f64(),
                "energy_joules" => record.energy_joules = value.as_f64(),
                "peak_memory_gb" => record.peak_memory_gb = value.as_f64(),
                _ if read_objective(&mut record.objectives, &key, &value) => {}
                _ => {
                    record.other.insert(key, value);
                }
            }
        }
        Ok(record)
    }
}

/// The values of one adapter on one set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetRecord {
    /// The objectives that the set has rows of, in the order of the plan.
    pub objectives: Vec<ObjectiveRecord>,
    /// Distance to the ideal point, if every optimum is known.
    pub ideal_distance: Option<f64>,
}

impl SetRecord {
    /// The values of an objective, if the set has rows of it.
    pub fn objective(&self, name: &str) -> Option<&ObjectiveRecord> {
        self.objectives
            .iter()
            .find(|objective| objective.name == name)
    }

    /// The loss of an objective, if it is a finite number.
    pub fn loss(&self, objective: &str) -> Option<f64> {
        self.objective(objective)?
            .loss
            .filter(|loss| loss.is_finite())
    }

    /// The gap of an objective, if it is a finite number.
    pub fn gap(&self, objective: &str) -> Option<f64> {
        self.objective(objective)?.gap.filter(|gap| gap.is_finite())
    }

    /// The metric of a [`metric_name`], if it is a finite number.
    pub fn metric(&self, name: &str) -> Option<f64> {
        for objective in &self.objectives {
            for (metric, value) in &objective.metrics {
                if metric == name && value.is_finite() {
                    return Some(*value);
                }
            }
        }
        None
    }

    /// Adds the values to a line, under keys with a prefix.
    fn write(&self, prefix: &str, line: &mut Line) {
        for objective in &self.objectives {
            objective.write(prefix, line);
        }
        if let Some(distance) = self.ideal_distance {
            line.insert(format!("{prefix}{IDEAL_DISTANCE}"), json!(distance));
        }
    }
}

/// One evaluation: a line of `evals.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Map<String, Value>", try_from = "Map<String, Value>")]
pub struct EvalRecord {
    /// Number of steps before it.
    pub step: usize,
    /// Of the adapter after these steps.
    pub last: PerSet<SetRecord>,
    /// Of the averaged adapter, if the run keeps one.
    pub average: Option<PerSet<SetRecord>>,
    /// Keys of other builds.
    pub other: Map<String, Value>,
}

impl EvalRecord {
    /// The values of one adapter.
    pub fn of(&self, iterate: Iterate) -> Option<&PerSet<SetRecord>> {
        match iterate {
            Iterate::Last => Some(&self.last),
            Iterate::Average => self.average.as_ref(),
        }
    }

    /// The line of `evals.jsonl`.
    pub fn line(&self) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert(STEP.into(), json!(self.step));
        for iterate in [Iterate::Last, Iterate::Average] {
            let Some(sets) = self.of(iterate) else {
                continue;
            };
            for set in EvalSet::ALL {
                sets[set].write(&prefix(iterate, set), &mut line);
            }
        }
        line.extend(self.other.clone());
        line
    }

    /// Weighted sum of the held-out losses, from the name and the weight of every objective. `None` if an objective with a weight
    /// above 0 has no held-out loss.
    pub fn weighted_loss<'o>(&self, weights: impl Iterator<Item = (&'o str, f64)>) -> Option<f64> {
        let mut sum = 0.0;
        for (objective, weight) in weights {
            if weight > 0.0 {
                sum += weight * self.last.held_out.loss(objective)?;
            }
        }
        Some(sum)
    }
}

impl From<EvalRecord> for Map<String, Value> {
    fn from(record: EvalRecord) -> Self {
        record.line()
    }
}

impl TryFrom<Map<String, Value>> for EvalRecord {
    type Error = &'static str;

    fn try_from(line: Map<String, Value>) -> Result<Self, &'static str> {
        let mut record = Self {
            step: step_of(&line)?,
            ..Self::default()
        };
        let mut average = PerSet::<SetRecord>::default();
        let mut has_average = false;
        for (key, value) in line {
            if key == STEP {
                continue;
            }
            let (is_average, rest) = match key.strip_prefix(AVERAGE) {
                Some(rest) => (true, rest),
                None => (false, &key[..]),
            };
            let sets = if is_average {
                &mut average
            } else {
                &mut record.last
            };
            if read_set(sets, rest, &value) {
                has_average |= is_average;
            } else {
                record.other.insert(key, value);
            }
        }
        record.average = has_average.then_some(average);
        Ok(record)
    }
}

/// Reads a key of an evaluation, without the prefix of the adapter. Returns whether it is one.
fn read_set(sets: &mut PerSet<SetRecord>, key: &str, value: &Value) -> bool {
    let Some((set, rest)) = key.split_once('/') else {
        return false;
    };
    let Some(set) = EvalSet::ALL.into_iter().find(|known| known.key() == set) else {
        return false;
    };
    if rest == IDEAL_DISTANCE {
        sets[set].ideal_distance = value.as_f64();
        return true;
    }
    read_objective(&mut sets[set].objectives, rest, value)
}

/// What the keys of an adapter on a set begin with.
fn prefix(iterate: Iterate, set: EvalSet) -> String {
    let adapter = match iterate {
        Iterate::Last => "",
        Iterate::Average => AVERAGE,
    };
    format!("{adapter}{}/", set.key())
}

/// The key of a loss in `evals.jsonl`, for messages.
pub fn loss_key(iterate: Iterate, set: EvalSet, objective: &str) -> String {
    format!("{}{LOSS}{objective}", prefix(iterate, set))
}

/// The lowest losses of an objective in some evaluations; `None` on a set where none has its loss.
pub fn lowest_loss(evaluations: &[EvalRecord], objective: &str) -> PerSet<Option<f64>> {
    PerSet::each(|set| {
        let mut lowest: Option<f64> = None;
        for evaluation in evaluations {
            if let Some(loss) = evaluation.last[set].loss(objective) {
                lowest = Some(lowest.map_or(loss, |lowest| lowest.min(loss)));
            }
        }
        lowest
    })
}

#[cfg(test)]
mod tests;

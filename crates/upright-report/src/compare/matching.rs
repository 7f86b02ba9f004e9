//! Weights: which are equal, how they are ordered, and which sequential arms an arm is compared
//! with.

use super::arm::{Arm, Outcome, Role};
use upright_core::metrics::{Sample, Spread, cost::increase_percent};

/// Computes every arm's cost relative to Sequential with the same weights: the mean over its
/// orders.
pub(super) fn compare_costs(arms: &mut [Arm]) {
    let time = time(arms).of;
    for index in 0..arms.len() {
        let matching = match arms[index].role {
            _ if arms[index].is_joint() => matching(arms, index),
            Role::Sum => matching_sum(arms, index),
            _ => continue,
        };
        let matching: Vec<usize> = matching
            .into_iter()
            .filter(|i| !arms[*i].unfinished)
            .collect();
        if arms[index].unfinished || matching.is_empty() {
            continue;
        }
        let mean = |value: &dyn Fn(&Arm) -> Option<Spread>| {
            let values: Option<Vec<Spread>> = matching.iter().map(|i| value(&arms[*i])).collect();
            values.map(|values| Spread::mean_of(&values))
        };
        let seconds = mean(&|arm| arm.seconds);
        let utilization = mean(&|arm| arm.utilization);
        let increase =
            |own: Option<Spread>, other: Option<Spread>| increase_percent(&own?, &other?);
        let (runtime, used) = (
            increase(arms[index].seconds, seconds),
            increase(arms[index].utilization, utilization),
        );
        let orders: Option<Vec<Sample>> = matching.iter().map(|i| arms[*i].sample(time)).collect();
        let ratio = arms[index]
            .sample(time)
            .zip(orders)
            .and_then(|(own, orders)| own.over(&Sample::mean_of(&orders)));
        let cost = ratio.map(|ratio| {
            Spread {
                mean: ratio.mean - 1.0,
                ..ratio
            }
            .times(100.0)
        });
        let against = matching.iter().map(|i| arms[*i].label.clone()).collect();
        (
            arms[index].runtime_increase,
            arms[index].utilization_increase,
        ) = (runtime, used);
        arms[index].cost_increase = cost;
        arms[index].against = against;
    }
}

/// A measure of time.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    /// Its name on the page.
    pub(crate) name: &'static str,
    /// The time of a run.
    pub(crate) of: fn(&Outcome) -> Option<f64>,
    /// The mean time of an arm.
    pub(crate) mean: fn(&Arm) -> Option<Spread>,
}

/// Busy seconds.
const BUSY: Time = Time {
    name: "busy seconds",
    of: |outcome| outcome.busy_seconds,
    mean: |arm| arm.busy_seconds,
};

/// Wall-clock seconds.
const WALL: Time = Time {
    name: "wall-clock seconds",
    of: |outcome| outcome.seconds,
    mean: |arm| arm.seconds,
};

impl Time {
    /// Whether it is busy seconds.
    pub(crate) fn is_busy(&self) -> bool {
        self.name == BUSY.name
    }
}

/// The one measure of time on the page of these arms: busy seconds, or wall-clock seconds if an arm
/// did not record its utilization.
pub(crate) fn time(arms: &[Arm]) -> Time {
    let lacks = |arm: &Arm| arm.seconds.is_some() && arm.busy_seconds.is_none();
    if arms.iter().any(lacks) { WALL } else { BUSY }
}

/// Largest difference at which two weights still count as equal.
const SAME: f64 = 1e-6;

/// Whether two lists of weights are equal.
pub(crate) fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < SAME)
}

/// Orders by the weight of the last objective first; for SFT and DPO, by lambda.
pub(super) fn in_order(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    let each = a.iter().zip(b).rev().map(|(a, b)| a.total_cmp(b));
    each.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

/// The distinct weights of some arms, in order.
pub(crate) fn distinct<'a>(arms: impl Iterator<Item = &'a Arm>) -> Vec<Vec<f64>> {
    let mut found: Vec<Vec<f64>> = Vec::new();
    for arm in arms {
        if !found.iter().any(|other| same(other, &arm.weights)) {
            found.push(arm.weights.clone());
        }
    }
    found.sort_by(|a, b| in_order(a, b));
    found
}

/// The sequential arms that an arm is compared with: those with its setting, budget and weights. If
/// none has its weights and there are as many splits as weights, splits and weights are paired in
/// order, as the paper pairs lambda 0.01 with one epoch of six.
pub(crate) fn matching(arms: &[Arm], index: usize) -> Vec<usize> {
    let of = |arm: &&Arm| arm.comparison() == arms[index].comparison();
    let sequential = |arm: &&Arm| of(arm) && arm.is_sequential();
    let with = |weights: &[f64]| {
        let found = arms
            .iter()
            .enumerate()
            .filter(|(_, arm)| sequential(arm) && same(&arm.weights, weights));
        found.map(|(i, _)| i).collect::<Vec<usize>>()
    };
    let exact = with(&arms[index].weights);
    if !exact.is_empty() || !arms[index].is_joint() {
        return exact;
    }
    let splits = distinct(arms.iter().filter(sequential));
    let weights = distinct(arms.iter().filter(|arm| of(arm) && arm.is_joint()));
    let rank = weights
        .iter()
        .position(|other| same(other, &arms[index].weights));
    // Weights may be paired by rank only if no split has the same weights.
    let strangers = !splits.iter().any(|split| {
        weights
            .iter()
            .any(|other| same(split, other) && !even(split))
    });
    match rank {
        Some(rank) if splits.len() == weights.len() && strangers => with(&splits[rank]),
        _ => Vec::new(),
    }
}

/// The sequential arms that a sum of adapters is compared with: those with its setting and weights,
/// and those that joint arms with its setting and weights are compared with. A sum has no budget of
/// its own, so the result is empty if these arms have several budgets.
fn matching_sum(arms: &[Arm], index: usize) -> Vec<usize> {
    let mut found = Vec::new();
    for (other, arm) in arms.iter().enumerate() {
        let alike = arm.setting == arms[index].setting && arm.iterate == arms[index].iterate;
        if !alike || !same(&arm.weights, &arms[index].weights) {
            continue;
        }
        if arm.is_joint() {
            found.extend(matching(arms, other));
        } else if arm.is_sequential() {
            found.push(other);
        }
    }
    found.sort_unstable();
    found.dedup();
    if found
        .iter()
        .all(|other| arms[*other].terms == arms[found[0]].terms)
    {
        found
    } else {
        Vec::new()
    }
}

/// Whether all weights are equal; 1/2 matches 1/2 in any study.
fn even(weights: &[f64]) -> bool {
    weights
        .iter()
        .all(|weight| (weight - weights[0]).abs() < SAME)
}

//! Fronts: the end points of a method over its weights, their hypervolume and how evenly they lie.

use serde::Serialize;

use super::{
    arm::{Arm, Comparison, Role},
    ideal::Comparable,
    matching::distinct,
};
use upright_core::{
    metrics::{
        Sample,
        front::{pareto_front, spread_along},
        hypervolume::hypervolume,
    },
    optimizer::Iterate,
};
use upright_runs::records::{EvalSet, PerSet};

/// The end points of one method over its weights.
#[derive(Clone, Debug, Serialize)]
pub struct Front {
    /// The method, with the order of its stages or its k.
    pub method: String,
    /// The role of its arms.
    #[serde(skip)]
    pub role: Role,
    /// Index of the report's setting.
    pub setting: usize,
    /// Index of the report's training budget.
    pub terms: Option<usize>,
    /// The adapters that its losses are of.
    pub iterate: Iterate,
    /// Indices of the report's arms, ordered by weight.
    pub arms: Vec<usize>,
    /// The weights of the arms.
    pub weights: Vec<Vec<f64>>,
    /// Hypervolume: the volume of losses that some end point dominates, up to the worst losses of
    /// the setting.
    pub hypervolume: PerSet<Option<f64>>,
    /// Deb's Delta: how unevenly the end points lie. It needs two objectives, each also trained
    /// alone. It is the mean over the seeds that all arms share. With fewer than two shared seeds,
    /// it is the Delta of the mean end points, without an error.
    pub delta: PerSet<Option<Sample>>,
}

impl Front {
    /// The comparison that it belongs to.
    pub(crate) fn comparison(&self) -> Comparison {
        Comparison {
            setting: self.setting,
            terms: self.terms,
            iterate: self.iterate,
        }
    }
}

/// The arms on the front of their setting, and the worst loss of each objective.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Best {
    /// For every arm, whether no other arm is at least as good in every loss and better in one.
    pub on_front: Vec<PerSet<bool>>,
    /// For every setting, the largest loss of each objective over all end points: the reference
    /// point of the hypervolume.
    pub worst: Vec<PerSet<Option<Vec<f64>>>>,
}

/// Finds the arms that are on the front of their setting.
pub(crate) fn best(arms: &[Arm], settings: &[Comparable]) -> Best {
    let mut best = Best {
        on_front: vec![PerSet::default(); arms.len()],
        worst: Vec::new(),
    };
    for setting in 0..settings.len() {
        let worst = PerSet::each(|set| {
            let own = |i: &usize| arms[*i].setting == setting && !arms[*i].unfinished;
            let ends: Vec<(usize, Vec<f64>)> = (0..arms.len())
                .filter(own)
                .filter_map(|i| Some((i, arms[i].end(set)?)))
                .collect();
            let points: Vec<Vec<f64>> = ends.iter().map(|(_, end)| end.clone()).collect();
            pareto_front(&points)
                .into_iter()
                .for_each(|i| best.on_front[ends[i].0][set] = true);
            let count = points.first()?.len();
            let most = |k: usize| {
                points
                    .iter()
                    .map(|point| point[k])
                    .fold(f64::NEG_INFINITY, f64::max)
            };
            Some((0..count).map(most).collect::<Vec<f64>>())
        });
        best.worst.push(worst);
    }
    best
}

/// The front of every method that has several weights.
pub(crate) fn fronts(arms: &[Arm], best: &Best, objectives: &[String]) -> Vec<Front> {
    let mut fronts: Vec<Front> = Vec::new();
    let weighed = |arm: &Arm| (arm.is_joint() || arm.is_sequential()) && !arm.unfinished;
    for (index, arm) in arms.iter().enumerate().filter(|(_, arm)| weighed(arm)) {
        let own = |front: &&mut Front| {
            arms[front.arms[0]].sweep == arm.sweep && front.comparison() == arm.comparison()
        };
        match fronts.iter_mut().find(own) {
            Some(front) => front.arms.push(index),
            None => fronts.push(Front {
                method: arm.front_name.clone(),
                role: arm.role.clone(),
                setting: arm.setting,
                terms: arm.terms,
                iterate: arm.iterate,
                arms: vec![index],
                weights: Vec::new(),
                hypervolume: PerSet::default(),
                delta: PerSet::default(),
            }),
        }
    }
    for front in &mut fronts {
        front.weights = distinct(front.arms.iter().map(|i| &arms[*i]));
        for set in EvalSet::ALL {
            let ends: Option<Vec<Vec<f64>>> =
                front.arms.iter().map(|i| arms[*i].end(set)).collect();
            let Some(ends) = ends else { continue };
            front.hypervolume[set] = best.worst[front.setting][set]
                .as_ref()
                .map(|worst| hypervolume(&ends, worst));
            if let Some(extremes) = extremes(arms, front.comparison(), set, objectives) {
                let own: Vec<&Arm> = front.arms.iter().map(|i| &arms[*i]).collect();
                front.delta[set] = delta(&own, &ends, set, extremes);
            }
        }
    }
    fronts.retain(|front| front.weights.len() > 1);
    fronts
}

/// Deb's Delta of arms with two objectives and the end points `ends`.
fn delta(
    arms: &[&Arm],
    ends: &[Vec<f64>],
    set: EvalSet,
    extremes: [[f64; 2]; 2],
) -> Option<Sample> {
    let mut by_seed = Vec::new();
    for outcome in &arms[0].outcomes {
        let with_seed = |arm: &&Arm| {
            let own = arm
                .outcomes
                .iter()
                .find(|other| other.seed == outcome.seed)?;
            Some([own.ends[set][0]?, own.ends[set][1]?])
        };
        let points: Option<Vec<[f64; 2]>> = arms.iter().map(with_seed).collect();
        if let Some(points) = points {
            by_seed.push((outcome.seed, spread_along(&points, extremes)?));
        }
    }
    if by_seed.len() > 1 {
        return Sample::of(by_seed);
    }
    let points: Vec<[f64; 2]> = ends.iter().map(|end| [end[0], end[1]]).collect();
    spread_along(&points, extremes).map(Sample::bare)
}

/// The end points of two objectives that are trained alone. Without averaged arms that train alone,
/// these are the last iterates.
fn extremes(
    arms: &[Arm],
    comparison: Comparison,
    set: EvalSet,
    objectives: &[String],
) -> Option<[[f64; 2]; 2]> {
    let [first, second] = objectives else {
        return None;
    };
    let alone = |name: &String| {
        let own = |arm: &&Arm| {
            arm.setting == comparison.setting
                && !arm.unfinished
                && arm.role == Role::Alone(name.clone())
        };
        let found: Vec<&Arm> = arms.iter().filter(own).collect();
        let wanted = found.iter().find(|arm| arm.iterate == comparison.iterate);
        let end = wanted.or(found.first())?.end(set)?;
        Some([end[0], end[1]])
    };
    Some([alone(first)?, alone(second)?])
}

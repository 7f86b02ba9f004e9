//! Methods. Each method makes one decision per step, in one small file of plain numbers, for any
//! number of objectives. A new method is a new file, plus its lines in [`MethodKind`] and in
//! [`MethodKind::build`].

mod alright;
#[cfg(test)]
pub(crate) mod bowls;
mod compromise;
mod maxright;
mod mix;
mod owed;
mod sequential;

pub use alright::{Alright, Balanced};
pub use compromise::Compromise;
pub use maxright::Maxright;
pub use mix::Mix;
pub use sequential::Sequential;

use crate::train::Method;

/// The methods by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum MethodKind {
    /// One objective after the other (Algorithm 1).
    Sequential,
    /// All objectives in every step, weighted.
    Mix,
    /// One objective per step, drawn by its weight (Algorithm 2).
    Alright,
    /// One objective per step, the one with the largest weighted gap (Algorithms 3 and 4).
    Maxright,
    /// One objective per step, with shares that grow with the weighted gaps.
    Compromise,
}

/// How ALRIGHT pays out its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Draws {
    /// At random, as in the paper.
    #[default]
    Random,
    /// By error diffusion.
    Balanced,
}

impl Draws {
    /// All values, in the order of the help texts.
    pub const ALL: &'static [Self] = &[Self::Random, Self::Balanced];

    /// Name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Balanced => "balanced",
        }
    }

    /// Whether these are the draws of the paper.
    pub fn is_random(&self) -> bool {
        *self == Self::Random
    }
}

/// How many rows of every objective Mix takes per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum MixBatches {
    /// Whole batches, as in the paper: two objectives cost twice as much as a step of ALRIGHT.
    #[default]
    Full,
    /// Half batches: two objectives cost as much as a step of ALRIGHT.
    Half,
}

impl MixBatches {
    /// All values, in the order of the help texts.
    pub const ALL: &'static [Self] = &[Self::Full, Self::Half];

    /// Name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Half => "half",
        }
    }

    /// Whether these are the batches of the paper.
    pub fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

impl MethodKind {
    /// All methods, in the order of the help texts.
    pub const ALL: &'static [Self] = &[
        Self::Sequential,
        Self::Mix,
        Self::Alright,
        Self::Maxright,
        Self::Compromise,
    ];

    /// Whether its decisions depend on the optima of the objectives.
    pub fn uses_optima(self) -> bool {
        matches!(self, Self::Maxright | Self::Compromise)
    }

    /// Name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Mix => "mix",
            Self::Alright => "alright",
            Self::Maxright => "maxright",
            Self::Compromise => "compromise",
        }
    }
}

/// What a method may need from the plan. All lists but `stages` have one entry per objective.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodContext {
    /// Weights of the objectives; they sum to 1.
    pub weights: Vec<f64>,
    /// Order among objectives that tie in gap and weight: the smallest rank wins.
    pub tie_ranks: Vec<usize>,
    /// Optimum f* of every objective, on training rows.
    pub optima: Vec<f64>,
    /// MAXRIGHT probes all objectives where `step % probe_every == 0`.
    pub probe_every: usize,
    /// How ALRIGHT pays out the weights.
    pub draws: Draws,
    /// Power p of Compromise.
    pub power: f64,
    /// Seed of the draws.
    pub seed: u64,
    /// Stages of Sequential: an objective, and the step at which its stage ends.
    pub stages: Vec<(usize, usize)>,
}

impl MethodKind {
    /// Builds the method.
    pub fn build(self, settings: &MethodContext) -> Box<dyn Method> {
        let MethodContext {
            weights,
            tie_ranks,
            optima,
            probe_every,
            draws,
            power,
            seed,
            stages,
        } = settings.clone();
        match self {
            Self::Sequential => Box::new(Sequential {
                objectives: weights.len(),
                stages,
            }),
            Self::Mix => Box::new(Mix { weights }),
            Self::Alright => match draws {
                Draws::Random => Box::new(Alright { weights, seed }),
                Draws::Balanced => Box::new(Balanced::new(weights, &tie_ranks)),
            },
            Self::Maxright => Box::new(Maxright::new(weights, optima, &tie_ranks, probe_every)),
            Self::Compromise => Box::new(Compromise::new(weights, optima, &tie_ranks, power)),
        }
    }
}

/// Weight 1 for one objective of `count`, which is then trained on by its plain gradient.
fn one_hot(count: usize, id: usize) -> Vec<f64> {
    let mut weights = vec![0.0; count];
    weights[id] = 1.0;
    weights
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::bowls::Bowls;
    use super::*;
    use crate::train::train;

    /// Mixed loss after 2,000 steps minus its minimum: 0.5, at the origin, for equal weights of two
    /// bowls at (-1, 0) and (1, 0).
    fn final_gap(kind: MethodKind) -> f64 {
        let mut toy = Bowls::new(vec![[-1.0, 0.0], [1.0, 0.0]], 0.02);
        let settings = MethodContext {
            weights: vec![0.5, 0.5],
            tie_ranks: vec![1, 0],
            optima: vec![0.0; 2],
            probe_every: 10,
            draws: Draws::Random,
            power: 2.0,
            seed: 42,
            stages: vec![(0, 1000), (1, 2000)],
        };
        train(&mut toy, &mut *kind.build(&settings), 0..2000, |_, _, _| {
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        (toy.value(0) + toy.value(1)) / 2.0 - 0.5
    }

    #[test]
    fn joint_methods_close_the_gap_that_sequential_leaves_open() {
        assert!(final_gap(MethodKind::Sequential) > 0.4);
        assert!(final_gap(MethodKind::Mix) < 1e-6);
        assert!(final_gap(MethodKind::Alright) < 0.05);
        assert!(final_gap(MethodKind::Maxright) < 0.05);
        assert!(final_gap(MethodKind::Compromise) < 0.05);
    }
}

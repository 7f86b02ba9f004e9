//! The toy problem of Figure 2 and Appendix D.1: two parameters, one preference and one
//! instruction, trained by three methods.

use std::ops::ControlFlow;

use serde::Serialize;

use super::softmax::{DPO, Question, SFT, Softmax, Task, weights};
use upright_base::Result;
use upright_core::{
    methods::{Alright, Maxright, Sequential},
    metrics::gap::{gap, ideal_distance},
    train::{Method, ObjectiveId, train},
};

/// Initial parameters of reference and policy.
const START: [f64; 2] = [5.0, -9.9];
const RATE: f64 = 0.01;
const WEIGHT_DECAY: f64 = 0.001;
/// Steps on -log pi(y_w | x_1) that train the reference.
const REFERENCE_STEPS: usize = 1_000;
/// Maximum steps of a stage of Sequential.
const STAGE_STEPS: usize = 10_000;
/// A stage of Sequential ends when its loss is at most this.
const STAGE_ENDS_AT: f64 = 0.05;
/// Steps of the joint methods.
const JOINT_STEPS: usize = 20_000;
/// Not in the paper: beta, lambda, the optima (both losses can get arbitrarily close to 0), and the
/// probe interval of MAXRIGHT.
const BETA: f64 = 1.0;
const LAMBDA: f64 = 0.5;
const OPTIMA: [f64; 2] = [0.0, 0.0];
const PROBE_EVERY: usize = 1;
/// Interval in steps at which points of a path are kept; both ends are kept too.
const KEEP_EVERY: usize = 20;

/// A point of a path: the parameters and the losses there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Place {
    /// Steps taken.
    pub step: usize,
    /// The parameters.
    pub theta: [f64; 2],
    /// DPO loss of the preference.
    pub dpo: f64,
    /// SFT loss of the instruction.
    pub sft: f64,
}

/// The training path of a method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Walk {
    /// Name of the method.
    pub method: &'static str,
    /// Steps on DPO and on SFT.
    pub steps: [usize; 2],
    /// The last point.
    pub end: Place,
    /// Distance of the last point to the ideal point, where both losses are at their optima.
    pub ideal_distance: f64,
    /// The end of the first stage of Sequential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between: Option<Place>,
    /// The path.
    #[serde(skip)]
    pub path: Vec<Place>,
}

/// All methods on the same features.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Variant {
    /// `as-printed`: Table 3. `conflicting`: x_1's features negated, as Table 2 has them; ours.
    pub name: &'static str,
    /// The reference's parameters.
    pub reference: [f64; 2],
    /// The start of all methods.
    pub start: Place,
    /// The ideal point: the optima of DPO and SFT.
    pub ideal: [f64; 2],
    /// Sequential, ALRIGHT, MAXRIGHT.
    pub walks: Vec<Walk>,
    /// Both objectives, for contour plots.
    #[serde(skip)]
    pub tasks: Vec<Task<2>>,
}

/// Figure 2.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Toy {
    /// With the features as printed, and with the features that the figure needs.
    pub variants: Vec<Variant>,
    /// Where the paper's text contradicts its numbers.
    pub slips: Vec<String>,
}

/// The features of x_1, on which DPO and the reference are trained, times `sign`, and those of x_2
/// as in Table 3.
fn questions(sign: f64) -> [Question<2>; 2] {
    [
        Question {
            answers: vec![[sign, sign], [0.5 * sign, 0.5 * sign]],
            scored: vec![0, 1],
        },
        Question {
            answers: vec![[1.0, 0.5], [0.5, 0.5]],
            scored: vec![0],
        },
    ]
}

/// A policy with the initial parameters.
fn learner(tasks: Vec<Task<2>>) -> Softmax<2> {
    let mut policy = Softmax::new(tasks, START, RATE);
    policy.weight_decay = WEIGHT_DECAY;
    policy
}

/// Trains the reference; returns its parameters.
fn reference(preference: &Question<2>) -> Result<[f64; 2]> {
    let imitated = Question {
        scored: vec![preference.scored[0]],
        ..preference.clone()
    };
    let mut policy = learner(vec![Task::sft(vec![imitated])]);
    let mut alone = Sequential {
        objectives: 1,
        stages: vec![(0, REFERENCE_STEPS)],
    };
    train(&mut policy, &mut alone, 0..REFERENCE_STEPS, |_, _, _| {
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(policy.theta)
}

fn place(policy: &Softmax<2>, step: usize) -> Place {
    Place {
        step,
        theta: policy.theta,
        dpo: policy.value(DPO),
        sft: policy.value(SFT),
    }
}

/// A walk in progress.
struct Way {
    policy: Softmax<2>,
    steps: [usize; 2],
    path: Vec<Place>,
}

impl Way {
    fn new(tasks: &[Task<2>]) -> Self {
        let policy = learner(tasks.to_vec());
        let path = vec![place(&policy, 0)];
        Self {
            policy,
            steps: [0; 2],
            path,
        }
    }

    fn taken(&self) -> usize {
        self.steps.iter().sum()
    }

    /// Takes the method's steps in `range`, and stops after the first step for which `done` holds.
    fn walk(
        &mut self,
        method: &mut dyn Method,
        range: std::ops::Range<usize>,
        done: impl Fn(&Softmax<2>) -> bool,
    ) -> Result<()> {
        if done(&self.policy) {
            return Ok(());
        }
        let (mut taken, steps, path) = (self.taken(), &mut self.steps, &mut self.path);
        train(&mut self.policy, method, range, |step, policy, _| {
            taken += 1;
            (0..2).for_each(|id| steps[id] += usize::from(step.weights[id] > 0.0));
            if taken.is_multiple_of(KEEP_EVERY) {
                path.push(place(policy, taken));
            }
            Ok(if done(policy) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        self.path.push(place(&self.policy, taken));
        Ok(())
    }

    fn end(self, method: &'static str, between: Option<Place>) -> Walk {
        let end = place(&self.policy, self.taken());
        let gaps = [gap(end.dpo, OPTIMA[DPO.0]), gap(end.sft, OPTIMA[SFT.0])];
        Walk {
            method,
            steps: self.steps,
            end,
            ideal_distance: ideal_distance(&gaps),
            between,
            path: self.path,
        }
    }
}

/// Trains on DPO until its loss is low enough, then on SFT until its loss is.
fn sequential(tasks: &[Task<2>]) -> Result<Walk> {
    let mut way = Way::new(tasks);
    let mut method = Sequential {
        objectives: 2,
        stages: vec![(DPO.0, STAGE_STEPS), (SFT.0, 2 * STAGE_STEPS)],
    };
    let low = |id: ObjectiveId| move |policy: &Softmax<2>| policy.value(id) <= STAGE_ENDS_AT;
    way.walk(&mut method, 0..STAGE_STEPS, low(DPO))?;
    let between = place(&way.policy, way.taken());
    way.walk(&mut method, STAGE_STEPS..2 * STAGE_STEPS, low(SFT))?;
    Ok(way.end("sequential", Some(between)))
}

fn joint(tasks: &[Task<2>], name: &'static str, method: &mut dyn Method) -> Result<Walk> {
    let mut way = Way::new(tasks);
    way.walk(method, 0..JOINT_STEPS, |_| false)?;
    Ok(way.end(name, None))
}

fn variant(name: &'static str, sign: f64, seed: u64) -> Result<Variant> {
    let [preference, instruction] = questions(sign);
    let reference = reference(&preference)?;
    let tasks = vec![
        Task::dpo(vec![preference], reference, BETA),
        Task::sft(vec![instruction]),
    ];
    let weights = weights(LAMBDA);
    let walks = vec![
        sequential(&tasks)?,
        joint(
            &tasks,
            "alright",
            &mut Alright {
                weights: weights.clone(),
                seed,
            },
        )?,
        joint(
            &tasks,
            "maxright",
            &mut Maxright::new(weights, OPTIMA.to_vec(), &[0, 1], PROBE_EVERY),
        )?,
    ];
    let start = place(&learner(tasks.clone()), 0);
    Ok(Variant {
        name,
        reference,
        start,
        ideal: OPTIMA,
        walks,
        tasks,
    })
}

/// Computes all of Figure 2; `seed` is the seed of ALRIGHT's sampling.
///
/// # Errors
/// A loss is not finite, which does not happen with this data.
pub fn toy(seed: u64) -> Result<Toy> {
    let variants = vec![
        variant("as-printed", 1.0, seed)?,
        variant("conflicting", -1.0, seed)?,
    ];
    let [printed, conflicting] =
        [0, 1].map(|i: usize| variants[i].walks[0].between.unwrap_or(variants[i].start));
    let slips = vec![
        format!(
            "The objectives of Table 3 do not conflict: the features of the chosen responses \
             differ from those of the others by [0.5, 0.5] and [0.5, 0]. After {} steps the DPO \
             loss is down to {STAGE_ENDS_AT} and the SFT loss is already {:.3}, so the second \
             stage has nothing to do. With the features of x_1 negated, as in Table 2, the DPO \
             loss gets there after {} steps, with the SFT loss at {:.3}.",
            printed.step, printed.sft, conflicting.step, conflicting.sft
        ),
        format!(
            "Section D.1 does not state these settings, which are used here: beta {BETA}, lambda \
             {LAMBDA}, both losses probed every step, optima 0, plain gradient descent with the \
             weight decay in the gradient. It refers to Table 2 where it means Table 3."
        ),
    ];
    Ok(Toy { variants, slips })
}

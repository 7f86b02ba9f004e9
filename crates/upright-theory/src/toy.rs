//! The toy of Figure 2 and Appendix D.1: two parameters, one preference and one instruction, and three methods on their
//! way down.

use std::ops::ControlFlow;

use serde::Serialize;

use super::softmax::{DPO, Question, SFT, Softmax, Task, weights};
use upright_base::Result;
use upright_core::{
    methods::{Alright, Maxright, Sequential},
    metrics::gap::{gap, ideal_distance},
    train::{Method, ObjectiveId, train},
};

/// Where reference and policy start.
const START: [f64; 2] = [5.0, -9.9];
const RATE: f64 = 0.01;
const WEIGHT_DECAY: f64 = 0.001;
/// Steps on -log pi(y_w | x_1) that make the reference.
const REFERENCE_STEPS: usize = 1_000;
/// Most steps of a stage of Sequential.
const STAGE_STEPS: usize = 10_000;
/// A stage of Sequential ends where its objective is down to this.
const STAGE_ENDS_AT: f64 = 0.05;
/// Steps of the joint methods.
const JOINT_STEPS: usize = 20_000;
/// Not in the paper: beta, lambda, the optima (both losses can come as near to 0 as one likes), and how often MAXRIGHT
/// looks at both.
const BETA: f64 = 1.0;
const LAMBDA: f64 = 0.5;
const OPTIMA: [f64; 2] = [0.0, 0.0];
const PROBE_EVERY: usize = 1;
/// A path is kept at every so many steps, and at its ends.
const KEEP_EVERY: usize = 20;

/// A place on the way: the parameters, and the losses there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Place {
    /// Steps taken.
    pub step: usize,
    /// The parameters.
    pub theta: [f64; 2],
    /// Loss of the preference.
    pub dpo: f64,
    /// Loss of the instruction.
    pub sft: f64,
}

/// A method's way down.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Walk {
    /// Name of the method.
    pub method: &'static str,
    /// Steps spent on DPO and on SFT.
    pub steps: [usize; 2],
    /// The last place.
    pub end: Place,
    /// Distance of the last place from the ideal point, where both losses are at their optima.
    pub ideal_distance: f64,
    /// Where the first stage of Sequential ended.
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
    /// Where all methods start.
    pub start: Place,
    /// The ideal point: the optima of DPO and SFT.
    pub ideal: [f64; 2],
    /// Sequential, ALRIGHT, MAXRIGHT.
    pub walks: Vec<Walk>,
    /// Both objectives, for contours.
    #[serde(skip)]
    pub tasks: Vec<Task<2>>,
}

/// Figure 2.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Toy {
    /// As printed, and with the features the figure needs.
    pub variants: Vec<Variant>,
    /// Where the paper's text does not fit its numbers.
    pub slips: Vec<String>,
}

/// Features of x_1, of which DPO and the reference are trained, times `sign`; those of x_2 as in Table 3.
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

/// A policy at the start.
fn learner(tasks: Vec<Task<2>>) -> Softmax<2> {
    let mut policy = Softmax::new(tasks, START, RATE);
    policy.weight_decay = WEIGHT_DECAY;
    policy
}

/// The parameters after the reference's steps.
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

/// What is known of a walk while it is under way.
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

    /// Takes the method's steps in `range`, up to the one after which `done` holds.
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

/// DPO until it is low enough, then SFT until it is.
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

/// All of Figure 2; `seed` is that of ALRIGHT's draws.
///
/// # Errors
/// A loss that is not finite, which these data do not have.
pub fn toy(seed: u64) -> Result<Toy> {
    let variants = vec![
        variant("as-printed", 1.0, seed)?,
        variant("conflicting", -1.0, seed)?,
    ];
    let [printed, conflicting] =
        [0, 1].map(|i: usize| variants[i].walks[0].between.unwrap_or(variants[i].start));
    let slips = vec![
        format!(
            "Table 3's objectives do not conflict (the chosen answers' features differ from the others' by [0.5, 0.5] and \
             [0.5, 0]): after {} steps DPO is down to {STAGE_ENDS_AT} with SFT already at {:.3}, and the second stage has \
             nothing to do. With x_1's features negated, as in Table 2, DPO is there after {} steps with SFT at {:.3}.",
            printed.step, printed.sft, conflicting.step, conflicting.sft
        ),
        format!(
            "D.1 does not say, and here stand: beta {BETA}, lambda {LAMBDA}, both losses looked at every step, optima 0, \
             plain gradient descent with the decay in the gradient. It names Table 2 where it means Table 3."
        ),
    ];
    Ok(Toy { variants, slips })
}

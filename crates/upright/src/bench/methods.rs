//! Cost of a step of each method, counted by the engine.

use std::{ops::ControlFlow, time::Instant};

use serde::Serialize;
use upright_engine::Counts;

use super::{Bench, Meter, StepCounts, report};
use upright_base::{Result, progress::Progress};
use upright_core::{
    methods::{self, Cost, MIX, MethodContext, MethodSpec, PROBE_EVERY as PROBES, SEQUENTIAL},
    settings::{Value, Values},
    train::{Method, train},
};

/// Probe intervals k of methods that probe.
const PROBE_EVERY: [usize; 3] = [1, 10, 100];

/// A method to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// One objective alone, by its index.
    Alone(usize),
    /// A joint method. One that probes takes its probe interval from here.
    Joint(&'static MethodSpec, Option<usize>),
}

/// Cost of several steps of a method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodCost {
    /// Name of the method, or of the objective that is trained on alone.
    pub method: String,
    /// Number of steps.
    pub steps: usize,
    /// Number of steps that trained on each objective.
    pub trained: Vec<usize>,
    /// Number of steps that probed losses.
    pub probed: usize,
    /// Mean time per step, in seconds.
    pub seconds_per_step: f64,
    /// Multiply-adds of matrix products and attention.
    pub multiply_adds: u64,
    /// Multiply-adds of probes of objectives that were not trained on.
    pub multiply_adds_of_losers: u64,
    /// Multiply-adds of the same updates without these probes.
    pub multiply_adds_of_updates: u64,
    /// Tokens in forward passes.
    pub tokens_forward: u64,
    /// Tokens in backward passes.
    pub tokens_backward: u64,
}

impl Compared {
    /// Every objective alone, and every joint method; one that probes with several values of k.
    pub fn all(objectives: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..objectives).map(Self::Alone).collect();
        for method in methods::all() {
            if method.has_stages {
                continue;
            }
            if method.cost == Cost::OneAndProbes {
                for interval in PROBE_EVERY {
                    all.push(Self::Joint(method, Some(interval)));
                }
            } else {
                all.push(Self::Joint(method, None));
            }
        }
        all
    }
}

impl Bench {
    /// The method, with weights, optima and seed of the plan.
    pub fn method(&self, compared: Compared) -> Box<dyn Method> {
        let plan = self.plan();
        let (method, interval) = match compared {
            Compared::Alone(_) => (&SEQUENTIAL, None),
            Compared::Joint(method, interval) => (method, interval),
        };
        let mut settings = Values::defaults(method.settings);
        if let Some(interval) = interval {
            settings.set(PROBES, Value::Count(interval));
        }
        (method.build)(MethodContext {
            weights: plan.weights(),
            tie_ranks: plan
                .objectives
                .iter()
                .map(|objective| objective.tie_rank)
                .collect(),
            optima: plan
                .optima()
                .iter()
                .map(|optimum| optimum.unwrap_or(0.0))
                .collect(),
            settings,
            seed: plan.seed,
            stages: match compared {
                Compared::Alone(objective) => vec![(objective, usize::MAX)],
                Compared::Joint(..) => Vec::new(),
            },
        })
    }

    /// Takes `steps` steps of every method in turn, each from the initial adapter, and returns the
    /// cost of each. A warm-up step of Mix comes first and is not counted.
    pub fn methods(&self, steps: usize, observer: &mut dyn Progress) -> Result<Vec<MethodCost>> {
        let objectives = self.plan().objectives.len();
        let mix = &mut *self.method(Compared::Joint(&MIX, None));
        train(&mut self.learner()?, mix, 0..1, |_, _, _| {
            Ok(ControlFlow::Continue(()))
        })?;
        Compared::all(objectives)
            .into_iter()
            .map(|compared| self.cost(compared, steps, observer))
            .collect()
    }

    fn cost(
        &self,
        compared: Compared,
        steps: usize,
        observer: &mut dyn Progress,
    ) -> Result<MethodCost> {
        let name = match compared {
            Compared::Alone(objective) => self.plan().objectives[objective].name.clone(),
            Compared::Joint(method, None) => method.name.to_owned(),
            Compared::Joint(method, Some(interval)) => format!("{method} k={interval}"),
        };
        let mut meter = Meter::new(self.learner()?);
        let mut counted: Vec<StepCounts> = Vec::new();
        let mut trained = vec![0; self.plan().objectives.len()];
        let mut probed = 0;
        let mut seconds = 0.0;
        observer.begin(&name, steps);
        let mut began = Instant::now();
        let done = train(
            &mut meter,
            &mut *self.method(compared),
            0..steps,
            |step, meter, _| {
                seconds += began.elapsed().as_secs_f64();
                counted.push(meter.take());
                probed += usize::from(step.probed.iter().any(Option::is_some));
                trained
                    .iter_mut()
                    .zip(&step.losses)
                    .for_each(|(count, loss)| *count += usize::from(loss.is_some()));
                let flow = report(observer, step.index + 1);
                began = Instant::now();
                flow
            },
        );
        observer.end();
        done?;
        let total: Counts = counted.iter().map(StepCounts::total).sum();
        let losers: Counts = counted.iter().map(StepCounts::losers).sum();
        Ok(MethodCost {
            method: name,
            steps,
            trained,
            probed,
            seconds_per_step: seconds / steps as f64,
            multiply_adds: total.multiply_adds(),
            multiply_adds_of_losers: losers.multiply_adds(),
            multiply_adds_of_updates: total.multiply_adds() - losers.multiply_adds(),
            tokens_forward: total.tokens_forward,
            tokens_backward: total.tokens_backward,
        })
    }
}

//! The paper's model of a language model (Section 3.2): a softmax over a few responses, linear in
//! the features of prompt and response. It is a [`Learner`], so it uses the same loop
//! ([`upright_core::train::train`]), methods and objectives that train models.

use upright_base::{Error, Result};
use upright_core::{
    objectives::{self, Objective, Response, Totals},
    train::{Learner, ObjectiveId},
};
use upright_math::random::{splitmix, uniform};

/// The preference objective; its weight is lambda.
pub const DPO: ObjectiveId = ObjectiveId(0);
/// The instruction objective; its weight is 1 - lambda.
pub const SFT: ObjectiveId = ObjectiveId(1);

/// Separates the random stream of questions from that of a method with the same seed.
const QUESTIONS: u64 = u64::from_be_bytes(*b"question");

/// A prompt (question) with its possible responses (answers); D features.
#[derive(Clone, Debug, PartialEq)]
pub struct Question<const D: usize> {
    /// Features phi(y, x) of every answer y.
    pub answers: Vec<[f64; D]>,
    /// The response that SFT imitates, or the chosen and the rejected response; indices of
    /// `answers`.
    pub scored: Vec<usize>,
}

impl<const D: usize> Question<D> {
    /// log pi(y | x) of a response in nats, and its gradient phi(y, x) - mean of phi under pi
    /// (25)-(27).
    ///
    /// Both are computed from differences to the response's own score, so that small values are not
    /// lost next to 1.
    pub fn log_probability(&self, theta: &[f64; D], answer: usize) -> (f64, [f64; D]) {
        let own = &self.answers[answer];
        let ahead = |other: &[f64; D]| dot(theta, &subtract(other, own));
        let (best, most) = self.answers.iter().map(ahead).enumerate().fold(
            (answer, 0.0),
            |most, (index, score)| {
                if score > most.1 { (index, score) } else { most }
            },
        );
        let (mut rest, mut gradient) = (0.0, [0.0; D]);
        for (index, other) in self.answers.iter().enumerate() {
            let difference = subtract(other, own);
            let weight = (dot(theta, &difference) - most).exp();
            if index != best {
                rest += weight;
            }
            gradient = add_scaled(&gradient, -weight, &difference);
        }
        (
            -(most + rest.ln_1p()),
            gradient.map(|slope| slope / (1.0 + rest)),
        )
    }
}

/// An objective with its data and, if it needs one, its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Task<const D: usize> {
    objective: Objective,
    /// Each with the reference's log-probability of every response in `scored`.
    questions: Vec<(Question<D>, Vec<f64>)>,
}

impl<const D: usize> Task<D> {
    /// SFT (4) on the first `scored` response of every question.
    pub fn sft(questions: Vec<Question<D>>) -> Self {
        let objective = Objective::new(&objectives::SFT).with("beta", 1.0);
        Self {
            objective,
            questions: questions
                .into_iter()
                .map(|question| (question, Vec::new()))
                .collect(),
        }
    }

    /// DPO (1)-(3) relative to the softmax policy with the parameters `reference`.
    pub fn dpo(questions: Vec<Question<D>>, reference: [f64; D], beta: f64) -> Self {
        let objective = Objective::new(&objectives::DPO).with("beta", beta);
        let scored = |question: Question<D>| {
            let logps = question
                .scored
                .iter()
                .map(|&answer| question.log_probability(&reference, answer).0)
                .collect();
            (question, logps)
        };
        Self {
            objective,
            questions: questions.into_iter().map(scored).collect(),
        }
    }

    /// Loss and gradient at one question: f(theta; x, ..) and g(theta; x, ..) in the paper.
    pub fn at(&self, theta: &[f64; D], question: usize) -> (f64, [f64; D]) {
        let (question, reference) = &self.questions[question];
        let mut responses = [Response {
            policy: 0.0,
            reference: None,
            tokens: 1,
        }; 2];
        let mut gradients = [[0.0; D]; 2];
        for (i, answer) in question.scored.iter().enumerate() {
            (responses[i].policy, gradients[i]) = question.log_probability(theta, *answer);
            responses[i].reference = reference.get(i).copied();
        }
        let count = question.scored.len();
        let row = self.objective.row(
            &responses[..count],
            Totals {
                rows: 1,
                tokens: count,
            },
        );
        let sum = |sum: [f64; D], i: usize| add_scaled(&sum, row.slopes[i], &gradients[i]);
        (row.loss, (0..count).fold([0.0; D], sum))
    }

    /// Loss and gradient over all data: f(theta) and its gradient.
    pub fn whole(&self, theta: &[f64; D]) -> (f64, [f64; D]) {
        let share = 1.0 / self.questions.len() as f64;
        (0..self.questions.len())
            .map(|i| self.at(theta, i))
            .fold((0.0, [0.0; D]), |(value, gradient), (v, g)| {
                (value + share * v, add_scaled(&gradient, share, &g))
            })
    }

    /// Upper bound on the second moment of the stochastic gradient (Proposition A.1): 4 beta^2
    /// Phi^2, where Phi is the largest norm of a feature vector. For SFT, beta is 1.
    pub fn second_moment_bound(&self) -> f64 {
        let features = self
            .questions
            .iter()
            .flat_map(|(question, _)| &question.answers);
        let largest = features.map(|phi| dot(phi, phi)).fold(0.0, f64::max);
        4.0 * self.objective.settings.number("beta").powi(2) * largest
    }

    /// Number of questions.
    pub fn questions(&self) -> usize {
        self.questions.len()
    }
}

/// A softmax policy trained by plain stochastic gradient descent. Each step of an objective takes
/// one of its questions, sampled uniformly.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax<const D: usize> {
    /// The parameters.
    pub theta: [f64; D],
    /// Step size (learning rate) alpha.
    pub rate: f64,
    /// The gradient of `weight_decay / 2 * |theta|^2` is added to every update.
    pub weight_decay: f64,
    /// Seed for sampling questions.
    pub seed: u64,
    tasks: Vec<Task<D>>,
    gradient: [f64; D],
    updates: u64,
}

impl<const D: usize> Softmax<D> {
    /// A policy at `theta`.
    pub fn new(tasks: Vec<Task<D>>, theta: [f64; D], rate: f64) -> Self {
        Self {
            theta,
            rate,
            weight_decay: 0.0,
            seed: 0,
            tasks,
            gradient: [0.0; D],
            updates: 0,
        }
    }

    /// Loss of an objective over all its data at the current parameters.
    pub fn value(&self, id: ObjectiveId) -> f64 {
        self.tasks[id.0].whole(&self.theta).0
    }

    /// The question of the current step: a function of seed, objective and number of updates.
    fn question(&self, id: ObjectiveId) -> usize {
        match self.tasks[id.0].questions.len() {
            1 => 0,
            count => {
                let stream = splitmix(splitmix(self.seed) ^ QUESTIONS) ^ id.0 as u64;
                (uniform(stream, self.updates) * count as f64) as usize
            }
        }
    }

    fn step(&self, id: ObjectiveId) -> Result<(f64, [f64; D])> {
        let (loss, gradient) = self.tasks[id.0].at(&self.theta, self.question(id));
        if loss.is_finite() {
            return Ok((loss, gradient));
        }
        Err(Error::failure(format!(
            "the loss of objective {} is {loss} at {:?}",
            id.0, self.theta
        )))
    }
}

impl<const D: usize> Learner for Softmax<D> {
    type Error = Error;

    fn objectives(&self) -> usize {
        self.tasks.len()
    }

    fn loss(&mut self, id: ObjectiveId) -> Result<f64> {
        self.step(id).map(|(loss, _)| loss)
    }

    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64> {
        let (loss, gradient) = self.step(id)?;
        self.gradient = add_scaled(&self.gradient, weight, &gradient);
        Ok(loss)
    }

    fn update(&mut self) -> Result<()> {
        let gradient = add_scaled(&self.gradient, self.weight_decay, &self.theta);
        self.theta = add_scaled(&self.theta, -self.rate, &gradient);
        self.gradient = [0.0; D];
        self.updates += 1;
        Ok(())
    }
}

/// Weights of [`DPO`] and [`SFT`] for a lambda.
pub fn weights(lambda: f64) -> Vec<f64> {
    vec![lambda, 1.0 - lambda]
}

/// f_mix (6) and its gradient: the weighted sum of the objectives.
pub fn mixed<const D: usize>(
    tasks: &[Task<D>],
    weights: &[f64],
    theta: &[f64; D],
) -> (f64, [f64; D]) {
    tasks
        .iter()
        .zip(weights)
        .fold((0.0, [0.0; D]), |(value, gradient), (task, weight)| {
            let (v, g) = task.whole(theta);
            (value + weight * v, add_scaled(&gradient, *weight, &g))
        })
}

/// Minimizer of a convex function of one variable: the point where its derivative `slope` changes
/// sign. Bisection to the last bit.
///
/// # Panics
/// If the derivative is not below 0 at `low` and above 0 at `high`.
pub fn minimizer(slope: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    assert!(
        slope(low) < 0.0 && slope(high) > 0.0,
        "no minimum between {low} and {high}"
    );
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return middle;
        }
        if slope(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
}

fn dot<const D: usize>(a: &[f64; D], b: &[f64; D]) -> f64 {
    (0..D).map(|i| a[i] * b[i]).sum()
}

fn subtract<const D: usize>(a: &[f64; D], b: &[f64; D]) -> [f64; D] {
    std::array::from_fn(|i| a[i] - b[i])
}

fn add_scaled<const D: usize>(a: &[f64; D], scale: f64, b: &[f64; D]) -> [f64; D] {
    std::array::from_fn(|i| a[i] + scale * b[i])
}

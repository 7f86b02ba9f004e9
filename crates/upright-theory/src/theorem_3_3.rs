//! Theorem 3.3: Sequential keeps a gap, however long it trains. The example of its proof (Table 2,
//! Figure 5) has one parameter: f_DPO = log(1 + c e^(theta/2)) and f_SFT = log(1 + e^(-theta/2)).

use std::ops::ControlFlow;

use serde::Serialize;

use super::softmax::{DPO, Question, SFT, Softmax, Task, minimizer, mixed, weights};
use upright_base::Result;
use upright_core::{methods::Sequential, train::train};

/// The reference for which (35) and (37) hold; the text says -5.
pub const REFERENCE: f64 = -10.0;
/// Initial parameter of the first stage, as in the proof.
pub const START: f64 = 0.0;
/// Step size alpha of every step. The proof requires alpha / 8 <= 1 and an unbounded sum.
const RATE: f64 = 1.0;
/// Range of parameters that contains every minimum.
const RANGE: [f64; 2] = [-1e3, 1e3];
/// Weights of DPO for which gaps are computed.
const LAMBDAS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
/// T of each stage.
const STEPS: [usize; 9] = [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];

/// The prompt of the preference, x_1 in Table 2.
fn preference() -> Question<1> {
    Question {
        answers: vec![[-1.0], [-0.5]],
        scored: vec![0, 1],
    }
}

/// The objectives of Table 2: DPO, SFT.
pub fn tasks() -> Vec<Task<1>> {
    let instruction = Question {
        answers: vec![[1.0], [0.5]],
        scored: vec![0],
    };
    vec![
        Task::dpo(vec![preference()], [REFERENCE], 1.0),
        Task::sft(vec![instruction]),
    ]
}

/// f_ref (34), the objective that the reference minimizes: -log pi(y_w | x_1).
pub fn reference_loss(theta: f64) -> f64 {
    -preference().log_probability(&[theta], 0).0
}

/// The trade-off at one lambda.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tradeoff {
    /// Weight of DPO.
    pub lambda: f64,
    /// The minimizer of f_mix.
    pub argmin: f64,
    /// The minimum of f_mix.
    pub minimum: f64,
    /// Gap at theta = 0. If `argmin` is below 0, no theta >= 0 has a smaller gap.
    pub gap_at_zero: f64,
}

impl Tradeoff {
    /// Computes it for the example of Table 2.
    pub fn of(lambda: f64) -> Self {
        let (tasks, weights) = (tasks(), weights(lambda));
        let at = |theta: f64| mixed(&tasks, &weights, &[theta]);
        let argmin = minimizer(|theta| at(theta).1[0], RANGE[0], RANGE[1]);
        let minimum = at(argmin).0;
        Self {
            lambda,
            argmin,
            minimum,
            gap_at_zero: at(0.0).0 - minimum,
        }
    }

    /// G_mix(theta) = f_mix(theta) - its minimum.
    pub fn gap(&self, theta: f64) -> f64 {
        mixed(&tasks(), &weights(self.lambda), &[theta]).0 - self.minimum
    }
}

/// Algorithm 1 with T_DPO = T_SFT = T.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// T; each stage takes T - 1 steps, as the algorithm's loops do.
    pub steps: usize,
    /// theta after the first stage, DPO. The proof requires -10 or less.
    pub after_dpo: f64,
    /// theta after the second stage, SFT.
    pub end: f64,
    /// Gap at the end for every lambda of [`Theorem33::lambdas`].
    pub gaps: Vec<f64>,
}

/// Theorem 3.3 in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Theorem33 {
    /// (1 + sqrt(c))^2 = exp(2 min f_mix), at lambda 1/2.
    pub c_star: f64,
    /// The bound: (39) at theta = 0, at lambda 1/2.
    pub gap_at_zero: f64,
    /// The minimizer of f_mix, at lambda 1/2.
    pub argmin: f64,
    /// The minimum of f_mix: 1/2 log c*.
    pub minimum: f64,
    /// c of (35).
    pub c: f64,
    /// theta_ref.
    pub reference: f64,
    /// Step size of every step.
    pub rate: f64,
    /// The trade-off at each lambda.
    pub lambdas: Vec<Tradeoff>,
    /// One run per T.
    pub runs: Vec<Run>,
    /// Where the paper's text contradicts its numbers.
    pub slips: Vec<String>,
}

/// Runs Algorithm 1 for every T.
///
/// # Errors
/// A loss is not finite, which does not happen in this example.
pub fn theorem_3_3() -> Result<Theorem33> {
    let lambdas: Vec<Tradeoff> = LAMBDAS.map(Tradeoff::of).to_vec();
    let runs = STEPS
        .iter()
        .map(|&steps| run(steps, &lambdas))
        .collect::<Result<Vec<_>>>()?;
    let half = Tradeoff::of(0.5);
    let c_star = (2.0 * half.minimum).exp();
    // f_DPO(0) = log(1 + c).
    let c = Softmax::new(tasks(), [0.0], RATE).value(DPO).exp_m1();
    Ok(Theorem33 {
        c_star,
        gap_at_zero: half.gap_at_zero,
        argmin: half.argmin,
        minimum: half.minimum,
        c,
        reference: REFERENCE,
        rate: RATE,
        slips: slips(&half, c),
        lambdas,
        runs,
    })
}

/// Trains on DPO, then on SFT.
fn run(steps: usize, lambdas: &[Tradeoff]) -> Result<Run> {
    let stage = steps - 1;
    let mut policy = Softmax::new(tasks(), [START], RATE);
    let mut method = Sequential {
        objectives: 2,
        stages: vec![(DPO.0, stage), (SFT.0, 2 * stage)],
    };
    let mut after_dpo = START;
    train(&mut policy, &mut method, 0..2 * stage, |step, policy, _| {
        if step.index + 1 == stage {
            after_dpo = policy.theta[0];
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let end = policy.theta[0];
    Ok(Run {
        steps,
        after_dpo,
        end,
        gaps: lambdas.iter().map(|tradeoff| tradeoff.gap(end)).collect(),
    })
}

/// Weight of DPO below which the minimizer of f_mix is above theta = 0: where its derivative at 0
/// changes sign.
fn turning_lambda() -> f64 {
    let slope = |lambda: f64| mixed(&tasks(), &weights(lambda), &[0.0]).1[0];
    minimizer(slope, 0.0, 1.0)
}

fn slips(half: &Tradeoff, c: f64) -> Vec<String> {
    let printed = Task::dpo(vec![preference()], [-5.0], 1.0);
    vec![
        format!(
            "(35) and (37) hold for theta_ref = {REFERENCE}, not -5: f_DPO(0) is log(1 + c) = \
             {:.4} with {REFERENCE} and {:.4} with -5.",
            c.ln_1p(),
            printed.whole(&[0.0]).0
        ),
        format!(
            "(39) at theta = 0 is {:.5}, not 0.256843; the bound holds.",
            half.gap_at_zero
        ),
        "(40) and (41) drop the factor 1/2 of (37) and (38); the steps here include it.".to_owned(),
        format!(
            "The proof is for lambda = 1/2. Below lambda = {:.4} the minimum is above theta = 0, \
             and the gap arises because theta grows without bound.",
            turning_lambda()
        ),
    ]
}

//! The claims that the proofs rest on, checked on random softmax policies: Propositions A.1 and
//! A.2, Lemmas A.3 and A.6, and (11).

use std::ops::ControlFlow;

use proptest::prelude::*;

use crate::{
    softmax::{DPO, Question, SFT, Softmax, Task, mixed, weights},
    theorem_3_3::{Tradeoff, tasks},
};
use upright_core::{
    methods::{Alright, Sequential},
    train::train,
};

type Vector = [f64; 2];

fn vector(size: f64) -> impl Strategy<Value = Vector> {
    prop::array::uniform2(-size..size)
}

/// A question with 2 to 5 answers, the first `scored` of which are in `scored`.
fn question(scored: usize) -> impl Strategy<Value = Question<2>> {
    prop::collection::vec(vector(3.0), 2..6).prop_map(move |answers| Question {
        answers,
        scored: (0..scored).collect(),
    })
}

/// DPO and SFT, each over 1 to 4 questions.
fn objectives() -> impl Strategy<Value = Vec<Task<2>>> {
    let some = |scored| prop::collection::vec(question(scored), 1..5);
    (some(2), some(1), vector(2.0), 0.05..2.0f64).prop_map(|(pairs, rows, reference, beta)| {
        vec![Task::dpo(pairs, reference, beta), Task::sft(rows)]
    })
}

fn between(a: &Vector, b: &Vector, share: f64) -> Vector {
    std::array::from_fn(|i| share * a[i] + (1.0 - share) * b[i])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Proposition A.2, by the definition of convexity, and Lemma A.5: the tangent is below the
    /// function.
    #[test]
    fn objectives_and_their_mix_are_convex(
        tasks in objectives(), a in vector(5.0), b in vector(5.0), share in 0.0..1.0f64, lambda in 0.0..1.0f64,
    ) {
        for weights in [weights(0.0), weights(1.0), weights(lambda)] {
            let at = |theta: &Vector| mixed(&tasks, &weights, theta);
            let ((f_a, g_a), (f_b, _)) = (at(&a), at(&b));
            let rounding = 1e-12 * (1.0 + f_a + f_b);
            prop_assert!(at(&between(&a, &b, share)).0 <= share * f_a + (1.0 - share) * f_b + rounding);
            prop_assert!(f_b >= f_a + (0..2).map(|i| g_a[i] * (b[i] - a[i])).sum::<f64>() - rounding);
        }
    }

    /// Central differences: the error is about h^2 times the third derivatives, for features of
    /// norm up to 6.
    #[test]
    fn gradients_are_the_derivatives_of_the_losses(tasks in objectives(), theta in vector(5.0)) {
        let h = 2f64.powi(-16);
        for task in &tasks {
            let (_, gradient) = task.whole(&theta);
            for i in 0..2 {
                let at = |shift: f64| { let mut moved = theta; moved[i] += shift; task.whole(&moved).0 };
                let difference = (at(h) - at(-h)) / (2.0 * h);
                prop_assert!((difference - gradient[i]).abs() < 1e-6, "{difference} {}", gradient[i]);
            }
        }
    }

    /// Proposition A.1: the mean of |g(theta; x)|^2 over the data is at most 4 beta^2 Phi^2.
    #[test]
    fn second_moments_of_gradients_are_bounded(tasks in objectives(), theta in vector(50.0)) {
        for task in &tasks {
            let squared = |i| task.at(&theta, i).1.iter().map(|x| x * x).sum::<f64>();
            let moment = (0..task.questions()).map(squared).sum::<f64>() / task.questions() as f64;
            prop_assert!(moment <= task.second_moment_bound() * (1.0 + 1e-12), "{moment}");
        }
    }

    /// Lemma A.3. A step of SFT on two answers whose features differ by d in one dimension moves
    /// theta by alpha d / (1 + e^(d theta)): the lemma's iterates with c = d and with alpha_t d in
    /// place of alpha_t. Both run through the loop.
    #[test]
    fn lemma_a_3(
        d in 0.1..3.0f64, low in -20.0..20.0f64, apart in 0.0..10.0f64,
        shares in prop::collection::vec(0.0..1.0f64, 1..60),
    ) {
        // c alpha_t / 4 <= 1.
        let alphas: Vec<f64> = shares.iter().map(|share| share * 4.0 / d).collect();
        let iterates = |start: f64| {
            let question = Question { answers: vec![[d], [0.0]], scored: vec![0] };
            let mut policy = Softmax::new(vec![Task::sft(vec![question])], [start], alphas[0] / d);
            let mut thetas = vec![start];
            let mut only = Sequential { objectives: 1, stages: vec![(0, alphas.len())] };
            train(&mut policy, &mut only, 0..alphas.len(), |step, policy, _| {
                thetas.push(policy.theta[0]);
                policy.rate = alphas.get(step.index + 1).copied().unwrap_or(0.0) / d;
                Ok(ControlFlow::Continue(()))
            }).unwrap();
            thetas
        };
        let (upper, lower) = (iterates(low + apart), iterates(low));
        let mut shrunk = apart;
        for t in 0..upper.len() {
            prop_assert!(upper[t] - lower[t] >= shrunk - 1e-10, "t {t}: {} {}", upper[t] - lower[t], shrunk);
            if let Some(alpha) = alphas.get(t) {
                shrunk *= 1.0 - d * alpha / 4.0;
            }
        }
    }

    /// Lemma A.6 for any q_t >= 0 and any non-increasing eta_t.
    #[test]
    fn lemma_a_6(pairs in prop::collection::vec((0.0..10.0f64, 1e-3..1.0f64), 1..40)) {
        let (q, mut eta): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        eta.sort_by(|a, b| b.total_cmp(a));
        let (left, right) = both_sides_of_lemma_a_6(&eta, &q);
        prop_assert!(left <= right + 1e-9, "{left} {right}");
    }

    /// Lemma A.6 as the proof uses it: q_t is the gap along a run of ALRIGHT.
    #[test]
    fn lemma_a_6_along_a_run(seed in any::<u64>(), rate in 0.01..2.0f64, lambda in 0.1..0.9f64) {
        let tradeoff = Tradeoff::of(lambda);
        let mut policy = Softmax::new(tasks(), [0.0], rate);
        let mut gaps = Vec::new();
        train(&mut policy, &mut Alright { weights: weights(lambda), seed }, 0..60, |_, policy, _| {
            gaps.push(tradeoff.gap(policy.theta[0]));
            Ok(ControlFlow::Continue(()))
        }).unwrap();
        // The minimum is accurate to about the last bit.
        prop_assert!(gaps.iter().all(|gap| *gap >= -1e-14));
        let (left, right) = both_sides_of_lemma_a_6(&vec![rate; gaps.len()], &gaps);
        prop_assert!(left <= right + 1e-9, "{left} {right}");
    }
}

/// Both sides of (47): eta_T q_T, and
/// 1/T sum eta_t q_t + sum_k 1 / (k (k + 1)) sum_{t > T - k} eta_t (q_t - q_{T - k}).
fn both_sides_of_lemma_a_6(eta: &[f64], q: &[f64]) -> (f64, f64) {
    let last = q.len();
    let mean = eta.iter().zip(q).map(|(eta, q)| eta * q).sum::<f64>() / last as f64;
    let tail = |k: usize| {
        (last - k..last)
            .map(|t| eta[t] * (q[t] - q[last - k - 1]))
            .sum::<f64>()
    };
    let tails = (1..last)
        .map(|k| tail(k) / (k * (k + 1)) as f64)
        .sum::<f64>();
    (eta[last - 1] * q[last - 1], mean + tails)
}

/// (11): over the sampling of ALRIGHT and of the questions, the expected gradient is that of f_mix.
/// Each step starts at the same parameters, and its change is the gradient. The two random streams
/// are independent for any seeds.
#[test]
fn the_drawn_gradient_is_unbiased() {
    let pair = |a: Vector, b: Vector| Question {
        answers: vec![a, b, [0.3, -0.2]],
        scored: vec![0, 1],
    };
    let row = |a: Vector, b: Vector| Question {
        answers: vec![a, b],
        scored: vec![0],
    };
    let tasks = vec![
        Task::dpo(
            vec![pair([1.0, 0.0], [-1.0, 0.5]), pair([0.0, 2.0], [1.0, 1.0])],
            [0.1, -0.4],
            0.7,
        ),
        Task::sft(vec![
            row([1.0, -1.0], [0.0, 1.0]),
            row([-2.0, 0.0], [1.0, 0.0]),
            row([0.5, 0.5], [0.0, 0.0]),
        ]),
    ];
    const DRAWS: usize = 40_000;
    let theta = [0.4, -0.9];
    for (lambda, seed) in [(0.5, 1), (0.1, 2), (0.8, 3), (0.0, 4), (1.0, 5)] {
        let mut policy = Softmax::new(tasks.clone(), theta, 1.0);
        policy.seed = seed;
        let (mut sum, mut squares, mut drawn) = ([0.0; 2], [0.0; 2], [0usize; 2]);
        train(
            &mut policy,
            &mut Alright {
                weights: weights(lambda),
                seed: 2 * seed,
            },
            0..DRAWS,
            |step, policy, _| {
                for i in 0..2 {
                    let gradient = theta[i] - policy.theta[i];
                    sum[i] += gradient;
                    squares[i] += gradient * gradient;
                }
                drawn[usize::from(step.weights[SFT.0] > 0.0)] += 1;
                policy.theta = theta;
                Ok(ControlFlow::Continue(()))
            },
        )
        .unwrap();
        let (_, expected) = mixed(&tasks, &weights(lambda), &theta);
        for i in 0..2 {
            let mean = sum[i] / DRAWS as f64;
            let error = ((squares[i] / DRAWS as f64 - mean * mean) / DRAWS as f64).sqrt();
            assert!(
                (mean - expected[i]).abs() < 4.0 * error,
                "lambda {lambda}: {mean} ±{error}, {}",
                expected[i]
            );
            assert!(
                error < 0.02,
                "the error must be small enough for the test to tell"
            );
        }
        assert_eq!(
            (drawn[DPO.0] == 0, drawn[SFT.0] == 0),
            (lambda == 0.0, lambda == 1.0)
        );
    }
}

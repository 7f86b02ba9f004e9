//! Results of the toy problem and the theorems: constants, signs, bounds.

use crate::{
    softmax::{DPO, SFT, Softmax},
    theorem_3_3::{Tradeoff, reference_loss, tasks, theorem_3_3},
    theorem_4_1::{Theorem41Config, theorem_4_1},
    toy::toy,
};
use upright_base::progress::Silent;

fn near(found: f64, expected: f64, allowed: f64) {
    assert!(
        (found - expected).abs() <= allowed,
        "found {found}, expected {expected}"
    );
}

/// By hand: c = e^5, c* = (1 + e^2.5)^2, min f_mix = log(1 + e^2.5) at theta = -5, and
/// gap(0) = (log(1 + e^5) + log 2) / 2 - log(1 + e^2.5).
#[test]
fn constants_of_theorem_3_3() {
    let theorem = theorem_3_3().unwrap();
    near(theorem.c, 5f64.exp(), 1e-10);
    near(theorem.c_star, 173.778, 5e-4);
    near(theorem.c_star, (1.0 + 2.5f64.exp()).powi(2), 1e-10);
    near(theorem.minimum, 2.5f64.exp().ln_1p(), 1e-14);
    near(theorem.argmin, -5.0, 1e-9);
    near(theorem.gap_at_zero, 0.27104, 5e-6);
    near(
        theorem.gap_at_zero,
        (5f64.exp().ln_1p() + 2f64.ln()) / 2.0 - 2.5f64.exp().ln_1p(),
        1e-14,
    );
    // The turning point of the minimum: 3 lambda c - c - 1 + lambda = 0.
    let turning = (1.0 + 5f64.exp()) / (1.0 + 3.0 * 5f64.exp());
    assert!(
        theorem
            .slips
            .iter()
            .any(|slip| slip.contains(&format!("{turning:.4}"))),
        "{:?}",
        theorem.slips
    );
}

/// (35)-(38) with the factor that (40) and (41) drop, and (34).
#[test]
fn the_example_has_the_losses_and_gradients_of_the_proof() {
    let tasks = tasks();
    for theta in [-40.0f64, -10.0, -5.0, -0.3, 0.0, 2.0, 60.0] {
        let (dpo, sft) = (tasks[DPO.0].whole(&[theta]), tasks[SFT.0].whole(&[theta]));
        let close =
            |found: f64, expected: f64| near(found, expected, 1e-12 * expected.abs().max(1e-3));
        close(dpo.0, (theta / 2.0 + 5.0).exp().ln_1p());
        close(sft.0, (-theta / 2.0).exp().ln_1p());
        close(dpo.1[0], 0.5 / (1.0 + (-(theta / 2.0 + 5.0)).exp()));
        close(sft.1[0], -0.5 / (1.0 + (theta / 2.0).exp()));
        close(reference_loss(theta), (theta / 2.0).exp().ln_1p());
    }
}

/// Large T: the second stage follows d theta / dt = alpha / (2 (1 + e^(theta / 2))), so
/// e^(theta / 2) ~ alpha t / 4.
#[test]
fn sequential_keeps_a_gap_that_grows() {
    let theorem = theorem_3_3().unwrap();
    let enough: Vec<_> = theorem
        .runs
        .iter()
        .filter(|run| run.after_dpo <= -10.0)
        .collect();
    assert!(
        enough.len() >= 7 && enough.len() < theorem.runs.len(),
        "T* is between the first and the last T"
    );
    for run in &enough {
        assert!(run.end >= 0.0, "{run:?}");
        for (tradeoff, gap) in theorem.lambdas.iter().zip(&run.gaps) {
            assert!(*gap > 0.0, "{run:?}");
            assert!(
                tradeoff.argmin > 0.0 || *gap >= tradeoff.gap_at_zero,
                "{tradeoff:?} {run:?}"
            );
        }
    }
    let (longest, before) = (enough[enough.len() - 1], enough[enough.len() - 2]);
    near(
        longest.end,
        2.0 * (longest.steps as f64 * theorem.rate / 4.0).ln(),
        0.1,
    );
    assert!(
        longest
            .gaps
            .iter()
            .zip(&before.gaps)
            .all(|(last, before)| last > before)
    );
}

#[test]
fn lambdas_below_the_turning_point_have_their_minimum_above_zero() {
    assert!(Tradeoff::of(0.33).argmin > 0.0 && Tradeoff::of(0.34).argmin < 0.0);
}

#[test]
fn alrights_gap_stays_below_the_corrected_bound_at_every_t() {
    let mut settings = Theorem41Config::usual(2);
    settings.steps.retain(|steps| *steps <= 100_000);
    settings.seeds = 12;
    let theorem = theorem_4_1(&settings, &mut Silent).unwrap();
    assert_eq!(theorem.second_moments, [4.0, 4.0]);
    for series in &theorem.series {
        assert_eq!(
            series
                .points
                .iter()
                .map(|point| point.steps)
                .collect::<Vec<_>>(),
            settings.steps
        );
        for point in &series.points {
            assert!(
                point.mean_gap > 0.0 && point.mean_gap <= point.bound,
                "{point:?}"
            );
        }
        let (first, last) = (series.points[0], series.points[series.points.len() - 1]);
        assert!(last.mean_gap < first.mean_gap / 2.0, "{first:?} {last:?}");
    }
    // alpha_0 = 0.05: every T is transient, and the printed bound fails: 0.128 at T = 100.
    let slow = &theorem.series[0];
    near(slow.points[0].printed_bound, 0.12845, 1e-5);
    assert!(
        slow.points
            .iter()
            .all(|point| point.transient && point.mean_gap > point.printed_bound)
    );
    assert!(slow.tail_slope.is_none() && slow.transient_slope.unwrap() > -0.5);
    // alpha_0 = 2: the tail falls no slower than log T / sqrt(T), within its error.
    let fast = &theorem.series[1];
    let (slope, error, rate) = (
        fast.tail_slope.unwrap(),
        fast.tail_slope_error.unwrap(),
        fast.tail_rate_slope.unwrap(),
    );
    assert!(
        slope <= rate + 2.0 * error && slope < 0.0,
        "{slope} ±{error}, {rate}"
    );
    let tail = fast
        .points
        .iter()
        .position(|point| !point.transient)
        .unwrap();
    assert!(
        fast.points[tail..].iter().all(|point| !point.transient),
        "the transient comes first"
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let settings = Theorem41Config {
        steps: vec![50, 300],
        seeds: 5,
        ..Theorem41Config::usual(1)
    };
    let alone = theorem_4_1(&settings, &mut Silent).unwrap();
    assert_eq!(
        theorem_4_1(
            &Theorem41Config {
                threads: 3,
                ..settings
            },
            &mut Silent
        )
        .unwrap(),
        alone
    );
}

#[test]
fn sequential_forgets_on_the_conflicting_toy_and_the_joint_methods_do_not() {
    let toy = toy(1).unwrap();
    let [printed, conflicting] = &toy.variants[..] else {
        panic!("two variants")
    };
    let [sequential, alright, maxright] = &conflicting.walks[..] else {
        panic!("three methods")
    };
    let between = sequential.between.unwrap();
    // Each stage ends when its loss reaches 0.05, and no step later.
    assert!(between.dpo <= 0.05 && between.dpo > 0.0499 && between.sft > 0.4);
    assert!(sequential.end.sft <= 0.05 && sequential.end.sft > 0.0499);
    assert!((4_900..5_100).contains(&between.step) && sequential.steps[0] == between.step);
    assert!(
        sequential.end.dpo > 10.0 * between.dpo,
        "forgotten: {sequential:?}"
    );
    for joint in [alright, maxright] {
        assert_eq!(joint.steps.iter().sum::<usize>(), 20_000);
        assert!(joint.ideal_distance < sequential.ideal_distance / 3.0);
    }
    assert!(maxright.ideal_distance < alright.ideal_distance);
    // As printed, the second stage has nothing to do.
    let between = printed.walks[0].between.unwrap();
    assert!(
        (5_300..5_500).contains(&between.step) && between.sft < 0.006,
        "{between:?}"
    );
    assert_eq!(printed.walks[0].steps[1], 0);
    assert_eq!(printed.walks[0].end, between);
    for walk in toy.variants.iter().flat_map(|variant| &variant.walks) {
        assert_eq!(
            (walk.path[0].step, *walk.path.last().unwrap()),
            (0, walk.end)
        );
    }
}

#[test]
fn a_loss_that_is_not_finite_is_an_error() {
    use upright_core::train::Learner;
    let mut policy = Softmax::new(tasks(), [f64::NAN], 1.0);
    assert!(policy.loss(DPO).unwrap_err().message.contains("NaN"));
}

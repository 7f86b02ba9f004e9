//! Theorem 4.1: the gap of ALRIGHT vanishes, no slower than log T / sqrt(T). Computed on the
//! example of Theorem 3.3, where the gap of Sequential does not vanish.

use std::ops::ControlFlow;

use serde::Serialize;

use super::{
    softmax::{Softmax, weights},
    theorem_3_3::{START, Tradeoff, tasks},
};
use upright_base::{Result, parallel, progress::Progress};
use upright_core::{
    methods::{Alright, Mix},
    train::{Method, train},
};

/// A T belongs to the transient if the gap of Mix with the same step sizes (ALRIGHT without noise)
/// is more than this share of ALRIGHT's mean gap. In the transient the start dominates the gap;
/// later the sampling noise does.
const TRANSIENT_SHARE: f64 = 0.25;

/// The settings of the computation.
#[derive(Clone, Debug, PartialEq)]
pub struct Theorem41Config {
    /// Weight of DPO.
    pub lambda: f64,
    /// Numbers of iterations T, in ascending order, each at least 2.
    pub steps: Vec<usize>,
    /// Step sizes are alpha_0 / sqrt(T), for each of these.
    pub alphas: Vec<f64>,
    /// Number of seeds (0, 1, ..) of ALRIGHT, at least 2.
    pub seeds: usize,
    /// Number of threads.
    pub threads: usize,
}

impl Theorem41Config {
    /// T from 100 to a million in half decades. With the small alpha_0, every T is transient and
    /// the printed bound fails. With the large alpha_0, the transient is short.
    pub fn usual(threads: usize) -> Self {
        let steps = vec![
            100, 316, 1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000,
        ];
        Self {
            lambda: 0.5,
            steps,
            alphas: vec![0.05, 4.0],
            seeds: 64,
            threads,
        }
    }
}

/// The results of all seeds at one T.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// T. The algorithm's loop takes T - 1 steps.
    pub steps: usize,
    /// Mean of the gap G_mix(theta_T) over the seeds.
    pub mean_gap: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// Gap of Mix after the same steps: ALRIGHT without its noise.
    pub noiseless_gap: f64,
    /// The bound as its proof gives it.
    pub bound: f64,
    /// The bound as (51) prints it.
    pub printed_bound: f64,
    /// Whether the start still dominates the gap.
    pub transient: bool,
}

/// All T for one alpha_0. Slopes are least-squares slopes of log gap over log T; none with fewer
/// than two T.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Step sizes are this over sqrt(T).
    pub alpha_0: f64,
    /// One point per T.
    pub points: Vec<Point>,
    /// Slope of the mean gap in the transient.
    pub transient_slope: Option<f64>,
    /// Slope of the mean gap after the transient.
    pub tail_slope: Option<f64>,
    /// Standard error of `tail_slope`, from the standard errors of the means.
    pub tail_slope_error: Option<f64>,
    /// Slope of log T / sqrt(T) over the same T as `tail_slope`.
    pub tail_rate_slope: Option<f64>,
}

/// Theorem 4.1 in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Theorem41 {
    /// Weight of DPO.
    pub lambda: f64,
    /// The minimizer of f_mix.
    pub argmin: f64,
    /// The minimum of f_mix.
    pub minimum: f64,
    /// Initial theta.
    pub start: f64,
    /// Bounds M_1^2, M_2^2 on the second moments of the gradients (Proposition A.1): DPO, SFT.
    pub second_moments: [f64; 2],
    /// Number of seeds behind every mean.
    pub seeds: usize,
    /// One series per alpha_0.
    pub series: Vec<Series>,
    /// Where the paper's text contradicts its numbers.
    pub slips: Vec<String>,
}

/// The terms of the bound on the gap.
struct Bound {
    /// |theta_1 - theta*|^2.
    distance: f64,
    /// lambda M_1^2 + (1 - lambda) M_2^2.
    moment: f64,
    /// (lambda M_1 + (1 - lambda) M_2)^2.
    printed_moment: f64,
}

impl Bound {
    /// Half of (2 + log(T - 1)) M^2 alpha_0 / sqrt(T).
    fn noise(moment: f64, alpha: f64, steps: f64) -> f64 {
        (2.0 + (steps - 1.0).ln()) * moment * alpha / (2.0 * steps.sqrt())
    }

    /// (54) divided by T with alpha = alpha_0 / sqrt(T), plus (56).
    fn corrected(&self, alpha: f64, steps: f64) -> f64 {
        self.distance / (2.0 * alpha * steps.sqrt()) + Self::noise(self.moment, alpha, steps)
    }

    /// (51).
    fn printed(&self, alpha: f64, steps: f64) -> f64 {
        self.distance * alpha / (2.0 * steps.sqrt())
            + Self::noise(self.printed_moment, alpha, steps)
    }
}

/// Runs Algorithm 2 for every T, alpha_0 and seed.
///
/// # Errors
/// A loss is not finite, which does not happen in this example.
pub fn theorem_4_1(settings: &Theorem41Config, observer: &mut dyn Progress) -> Result<Theorem41> {
    let tradeoff = Tradeoff::of(settings.lambda);
    let weights = weights(settings.lambda);
    let second_moments = [0, 1].map(|i: usize| tasks()[i].second_moment_bound());
    let mean = |of: [f64; 2]| weights[0] * of[0] + weights[1] * of[1];
    let bound = Bound {
        distance: (START - tradeoff.argmin).powi(2),
        moment: mean(second_moments),
        printed_moment: mean(second_moments.map(f64::sqrt)).powi(2),
    };

    // The longest runs start first, so that no core waits long for another at the end. The last run
    // of each T is Mix.
    let cells: Vec<(usize, f64)> = settings
        .steps
        .iter()
        .rev()
        .flat_map(|&steps| settings.alphas.iter().map(move |&alpha| (steps, alpha)))
        .collect();
    let runs = settings.seeds + 1;
    let total: usize = cells.iter().map(|(steps, _)| steps * runs).sum();
    observer.begin("theorem 4.1 steps", total);
    let work = |index: usize| {
        let ((steps, alpha), run) = (cells[index / runs], index % runs);
        let mut method: Box<dyn Method> = match run {
            seed if seed < settings.seeds => Box::new(Alright {
                weights: weights.clone(),
                seed: seed as u64,
            }),
            _ => Box::new(Mix {
                weights: weights.clone(),
            }),
        };
        end(&mut *method, steps, alpha / (steps as f64).sqrt()).map(|theta| tradeoff.gap(theta))
    };
    let gaps = parallel::map(cells.len() * runs, settings.threads, work, &mut |done| {
        observer.advance((0..done).map(|run| cells[run / runs].0).sum(), "");
    });
    observer.end();
    let gaps = gaps?;

    let point = |(&(steps, alpha), gaps): (&(usize, f64), &[f64])| {
        let (noiseless_gap, gaps) = gaps.split_last().expect("the last run is Mix");
        let count = gaps.len() as f64;
        let mean_gap = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean_gap).powi(2)).sum::<f64>() / (count - 1.0);
        Point {
            steps,
            mean_gap,
            standard_error: (variance / count).sqrt(),
            noiseless_gap: *noiseless_gap,
            bound: bound.corrected(alpha, steps as f64),
            printed_bound: bound.printed(alpha, steps as f64),
            transient: *noiseless_gap > TRANSIENT_SHARE * mean_gap,
        }
    };
    let points: Vec<Point> = cells.iter().zip(gaps.chunks(runs)).map(point).collect();
    let series = settings.alphas.iter().enumerate().map(|(i, &alpha)| {
        let of_alpha = points.iter().skip(i).step_by(settings.alphas.len()).rev();
        Series::new(alpha, of_alpha.copied().collect())
    });
    let series: Vec<Series> = series.collect();
    Ok(Theorem41 {
        lambda: settings.lambda,
        argmin: tradeoff.argmin,
        minimum: tradeoff.minimum,
        start: START,
        second_moments,
        seeds: settings.seeds,
        slips: slips(&series),
        series,
    })
}

/// theta_T: the example's parameter after T - 1 steps.
fn end(method: &mut dyn Method, steps: usize, rate: f64) -> Result<f64> {
    let mut policy = Softmax::new(tasks(), [START], rate);
    train(&mut policy, method, 0..steps - 1, |_, _, _| {
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(policy.theta[0])
}

impl Series {
    fn new(alpha_0: f64, points: Vec<Point>) -> Self {
        let (transient, tail): (Vec<Point>, Vec<Point>) =
            points.iter().partition(|point| point.transient);
        let gaps =
            |points: &[Point]| slope(points.iter().map(|point| (point.steps, point.mean_gap)));
        let rate = |point: &Point| (point.steps as f64).ln() / (point.steps as f64).sqrt();
        let tail_rate_slope =
            slope(tail.iter().map(|point| (point.steps, rate(point)))).map(|(slope, _)| slope);
        // d log(mean) = d mean / mean; the slope is a weighted sum of the logs.
        let tail_slope_error = gaps(&tail).map(|(_, parts)| {
            let errors = tail
                .iter()
                .zip(&parts)
                .map(|(point, part)| part * point.standard_error / point.mean_gap);
            errors.map(|error| error * error).sum::<f64>().sqrt()
        });
        Self {
            alpha_0,
            transient_slope: gaps(&transient).map(|(slope, _)| slope),
            tail_slope: gaps(&tail).map(|(slope, _)| slope),
            tail_slope_error,
            tail_rate_slope,
            points,
        }
    }
}

/// Least-squares slope of log y over log x, and the coefficient of each log y in it.
fn slope(points: impl Iterator<Item = (usize, f64)>) -> Option<(f64, Vec<f64>)> {
    let logs: Vec<(f64, f64)> = points.map(|(x, y)| ((x as f64).ln(), y.ln())).collect();
    if logs.len() < 2 {
        return None;
    }
    let centre = logs.iter().map(|(x, _)| x).sum::<f64>() / logs.len() as f64;
    let spread: f64 = logs.iter().map(|(x, _)| (x - centre).powi(2)).sum();
    let parts: Vec<f64> = logs.iter().map(|(x, _)| (x - centre) / spread).collect();
    Some((
        logs.iter().zip(&parts).map(|((_, y), part)| y * part).sum(),
        parts,
    ))
}

fn slips(series: &[Series]) -> Vec<String> {
    let mut slips = vec![
        "The first term of (51): dividing (54) by T with alpha = alpha_0 / sqrt(T) gives |theta_1 \
         - theta*|^2 / (2 alpha_0 sqrt(T)); the paper prints alpha_0 |theta_1 - theta*|^2 / (2 \
         sqrt(T))."
            .to_owned(),
        "(50) needs M_lambda^2 = lambda M_1^2 + (1 - lambda) M_2^2; the paper prints (lambda M_1 + \
         (1 - lambda) M_2)^2. In (24) and (28), M_1 and M_2 are squared norms. Both forms agree on \
         this example, where both moments have the same bound."
            .to_owned(),
        "Outside the theorem: after (17), \"DPO objective using (13)\" means SFT; in line 10 of \
         Algorithm 4, the index of the compared losses is i."
            .to_owned(),
    ];
    for series in series {
        let violated: Vec<&Point> = series
            .points
            .iter()
            .filter(|point| point.mean_gap > point.printed_bound)
            .collect();
        if let (Some(first), Some(last)) = (violated.first(), violated.last()) {
            slips.push(format!(
                "The printed bound is violated at alpha_0 = {} for T from {} to {}: at T = {} it \
                 is {:.3}, and the mean gap is {:.3}. The corrected bound is {:.3}.",
                series.alpha_0,
                first.steps,
                last.steps,
                first.steps,
                first.printed_bound,
                first.mean_gap,
                first.bound
            ));
        }
    }
    slips
}

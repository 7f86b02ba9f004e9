//! Compromise: one objective per step, with shares proportional to `w_i (f_i - f*_i)^(p - 1)` and
//! paid out by error diffusion.
//!
//! The gradient of `sum w_i (f_i - f*_i)^p / p` is the sum of the objectives' gradients with these
//! factors. So the method trains on a smooth compromise between the weighted sum (p = 1) and equal
//! gaps (p large), at one batch per step. The optima f* may be 0: a wrong optimum moves the shares
//! and never gives all steps to one objective.
//!
//! A tenth of the steps goes by weight alone, so that no loss becomes stale. The losses are smoothed,
//! because a batch is a noisy measure of them.

use super::{Form, MethodContext, MethodSpec, one_hot, owed::Owed};
use crate::settings::{Range, Setting};
use crate::train::{Method, ObjectiveId};

/// One objective per step, with shares that grow with the weighted gaps.
pub static COMPROMISE: MethodSpec = MethodSpec {
    settings: &[Setting::number(
        POWER,
        "Power of the gap in compromise, at least 1: a larger power gives more steps to the objective with the larger gap",
        "P",
        2.0,
        Range {
            must: "be a number from 1 to 100",
            fits: |power| (1.0..=100.0).contains(&power),
        },
    )
    .short("p", false)],
    uses_optima: true,
    ..MethodSpec::new("compromise", &FORMS, build)
};

const POWER: &str = "power";

static FORMS: [Form; 1] = [Form {
    name: "compromise",
    label: "compromise",
    title: "Compromise",
    about: "Trains on one objective per step. Shares of the steps grow with the weighted gaps and are spread evenly.",
    decides: "takes the objectives with larger gaps more often",
    when: None,
    place: 7,
    look: Form::OTHER_LOOK,
}];

fn build(context: MethodContext) -> Box<dyn Method> {
    let power = context.settings.number(POWER);
    Box::new(Compromise::new(
        context.weights,
        context.optima,
        &context.tie_ranks,
        power,
    ))
}

/// Share of the steps that goes by weight, whatever the gaps are.
const FLOOR: f64 = 0.1;

/// Weight of a new loss in the smoothed loss.
const FRESH: f64 = 0.25;

/// Smallest gap. Losses at or below their optima would have no gaps to compare.
const LEAST_GAP: f64 = 1e-6;

/// Pays out shares that grow with the gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Compromise {
    weights: Vec<f64>,
    optima: Vec<f64>,
    power: f64,
    /// Smoothed loss of every objective, once it is known.
    smooth: Vec<Option<f64>>,
    owed: Owed,
}

impl Compromise {
    /// One weight, optimum f* (0 if none is known) and tie rank per objective, and p, at least 1.
    pub fn new(weights: Vec<f64>, optima: Vec<f64>, tie_ranks: &[usize], power: f64) -> Self {
        Self {
            smooth: vec![None; weights.len()],
            owed: Owed::new(&weights, tie_ranks),
            weights,
            optima,
            power,
        }
    }

    /// The share of every objective in the next step; shares sum to 1.
    fn shares(&self) -> Vec<f64> {
        let mut gaps = Vec::with_capacity(self.weights.len());
        let mut largest = LEAST_GAP;
        for (index, weight) in self.weights.iter().enumerate() {
            let loss = self.smooth[index].unwrap_or(0.0);
            let gap = (loss - self.optima[index]).max(LEAST_GAP);
            if *weight > 0.0 {
                largest = largest.max(gap);
            }
            gaps.push(gap);
        }
        let mut shares = Vec::with_capacity(self.weights.len());
        let mut sum = 0.0;
        for (weight, gap) in self.weights.iter().zip(gaps) {
            // Powers of gaps themselves could all be 0, or infinite.
            let share = if *weight > 0.0 {
                weight * (gap / largest).powf(self.power - 1.0)
            } else {
                0.0
            };
            sum += share;
            shares.push(share);
        }
        for (share, weight) in shares.iter_mut().zip(&self.weights) {
            *share = (1.0 - FLOOR) * *share / sum + FLOOR * weight;
        }
        shares
    }
}

impl Method for Compromise {
    /// All losses until they are known, which is once: later losses come from the objectives' own
    /// steps.
    fn probes(&self, _step: usize) -> Vec<ObjectiveId> {
        let candidates = self.owed.candidates();
        let are_known = candidates.iter().all(|index| self.smooth[*index].is_some());
        if candidates.len() < 2 || are_known {
            return Vec::new();
        }
        let mut all = candidates.to_vec();
        all.sort_unstable();
        all.into_iter().map(ObjectiveId).collect()
    }

    fn observe(&mut self, id: ObjectiveId, loss: f64) {
        let smooth = &mut self.smooth[id.0];
        *smooth = Some(match *smooth {
            Some(old) => old + FRESH * (loss - old),
            None => loss,
        });
    }

    fn weights(&mut self, _step: usize) -> Vec<f64> {
        let shares = self.shares();
        one_hot(self.weights.len(), self.owed.pay(&shares))
    }

    /// The smoothed losses, then the balances. An objective without a loss has weight 0, or the run
    /// has not begun: its 0 is never used.
    fn state(&self) -> Vec<f64> {
        let mut state = Vec::with_capacity(2 * self.weights.len());
        for loss in &self.smooth {
            state.push(loss.unwrap_or(0.0));
        }
        state.extend(self.owed.balances());
        state
    }

    fn restore(&mut self, state: &[f64]) {
        let (smooth, owed) = state.split_at(self.weights.len());
        self.smooth = smooth.iter().map(|loss| Some(*loss)).collect();
        self.owed.restore(owed);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::methods::bowls::Bowls;
    use crate::train::train;

    fn chosen(weights: &[f64]) -> usize {
        weights.iter().position(|weight| *weight == 1.0).unwrap()
    }

    /// Where 20,000 small steps on two bowls at -1 and 1 end, as a mean over the last 2,000 steps.
    fn end(power: f64, weights: [f64; 2]) -> f64 {
        let mut toy = Bowls::new(vec![[-1.0, 0.0], [1.0, 0.0]], 0.005);
        toy.theta = [3.0, 0.0];
        let mut method = Compromise::new(weights.to_vec(), vec![0.0; 2], &[1, 0], power);
        let mut sum = 0.0;
        train(&mut toy, &mut method, 0..20_000, |step, toy, _| {
            if step.index >= 18_000 {
                sum += toy.theta[0];
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        sum / 2000.0
    }

    /// Bowls (x - c)^2 / 2 or (x - c)^2, weights 3/4 and 1/4. p = 1 minimizes the weighted sum, at
    /// -1/2. p = 2 minimizes the weighted sum of squares: 3 (1 + x)^3 = (1 - x)^3, so
    /// x = (1 - 3^(1/3)) / (1 + 3^(1/3)) = -0.181, and the tenth that goes by weight moves it to
    /// about -0.19.
    #[test]
    fn p_1_ends_at_the_weighted_sum_and_p_2_at_the_compromise() {
        let x = end(1.0, [0.75, 0.25]);
        assert!((x + 0.5).abs() < 0.01, "{x}");
        let x = end(2.0, [0.75, 0.25]);
        assert!((x + 0.19).abs() < 0.015, "{x}");
        let x = end(2.0, [0.5, 0.5]);
        assert!(x.abs() < 0.01, "{x}");
    }

    /// With p = 16, 3 (1 + x)^31 = (1 - x)^31, so x is close to 0, where the gaps are equal.
    #[test]
    fn a_large_p_makes_the_gaps_equal() {
        let x = end(16.0, [0.75, 0.25]);
        let root = 3f64.powf(1.0 / 31.0);
        let closed = (1.0 - root) / (1.0 + root);
        assert!((x - closed).abs() < 0.005, "{x}, {closed}");
    }

    /// Three bowls at the corners of an equilateral triangle end in its middle.
    #[test]
    fn three_objectives_meet_in_the_middle() {
        let height = 3f64.sqrt() / 2.0;
        let corners = vec![[1.0, 0.0], [-0.5, height], [-0.5, -height]];
        let mut toy = Bowls::new(corners, 0.01);
        toy.theta = [0.6, -0.4];
        let weights = vec![1.0 / 3.0; 3];
        let mut method = Compromise::new(weights, vec![0.0; 3], &[0, 1, 2], 2.0);
        train(&mut toy, &mut method, 0..6000, |_, _, _| {
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert!(toy.theta[0].hypot(toy.theta[1]) < 0.03, "{:?}", toy.theta);
        assert_eq!(toy.probed, [1, 1, 1]);
        for steps in &toy.trained {
            assert!(steps.abs_diff(2000) < 100, "{:?}", toy.trained);
        }
    }

    /// An optimum that is too high by far counts as a gap of almost 0. The other objective gets most
    /// steps, and the floor remains.
    #[test]
    fn a_wrong_optimum_leaves_every_objective_its_floor() {
        let mut method = Compromise::new(vec![0.5, 0.5], vec![9.0, 0.0], &[1, 0], 2.0);
        method.observe(ObjectiveId(0), 1.0);
        method.observe(ObjectiveId(1), 1.0);
        let mut first = 0;
        for step in 0..1000 {
            first += usize::from(chosen(&method.weights(step)) == 0);
        }
        // A tenth goes by weight: a twentieth of the steps.
        assert!((49..=51).contains(&first), "{first}");
    }

    /// Gaps that all double change no decision, bit for bit.
    #[test]
    fn decisions_do_not_depend_on_the_scale_of_the_losses() {
        let run = |scale: f64| {
            let mut method = Compromise::new(vec![0.3, 0.7], vec![0.0; 2], &[1, 0], 2.0);
            method.observe(ObjectiveId(0), scale);
            method.observe(ObjectiveId(1), 2.0 * scale);
            let mut decisions = Vec::new();
            for step in 0..200 {
                let id = chosen(&method.weights(step));
                decisions.push(id);
                let loss = 1.0 + ((step * 7 + id) % 5) as f64;
                method.observe(ObjectiveId(id), scale * loss);
            }
            decisions
        };
        assert_eq!(run(1.0), run(1024.0));
    }

    /// Powers of such gaps are 0 or infinite in f64: 1e-5 to the power 99, and 1e5.
    #[test]
    fn tiny_and_huge_gaps_have_shares() {
        for scale in [1e-5, 1e5] {
            let mut method = Compromise::new(vec![0.5, 0.5], vec![0.0; 2], &[1, 0], 100.0);
            method.observe(ObjectiveId(0), scale);
            method.observe(ObjectiveId(1), scale);
            assert_eq!(method.shares(), [0.5, 0.5]);
            method.observe(ObjectiveId(1), 3.0 * scale);
            let shares = method.shares();
            assert!(shares[1] > 0.9 && (shares[0] + shares[1] - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_restored_method_decides_as_the_straight_one() {
        let new = || Compromise::new(vec![0.3, 0.0, 0.7], vec![0.0; 3], &[1, 2, 0], 2.0);
        let mut straight = new();
        assert_eq!(straight.probes(0), [ObjectiveId(0), ObjectiveId(2)]);
        straight.observe(ObjectiveId(0), 1.0);
        straight.observe(ObjectiveId(2), 3.0);
        assert!(straight.probes(1).is_empty());
        for step in 0..300 {
            let mut restored = new();
            restored.restore(&straight.state());
            let id = chosen(&straight.weights(step));
            assert_eq!(id, chosen(&restored.weights(step)));
            assert_ne!(id, 1, "weight 0 is never chosen");
            straight.observe(ObjectiveId(id), ((step * 13) % 17) as f64 * 0.1);
        }
    }

    #[test]
    fn one_objective_alone_is_never_probed() {
        let mut alone = Compromise::new(vec![0.0, 1.0], vec![0.0; 2], &[1, 0], 2.0);
        assert!(alone.probes(0).is_empty());
        assert_eq!(alone.weights(0), [0.0, 1.0]);
    }
}

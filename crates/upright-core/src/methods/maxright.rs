//! MAXRIGHT (Algorithms 3 and 4): trains on the plain gradient of the objective with the largest
//! weighted gap, w_i * (f_i - f*_i). All objectives are probed every k steps. In between, the last
//! known losses decide, and the objective that is trained on refreshes its own loss.

use super::{Cost, Form, MethodContext, MethodSpec, PROBE_EVERY, one_hot, owed::candidates};
use crate::settings::{Recorded, Setting};
use crate::train::{Method, ObjectiveId};

/// One objective per step, the one with the largest weighted gap (Algorithms 3 and 4).
pub static MAXRIGHT: MethodSpec = MethodSpec {
    settings: &[Setting::count(
        PROBE_EVERY,
        "Probe the losses of all objectives every K steps, with maxright",
        "K",
        10,
    )
    .recorded(Recorded::Always)
    .short("k", true)],
    uses_optima: true,
    needs_optima: true,
    cost: Cost::OneAndProbes,
    ..MethodSpec::new("maxright", &FORMS, build)
};

static FORMS: [Form; 1] = [Form {
    name: "maxright",
    label: "maxright",
    title: "MAXRIGHT",
    about: "Trains on one objective per step, the one with the larger weighted gap. It probes the losses of all objectives every k \
            steps.",
    decides: "takes the one with the larger weighted gap",
    when: None,
    place: 6,
    look: [2, 4],
}];

fn build(context: MethodContext) -> Box<dyn Method> {
    let probe_every = context.settings.count(PROBE_EVERY);
    Box::new(Maxright::new(
        context.weights,
        context.optima,
        &context.tie_ranks,
        probe_every,
    ))
}

/// Compares weighted gaps to the optima.
#[derive(Clone, Debug, PartialEq)]
pub struct Maxright {
    weights: Vec<f64>,
    optima: Vec<f64>,
    probe_every: usize,
    /// Objectives that can be chosen; in a tie, the later one wins.
    candidates: Vec<usize>,
    last: Vec<Option<f64>>,
}

impl Maxright {
    /// One weight, optimum f* and tie rank per objective (the smallest rank wins), and k.
    pub fn new(
        weights: Vec<f64>,
        optima: Vec<f64>,
        tie_ranks: &[usize],
        probe_every: usize,
    ) -> Self {
        let candidates = candidates(&weights, tie_ranks);
        let last = vec![None; weights.len()];
        Self {
            weights,
            optima,
            probe_every,
            candidates,
            last,
        }
    }
}

impl Method for Maxright {
    fn probes(&self, step: usize) -> Vec<ObjectiveId> {
        let unknown = self.candidates.iter().any(|i| self.last[*i].is_none());
        let due = self.candidates.len() > 1 && (unknown || step.is_multiple_of(self.probe_every));
        (0..self.weights.len())
            .filter(|i| due && self.candidates.contains(i))
            .map(ObjectiveId)
            .collect()
    }

    fn observe(&mut self, id: ObjectiveId, loss: f64) {
        self.last[id.0] = Some(loss);
    }

    fn weights(&mut self, _step: usize) -> Vec<f64> {
        // A gap below 0 means that the optimum was too high. It counts as 0.
        let gap =
            |i: usize| self.weights[i] * (self.last[i].unwrap_or(0.0) - self.optima[i]).max(0.0);
        let widest = self
            .candidates
            .iter()
            .max_by(|a, b| gap(**a).total_cmp(&gap(**b)));
        one_hot(
            self.weights.len(),
            *widest.expect("a plan has a weight above 0"),
        )
    }

    fn state(&self) -> Vec<f64> {
        // An objective without a loss either cannot be chosen or is probed first: its 0 is never
        // compared.
        self.last.iter().map(|loss| loss.unwrap_or(0.0)).collect()
    }

    fn restore(&mut self, state: &[f64]) {
        self.last = state.iter().map(|loss| Some(*loss)).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::methods::bowls::Bowls;
    use crate::train::train;

    /// The choice once the losses are known. Of two objectives, the second is the preference
    /// objective.
    fn choice(weights: &[f64], optima: &[f64], losses: &[f64]) -> usize {
        let ranks = if weights.len() == 2 {
            vec![1, 0]
        } else {
            (0..weights.len()).collect()
        };
        let mut method = Maxright::new(weights.to_vec(), optima.to_vec(), &ranks, 1);
        losses
            .iter()
            .enumerate()
            .for_each(|(i, loss)| method.observe(ObjectiveId(i), *loss));
        method.weights(0).iter().position(|w| *w == 1.0).unwrap()
    }

    #[test]
    fn the_largest_weighted_gap_is_trained_on() {
        type Case = (&'static [f64], &'static [f64], &'static [f64], usize);
        let table: [Case; 12] = [
            (&[0.5, 0.5], &[0.0, 0.0], &[2.0, 1.0], 0),
            (&[0.5, 0.5], &[0.0, 0.0], &[1.0, 2.0], 1),
            (&[0.5, 0.5], &[1.5, 0.0], &[2.0, 1.0], 1), // 0.25 against 0.5
            (&[0.9, 0.1], &[0.0, 0.0], &[1.0, 5.0], 0), // 0.9 against 0.5
            (&[0.5, 0.5], &[0.0, 0.0], &[1.0, 1.0], 1), // a tie, of equal weights: the preference objective
            (&[0.75, 0.25], &[0.0, 0.0], &[1.0, 3.0], 0), // a tie: the larger weight
            (&[0.75, 0.25], &[2.0, 2.0], &[1.0, 1.9], 0), // both gaps below 0 count as 0: a tie
            (&[0.5, 0.5], &[2.0, 2.0], &[1.9, 1.0], 1),
            (&[0.99, 0.01], &[2.0, 0.0], &[1.9, 0.1], 1), // a gap below 0 loses to any other
            (&[0.0, 1.0], &[0.0, 0.0], &[9.0, 0.0], 1), // weight 0 is never chosen, not even in a tie
            (&[1.0, 0.0], &[0.0, 0.0], &[0.0, 9.0], 0),
            (&[0.25, 0.25, 0.5], &[0.0, 1.0, 1.0], &[1.0, 3.0, 1.9], 1), // 0.25, 0.5, 0.45
        ];
        for (weights, optima, losses, expected) in table {
            assert_eq!(
                choice(weights, optima, losses),
                expected,
                "{weights:?} {optima:?} {losses:?}"
            );
        }
    }

    #[test]
    fn all_are_probed_every_k_steps_but_those_of_weight_0() {
        let mut method = Maxright::new(vec![0.5, 0.0, 0.5], vec![0.0; 3], &[0, 1, 2], 3);
        let both = vec![ObjectiveId(0), ObjectiveId(2)];
        assert_eq!(method.probes(0), both);
        both.iter().for_each(|id| method.observe(*id, 1.0));
        assert_eq!([1, 2, 4].map(|step| method.probes(step).len()), [0; 3]);
        assert_eq!(method.probes(3), both);
    }

    #[test]
    fn one_objective_alone_is_never_probed() {
        let mut alone = Maxright::new(vec![0.0, 1.0], vec![0.0; 2], &[1, 0], 1);
        assert!((0..5).all(|step| alone.probes(step).is_empty()));
        assert_eq!(alone.weights(0), [0.0, 1.0]);
    }

    #[test]
    fn between_probes_stale_values_decide_and_the_winner_refreshes_its_own() {
        let mut method = Maxright::new(vec![0.5, 0.5], vec![0.0; 2], &[1, 0], 100);
        method.observe(ObjectiveId(0), 2.0);
        method.observe(ObjectiveId(1), 1.5);
        assert_eq!(method.weights(1), [1.0, 0.0]);
        method.observe(ObjectiveId(0), 1.8);
        assert_eq!(method.weights(2), [1.0, 0.0]);
        method.observe(ObjectiveId(0), 1.4); // below the 1.5 of the other objective when it was last probed
        assert_eq!(method.weights(3), [0.0, 1.0]);
    }

    #[test]
    fn a_resumed_run_decides_as_the_straight_one() {
        let run = |upto: usize, resume: Option<(&Bowls, &[f64])>| {
            let mut toy = Bowls::new(vec![[-1.0, 0.0], [1.0, 0.5]], 0.1);
            let mut method = Maxright::new(vec![0.5, 0.5], vec![0.0; 2], &[1, 0], 7);
            let mut first = 0;
            if let Some((at, state)) = resume {
                toy.theta = at.theta;
                method.restore(state);
                first = 25;
            }
            let mut chosen = vec![];
            train(&mut toy, &mut method, first..upto, |step, _, _| {
                chosen.push(step.weights.clone());
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
            (toy, method.state(), chosen)
        };
        let (end, state, chosen) = run(60, None);
        let (middle, kept, head) = run(25, None);
        let (again, state_again, tail) = run(60, Some((&middle, &kept)));
        assert_eq!((end.theta, state), (again.theta, state_again));
        assert_eq!(chosen, [head, tail].concat());
    }

    #[test]
    fn k_longer_than_the_run_looks_once() {
        let mut toy = Bowls::new(vec![[-1.0, 0.0], [1.0, 0.0]], 0.1);
        let mut method = Maxright::new(vec![0.5, 0.5], vec![0.0; 2], &[1, 0], 1000);
        train(&mut toy, &mut method, 0..50, |_, _, _| {
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(toy.probed, [1, 1]);
        assert_eq!(toy.trained.iter().sum::<usize>(), 50);
    }

    #[test]
    fn values_that_were_never_seen_are_probed_first() {
        let mut method = Maxright::new(vec![0.5, 0.5], vec![0.0; 2], &[1, 0], 10);
        assert_eq!(method.probes(5).len(), 2);
        method.restore(&[1.0, 2.0]);
        assert!(method.probes(5).is_empty());
    }
}

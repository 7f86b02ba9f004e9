//! Steps by error diffusion: every objective is owed its share of every step, and the objective that
//! is owed most gets the step. So shares are paid out evenly, without chance.
//!
//! This is the greedy strategy of the cup game: what any of N objectives is owed stays below
//! 1 + 1/2 + ... + 1/N steps, however the shares move (Dietz and Sleator 1987). With two objectives
//! and constant shares, each has its share of the first t steps to within one step, for every t.

/// What every objective is owed, in steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owed {
    /// One balance per objective; they sum to 0.
    balances: Vec<f64>,
    /// Objectives that can be chosen; in a tie, the later one wins.
    candidates: Vec<usize>,
}

impl Owed {
    /// Nothing is owed yet. Of objectives that are owed equally, the larger weight wins, then the
    /// smaller tie rank. Weight 0 is never chosen.
    pub(super) fn new(weights: &[f64], tie_ranks: &[usize]) -> Self {
        Self {
            balances: vec![0.0; weights.len()],
            candidates: candidates(weights, tie_ranks),
        }
    }

    /// The objective of the next step, given the share of every objective; shares sum to 1.
    ///
    /// # Panics
    /// If no objective has a weight above 0.
    pub(super) fn pay(&mut self, shares: &[f64]) -> usize {
        for (balance, share) in self.balances.iter_mut().zip(shares) {
            *balance += share;
        }
        let mut chosen = *self
            .candidates
            .first()
            .expect("a plan has a weight above 0");
        for &candidate in &self.candidates {
            if self.balances[candidate] >= self.balances[chosen] {
                chosen = candidate;
            }
        }
        self.balances[chosen] -= 1.0;
        chosen
    }

    /// Objectives that can be chosen.
    pub(super) fn candidates(&self) -> &[usize] {
        &self.candidates
    }

    /// One balance per objective.
    pub(super) fn balances(&self) -> &[f64] {
        &self.balances
    }

    /// Restores the balances.
    pub(super) fn restore(&mut self, balances: &[f64]) {
        self.balances = balances.to_vec();
    }
}

/// Objectives of a weight above 0, in the order in which ties are lost: smaller weights first, then
/// larger tie ranks.
pub(super) fn candidates(weights: &[f64], tie_ranks: &[usize]) -> Vec<usize> {
    let mut candidates: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0.0).collect();
    candidates.sort_by(|&a, &b| {
        weights[a]
            .total_cmp(&weights[b])
            .then(tie_ranks[b].cmp(&tie_ranks[a]))
    });
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use upright_math::random::uniform;

    #[test]
    fn of_two_objectives_each_has_its_share_to_within_one_step() {
        for seed in 0..200 {
            let lambda = uniform(7, seed);
            let shares = [1.0 - lambda, lambda];
            let mut owed = Owed::new(&shares, &[1, 0]);
            let mut steps = 0.0;
            for t in 1..=500 {
                steps += owed.pay(&shares) as f64;
                assert!((steps - lambda * f64::from(t)).abs() < 1.0, "{lambda}, {t}");
            }
        }
    }

    /// Shares that move in every step, for two to eight objectives.
    #[test]
    fn nobody_is_owed_more_than_a_few_steps() {
        let mut worst: f64 = 0.0;
        for count in 2..=8usize {
            let mut owed = Owed::new(&vec![1.0; count], &(0..count).collect::<Vec<_>>());
            for t in 0..20_000u64 {
                let mut shares = Vec::with_capacity(count);
                for i in 0..count {
                    shares.push(uniform(i as u64, t).powi(3));
                }
                let sum: f64 = shares.iter().sum();
                for share in &mut shares {
                    *share /= sum;
                }
                owed.pay(&shares);
                for balance in owed.balances() {
                    worst = worst.max(balance.abs());
                }
            }
            assert!(owed.balances().iter().sum::<f64>().abs() < 1e-9);
        }
        let bound: f64 = (1..=8).map(|k| 1.0 / f64::from(k)).sum();
        assert!(worst < bound, "{worst} of {bound}");
    }

    #[test]
    fn equal_shares_alternate_and_weight_0_is_never_chosen() {
        let mut owed = Owed::new(&[0.5, 0.0, 0.5], &[1, 2, 0]);
        let mut chosen = Vec::new();
        for _ in 0..6 {
            chosen.push(owed.pay(&[0.5, 0.0, 0.5]));
        }
        assert_eq!(chosen, [2, 0, 2, 0, 2, 0]);
    }
}

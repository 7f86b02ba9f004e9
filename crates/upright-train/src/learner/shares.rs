//! Which rank computes which pack.

use std::cmp::Reverse;

use crate::packing::PackedRows;

/// Cost of a forward pass, the unit.
pub(crate) const FORWARD: u64 = 1;

/// Cost of a backward pass, in forward passes.
pub(crate) const BACKWARD: u64 = 2;

/// The work that every rank has in a step. All ranks compute it alike, so they need not talk about it.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    /// Tokens that each rank has, times passes.
    loads: Vec<u64>,
}

impl Shares {
    /// No work for any of some ranks.
    pub(crate) fn new(ranks: usize) -> Self {
        Self {
            loads: vec![0; ranks],
        }
    }

    /// Forgets all work, as at the end of a step.
    pub(crate) fn clear(&mut self) {
        self.loads.fill(0);
    }

    /// Gives every pack to a rank: the largest first, each to the rank with the least work so far. No rank gets more than an equal
    /// share and one pack. `passes` is the cost of a pack, in forward passes.
    pub(crate) fn assign(&mut self, packs: &[PackedRows], passes: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..packs.len()).collect();
        order.sort_by_key(|&index| (Reverse(packs[index].pack.tokens.len()), index));
        let mut owners = vec![0; packs.len()];
        for index in order {
            let rank = (0..self.loads.len()).min_by_key(|&rank| (self.loads[rank], rank));
            owners[index] = rank.unwrap_or(0);
            self.add(owners[index], &packs[index], passes);
        }
        owners
    }

    /// Adds work of a rank.
    pub(crate) fn add(&mut self, rank: usize, pack: &PackedRows, passes: u64) {
        self.loads[rank] += passes * pack.pack.tokens.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use upright_model::pack::Pack;

    use super::*;

    fn packs(lengths: &[usize]) -> Vec<PackedRows> {
        let mut packs = Vec::new();
        for length in lengths {
            let mut pack = Pack::default();
            pack.root(&vec![1; *length]);
            packs.push(PackedRows {
                pack,
                segments: Vec::new(),
            });
        }
        packs
    }

    #[test]
    fn later_batches_of_a_step_go_to_ranks_with_less_work() {
        let mut shares = Shares::new(2);
        assert_eq!(shares.assign(&packs(&[9]), FORWARD), [0]);
        assert_eq!(shares.assign(&packs(&[5]), FORWARD), [1]);
        shares.add(1, &packs(&[5])[0], BACKWARD);
        assert_eq!(shares.assign(&packs(&[3, 4]), FORWARD), [0, 0]);
        shares.clear();
        assert_eq!(shares.assign(&packs(&[3, 4]), FORWARD), [1, 0]);
    }

    proptest! {
        #[test]
        fn no_rank_has_more_than_its_share_and_one_pack(
            lengths in prop::collection::vec(1..500usize, 0..40), ranks in 1..9usize,
        ) {
            let packs = packs(&lengths);
            let mut shares = Shares::new(ranks);
            let owners = shares.assign(&packs, FORWARD + BACKWARD);
            let total: usize = lengths.iter().sum();
            let largest = lengths.iter().max().copied().unwrap_or(0);
            for rank in 0..ranks {
                let mine: usize = lengths.iter().zip(&owners).filter(|(_, owner)| **owner == rank).map(|(length, _)| length).sum();
                prop_assert!(mine * ranks <= total + largest * ranks);
            }
        }
    }
}

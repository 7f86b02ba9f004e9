//! Which rows are in the next batch of an objective.
//!
//! Only batches that were trained on are used up. A batch that was probed but not trained on moves
//! to the end of its epoch. The order is a function of (seed, name, epoch) and of this history,
//! which a checkpoint keeps.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::hash64;
use upright_base::{Error, Result};
use upright_math::random::splitmix;

/// The order in which one objective's rows are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    seed: u64,
    stream: u64,
    batch: usize,
    epoch: usize,
    /// Row indices of this epoch; batch b is the b-th chunk.
    permutation: Vec<usize>,
    /// Batches of this epoch that are not used yet, never empty.
    queue: VecDeque<usize>,
}

/// State of an [`Order`] in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderState {
    /// Epochs completed.
    pub epoch: usize,
    /// Batches of this epoch that are not used yet, the next one first.
    pub queue: Vec<usize>,
}

impl Order {
    /// The order of `rows` rows in batches of `batch`; the last batch of an epoch may be short.
    /// `name` is the objective's name: two objectives with one seed have unrelated orders.
    ///
    /// # Panics
    /// If there are no rows, or the batch size is 0.
    pub fn new(seed: u64, name: &str, rows: usize, batch: usize) -> Self {
        assert!(rows > 0 && batch > 0, "an order needs rows and batches");
        let permutation = (0..rows).collect();
        let mut order = Self {
            seed,
            stream: hash64(name),
            batch,
            epoch: 0,
            permutation,
            queue: VecDeque::new(),
        };
        order.begin(0);
        order
    }

    /// Rows of the next batch.
    pub fn peek(&self) -> &[usize] {
        let start = self.queue[0] * self.batch;
        &self.permutation[start..self.permutation.len().min(start + self.batch)]
    }

    /// Marks the next batch as used.
    pub fn advance(&mut self) {
        self.queue.pop_front();
        if self.queue.is_empty() {
            self.begin(self.epoch + 1);
        }
    }

    /// Moves the next batch to the end of this epoch, because it was probed and not used. The last
    /// batch of an epoch stays.
    pub fn postpone(&mut self) {
        self.queue.rotate_left(1);
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        self.permutation.len().div_ceil(self.batch)
    }

    /// State for a checkpoint; the rest follows from the plan.
    pub fn state(&self) -> OrderState {
        OrderState {
            epoch: self.epoch,
            queue: self.queue.iter().copied().collect(),
        }
    }

    /// Continues where a checkpoint left off.
    ///
    /// # Errors
    /// The state belongs to other rows or another batch size.
    pub fn restore(&mut self, state: &OrderState) -> Result<()> {
        let mut seen = vec![false; self.batches()];
        let fits = |&batch: &usize| {
            seen.get_mut(batch)
                .is_some_and(|seen| !std::mem::replace(seen, true))
        };
        if state.queue.is_empty() || !state.queue.iter().all(fits) {
            return Err(Error::input(format!(
                "the checkpoint's order does not fit {} rows in batches of {}",
                self.permutation.len(),
                self.batch
            ))
            .hint("resume with the data and batch size that the run started with"));
        }
        self.begin(state.epoch);
        self.queue = state.queue.iter().copied().collect();
        Ok(())
    }

    /// Shuffles by Fisher-Yates; each draw is a function of (seed, stream, epoch, i) only.
    fn begin(&mut self, epoch: usize) {
        self.epoch = epoch;
        self.queue = (0..self.batches()).collect();
        let key = splitmix(splitmix(splitmix(self.seed) ^ self.stream) ^ epoch as u64);
        self.permutation.sort_unstable();
        for i in (1..self.permutation.len()).rev() {
            let draw = u128::from(splitmix(key ^ i as u64));
            self.permutation
                .swap(i, ((draw * (i as u128 + 1)) >> 64) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rows of the next `count` batches, each used.
    fn used(order: &mut Order, count: usize) -> Vec<Vec<usize>> {
        let mut batches = Vec::new();
        for _ in 0..count {
            batches.push(order.peek().to_vec());
            order.advance();
        }
        batches
    }

    #[test]
    fn an_epoch_is_a_permutation_and_its_last_batch_may_be_short() {
        let mut order = Order::new(1, "sft", 10, 4);
        assert_eq!(order.batches(), 3);
        let epochs = [used(&mut order, 3), used(&mut order, 3)];
        for epoch in &epochs {
            assert_eq!(epoch.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
            let mut rows = epoch.concat();
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[0].concat(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn seed_name_and_nothing_else_decide() {
        let first = |seed, name| used(&mut Order::new(seed, name, 50, 50), 1);
        assert_eq!(first(1, "sft"), first(1, "sft"));
        assert_ne!(first(1, "sft"), first(2, "sft"));
        assert_ne!(first(1, "sft"), first(1, "dpo"));
        // This order must never change: a run that is resumed by a later version must continue.
        assert_eq!(Order::new(7, "dpo", 8, 8).peek(), [3, 5, 2, 7, 1, 4, 0, 6]);
    }

    #[test]
    fn every_place_is_about_equally_likely() {
        let mut counts = [[0; 6]; 6];
        for seed in 0..6000 {
            for (place, &row) in Order::new(seed, "x", 6, 6).peek().iter().enumerate() {
                counts[place][row] += 1;
            }
        }
        assert!(
            counts
                .as_flattened()
                .iter()
                .all(|&count: &i32| (count - 1000).abs() < 150),
            "{counts:?}"
        );
    }

    #[test]
    fn a_postponed_batch_comes_last_and_stays_if_alone() {
        let mut order = Order::new(3, "dpo", 9, 3);
        let batches = used(&mut order.clone(), 3);
        order.postpone();
        assert_eq!(order.peek(), batches[1]);
        order.advance();
        assert_eq!(order.peek(), batches[2]);
        order.advance();
        assert_eq!(order.peek(), batches[0]);
        order.postpone();
        assert_eq!(order.peek(), batches[0]);
        assert_eq!((order.state().epoch, order.state().queue.len()), (0, 1));
        order.advance();
        assert_eq!((order.state().epoch, order.state().queue.len()), (1, 3));
    }

    #[test]
    fn a_state_of_other_data_is_refused() {
        let mut order = Order::new(3, "dpo", 9, 3);
        for queue in [vec![], vec![3], vec![1, 1]] {
            let error = order.restore(&OrderState { epoch: 0, queue }).unwrap_err();
            assert_eq!(
                error.message,
                "the checkpoint's order does not fit 9 rows in batches of 3"
            );
            assert!(error.hint.contains("batch size"));
        }
    }

    proptest! {
        #[test]
        fn no_row_is_skipped_or_repeated_whatever_is_postponed(
            rows in 1..40usize, batch in 1..12usize, postponed in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut order = Order::new(5, "any", rows, batch);
            let mut seen = Vec::new();
            for postpone in postponed {
                let next = order.peek().to_vec();
                if postpone {
                    let alone = order.state().queue.len() == 1;
                    order.postpone();
                    prop_assert_eq!(order.peek() == next, alone);
                } else {
                    seen.extend(next);
                    order.advance();
                    prop_assert_eq!(order.state().epoch, seen.len() / rows);
                }
            }
            for epoch in seen.chunks(rows) {
                let mut once = epoch.to_vec();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), epoch.len());
            }
        }

        #[test]
        fn a_restored_order_continues_as_the_straight_one(
            rows in 1..40usize, batch in 1..12usize, moves in prop::collection::vec(any::<bool>(), 0..60), cut in 0..60usize,
        ) {
            let mut straight = Order::new(5, "any", rows, batch);
            let mut resumed = straight.clone();
            for (index, &postpone) in moves.iter().enumerate() {
                if index == cut {
                    let saved = serde_json::to_string(&resumed.state()).unwrap();
                    resumed = Order::new(5, "any", rows, batch);
                    resumed.restore(&serde_json::from_str(&saved).unwrap()).unwrap();
                }
                for order in [&mut straight, &mut resumed] {
                    if postpone { order.postpone() } else { order.advance() }
                }
                prop_assert_eq!(&straight, &resumed);
            }
        }
    }
}

//! The smallest learner: one quadratic bowl per objective, 1/2 |theta - center|^2, and plain
//! gradient descent. It counts its probes and its training passes.

use std::convert::Infallible;

use crate::train::{Learner, ObjectiveId};

pub(crate) struct Bowls {
    pub(crate) theta: [f64; 2],
    pub(crate) centres: Vec<[f64; 2]>,
    pub(crate) rate: f64,
    pub(crate) gradient: [f64; 2],
    pub(crate) probed: Vec<usize>,
    pub(crate) trained: Vec<usize>,
}

impl Bowls {
    /// Starts at (3, 3).
    pub(crate) fn new(centres: Vec<[f64; 2]>, rate: f64) -> Self {
        let none = vec![0; centres.len()];
        Self {
            theta: [3.0; 2],
            centres,
            rate,
            gradient: [0.0; 2],
            probed: none.clone(),
            trained: none,
        }
    }

    pub(crate) fn value(&self, id: usize) -> f64 {
        (0..2)
            .map(|i| 0.5 * (self.theta[i] - self.centres[id][i]).powi(2))
            .sum()
    }
}

impl Learner for Bowls {
    type Error = Infallible;

    fn objectives(&self) -> usize {
        self.centres.len()
    }

    fn loss(&mut self, id: ObjectiveId) -> Result<f64, Infallible> {
        self.probed[id.0] += 1;
        Ok(self.value(id.0))
    }

    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64, Infallible> {
        self.trained[id.0] += 1;
        for i in 0..2 {
            self.gradient[i] += weight * (self.theta[i] - self.centres[id.0][i]);
        }
        Ok(self.value(id.0))
    }

    fn update(&mut self) -> Result<(), Infallible> {
        for i in 0..2 {
            self.theta[i] -= self.rate * self.gradient[i];
            self.gradient[i] = 0.0;
        }
        Ok(())
    }
}

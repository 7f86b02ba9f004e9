//! A custom objective and a custom method through the public API, on a toy problem of two numbers.
//!
//! `cargo run -p upright-core --example two_objectives` trains a point between two bowls: first
//! with Sequential, which ends in the last bowl, then with a custom method, which trains on the
//! objective whose loss is larger.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{convert::Infallible, ops::ControlFlow};

use upright_core::{
    methods::Sequential,
    train::{Learner, Method, ObjectiveId, train},
};

/// A learner: a point in the plane. Objective i is half the squared distance to center i.
struct Point {
    at: [f64; 2],
    centres: [[f64; 2]; 2],
    gradient: [f64; 2],
}

impl Point {
    fn distance(&self, id: ObjectiveId) -> f64 {
        (0..2)
            .map(|axis| 0.5 * (self.at[axis] - self.centres[id.0][axis]).powi(2))
            .sum()
    }
}

impl Learner for Point {
    type Error = Infallible;

    fn objectives(&self) -> usize {
        self.centres.len()
    }

    fn loss(&mut self, id: ObjectiveId) -> Result<f64, Infallible> {
        Ok(self.distance(id))
    }

    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64, Infallible> {
        for axis in 0..2 {
            self.gradient[axis] += weight * (self.at[axis] - self.centres[id.0][axis]);
        }
        Ok(self.distance(id))
    }

    fn update(&mut self) -> Result<(), Infallible> {
        for axis in 0..2 {
            self.at[axis] -= 0.05 * self.gradient[axis];
        }
        self.gradient = [0.0; 2];
        Ok(())
    }
}

/// A method: probe both losses in every step and train on the larger.
struct Larger {
    seen: [f64; 2],
}

impl Method for Larger {
    fn probes(&self, _step: usize) -> Vec<ObjectiveId> {
        vec![ObjectiveId(0), ObjectiveId(1)]
    }

    fn observe(&mut self, id: ObjectiveId, loss: f64) {
        self.seen[id.0] = loss;
    }

    fn weights(&mut self, _step: usize) -> Vec<f64> {
        if self.seen[0] > self.seen[1] {
            vec![1.0, 0.0]
        } else {
            vec![0.0, 1.0]
        }
    }
}

/// Both losses after 400 steps.
fn losses_after(method: &mut dyn Method) -> [f64; 2] {
    let mut point = Point {
        at: [3.0, 3.0],
        centres: [[-1.0, 0.0], [1.0, 0.0]],
        gradient: [0.0; 2],
    };
    let Ok(()) = train(&mut point, method, 0..400, |_, _, _| {
        Ok(ControlFlow::Continue(()))
    });
    [0, 1].map(|id| point.distance(ObjectiveId(id)))
}

fn main() {
    let sequential = losses_after(&mut Sequential {
        objectives: 2,
        stages: vec![(0, 200), (1, 400)],
    });
    let larger = losses_after(&mut Larger { seen: [0.0; 2] });
    println!("sequential: {:.3} and {:.3}", sequential[0], sequential[1]);
    println!("larger:     {:.3} and {:.3}", larger[0], larger[1]);
    // The bowls are 2 apart: the best loss that both can have is 0.5 each.
    assert!(
        sequential[0] > 1.9 && sequential[1] < 0.01,
        "sequential ends in the last bowl"
    );
    assert!(
        larger.iter().all(|loss| (loss - 0.5).abs() < 0.1),
        "the custom method ends between them"
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_methods_end_where_they_should() {
        super::main();
    }
}

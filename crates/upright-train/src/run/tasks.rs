//! The objectives of a plan with their rows.

use upright_data::{Dataset, order::Order};
use upright_runs::plan::Plan;

use crate::{learner::Task, reference::Reference};

/// The order of an objective's training rows, at its start; a checkpoint may restore a later
/// position.
pub fn order(plan: &Plan, index: usize, rows: usize) -> Order {
    let objective = &plan.objectives[index];
    Order::new(plan.seed, &objective.name, rows, plan.batch(index))
}

/// The objectives with their data.
pub fn tasks<'r>(
    plan: &Plan,
    datasets: Vec<Dataset>,
    reference: Option<&'r Reference>,
) -> Vec<Task<'r>> {
    let task = |(index, data): (usize, Dataset)| {
        let objective = &plan.objectives[index];
        Task {
            name: objective.name.clone(),
            objective: plan.objective(index),
            held_out: data.eval(plan.eval_rows).into_iter().cloned().collect(),
            fit: data.fit(plan.eval_rows).into_iter().cloned().collect(),
            order: order(plan, index, data.train.len()),
            reference: reference.filter(|_| objective.loss.reference),
            train: data.train,
        }
    };
    datasets.into_iter().enumerate().map(task).collect()
}

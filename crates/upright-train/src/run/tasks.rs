//! The objectives of a plan with their rows.

use upright_data::{Dataset, order::Order};
use upright_runs::plan::Plan;

use crate::{
    learner::{Task, TaskRow},
    reference::Reference,
};

/// The order of an objective's training rows, at its start; a checkpoint may restore a later
/// position.
pub fn order(plan: &Plan, index: usize, rows: usize) -> Order {
    let objective = &plan.objectives[index];
    Order::new(plan.seed, &objective.name, rows, plan.batch(index))
}

/// The objectives with their data, and with the log-probabilities of the reference model if the loss needs them.
pub fn tasks(plan: &Plan, datasets: Vec<Dataset>, reference: Option<&Reference>) -> Vec<Task> {
    let mut tasks = Vec::with_capacity(datasets.len());
    for (index, data) in datasets.into_iter().enumerate() {
        let objective = &plan.objectives[index];
        let reference = reference.filter(|_| objective.loss.reference);
        let held_out = data.eval(plan.eval_rows).into_iter().cloned().collect();
        let fit = data.fit(plan.eval_rows).into_iter().cloned().collect();
        tasks.push(Task {
            name: objective.name.clone(),
            objective: plan.objective(index),
            order: order(plan, index, data.train.len()),
            held_out: TaskRow::list(held_out, reference),
            fit: TaskRow::list(fit, reference),
            train: TaskRow::list(data.train, reference),
        });
    }
    tasks
}

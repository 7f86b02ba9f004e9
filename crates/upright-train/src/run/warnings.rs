//! Warnings on the rows of a run, before anything is trained.

use upright_base::progress::Progress;
use upright_data::Dataset;
use upright_runs::plan::Plan;

/// Notes objectives whose rows are mostly truncated, objectives with few held-out rows, and objectives
/// with different templates.
pub(super) fn note(plan: &Plan, datasets: &[Dataset], observer: &mut dyn Progress) {
    for (objective, data) in plan.objectives.iter().zip(datasets) {
        let name = &objective.name;
        if let Some(note) = data.truncation_note() {
            observer.note(&format!("warning: {name}: {note}"));
        }
        if let Some(note) = data.held_out_note() {
            let eval = objective.setting("eval");
            let remedy = match objective.eval_data {
                None => format!("raise --held-out or set {eval}"),
                Some(_) => format!("use a larger file for {eval}"),
            };
            observer.note(&format!("warning: {name} has {note}; {remedy}"));
        }
    }
    if let Some(warning) = different_templates(plan, datasets) {
        observer.note(&warning);
    }
}

/// Whether any step may train on an objective.
fn is_trained(plan: &Plan, index: usize) -> bool {
    if plan.stages.is_empty() {
        plan.objectives[index].weight > 0.0
    } else {
        plan.stages.iter().any(|stage| stage.objective == index)
    }
}

/// A warning on the first two objectives with different templates, unless both templates are named.
fn different_templates(plan: &Plan, datasets: &[Dataset]) -> Option<String> {
    for (later, data) in datasets.iter().enumerate() {
        for (earlier, other) in datasets[..later].iter().enumerate() {
            if !is_trained(plan, earlier) || !is_trained(plan, later) {
                continue;
            }
            let (a, b) = (&plan.objectives[earlier], &plan.objectives[later]);
            let (name, other_name) = (data.template.name(), other.template.name());
            let unnamed = [b, a]
                .into_iter()
                .find(|objective| objective.template.is_none());
            let Some(unnamed) = unnamed.filter(|_| name != other_name) else {
                continue;
            };
            return Some(format!(
                "warning: {} uses {other_name} and {} uses {name}: the adapter learns two prompt formats; set {}",
                a.name,
                b.name,
                unnamed.setting("template")
            ));
        }
    }
    None
}

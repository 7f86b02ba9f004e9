//! Finds the training runs behind a sum of adapters among the runs of a report.

use super::run::Run;
use upright_core::optimizer::{Average, Iterate};
use upright_runs::plan_record::PlanRecord;

/// The runs that trained a run's adapter: the run itself or, for a sum, the runs whose adapters it
/// adds. `None` if the report does not have them, or if the run evaluates an existing adapter.
pub(crate) fn trainings<'r>(runs: &'r [Run], run: &'r Run) -> Option<Vec<&'r Run>> {
    if run.sum().is_some() {
        parts(runs, run)
    } else {
        (run.planned > 0).then(|| vec![run])
    }
}

/// For each objective with a weight, the run that trained it alone with the seed and settings of
/// the sum, as a study does. The folder of the sum does not record the length of these runs, so the
/// result is `None` if there are several lengths.
fn parts<'r>(runs: &'r [Run], sum: &Run) -> Option<Vec<&'r Run>> {
    let settings = settings(sum);
    let mut parts = Vec::new();
    for (index, objective) in sum.plan().objectives.iter().enumerate() {
        if objective.weight == 0.0 {
            continue;
        }
        let trains = |run: &&Run| {
            run.alone() == Some(index) && run.is_finished() && self::settings(run) == settings
        };
        let found: Vec<&Run> = runs.iter().filter(trains).collect();
        let first = *found.first()?;
        if found.iter().any(|run| run.planned != first.planned) {
            return None;
        }
        parts.push(first);
    }
    Some(parts)
}

/// The settings that a sum shares with its training runs: seed, model, rows, losses, adapter shape
/// and optimizer.
fn settings(run: &Run) -> PlanRecord {
    let mut written = PlanRecord {
        plan: run.plan().anywhere(),
        facts: run.written.facts.clone(),
    };
    written.plan.length = None;
    written.plan.init_adapter = None;
    // Neither changes what training costs.
    (written.plan.average, written.plan.export_iterate) = (Average::None, Iterate::Last);
    for objective in &mut written.plan.objectives {
        objective.weight = 0.0;
        (objective.optimum, objective.optimum_eval) = (None, None);
    }
    written.facts.init_adapter.clear();
    written.facts.base_lineage.clear();
    written
}

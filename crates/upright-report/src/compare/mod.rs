//! The second floor: runs become arms, and arms are compared. A report and its arms are plain data.
//! The other files are functions over them.

pub(crate) mod arm;
mod budget;
pub(crate) mod comparisons;
mod equal_tokens;
pub(crate) mod fronts;
mod gather;
pub(crate) mod grid;
pub(crate) mod ideal;
pub(crate) mod labels;
pub(crate) mod level;
pub(crate) mod matching;
pub(crate) mod paths;
mod report;
mod scored_models;
pub(crate) mod scores;
pub(crate) mod small;
pub(crate) mod verdict;

use std::path::PathBuf;

pub use arm::{Arm, Role};
pub use fronts::{Best, Front};
pub use ideal::{Comparable, Optimum, Source};
pub use level::Level;
pub use report::Report;
pub use scores::{ArmScore, ModelScore, ReferenceScore, Scores};
pub use small::Small;
pub use verdict::{Claim, NoError, Verdict};

use crate::read::{Damaged, Run, study};
use upright_base::Result;

/// Compares runs. Benchmarks and responses are read from `folders`, which the runs are in or below.
/// The claims stay empty, because the floor above words them.
///
/// # Errors
/// A file beside the runs is damaged.
pub(crate) fn compare(
    runs: Vec<Run>,
    damaged: Vec<Damaged>,
    folders: &[PathBuf],
) -> Result<Report> {
    let objectives = compared(&runs);
    let settings = Comparable::find(&runs, &objectives);
    let (arms, budgets) = Arm::gather(&runs, &objectives, &settings)?;
    let best = fronts::best(&arms, &settings);
    let mut report = Report {
        study: study::study(folders)?,
        fronts: fronts::fronts(&arms, &best, &objectives),
        levels: Vec::new(),
        claims: Vec::new(),
        benchmarks: Vec::new(),
        families: budgets.iter().map(|budget| budget.family).collect(),
        answers: Vec::new(),
        objectives,
        settings,
        terms: budgets.iter().map(|budget| budget.name.clone()).collect(),
        budgets: budgets.into_iter().map(|budget| budget.differs).collect(),
        arms,
        best,
        runs,
        damaged,
    };
    report.levels = equal_tokens::levels(&report);
    report.benchmarks = scored_models::scores(&report, folders)?;
    for folder in folders {
        for mut asked in study::answers(folder)? {
            asked
                .answers
                .iter_mut()
                .for_each(|answer| answer.run = report.who(folder, &answer.run));
            report.answers.push(asked);
        }
    }
    Ok(report)
}

/// The objectives that all runs share, in the order of the first run. A run with a single objective
/// may lack the others. If no objective is shared, all of them.
fn compared(runs: &[Run]) -> Vec<String> {
    let single = |run: &&Run| run.plan().objectives.len() == 1;
    let several: Vec<&Run> = runs.iter().filter(|run| !single(run)).collect();
    let asked: Vec<&Run> = if several.is_empty() {
        runs.iter().collect()
    } else {
        several
    };
    let mut all: Vec<String> = Vec::new();
    for objective in asked.iter().flat_map(|run| &run.plan().objectives) {
        if !all.contains(&objective.name) {
            all.push(objective.name.clone());
        }
    }
    let everywhere = |name: &&String| asked.iter().all(|run| run.objective(name).is_some());
    let shared: Vec<String> = all.iter().filter(everywhere).cloned().collect();
    if shared.is_empty() { all } else { shared }
}

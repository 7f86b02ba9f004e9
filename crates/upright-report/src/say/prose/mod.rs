//! The sentences of the page.

mod benchmarks;
mod caution;
mod ideal;
mod in_short;

use super::table::listed;
use crate::{
    compare::{Arm, Report, Source},
    read::run::{Run, file_names},
};
use upright_base::counted;
use upright_core::metrics::spread::CLEAR;
use upright_runs::plan::{ReferencePlan, ReferenceRows};

pub(crate) use benchmarks::benchmarks;
pub(crate) use caution::caution;
use ideal::ideal;
pub(crate) use ideal::{GIVEN, rests_on_given};
pub(crate) use in_short::in_short;

/// Title of the page.
pub(crate) fn title(report: &Report) -> String {
    if let Some(title) = &report.study.title {
        return title.clone();
    }
    let mut models: Vec<&str> = report
        .settings
        .iter()
        .map(|setting| &setting.model[..])
        .collect();
    models.dedup();
    let on = if models.len() == 1 {
        format!(" on \u{201c}{}\u{201d}", models[0])
    } else {
        String::new()
    };
    // Averaged adapters are of the same runs.
    let mut methods = report.arms.iter().filter(|arm| !arm.is_averaged());
    match (methods.next(), methods.next()) {
        (Some(arm), None) if report.runs.len() == 1 => format!("One run{on}: {}", arm.label),
        (Some(arm), None) => format!("{} runs{on}: {}", report.runs.len(), arm.label),
        _ => format!(
            "Comparison of {} runs in {} arms{on}",
            report.runs.len(),
            report.arms.len()
        ),
    }
}

/// The first items, and how many there are in all if these are not all: `a, b and 9 more runs`.
pub(crate) fn some(items: &[String], many: &str) -> String {
    const SHOWN: usize = 12;
    let mut shown: Vec<String> = items.iter().take(SHOWN).cloned().collect();
    if items.len() > SHOWN + 1 {
        shown.push(format!("{} more {many}", items.len() - SHOWN));
    } else {
        shown = items.to_vec();
    }
    listed(&shown)
}

/// Describes the value that all runs share, or the number of different values.
fn common<T: PartialEq>(
    values: Vec<T>,
    said: impl Fn(&T) -> String,
    otherwise: impl Fn(usize) -> String,
) -> String {
    let mut distinct: Vec<T> = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    if let [one] = &distinct[..] {
        said(one)
    } else {
        otherwise(distinct.len())
    }
}

/// Model, data, steps, seeds, reference, machine.
pub(crate) fn what_was_run(report: &Report) -> Vec<String> {
    let runs = &report.runs;
    let mut seeds: Vec<u64> = runs.iter().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    let planned = |run: &Run| run.planned;
    let (few, many) = (
        runs.iter().map(planned).min().unwrap_or(0),
        runs.iter().map(planned).max().unwrap_or(0),
    );
    let steps = if few == many {
        counted(few, "step")
    } else {
        format!("{few} to {many} steps")
    };
    let model = common(runs.iter().map(Run::model).collect(), Clone::clone, |n| {
        format!("{n} models")
    });
    let model = if model.ends_with("models") {
        model
    } else {
        format!("\u{201c}{model}\u{201d}")
    };
    let tier = common(
        runs.iter()
            .map(|run| run.written.facts.arithmetic.clone())
            .collect(),
        |tier| format!("the instruction tier {tier}"),
        |n| format!("{n} instruction tiers"),
    );
    let first = format!(
        "{} of the model {model} in {}, {steps} each, with seed{} {}, on {tier}. {}{}",
        counted(runs.len(), "run"),
        counted(report.arms.len(), "arm"),
        if seeds.len() == 1 { "" } else { "s" },
        if seeds.len() > 8 {
            format!("{} different ones", seeds.len())
        } else {
            listed(&seeds)
        },
        if report.arms.len() > 1 {
            "Runs that differ only in their seed form one arm."
        } else {
            ""
        },
        if report.arms.iter().any(Arm::is_averaged) {
            " The last iterates and the averaged adapters of the same runs are two arms."
        } else {
            ""
        }
    );
    let objectives: Vec<String> = report
        .objectives
        .iter()
        .filter_map(|name| objective(report, name))
        .collect();
    let reference = common(
        runs.iter()
            .filter(|run| run.plan().needs_reference())
            .map(reference)
            .collect(),
        |reference| format!("The reference policy is {reference}."),
        |n| {
            if n == 0 {
                String::new()
            } else {
                format!("The runs use {n} different reference policies.")
            }
        },
    );
    vec![
        first.trim().to_owned(),
        format!("{} {reference}", objectives.join(" "))
            .trim()
            .to_owned(),
    ]
}

/// One objective with its loss and its rows. Runs may differ in each; their numbers are then ranges.
fn objective(report: &Report, name: &str) -> Option<String> {
    let mut losses: Vec<String> = Vec::new();
    let mut files: Vec<String> = Vec::new();
    let (mut training, mut held_out, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    let mut pairs = false;
    for run in &report.runs {
        let Some(id) = run.objective(name) else {
            continue;
        };
        let (plan, data) = (&run.plan().objectives[id], &run.written.facts.data[id]);
        let loss = (plan.loss.phrase)(&plan.settings);
        if !losses.contains(&loss) {
            losses.push(loss);
        }
        for file in file_names(plan) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        training.push(data.train_rows);
        held_out.push(data.eval_rows);
        batches.push(run.plan().batch(id));
        pairs = plan.is_preference();
    }
    if losses.is_empty() {
        return None;
    }
    let files = if files.len() > MANY_FILES {
        format!("{} files", files.len())
    } else {
        listed(&files)
    };
    Some(format!(
        "The objective {name} is {} on {files}: {} training {}, {} held out, {} per step.",
        losses.join(" or "),
        range(&training),
        if pairs { "pairs" } else { "rows" },
        range(&held_out),
        range(&batches)
    ))
}

/// Number of files that are named one by one.
const MANY_FILES: usize = 4;

/// `8`, or `8 to 24` if the numbers differ.
fn range(numbers: &[usize]) -> String {
    let few = numbers.iter().min().copied().unwrap_or(0);
    let many = numbers.iter().max().copied().unwrap_or(0);
    if few == many {
        few.to_string()
    } else {
        format!("{few} to {many}")
    }
}

fn reference(run: &Run) -> String {
    match &run.plan().reference {
        ReferencePlan::Base => "the base model itself".into(),
        ReferencePlan::Folder(_) => format!("the base model with the adapter {}", run.reference()),
        ReferencePlan::Train { on, epochs, .. } => format!(
            "the base model after {epochs} {} on {}",
            if *epochs == 1.0 { "epoch" } else { "epochs" },
            match on {
                ReferenceRows::Chosen => "the chosen responses",
                ReferenceRows::Sft => "the instruction rows",
            }
        ),
    }
}

/// The paragraph above the claims.
pub(crate) fn how_claims_are_decided(report: &Report) -> String {
    let mut text = format!(
        "One rule decides every claim from the numbers on this page. A difference is clear if it \
         exceeds {CLEAR} standard errors; otherwise the claim is too close to call. Arms that \
         share at least two seeds are compared seed by seed; for other arms the errors are \
         combined. A claim about several pairs of arms holds if every pair clearly agrees with it, \
         and does not hold if one pair clearly contradicts it. A cost is a ratio to Sequential \
         with its own error. Delta has an error if at least two seeds were run at every weight. \
         The ideal point is treated as exact."
    );
    if report
        .arms
        .iter()
        .any(|arm| !arm.unfinished && !arm.ended_early.is_empty())
    {
        text += " Some runs stopped early, at the goal in their plan: target losses on training \
                 rows. Their final losses are compared with those of runs that took all their \
                 steps. With all steps they might have come nearer and would have cost more. The \
                 numbers say which runs stopped, and when.";
    }
    if !report.benchmarks.is_empty() {
        text += " On a benchmark, an arm with one seed has the error over the questions.";
    }
    if report.claims.iter().any(|claim| !claim.mark().is_empty()) {
        text += " An arm with one run has no error. Such a verdict compares the means alone and \
                 says so; another seed may change it.";
    }
    text
}

/// Warnings that a reader needs before comparing arms.
pub(crate) fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    if report.settings.len() > 1 {
        warnings.push(format!(
            "These runs measure their losses in {} different settings (base model, reference, \
             loss, data or maximum length). Losses cannot be compared between settings, so gaps, \
             costs and claims are computed within each setting. The section Settings lists the runs \
             of each.",
            report.settings.len()
        ));
    }
    if (0..report.settings.len()).any(|setting| report.terms_in(setting).len() > 1) {
        let terms: Vec<String> = report
            .terms
            .iter()
            .map(|terms| format!("\u{201c}{terms}\u{201d}"))
            .collect();
        let terms = if report.has_numbered_budgets() {
            format!(
                "The arms have {} different training budgets, which the section Settings lists",
                terms.len()
            )
        } else {
            format!(
                "The arms have different training budgets: {}",
                listed(&terms)
            )
        };
        let tokens = if report.levels.is_empty() {
            ""
        } else {
            ALSO_AT_EQUAL_TOKENS
        };
        warnings.push(format!(
            "{terms}. Only arms with the same training budget \
             (steps, batch size, adapter shape and optimizer) are compared in claims, in costs and \
             by distance.{tokens} Tables and figures show all arms."
        ));
    }
    let differing = report
        .settings
        .iter()
        .flat_map(|setting| setting.ideal.iter().flatten().flatten());
    if differing
        .into_iter()
        .any(|optimum| optimum.source == Source::Differing)
    {
        warnings.push(
            "The runs were given different optima for the same objective; this page uses the smallest."
                .into(),
        );
    }
    let repeated = report
        .arms
        .iter()
        .flat_map(|arm| arm.repeated.iter().map(move |index| (arm, index)));
    let repeated: Vec<String> = repeated
        .map(|(arm, index)| {
            let (run, first) = (
                &report.runs[*index],
                arm.runs.iter().map(|i| &report.runs[*i]),
            );
            let first = first
                .into_iter()
                .find(|first| first.seed == run.seed)
                .map_or("", |first| &first.place);
            format!("{} (repeats {first}, seed {})", run.place, run.seed)
        })
        .collect();
    // An averaged arm has the same runs.
    let mut seen = Vec::new();
    for words in repeated {
        if !seen.contains(&words) {
            seen.push(words);
        }
    }
    if !seen.is_empty() {
        warnings.push(format!(
            "Duplicate runs, with the plan and seed of another run, are excluded from all means: {}.",
            listed(&seen)
        ));
    }
    let left_out = left_out(report);
    if !left_out.is_empty() {
        let (plural, their) = if left_out.len() == 1 {
            ("", "its")
        } else {
            ("s", "their")
        };
        let names = listed(&left_out);
        warnings.push(format!(
            "Not every run has the objective{plural} {names}, so {their} losses and gaps are left out."
        ));
    }
    if !report.damaged.is_empty() {
        let places: Vec<String> = report
            .damaged
            .iter()
            .map(|damaged| damaged.place.clone())
            .collect();
        warnings.push(format!(
            "Damaged runs, which are left out: {}. The errors are listed below, under Runs.",
            listed(&places)
        ));
    }
    warnings
}

/// Follows a sentence that only arms with the same training budget are compared.
pub(crate) const ALSO_AT_EQUAL_TOKENS: &str =
    " Claims on the distance are tested at equal tokens too, between arms of any number of steps.";

fn left_out(report: &Report) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for objective in report.runs.iter().flat_map(|run| &run.plan().objectives) {
        if !report.objectives.contains(&objective.name) && !names.contains(&objective.name) {
            names.push(objective.name.clone());
        }
    }
    names
}

/// The paragraphs above the table of results.
pub(crate) fn results(report: &Report) -> Vec<String> {
    let mut said = vec![if report.has_ideal() {
        "Smaller is better in every column; the smallest distance is highlighted. An arm is on the \
         front if no other arm in this table is at least as good in every loss and better in one."
            .to_owned()
    } else {
        "Smaller is better in every column. An arm is on the front if no other arm in this table \
         is at least as good in every loss and better in one."
            .to_owned()
    }];
    said.push(ideal(report));
    said
}

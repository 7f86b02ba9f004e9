//! What the page says about small samples.

use crate::{
    compare::{Arm, Report, small},
    read::Run,
    say::table::listed,
};
use upright_base::counted;

/// Says how small the samples behind the comparison are; empty if they are large enough or if there
/// is nothing to compare.
pub(crate) fn caution(report: &Report) -> String {
    let arms: Vec<&Arm> = report
        .arms
        .iter()
        .filter(|arm| report.contends(arm) && !arm.unfinished)
        .collect();
    if arms.len() < 2 {
        return String::new();
    }
    let mut words = few_rows(report, &arms);
    let all = arms.len();
    let rows = arms
        .iter()
        .filter(|arm| arm.small.held_out.is_some())
        .count();
    let seeds = arms.iter().filter(|arm| arm.small.seeds.is_some()).count();
    let epochs = arms.iter().filter(|arm| arm.small.epochs.is_some()).count();
    match seeds {
        0 => {}
        count if count == all => words.push("no arm has three seeds".to_owned()),
        count => words.push(format!("{count} of {all} arms have fewer than three seeds")),
    }
    match epochs {
        0 => {}
        count if count == all => {
            words.push("no arm trained for a whole epoch".to_owned());
        }
        count => words.push(format!(
            "{count} of {all} arms trained for less than one epoch"
        )),
    }
    if words.is_empty() {
        return String::new();
    }
    format!(
        "Treat {}these results as anecdotes: {}.",
        if [rows, seeds, epochs].contains(&all) {
            ""
        } else {
            "some of "
        },
        listed(&words)
    )
}

/// The held-out rows that the losses of arms rest on, where they are few: one phrase per count, with
/// the settings concerned.
fn few_rows(report: &Report, arms: &[&Arm]) -> Vec<String> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for setting in 0..report.settings.len() {
        let own = arms.iter().filter(|arm| arm.setting == setting);
        let runs: Vec<&Run> = own
            .flat_map(|arm| &arm.runs)
            .map(|i| &report.runs[*i])
            .collect();
        let mut rows = Vec::new();
        for name in &report.objectives {
            let counts = runs.iter().filter_map(|run| small::held_out(run, name));
            let Some((count, pairs)) = counts.min() else {
                continue;
            };
            if count < small::ROWS {
                let count = if pairs {
                    counted(count, "pair")
                } else {
                    counted(count, "row")
                };
                rows.push(format!("{count} of {name}"));
            }
        }
        if rows.is_empty() {
            continue;
        }
        let (what, place) = (listed(&rows), report.setting_name(setting));
        match found.iter_mut().find(|(other, _)| *other == what) {
            Some((_, places)) => places.push(place),
            None => found.push((what, vec![place])),
        }
    }
    let mut words = Vec::new();
    for (rows, places) in found {
        words.push(if report.settings.len() > 1 {
            format!("the held-out losses of {} rest on {rows}", listed(&places))
        } else {
            format!("the held-out losses rest on {rows}")
        });
    }
    words
}

//! What the page says about benchmarks.

use std::collections::HashSet;

use crate::{
    compare::{
        Arm, Report, Scores,
        comparisons::{level_places, places},
        grid::Grid,
        labels,
    },
    say::table::listed,
};
use upright_base::counted;
use upright_core::metrics::{Call, spread::CLEAR};

/// The paragraphs above the table of benchmarks.
pub(crate) fn benchmarks(report: &Report) -> Vec<String> {
    let mut said = vec![how_to_read(report)];
    said.push(splits(report));
    for scores in &report.benchmarks {
        said.push(about(scores));
    }
    said.retain(|text| !text.is_empty());
    said
}

/// What a cell holds, and what is highlighted.
fn how_to_read(report: &Report) -> String {
    let mut seeds = false;
    let mut questions = false;
    for of in report.benchmarks.iter().flat_map(|of| &of.arms) {
        seeds |= of.score.seeds > 1;
        questions |= of.score.error_over() == "questions";
    }
    let references = report.benchmarks.iter().any(|of| !of.references.is_empty());
    let mut text = match (seeds, questions || references) {
        (true, true) => {
            "A score is the mean over the seeds of an arm, with the standard error over \
                         seeds. The error of a single model is over the questions."
                .to_owned()
        }
        (true, false) => "A score is the mean over the seeds of an arm, with the standard error \
                          over seeds."
            .to_owned(),
        (false, true) => "Every score is of a single model, with the standard error over the \
                          questions."
            .to_owned(),
        (false, false) => "Every score is of a single model, without a known error.".to_owned(),
    };
    if seeds {
        text += " An error over seeds holds for these questions alone.";
    }
    let lower: Vec<String> = report
        .benchmarks
        .iter()
        .filter(|of| !of.higher_is_better)
        .map(|of| of.title.clone())
        .collect();
    if lower.is_empty() {
        text += " Higher is better.";
    } else if lower.len() == report.benchmarks.len() {
        text += " Lower is better.";
    } else {
        text += &format!(" Higher is better, except for {}.", listed(&lower));
    }
    text + &format!(
        " A highlighted score is clearly the best of its column: by more than {CLEAR} standard \
         errors of every difference. Only arms with the same setting and training budget \
         compete."
    )
}

/// The steps of Sequential in each column, if its splits differ between columns.
fn splits(report: &Report) -> String {
    let grid = Grid::of(report);
    let mut words = Vec::new();
    let mut all: Vec<String> = Vec::new();
    for (number, column) in grid.columns.iter().enumerate() {
        if column.weights.is_none() {
            continue;
        }
        let mut own: Vec<String> = Vec::new();
        for row in 0..grid.rows.len() {
            let Some(index) = grid.arm(row, number) else {
                continue;
            };
            let arm = &report.arms[index];
            if arm.is_sequential() {
                let steps = steps(report, arm);
                if !own.contains(&steps) {
                    own.push(steps);
                }
            }
        }
        if own.is_empty() {
            continue;
        }
        words.push(format!("{} is {}", column.name, own.join(" or ")));
        for steps in own {
            if !all.contains(&steps) {
                all.push(steps);
            }
        }
    }
    if all.len() < 2 {
        return String::new();
    }
    format!(
        "Sequential is in the column of the weights that it is compared with. Its steps: {}.",
        words.join("; ")
    )
}

/// The steps of a sequential arm by objective: `sft 6, dpo 2`.
fn steps(report: &Report, arm: &Arm) -> String {
    let run = &report.runs[arm.runs[0]];
    let mut words = Vec::new();
    for name in &report.objectives {
        words.push(format!("{name} {}", labels::steps_of(run, name)));
    }
    words.join(", ")
}

/// What a benchmark measures, and what of it is missing.
fn about(scores: &Scores) -> String {
    let mut words = Vec::new();
    if !scores.about.is_empty() {
        words.push(format!("{}: {}", scores.title, scores.about));
    }
    let models = scores.arms.iter().map(|of| &of.score);
    let references = scores.references.iter().map(|of| &of.score);
    let mut missing = 0;
    for score in models.chain(references) {
        missing += score.missing;
    }
    if missing > 0 {
        words.push(format!(
            "{}: {} missing. The table of all numbers has bounds.",
            scores.title,
            if missing == 1 {
                "1 verdict is".to_owned()
            } else {
                format!("{missing} verdicts are")
            }
        ));
    }
    if scores.left_out > 0 {
        words.push(format!(
            "{}: {} of runs outside this report {} not shown.",
            scores.title,
            counted(scores.left_out, "score"),
            if scores.left_out == 1 { "is" } else { "are" }
        ));
    }
    words.join(" ")
}

/// How the joint methods compare with Sequential on each benchmark.
pub(super) fn in_short(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    for scores in &report.benchmarks {
        said.extend(against_sequential(report, scores));
    }
    said
}

/// The comparisons of a method with Sequential: whether it is better, and whether it is worse.
struct Standing {
    method: String,
    better: Vec<Call>,
    worse: Vec<Call>,
}

impl Standing {
    fn words(&self) -> &'static str {
        let all = |calls: &[Call]| calls.iter().all(|call| *call == Call::Yes);
        let any = |calls: &[Call]| calls.contains(&Call::Yes);
        if all(&self.better) {
            BETTER
        } else if all(&self.worse) {
            WORSE
        } else {
            match (any(&self.better), any(&self.worse)) {
                (true, true) => "better in some comparisons and worse in others",
                (true, false) => "better in some comparisons only",
                (false, true) => "worse in some comparisons only",
                (false, false) => CLOSE,
            }
        }
    }
}

const BETTER: &str = "clearly better";
const WORSE: &str = "clearly worse";
const CLOSE: &str = "too close to call";

/// Sorts the joint methods by how they compare with Sequential; none if no comparison was scored.
fn against_sequential(report: &Report, scores: &Scores) -> Option<String> {
    let mut standings: Vec<Standing> = Vec::new();
    let mut is_bare = false;
    let mut fewest = usize::MAX;
    // Mix of another length is compared at equal tokens. Other pairs are compared once.
    let mut compared = HashSet::new();
    let mut all = places(report);
    all.extend(level_places(report));
    for place in &all {
        let joint = place.mixes.iter().chain(&place.alternating);
        let joint = joint.chain(place.beside.iter().filter(|arm| arm.is_joint()));
        for arm in joint {
            let Some(own) = report.index(arm) else {
                continue;
            };
            for rival in &place.sequential {
                let pair = report
                    .index(rival)
                    .and_then(|rival| Some((scores.shortfall(own, rival)?, rival)));
                let Some((shortfall, rival)) = pair else {
                    continue;
                };
                if !compared.insert((own, rival)) {
                    continue;
                }
                is_bare |= shortfall.error.is_none();
                for index in [own, rival] {
                    fewest = fewest.min(scores.arm(index)?.seeds);
                }
                let method = report.method_name(&arm.front_name, arm.comparison());
                let known = standings.iter().position(|other| other.method == method);
                let position = known.unwrap_or_else(|| {
                    standings.push(Standing {
                        method,
                        better: Vec::new(),
                        worse: Vec::new(),
                    });
                    standings.len() - 1
                });
                let standing = &mut standings[position];
                standing.better.push(shortfall.is_below(0.0));
                standing.worse.push(shortfall.times(-1.0).is_below(0.0));
            }
        }
    }
    if standings.is_empty() {
        return None;
    }
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for standing in &standings {
        let name = format!("\u{201c}{}\u{201d}", standing.method);
        let words = standing.words();
        match groups.iter_mut().find(|(other, _)| *other == words) {
            Some((_, names)) => names.push(name),
            None => groups.push((words, vec![name])),
        }
    }
    let mut text = if let [(CLOSE, _)] = &groups[..] {
        format!(
            "On {}, no method can be told apart from Sequential: all differences are too close to \
             call.",
            scores.title
        )
    } else {
        let mut parts = Vec::new();
        for (words, names) in &groups {
            let verb = if names.len() == 1 { "is" } else { "are" };
            parts.push(format!("{} {verb} {words}", listed(names)));
        }
        format!(
            "On {}, compared with Sequential: {}.",
            scores.title,
            parts.join("; ")
        )
    };
    if is_bare {
        text += " Some scores have no known error, so their means alone decide.";
    } else if fewest == 1 {
        text += " Arms with one seed are judged by the errors over questions.";
    }
    Some(text)
}

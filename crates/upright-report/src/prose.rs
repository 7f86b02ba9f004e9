//! The sentences of the page.

use super::{
    Arm, Report, Role, Run, Source, claims, matching::time, small, table::listed, tables::SET_NAMES,
};
use upright_base::counted;
use upright_core::{
    metrics::{Call, spread::CLEAR},
    objectives::LossKind,
};
use upright_runs::plan::{ObjectivePlan, ReferencePlan, ReferenceRows};

/// Title of the page.
pub(super) fn title(report: &Report) -> String {
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
    match &report.arms[..] {
        [arm] if report.runs.len() == 1 => format!("One run{on}: {}", arm.label),
        [arm] => format!("{} runs{on}: {}", report.runs.len(), arm.label),
        arms => format!(
            "Comparison of {} runs in {} arms{on}",
            report.runs.len(),
            arms.len()
        ),
    }
}

/// The first items, and how many there are in all if these are not all: `a, b and 9 more runs`.
pub(super) fn some(items: &[String], many: &str) -> String {
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
pub(super) fn what_was_run(report: &Report) -> Vec<String> {
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
        "{} of the model {model} in {}, {steps} each, with seed{} {}, on {tier}. {}",
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
        let loss = loss_words(plan);
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
        batches.push(plan.batch);
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

/// The names of an objective's files, without their folders.
pub(super) fn file_names(plan: &ObjectivePlan) -> Vec<String> {
    let file = |file: &upright_data::DataFile| {
        let name = file.name();
        std::path::Path::new(&name)
            .file_name()
            .map_or_else(|| name.clone(), |name| name.display().to_string())
    };
    plan.data.iter().map(file).collect()
}

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

fn loss_words(plan: &ObjectivePlan) -> String {
    match plan.loss {
        LossKind::Sft => "the negative log-likelihood of responses (SFT)".into(),
        LossKind::Dpo => format!("direct preference optimization (DPO, beta {})", plan.beta),
        other => format!("the {} loss", other.name()),
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

/// Summarizes the page: the nearest arm, its cost, and how many claims hold.
pub(super) fn in_short(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    let time = time(&report.arms).name;
    for (setting, terms) in report.comparisons() {
        let here = report.comparison_name((setting, terms));
        let here = if here.is_empty() {
            here
        } else {
            format!(" ({here})")
        };
        let set = if report.settings[setting].ideal_point(0).is_some() {
            0
        } else {
            1
        };
        let contends = |arm: &&Arm| {
            let asked = arm.setting == setting && (arm.terms.is_none() || arm.terms == terms);
            asked && !arm.unfinished && !matches!(arm.role, Role::Alone(_))
        };
        let far = |arm: &Arm| Some(arm.ideal_distance[set]?.mean);
        let mut all: Vec<(&Arm, f64)> = report
            .arms
            .iter()
            .filter(contends)
            .filter_map(|arm| Some((arm, far(arm)?)))
            .collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        let [(best, distance), .., (worst, most)] = &all[..] else {
            continue;
        };
        let price = |arm: &Arm| match arm.cost_increase.map(|increase| increase.mean.round()) {
            Some(more) if more >= 1.0 => format!(", in {more:.0}% more {time} than Sequential"),
            Some(less) if less <= -1.0 => {
                format!(", in {:.0}% fewer {time} than Sequential", -less)
            }
            Some(_) => format!(", in as many {time} as Sequential"),
            None if arm.role == Role::Sum && arm.seconds.is_none() => {
                ", at an unknown cost".to_owned()
            }
            None => String::new(),
        };
        let mut text = format!(
            "On {}{here}, \u{201c}{}\u{201d} ends nearest to the ideal point (distance \
             {distance:.3}{}); \u{201c}{}\u{201d} ends farthest from it ({most:.3}).",
            SET_NAMES[set],
            best.label,
            price(best),
            worst.label
        );
        let near = |arm: &Arm| arm.sample(claims::distance(set));
        let too_close = |arm: &Arm| {
            let difference = near(best)
                .zip(near(arm))
                .map(|(best, other)| best.less(&other));
            difference.is_some_and(|difference| difference.is_below(0.0) == Call::TooCloseToCall)
        };
        let tied: Vec<String> = all[1..]
            .iter()
            .filter(|(arm, _)| too_close(arm))
            .map(|(arm, far)| format!("\u{201c}{}\u{201d} ({far:.3})", arm.label))
            .collect();
        if !tied.is_empty() {
            text += &format!(" Too close to it to call: {}.", listed(&tied));
        }
        // Arms that cost about as much as Sequential.
        let cheap = |arm: &Arm| {
            arm.cost_increase
                .is_some_and(|more| more.is_below(CHEAP) == Call::Yes)
                || arm.is_sequential()
        };
        if let Some((arm, far)) = all
            .iter()
            .find(|(arm, _)| cheap(arm))
            .filter(|(arm, _)| arm.label != best.label)
        {
            text += &format!(
                " Among arms that cost about as much as Sequential, the nearest is \
                 \u{201c}{}\u{201d} ({far:.3}{}).",
                arm.label,
                price(arm)
            );
        }
        said.push(text);
    }
    if !report.claims.is_empty() {
        let all = report.claims.len();
        let count = |call: Option<Call>| {
            report
                .claims
                .iter()
                .filter(|claim| claim.call() == call)
                .count()
        };
        let (holding, failing) = (count(Some(Call::Yes)), count(Some(Call::No)));
        let (close, part) = (count(Some(Call::TooCloseToCall)), count(None));
        let mut counts = vec![format!(
            "{holding} {}",
            if holding == 1 { "holds" } else { "hold" }
        )];
        if part > 0 {
            counts.push(format!("{part} in part"));
        }
        if close > 0 {
            counts.push(format!(
                "{close} {} too close to call",
                if close == 1 { "is" } else { "are" }
            ));
        }
        counts.push(format!(
            "{failing} {}",
            if failing == 1 { "does not" } else { "do not" }
        ));
        let bare = match report
            .claims
            .iter()
            .filter(|claim| !claim.mark().is_empty())
            .count()
        {
            0 => String::new(),
            some if some == all => {
                " None of them has a known error, so other seeds may change the verdicts."
                    .to_owned()
            }
            some => {
                format!(
                    " No error is known for {some} of them, so other seeds may change these verdicts."
                )
            }
        };
        said.push(format!(
            "These runs can test {} of the paper: {}.{bare}",
            counted(all, "claim"),
            counts.join(", ")
        ));
    }
    let given = rests_on_given(report);
    if !said.is_empty() && !given.is_empty() {
        said.push(given);
    }
    let caution = caution(report);
    if !caution.is_empty() {
        said.push(caution);
    }
    said
}

/// The paragraph above the claims.
pub(super) fn how_claims_are_decided(report: &Report) -> String {
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
    if report.claims.iter().any(|claim| !claim.mark().is_empty()) {
        text += " An arm with one run has no error. Such a verdict compares the means alone and \
                 says so; another seed may change it.";
    }
    text
}

/// The time increase over Sequential, in percent, that still counts as about the same.
const CHEAP: f64 = 100.0 * (claims::ABOUT_THE_SAME - 1.0);

/// Warnings that a reader needs before comparing arms.
pub(super) fn warnings(report: &Report) -> Vec<String> {
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
        warnings.push(format!(
            "{terms}. Only arms with the same training budget \
             (steps, batch size, adapter shape and optimizer) are compared in claims, in costs and \
             by distance. Tables and figures show all arms."
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
    if !repeated.is_empty() {
        warnings.push(format!(
            "Duplicate runs, with the plan and seed of another run, are excluded from all means: {}.",
            listed(&repeated)
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
pub(super) fn results(report: &Report) -> Vec<String> {
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

/// The ideal point and its source, or how to get one.
fn ideal(report: &Report) -> String {
    let mut parts = Vec::new();
    // Objectives without an optimum and the rows they lack it on, with the settings concerned.
    let mut lacking: Vec<(String, Vec<String>)> = Vec::new();
    for (index, setting) in report.settings.iter().enumerate() {
        let mut missing: [Vec<String>; 2] = Default::default();
        for set in 0..2 {
            for (k, name) in report.objectives.iter().enumerate() {
                let measured = report
                    .arms
                    .iter()
                    .any(|arm| arm.setting == index && arm.ends[set][k].is_some());
                if setting.ideal[set][k].is_none() && measured {
                    missing[set].push(name.clone());
                }
            }
            let Some(point) = setting.ideal_point(set) else {
                continue;
            };
            let values: Vec<String> = point
                .iter()
                .zip(&report.objectives)
                .map(|(x, name)| format!("{name} {x:.3}"))
                .collect();
            let place = match report.settings.len() {
                1 => SET_NAMES[set].to_owned(),
                _ => format!("{}, {}", SET_NAMES[set], report.setting_name(index)),
            };
            parts.push((
                format!("{} on {place}", listed(&values)),
                sources(setting, set),
            ));
        }
        let [held_out, training] = &missing;
        let words = if held_out == training {
            vec![(held_out, format!("{} and {}", SET_NAMES[0], SET_NAMES[1]))]
        } else {
            vec![
                (held_out, SET_NAMES[0].to_owned()),
                (training, SET_NAMES[1].to_owned()),
            ]
        };
        for (names, rows) in words.into_iter().filter(|(names, _)| !names.is_empty()) {
            let what = format!("{} on {rows}", listed(names));
            let place = report.setting_name(index);
            match lacking.iter_mut().find(|(other, _)| *other == what) {
                Some((_, places)) => places.push(place),
                None => lacking.push((what, vec![place])),
            }
        }
    }
    let mut text = String::new();
    if !parts.is_empty() {
        let points: Vec<&str> = parts.iter().map(|(point, _)| &point[..]).collect();
        let mut from: Vec<&str> = parts.iter().map(|(_, from)| *from).collect();
        from.dedup();
        text = format!(
            "The ideal point is {}. It comes from {}.",
            points.join("; "),
            from.join("; ")
        );
    }
    let given = rests_on_given(report);
    if !given.is_empty() {
        text += &format!(" {given}");
    }
    if !lacking.is_empty() {
        let several = report.settings.len() > 1;
        let words: Vec<String> = lacking
            .iter()
            .map(|(what, places)| match several {
                true => format!("{what} ({})", listed(places)),
                false => what.clone(),
            })
            .collect();
        text += &format!(
            " No optimum is known for {}, so gaps and distances that need it are left out. To get \
             them, train that objective alone for as many steps (lambda 0 is SFT alone, lambda 1 \
             DPO alone) and add that run to the report, or set --optimum (training rows) and \
             --optimum-eval (held-out rows).",
            words.join("; ")
        );
    }
    text.trim().to_owned()
}

/// Says which optima were given and not reached by training in this report; empty if there are none.
pub(super) fn rests_on_given(report: &Report) -> String {
    let mut given: Vec<(String, Vec<String>)> = Vec::new();
    for (index, setting) in report.settings.iter().enumerate() {
        let names = setting.untrained(&report.objectives);
        if names.is_empty() {
            continue;
        }
        let what = listed(&names);
        let place = report.setting_name(index);
        match given.iter_mut().find(|(other, _)| *other == what) {
            Some((_, places)) => places.push(place),
            None => given.push((what, vec![place])),
        }
    }
    let several = report.settings.len() > 1;
    let words: Vec<String> = given
        .iter()
        .map(|(what, places)| match several {
            true => format!("{what} ({})", listed(places)),
            false => what.clone(),
        })
        .collect();
    if words.is_empty() {
        return String::new();
    }
    format!(
        "The optimum of {} is {GIVEN}: no run in this report reached it by training that objective \
         alone. Gaps and distances are as good as that guess.",
        words.join("; ")
    )
}

/// Marks an optimum that a user gave and that no run in the report reached.
pub(super) const GIVEN: &str = "given, not trained";

/// Says how small the samples behind the comparison are; empty if they are large enough or if there
/// is nothing to compare.
pub(super) fn caution(report: &Report) -> String {
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

fn sources(setting: &super::Comparable, set: usize) -> &'static str {
    let all = |source: Source| {
        setting.ideal[set]
            .iter()
            .flatten()
            .all(|optimum| optimum.source == source)
    };
    if all(Source::Given) {
        "the optima given to the runs"
    } else if all(Source::Alone) {
        "the lowest loss in any evaluation while each objective was trained alone"
    } else {
        "the optima given to the runs, else from the lowest loss while the objective was trained alone"
    }
}

//! The summary at the top of the page.

use super::{benchmarks, caution, rests_on_given};
use crate::{
    compare::{
        Arm, Report, Role,
        arm::{self, Comparison},
        level::{AT_EQUAL_STEPS, AT_EQUAL_TOKENS, Level, differ_in_tokens, in_words},
        matching::time,
    },
    say::{SET_NAMES, claims, table::listed},
};
use upright_base::counted;
use upright_core::metrics::Call;
use upright_runs::records::EvalSet;

/// Summarizes the page: the nearest arm, its cost, and how many claims hold.
pub(crate) fn in_short(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    for comparison in report.comparisons() {
        let mut levels: Vec<&Level> = report.levels.iter().collect();
        levels.retain(|level| level.comparison() == comparison);
        let equal = if levels.is_empty() {
            ""
        } else {
            AT_EQUAL_STEPS
        };
        let here = report.comparison_name(comparison);
        let arms = at_equal_steps(report, comparison);
        if !is_covered(report, comparison) {
            said.extend(nearest(report, comparison, &arms, &here, equal));
        }
        let Some(first) = levels.first() else {
            continue;
        };
        let here = report.level_name(first);
        let arms = at_equal_tokens(report, &levels);
        let equal = format!("{AT_EQUAL_TOKENS} (about {})", in_words(first.tokens));
        said.extend(nearest(report, comparison, &arms, &here, &equal));
    }
    said.extend(benchmarks::in_short(report));
    said.extend(claims_in_short(report));
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

/// Whether the arms of a training budget all compete at equal tokens with arms of another budget,
/// as Mix with fewer steps does. Among themselves they differ in their weights alone.
fn is_covered(report: &Report, comparison: Comparison) -> bool {
    let mut elsewhere: Vec<usize> = Vec::new();
    for level in &report.levels {
        if level.comparison() != comparison {
            elsewhere.extend(&level.arms);
        }
    }
    let mut own = 0;
    for (index, arm) in report.arms.iter().enumerate() {
        if arm.comparison() != comparison || arm.unfinished {
            continue;
        }
        if !arm.is_mix() || !elsewhere.contains(&index) {
            return false;
        }
        own += 1;
    }
    own > 0
}

/// The arms that compete at equal steps.
fn at_equal_steps(report: &Report, comparison: Comparison) -> Vec<&Arm> {
    let mut arms: Vec<&Arm> = report.arms.iter().collect();
    arms.retain(|arm| {
        arm.setting == comparison.setting
            && arm.iterate == comparison.iterate
            && (arm.terms.is_none() || arm.terms == comparison.terms)
            && !arm.unfinished
            && !matches!(arm.role, Role::Alone(_))
    });
    arms
}

/// The arms that compete at equal tokens, at any weights.
fn at_equal_tokens<'r>(report: &'r Report, levels: &[&Level]) -> Vec<&'r Arm> {
    let mut arms = Vec::new();
    for (index, arm) in report.arms.iter().enumerate() {
        if levels.iter().any(|level| level.arms.contains(&index)) {
            arms.push(arm);
        }
    }
    arms
}

/// Names the nearest and the farthest of some arms; none if fewer than two have a distance.
fn nearest(
    report: &Report,
    comparison: Comparison,
    arms: &[&Arm],
    here: &str,
    equal: &str,
) -> Option<String> {
    let setting = &report.settings[comparison.setting];
    let set = if setting.ideal_point(EvalSet::HeldOut).is_some() {
        EvalSet::HeldOut
    } else {
        EvalSet::Training
    };
    let mut all: Vec<(&Arm, f64)> = Vec::new();
    for arm in arms {
        if let Some(distance) = arm.ideal_distance[set] {
            all.push((arm, distance.mean));
        }
    }
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    let [(best, distance), .., (worst, most)] = &all[..] else {
        return None;
    };
    let here = if here.is_empty() {
        String::new()
    } else {
        format!(" ({here})")
    };
    let differ = differ_in_tokens(arms);
    let on = |arm: &Arm| match arm.tokens {
        Some(tokens) if differ => format!(" on {}", in_words(tokens.mean)),
        _ => String::new(),
    };
    let mut text = format!(
        "On {}{here}{equal}, \u{201c}{}\u{201d} ends nearest to the ideal point (distance \
         {distance:.3}{}{}); \u{201c}{}\u{201d} ends farthest from it ({most:.3}{}).",
        SET_NAMES[set],
        best.label,
        on(best),
        price(report, best),
        worst.label,
        on(worst)
    );
    let near = |arm: &Arm| arm.sample(arm::distance(set));
    let too_close = |arm: &Arm| {
        let difference = near(best)
            .zip(near(arm))
            .map(|(best, other)| best.less(&other));
        difference.is_some_and(|difference| difference.is_below(0.0) == Call::TooCloseToCall)
    };
    let mut tied: Vec<String> = Vec::new();
    for (arm, far) in &all[1..] {
        if too_close(arm) {
            tied.push(format!(
                "\u{201c}{}\u{201d} ({far:.3}{})",
                arm.label,
                on(arm)
            ));
        }
    }
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
        .filter(|(arm, _)| arm.label != best.label && !equal.starts_with(AT_EQUAL_TOKENS))
    {
        text += &format!(
            " Among arms that cost about as much as Sequential, the nearest is \
             \u{201c}{}\u{201d} ({far:.3}{}{}).",
            arm.label,
            on(arm),
            price(report, arm)
        );
    }
    Some(text)
}

/// The cost of an arm relative to Sequential with as many steps; empty if it is not known.
fn price(report: &Report, arm: &Arm) -> String {
    let time = time(&report.arms).name;
    match arm.cost_increase.map(|increase| increase.mean.round()) {
        Some(more) if more >= 1.0 => format!(", in {more:.0}% more {time} than Sequential"),
        Some(less) if less <= -1.0 => {
            format!(", in {:.0}% fewer {time} than Sequential", -less)
        }
        Some(_) => format!(", in as many {time} as Sequential"),
        None if arm.role == Role::Sum && arm.seconds.is_none() => ", at an unknown cost".to_owned(),
        None => String::new(),
    }
}

/// Counts the claims by their verdict; none if no claim can be tested.
fn claims_in_short(report: &Report) -> Option<String> {
    if report.claims.is_empty() {
        return None;
    }
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
            " None of them has a known error, so other seeds may change the verdicts.".to_owned()
        }
        some => {
            format!(
                " No error is known for {some} of them, so other seeds may change these verdicts."
            )
        }
    };
    Some(format!(
        "These runs can test {} of the paper: {}.{bare}",
        counted(all, "claim"),
        counts.join(", ")
    ))
}

/// The time increase over Sequential, in percent, that still counts as about the same.
const CHEAP: f64 = 100.0 * (claims::ABOUT_THE_SAME - 1.0);

//! The summary at the top of the page.

use super::{caution, rests_on_given};
use crate::{
    Arm, Report, Role, arm::Comparison, claims, matching::time, table::listed, tables::SET_NAMES,
};
use upright_base::counted;
use upright_core::metrics::Call;

/// Summarizes the page: the nearest arm, its cost, and how many claims hold.
pub(crate) fn in_short(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    let time = time(&report.arms).name;
    for comparison in report.comparisons() {
        let Comparison {
            setting,
            terms,
            iterate,
        } = comparison;
        let here = report.comparison_name(comparison);
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
            let asked = arm.setting == setting
                && arm.iterate == iterate
                && (arm.terms.is_none() || arm.terms == terms);
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

/// The time increase over Sequential, in percent, that still counts as about the same.
const CHEAP: f64 = 100.0 * (claims::ABOUT_THE_SAME - 1.0);

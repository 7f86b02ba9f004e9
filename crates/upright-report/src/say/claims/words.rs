//! Words that the claims share: names of methods, and arms with their numbers.

use crate::{
    compare::{
        Report,
        arm::{Arm, Outcome, Role},
        comparisons::Place,
    },
    say::table::fixed,
};
use upright_core::methods::ALRIGHT;
use upright_core::metrics::Spread;

/// Formats a mean with its error.
pub(super) fn figure(spread: &Spread, decimals: usize) -> String {
    let error = spread
        .error
        .map_or_else(String::new, |error| format!(" ± {error:.decimals$}"));
    fixed(spread.mean, decimals) + &error
}

/// ALRIGHT, MAXRIGHT or both, spelled as in the paper.
pub(super) fn names(arms: &[&Arm]) -> String {
    let name = |arm: &&Arm| {
        if arm.role.is(&ALRIGHT) {
            "ALRIGHT"
        } else {
            "MAXRIGHT"
        }
    };
    let mut names: Vec<&str> = arms.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

/// The alternating methods among all comparisons that `asked` selects.
pub(super) fn everyone(places: &[Place<'_>], asked: impl Fn(&Place<'_>) -> bool) -> String {
    names(
        &places
            .iter()
            .filter(|place| asked(place))
            .flat_map(|place| place.alternating.clone())
            .collect::<Vec<_>>(),
    )
}

/// A verb in agreement with its subject: `ALRIGHT ends`, `ALRIGHT and MAXRIGHT end`.
pub(super) fn agreeing(methods: &str, verb: &str) -> String {
    if methods.contains(" and ") {
        verb.to_owned()
    } else {
        format!("{verb}s")
    }
}

/// A number after its arm's label. The label is quoted because it may contain commas.
pub(super) fn named(arm: &Arm, number: &Spread) -> String {
    format!(
        "\u{201c}{}\u{201d} {}{}",
        arm.label,
        figure(number, 3),
        stopped(arm)
    )
}

/// The numbers of all arms, each after its arm's label.
pub(super) fn labeled(arms: &[&Arm], value: impl Fn(&Outcome) -> Option<f64> + Copy) -> String {
    let one = |arm: &&Arm| Some(named(arm, &arm.sample(value)?.spread));
    arms.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// Says after how many steps the runs of an arm stopped early; empty if none did.
pub(super) fn stopped(arm: &Arm) -> String {
    let (Some(few), Some(many)) = (arm.ended_early.iter().min(), arm.ended_early.iter().max())
    else {
        return String::new();
    };
    let steps = if few == many {
        few.to_string()
    } else {
        format!("{few} to {many}")
    };
    let who = match (arm.ended_early.len(), arm.runs.len()) {
        (some, all) if some < all => format!("{some} of {all} runs "),
        _ => String::new(),
    };
    format!(
        " ({who}stopped at the goal after {steps} of {} steps)",
        arm.planned
    )
}

/// Sequential, with the orders in which it was run.
pub(super) fn sequential(
    report: &Report,
    places: &[Place<'_>],
    asked: impl Fn(&Place<'_>) -> bool,
) -> String {
    let mut orders: Vec<String> = Vec::new();
    for arm in places
        .iter()
        .filter(|place| asked(place))
        .flat_map(|place| &place.sequential)
    {
        let Role::Sequential(names) = &arm.role else {
            continue;
        };
        let order = names.join(", then ");
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    let both = |names: &[String]| match names {
        [a, b] => [[a, b], [b, a]]
            .iter()
            .all(|[a, b]| orders.contains(&format!("{a}, then {b}"))),
        _ => false,
    };
    match orders.len() {
        2 if both(&report.objectives) => "Sequential in either order".into(),
        _ => format!("Sequential ({})", orders.join("; ")),
    }
}

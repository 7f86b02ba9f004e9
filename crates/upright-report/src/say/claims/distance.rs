//! The claims on the distance to the ideal point, at equal steps and at equal tokens.

use super::{
    claim,
    words::{agreeing, everyone, figure, labeled, sequential, stopped},
};
use crate::{
    compare::{
        Claim, Report, Verdict,
        arm::{Arm, Role, distance},
        comparisons::Place,
        level::{AT_EQUAL_STEPS, AT_EQUAL_TOKENS, differ_in_tokens, in_words},
        verdict::differences,
    },
    say::table::listed,
};
use upright_core::methods::{ALRIGHT, MIX};
use upright_core::metrics::Call;
use upright_runs::records::{EvalSet, PerSet};

/// What is equal in a claim whose arms are the same at equal steps and at equal tokens.
const AT_BOTH: &str = " at equal steps and at equal tokens";

/// Section 6.2: the joint methods end nearer to the ideal point.
pub(super) fn nearer(report: &Report, steps: &[Place<'_>], levels: &[Place<'_>]) -> Vec<Claim> {
    if levels.is_empty() {
        return nearer_at(report, steps, "").into_iter().collect();
    }
    if compared(steps) == compared(levels) {
        // The arms of the claim took as many steps and trained on as many tokens.
        return nearer_at(report, steps, AT_BOTH).into_iter().collect();
    }
    let both = [
        nearer_at(report, steps, AT_EQUAL_STEPS),
        nearer_at(report, levels, AT_EQUAL_TOKENS),
    ];
    both.into_iter().flatten().collect()
}

/// Whether a comparison has the arms of the claim that the joint methods end nearer.
fn is_asked(place: &&Place<'_>) -> bool {
    !place.alternating.is_empty() && !place.sequential.is_empty()
}

/// The arms that the claim compares, by label.
fn compared<'r>(places: &'r [Place<'_>]) -> Vec<Vec<&'r str>> {
    let mut all = Vec::new();
    for place in places.iter().filter(is_asked) {
        let arms = place.alternating.iter().chain(&place.sequential);
        let mut labels: Vec<&str> = arms.map(|arm| &arm.label[..]).collect();
        labels.sort_unstable();
        all.push(labels);
    }
    all.sort();
    all
}

fn nearer_at(report: &Report, places: &[Place<'_>], equal: &str) -> Option<Claim> {
    let mut verdicts = Vec::new();
    for place in places.iter().filter(is_asked) {
        let arms = [&place.alternating[..], &place.sequential].concat();
        let because = |set: EvalSet| {
            let [joint, sequential] =
                [&place.alternating, &place.sequential].map(|some| priced(some, &arms, set));
            format!(
                "{joint} versus {sequential}{}{}",
                each_on(place, &arms),
                nearer_still(place, &place.alternating, set)
            )
        };
        let apart =
            PerSet::each(|set| differences(&place.alternating, &place.sequential, distance(set)));
        let verdict = Verdict::new(place.at.clone(), apart, PerSet::each(because), &arms);
        verdicts.push(verdict);
    }
    let asked = |place: &Place<'_>| is_asked(&place);
    let joint = everyone(places, asked);
    let sequential = sequential(report, places, asked);
    let end = agreeing(&joint, "end");
    let text = format!("{joint} {end} nearer to the ideal point than {sequential}{equal}");
    claim(text, verdicts)
}

/// Section 6.2: MAXRIGHT ends nearest of all methods that were run.
pub(super) fn nearest(report: &Report, steps: &[Place<'_>], levels: &[Place<'_>]) -> Vec<Claim> {
    if levels.is_empty() {
        return nearest_at(report, steps, "").into_iter().collect();
    }
    let both = [
        nearest_at(report, steps, AT_EQUAL_STEPS),
        nearest_at(report, levels, AT_EQUAL_TOKENS),
    ];
    both.into_iter().flatten().collect()
}

fn nearest_at(report: &Report, places: &[Place<'_>], equal: &str) -> Option<Claim> {
    let mut verdicts = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for place in places {
        let Some(maxright) = place.maxright else {
            continue;
        };
        let mut others = [&place.sequential[..], &place.mixes].concat();
        for arm in &place.alternating {
            if arm.role.is(&ALRIGHT) {
                others.push(arm);
            }
        }
        let all = [&others[..], &[maxright]].concat();
        let because = |set: EvalSet| {
            priced(&all, &all, set) + &each_on(place, &all) + &nearer_still(place, &all, set)
        };
        let apart = PerSet::each(|set| differences(&[maxright], &others, distance(set)));
        let verdict = Verdict::new(place.at.clone(), apart, PerSet::each(because), &all);
        verdicts.push(verdict);
        names.extend(others.iter().map(|arm| name(&arm.role)));
    }
    let mut others = Vec::new();
    for wanted in ["Sequential", "Mix", "Mix with half batches", "ALRIGHT"] {
        if !names.contains(&wanted) {
            continue;
        }
        others.push(match wanted {
            "Sequential" => sequential(report, places, |place| place.maxright.is_some()),
            _ => wanted.to_owned(),
        });
    }
    let others = listed(&others);
    let text = format!("MAXRIGHT ends nearest to the ideal point{equal}, nearer than {others}");
    claim(text, verdicts)
}

/// The method of an arm that MAXRIGHT is compared with.
fn name(role: &Role) -> &'static str {
    match role {
        Role::Joint(joint) if joint.method == &MIX || role.is(&ALRIGHT) => joint.form.title,
        _ => "Sequential",
    }
}

/// The distances of some arms, each after its arm's label. If the tokens of all arms of the
/// comparison differ, each with its tokens.
fn priced(arms: &[&Arm], all: &[&Arm], set: EvalSet) -> String {
    if !differ_in_tokens(all) {
        return labeled(arms, distance(set));
    }
    let mut words = Vec::new();
    for arm in arms {
        let Some(sample) = arm.sample(distance(set)) else {
            continue;
        };
        let on = match arm.tokens {
            Some(tokens) => format!(" on {}", in_words(tokens.mean)),
            None => String::new(),
        };
        words.push(format!(
            "\u{201c}{}\u{201d} {}{on}{}",
            arm.label,
            figure(&sample.spread, 3),
            stopped(arm)
        ));
    }
    words.join(", ")
}

/// Says at equal tokens how many these are, unless every arm says it.
fn each_on(place: &Place<'_>, arms: &[&Arm]) -> String {
    match place.tokens {
        Some(tokens) if !differ_in_tokens(arms) => {
            format!("; each on about {}", in_words(tokens))
        }
        _ => String::new(),
    }
}

/// Names the arms that are not part of the claim and that clearly end nearer than every arm that
/// is.
fn nearer_still(place: &Place<'_>, asked: &[&Arm], set: EvalSet) -> String {
    let nearer = |arm: &Arm| {
        let differences = differences(&[arm], asked, distance(set)).unwrap_or_default();
        let calls: Vec<Call> = differences
            .iter()
            .map(|difference| difference.is_below(0.0))
            .collect();
        Call::all(&calls) == Some(Call::Yes)
    };
    let found: Vec<&Arm> = place
        .beside
        .iter()
        .copied()
        .filter(|arm| nearer(arm))
        .collect();
    let words = priced(&found, &[asked, &found].concat(), set);
    if words.is_empty() {
        words
    } else {
        format!("; not part of the claim, but nearer: {words}")
    }
}

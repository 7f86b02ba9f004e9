//! The claims on the distance to the ideal point.

use super::{
    claim,
    verdict::{Claim, Verdict},
    words::{agreeing, differences, everyone, labeled, sequential},
};
use crate::{
    Report,
    arm::{Arm, Outcome, Role},
    comparisons::Place,
    table::listed,
};
use upright_core::metrics::Call;

/// The distance of a run to the ideal point.
pub(crate) fn distance(set: usize) -> impl Fn(&Outcome) -> Option<f64> + Copy {
    move |outcome: &Outcome| outcome.ideal_distance[set]
}

/// Section 6.2: the joint methods end nearer to the ideal point.
pub(super) fn nearer(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
    let asked = |place: &Place<'_>| !place.alternating.is_empty() && !place.sequential.is_empty();
    let verdict = |place: &Place<'_>| {
        let because = |set: usize| {
            let [joint, sequential] =
                [&place.alternating, &place.sequential].map(|arms| labeled(arms, distance(set)));
            format!(
                "{joint} versus {sequential}{}",
                nearer_still(place, &place.alternating, set)
            )
        };
        let apart =
            [0, 1].map(|set| differences(&place.alternating, &place.sequential, distance(set)));
        let arms = [&place.alternating[..], &place.sequential].concat();
        Verdict::new(place.at.clone(), apart, [because(0), because(1)], &arms)
    };
    let (joint, sequential) = (everyone(places, asked), sequential(report, places, asked));
    let end = agreeing(&joint, "end");
    let text = format!("{joint} {end} nearer to the ideal point than {sequential}");
    claim(
        text,
        places
            .iter()
            .filter(|place| asked(place))
            .map(verdict)
            .collect(),
    )
}

/// Section 6.2: MAXRIGHT ends nearest of all methods that were run.
pub(super) fn nearest(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
    let verdict = |place: &Place<'_>| {
        let maxright = place.maxright?;
        let mut others: Vec<&Arm> = place.sequential.iter().copied().chain(place.mix).collect();
        others.extend(
            place
                .alternating
                .iter()
                .filter(|arm| arm.role == Role::Alright),
        );
        let all: Vec<&Arm> = others.iter().copied().chain([maxright]).collect();
        let because = |set: usize| labeled(&all, distance(set)) + &nearer_still(place, &all, set);
        let apart = [0, 1].map(|set| differences(&[maxright], &others, distance(set)));
        Some(Verdict::new(
            place.at.clone(),
            apart,
            [because(0), because(1)],
            &all,
        ))
    };
    let asked = |place: &Place<'_>| place.maxright.is_some();
    let at = || places.iter().filter(|place| asked(place));
    let alright = |arm: &&Arm| arm.role == Role::Alright;
    let mut others = Vec::new();
    if at().any(|place| !place.sequential.is_empty()) {
        others.push(sequential(report, places, asked));
    }
    others.extend(
        at().any(|place| place.mix.is_some())
            .then(|| "Mix".to_owned()),
    );
    others.extend(
        at().any(|place| place.alternating.iter().any(alright))
            .then(|| "ALRIGHT".to_owned()),
    );
    let text = format!(
        "MAXRIGHT ends nearest to the ideal point, nearer than {}",
        listed(&others)
    );
    claim(text, places.iter().filter_map(verdict).collect())
}

/// Names the arms that are not part of the claim and that clearly end nearer than every arm that
/// is.
fn nearer_still(place: &Place<'_>, asked: &[&Arm], set: usize) -> String {
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
    let words = labeled(&found, distance(set));
    if words.is_empty() {
        words
    } else {
        format!("; not part of the claim, but nearer: {words}")
    }
}

//! The paper's claims, tested on the arms of a report. One rule decides all of them: a difference
//! is clear if it exceeds two standard errors ([`Spread::is_below`]).

mod benchmarks;
mod distance;
mod verdict;
mod words;

use crate::compare::{
    Claim, Report, Verdict,
    arm::{Arm, Comparison, Outcome, Role, distance},
    comparisons::{Place, level_places, place, places},
    fronts::Front,
    matching::{distinct, same, time},
    verdict::differences,
};
use distance::{nearer, nearest};
use upright_core::{
    methods::{ALRIGHT, MAXRIGHT, MIX},
    metrics::{Sample, Spread},
    optimizer::Iterate,
};
use upright_runs::records::{EvalSet, PerSet};
use words::{agreeing, everyone, figure, labeled, named, stopped};

/// The ratio to the time of Sequential up to which a cost counts as about the same.
pub(super) const ABOUT_THE_SAME: f64 = 1.25;

/// Tests every claim for which the report has the arms.
pub(crate) fn claims(report: &Report) -> Vec<Claim> {
    let places = places(report);
    let mut claims = Vec::new();
    let mut firsts: Vec<&String> = Vec::new();
    for arm in &report.arms {
        if let Role::Sequential(names) = &arm.role
            && !firsts.contains(&&names[0])
        {
            firsts.push(&names[0]);
        }
    }
    let index = |name: &String| report.objectives.iter().position(|other| other == name);
    claims.extend(
        firsts
            .into_iter()
            .filter_map(index)
            .filter_map(|first| forgets(report, &places, first)),
    );
    let levels = level_places(report);
    claims.extend(nearer(report, &places, &levels));
    claims.extend(nearest(report, &places, &levels));
    let others = [cheap(report, &places), even(report), probes(report)];
    claims.extend(others.into_iter().flatten());
    claims.extend(benchmarks::benchmarks(report, &places));
    claims
}

/// A claim with its verdicts. Verdicts without numbers are dropped; `None` if none is left.
fn claim(text: String, verdicts: Vec<Verdict>) -> Option<Claim> {
    let verdicts: Vec<Verdict> = verdicts
        .into_iter()
        .filter(|verdict| verdict.holds.iter().any(Option::is_some))
        .collect();
    (!verdicts.is_empty()).then_some(Claim { text, verdicts })
}

/// Section 6.2 and Theorem 3.3: Sequential forgets the objective that it trains first.
fn forgets(report: &Report, places: &[Place<'_>], first: usize) -> Option<Claim> {
    let name = &report.objectives[first];
    // Any later stages count, as long as the arm begins with the objective.
    let begins = |arm: &Arm| matches!(&arm.role, Role::Sequential(names) if names[0] == *name);
    let asked = |place: &Place<'_>| {
        !place.alternating.is_empty() && place.sequential.iter().any(|arm| begins(arm))
    };
    let value = |set: EvalSet| move |outcome: &Outcome| outcome.ends[set][first];
    let verdict = |place: &Place<'_>| {
        let sequential: Vec<&Arm> = place
            .sequential
            .iter()
            .copied()
            .filter(|arm| begins(arm))
            .collect();
        let because = |set: EvalSet| {
            format!(
                "{} versus {}",
                labeled(&sequential, value(set)),
                labeled(&place.alternating, value(set))
            )
        };
        let apart = PerSet::each(|set| differences(&place.alternating, &sequential, value(set)));
        let arms = [&place.alternating[..], &sequential].concat();
        Verdict::new(place.at.clone(), apart, PerSet::each(because), &arms)
    };
    let order = report.arms.iter().find_map(|arm| match &arm.role {
        Role::Sequential(names) if names[0] == *name => Some(names.join(", then ")),
        _ => None,
    })?;
    let them = everyone(places, asked);
    let text = format!(
        "Sequential ({order}) forgets {name}: its final {name} loss is higher than with {them}"
    );
    claim(
        text,
        places
            .iter()
            .filter(|place| asked(place))
            .map(verdict)
            .collect(),
    )
}

/// Section 6.2: the alternating methods cost about as much as Sequential.
fn cheap(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
    let time = time(&report.arms);
    // An average changes no cost.
    let asked = |place: &Place<'_>| {
        let last = place.iterate == Iterate::Last;
        last && !place.alternating.is_empty() && !place.sequential.is_empty()
    };
    let verdict = |place: &Place<'_>| {
        let all: Vec<&Arm> = place
            .sequential
            .iter()
            .chain(&place.alternating)
            .chain(&place.mixes)
            .copied()
            .collect();
        let seconds = time.of;
        let orders: Option<Vec<Sample>> = place
            .sequential
            .iter()
            .map(|arm| arm.sample(seconds))
            .collect();
        let sequential = Sample::mean_of(&orders?);
        let mut above = Vec::new();
        let mut times = Vec::new();
        for arm in place.alternating.iter().chain(&place.mixes) {
            let cost = arm.sample(seconds)?.over(&sequential)?;
            let excess = Spread {
                mean: cost.mean - ABOUT_THE_SAME,
                ..cost
            };
            above.push(if arm.role.is(&MIX) {
                excess.times(-1.0)
            } else {
                excess
            });
            times.push(named(arm, &cost));
        }
        let because = format!("{} relative to Sequential: {}", time.name, times.join(", "));
        Some(Verdict::new(
            place.at.clone(),
            PerSet::both(Some(above)),
            PerSet::both(because),
            &all,
        ))
    };
    let mix = places
        .iter()
        .any(|place| asked(place) && !place.mixes.is_empty());
    let alternating = everyone(places, asked);
    let text = format!(
        "{alternating} {} about as much as Sequential (less than {ABOUT_THE_SAME} times its cost){}",
        agreeing(&alternating, "cost"),
        if mix { ", and Mix costs more" } else { "" }
    );
    claim(
        text,
        places
            .iter()
            .filter(|place| asked(place))
            .filter_map(verdict)
            .collect(),
    )
}

/// Section 6.2: over the weights, the end points of ALRIGHT lie evenly along the front; those of
/// Sequential do not.
fn even(report: &Report) -> Option<Claim> {
    let verdict = |comparison: Comparison| {
        let own = move |front: &&Front| front.comparison() == comparison && front.weights.len() > 2;
        let fronts = || report.fronts.iter().filter(own);
        let alright = fronts().find(|front| front.role.is(&ALRIGHT))?;
        let sequential: Vec<&Front> = fronts()
            .filter(|front| matches!(front.role, Role::Sequential(_)))
            .collect();
        let apart = |set: EvalSet| {
            let own = alright.delta[set].as_ref()?;
            let mut found = Vec::new();
            for front in &sequential {
                found.push(own.less(front.delta[set].as_ref()?));
            }
            (!found.is_empty()).then_some(found)
        };
        let all: Vec<&Front> = [alright]
            .into_iter()
            .chain(sequential.iter().copied())
            .collect();
        let because = |set: EvalSet| {
            let one = |front: &&Front| {
                Some(format!(
                    "{} {}",
                    front.method,
                    figure(&front.delta[set].as_ref()?.spread, 3)
                ))
            };
            all.iter().filter_map(one).collect::<Vec<_>>().join(", ")
        };
        let at = report.comparison_name(comparison);
        let arms: Vec<&Arm> = all
            .iter()
            .flat_map(|front| &front.arms)
            .map(|arm| &report.arms[*arm])
            .collect();
        Some(Verdict::new(
            at,
            PerSet::each(apart),
            PerSet::each(because),
            &arms,
        ))
    };
    let text = "Over lambda, the end points of ALRIGHT lie more evenly along the front than those \
                of Sequential (smaller Delta)";
    claim(
        text.into(),
        report
            .comparisons()
            .into_iter()
            .filter_map(verdict)
            .collect(),
    )
}

/// Section 6.2, Figure 4: MAXRIGHT with frequent probes is nearer and slower.
fn probes(report: &Report) -> Option<Claim> {
    let time = time(&report.arms);
    let mut verdicts = Vec::new();
    for comparison in report.comparisons() {
        let own = move |arm: &&Arm| arm.comparison() == comparison && !arm.unfinished;
        let maxright = || {
            report
                .arms
                .iter()
                .filter(own)
                .filter(|arm| arm.role.is(&MAXRIGHT))
        };
        for weights in distinct(maxright()) {
            let mut arms: Vec<&Arm> = maxright()
                .filter(|arm| same(&arm.weights, &weights))
                .collect();
            arms.sort_by_key(|arm| arm.probe_every);
            let (Some(often), Some(seldom)) = (arms.first(), arms.last()) else {
                continue;
            };
            if often.probe_every == seldom.probe_every {
                continue;
            }
            let (unit, seconds) = (time.name, time.of);
            let apart = |set: EvalSet| {
                let mut both = differences(&[often], &[seldom], distance(set))?;
                both.extend(differences(&[seldom], &[often], seconds)?);
                Some(both)
            };
            let because = |set: EvalSet| {
                let one = |arm: &Arm| {
                    let far = arm.ideal_distance[set]
                        .map_or("-".to_owned(), |distance| figure(&distance, 3));
                    let long = arm
                        .sample(seconds)
                        .map_or("-".to_owned(), |seconds| figure(&seconds.spread, 2));
                    let k = arm.probe_every.unwrap_or(0);
                    format!("k {k}: distance {far}, {long} {unit}{}", stopped(arm))
                };
                format!("{}; {}", one(often), one(seldom))
            };
            let at = place(report, comparison, &weights);
            verdicts.push(Verdict::new(
                at,
                PerSet::each(apart),
                PerSet::each(because),
                &[often, seldom],
            ));
        }
    }
    claim(
        "MAXRIGHT with frequent probes (small k) ends nearer to the ideal point and takes longer"
            .into(),
        verdicts,
    )
}

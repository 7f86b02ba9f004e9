//! The paper's claims as questions to the arms in front of us: each holds here or does not, by the numbers.

use serde::Serialize;

use super::{
    Report,
    arms::{Arm, Role},
    fronts::Front,
    places::{Place, place, places},
    table::fixed,
    tables::SET_NAMES,
    terms::Comparison,
    weights::{distinct, same, time},
    words,
};
use crate::metrics::Spread;

/// A claim of the paper, asked wherever all that it needs was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// What is claimed.
    pub text: String,
    /// The answers; at least one.
    pub verdicts: Vec<Verdict>,
}

/// The answer at one place. Arrays are held-out rows and training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// At which weights, in which setting; empty where there is one place only.
    pub at: String,
    /// Whether it holds; the same twice where rows play no part, none where the rows were not measured.
    pub holds: [Option<bool>; 2],
    /// The numbers that decide.
    pub because: [String; 2],
    /// Whether an arm behind them has one run only: it has no error, and another seed may decide otherwise.
    pub single: bool,
}

impl Claim {
    /// The verdict in words.
    pub fn summary(&self) -> String {
        let all = |set: usize| self.verdicts.iter().filter_map(move |verdict| verdict.holds[set]);
        let everywhere = |set: usize| all(set).next().is_some() && all(set).all(|holds| holds);
        let nowhere = |set: usize| !all(set).any(|holds| holds);
        match ((everywhere(0), nowhere(0)), (everywhere(1), nowhere(1))) {
            _ if (0..2).all(|set| everywhere(set) || all(set).next().is_none()) => "holds here",
            _ if (0..2).all(nowhere) => "does not hold here",
            ((true, _), (_, true)) => "holds here on held-out rows only",
            ((_, true), (true, _)) => "holds here on training rows only",
            _ => "holds here in part",
        }
        .to_owned()
    }

    /// What stands behind the verdict where it rests on single runs.
    pub fn mark(&self) -> &'static str {
        if self.verdicts.iter().any(|verdict| verdict.single) { ", on single runs" } else { "" }
    }
}

impl Verdict {
    /// The answer with its numbers, a line for each set of rows; a single one where both say the same.
    pub fn lines(&self) -> Vec<String> {
        let at = if self.at.is_empty() { String::new() } else { format!("{}: ", self.at) };
        let same = self.because[0] == self.because[1] && self.holds[0] == self.holds[1];
        let line = |set: usize| {
            let holds = if self.holds[set]? { "yes" } else { "no" };
            let rows = if same { String::new() } else { format!("{}: ", SET_NAMES[set]) };
            Some(format!("{at}{rows}{holds} ({})", self.because[set]))
        };
        (0..if same { 1 } else { 2 }).filter_map(line).collect()
    }
}

/// Whether one of some arms has one run only.
fn single<'a>(mut arms: impl Iterator<Item = &'a &'a Arm>) -> bool {
    arms.any(|arm| arm.runs.len() == 1)
}

/// How much more time than Sequential still counts as about the same.
pub(super) const ABOUT_THE_SAME: f64 = 1.25;

/// Asks every claim that the report's arms can answer.
pub(super) fn claims(report: &Report) -> Vec<Claim> {
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
    claims.extend(firsts.into_iter().filter_map(index).filter_map(|first| forgets(report, &places, first)));
    claims.extend(
        [nearer(report, &places), nearest(report, &places), cheap(&places), even(report), probes(report)]
            .into_iter()
            .flatten(),
    );
    claims
}

fn figure(spread: &Spread) -> String {
    let error = spread.error.map_or_else(String::new, |error| format!(" ± {error:.3}"));
    fixed(spread.mean, 3) + &error
}

/// ALRIGHT, MAXRIGHT, or both, as the paper writes them.
fn names(arms: &[&Arm]) -> String {
    let name = |arm: &&Arm| if arm.role == Role::Alright { "ALRIGHT" } else { "MAXRIGHT" };
    let mut names: Vec<&str> = arms.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

/// Who the alternating arms are over all places.
fn everyone(places: &[Place<'_>], asked: impl Fn(&Place<'_>) -> bool) -> String {
    names(&places.iter().filter(|place| asked(place)).flat_map(|place| place.alternating.clone()).collect::<Vec<_>>())
}

/// Every arm's number under its name. Names have commas in them.
fn labelled(arms: &[&Arm], value: impl Fn(&Arm) -> Option<Spread>) -> String {
    let one = |arm: &&Arm| Some(format!("\u{201c}{}\u{201d} {}{}", arm.label, figure(&value(arm)?), stopped(arm)));
    arms.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// Where an arm's runs did not take all their steps.
fn stopped(arm: &Arm) -> String {
    let (Some(few), Some(many)) = (arm.ended_early.iter().min(), arm.ended_early.iter().max()) else {
        return String::new();
    };
    let steps = if few == many { few.to_string() } else { format!("{few} to {many}") };
    let who = match (arm.ended_early.len(), arm.runs.len()) {
        (some, all) if some < all => format!("{some} of {all} runs "),
        _ => String::new(),
    };
    format!(" ({who}stopped at the goal after {steps} of {} steps)", arm.planned)
}

/// Those that no claim asks about and that end nearer than all it asks about.
fn nearer_still(place: &Place<'_>, asked: &[&Arm], set: usize) -> String {
    let far = |arm: &Arm| Some(arm.ideal_distance[set]?.mean);
    let Some(best) = asked.iter().filter_map(|arm| far(arm)).reduce(f64::min) else { return String::new() };
    let found: Vec<&Arm> =
        place.beside.iter().copied().filter(|arm| far(arm).is_some_and(|distance| distance < best)).collect();
    let words = labelled(&found, distance(set));
    if words.is_empty() { words } else { format!("; not asked about, but nearer: {words}") }
}

/// Sequential with the orders in which it was run.
fn sequential(report: &Report, places: &[Place<'_>], asked: impl Fn(&Place<'_>) -> bool) -> String {
    let mut orders: Vec<String> = Vec::new();
    for arm in places.iter().filter(|place| asked(place)).flat_map(|place| &place.sequential) {
        let Role::Sequential(names) = &arm.role else { continue };
        let order = names.join(", then ");
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    let both = |names: &[String]| match names {
        [a, b] => [[a, b], [b, a]].iter().all(|[a, b]| orders.contains(&format!("{a}, then {b}"))),
        _ => false,
    };
    match orders.len() {
        2 if both(&report.objectives) => "Sequential in either order".into(),
        _ => format!("Sequential ({})", orders.join("; ")),
    }
}

/// Whether every pair is clearly apart; none where a number is missing.
fn all_below(below: &[&Arm], above: &[&Arm], value: impl Fn(&Arm) -> Option<Spread> + Copy) -> Option<bool> {
    let pairs = below.iter().flat_map(|a| above.iter().map(move |b| (value(a), value(b))));
    let asked: Option<Vec<bool>> = pairs.map(|(a, b)| Some(a?.clearly_below(&b?))).collect();
    asked.filter(|asked| !asked.is_empty()).map(|asked| asked.into_iter().all(|below| below))
}

/// Answers without any number are none.
fn claim(text: String, verdicts: Vec<Verdict>) -> Option<Claim> {
    let verdicts: Vec<Verdict> =
        verdicts.into_iter().filter(|verdict| verdict.holds.iter().any(Option::is_some)).collect();
    (!verdicts.is_empty()).then_some(Claim { text, verdicts })
}

/// Section 6.2 and Theorem 3.3: Sequential forgets what came first.
fn forgets(report: &Report, places: &[Place<'_>], first: usize) -> Option<Claim> {
    let name = &report.objectives[first];
    // What the stages after the first one are, of any arm that begins so.
    let begins = |arm: &Arm| matches!(&arm.role, Role::Sequential(names) if names[0] == *name);
    let asked = |place: &Place<'_>| !place.alternating.is_empty() && place.sequential.iter().any(|arm| begins(arm));
    let value = |set: usize| move |arm: &Arm| arm.ends[set][first];
    let verdict = |place: &Place<'_>| {
        let sequential: Vec<&Arm> = place.sequential.iter().copied().filter(|arm| begins(arm)).collect();
        let because = |set: usize| {
            format!("{} against {}", labelled(&sequential, value(set)), labelled(&place.alternating, value(set)))
        };
        Verdict {
            at: place.at.clone(),
            holds: [0, 1].map(|set| all_below(&place.alternating, &sequential, value(set))),
            because: [because(0), because(1)],
            single: single(place.alternating.iter().chain(&sequential)),
        }
    };
    let order = report.arms.iter().find_map(|arm| match &arm.role {
        Role::Sequential(names) if names[0] == *name => Some(names.join(", then ")),
        _ => None,
    })?;
    let them = everyone(places, asked);
    let text = format!("{order} forgets {name}: its {name} loss ends higher than with {them}");
    claim(text, places.iter().filter(|place| asked(place)).map(verdict).collect())
}

fn distance(set: usize) -> impl Fn(&Arm) -> Option<Spread> + Copy {
    move |arm: &Arm| arm.ideal_distance[set]
}

/// Section 6.2: the joint methods end nearer to the ideal point.
fn nearer(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
    let asked = |place: &Place<'_>| !place.alternating.is_empty() && !place.sequential.is_empty();
    let verdict = |place: &Place<'_>| {
        let because = |set: usize| {
            let [joint, sequential] = [&place.alternating, &place.sequential].map(|arms| labelled(arms, distance(set)));
            format!("{joint} against {sequential}{}", nearer_still(place, &place.alternating, set))
        };
        Verdict {
            at: place.at.clone(),
            holds: [0, 1].map(|set| all_below(&place.alternating, &place.sequential, distance(set))),
            because: [because(0), because(1)],
            single: single(place.alternating.iter().chain(&place.sequential)),
        }
    };
    let (joint, sequential) = (everyone(places, asked), sequential(report, places, asked));
    let text = format!("{joint} end nearer to the ideal point than {sequential}");
    claim(text, places.iter().filter(|place| asked(place)).map(verdict).collect())
}

/// Section 6.2: MAXRIGHT ends nearest of all, which are those that are there.
fn nearest(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
    let verdict = |place: &Place<'_>| {
        let maxright = place.maxright?;
        let mut others: Vec<&Arm> = place.sequential.iter().copied().chain(place.mix).collect();
        others.extend(place.alternating.iter().filter(|arm| arm.role == Role::Alright));
        let all: Vec<&Arm> = others.iter().copied().chain([maxright]).collect();
        let holds = |set: usize| {
            let own = distance(set)(maxright)?.mean;
            let other: Option<Vec<Spread>> = others.iter().map(|arm| distance(set)(arm)).collect();
            other.filter(|other| !other.is_empty()).map(|other| other.iter().all(|other| own < other.mean))
        };
        let because = |set: usize| labelled(&all, distance(set)) + &nearer_still(place, &all, set);
        Some(Verdict {
            at: place.at.clone(),
            holds: [holds(0), holds(1)],
            because: [because(0), because(1)],
            single: single(all.iter()),
        })
    };
    let asked = |place: &Place<'_>| place.maxright.is_some();
    let at = || places.iter().filter(|place| asked(place));
    let alright = |arm: &&Arm| arm.role == Role::Alright;
    let mut others = Vec::new();
    if at().any(|place| !place.sequential.is_empty()) {
        others.push(sequential(report, places, asked));
    }
    others.extend(at().any(|place| place.mix.is_some()).then(|| "Mix".to_owned()));
    others.extend(at().any(|place| place.alternating.iter().any(alright)).then(|| "ALRIGHT".to_owned()));
    let text = format!("MAXRIGHT ends nearer to the ideal point than {}", words::listed(&others));
    claim(text, places.iter().filter_map(verdict).collect())
}

/// Section 6.2: the alternating methods cost what Sequential costs.
fn cheap(places: &[Place<'_>]) -> Option<Claim> {
    let asked = |place: &Place<'_>| !place.alternating.is_empty() && !place.sequential.is_empty();
    let verdict = |place: &Place<'_>| {
        let all = || place.sequential.iter().chain(&place.alternating).chain(&place.mix).copied();
        let (unit, seconds) = time(&all().collect::<Vec<_>>());
        let sequential = Spread::mean_of(&place.sequential.iter().map(|arm| seconds(arm)).collect::<Vec<_>>());
        let cost = |arm: &Arm| seconds(arm).mean / sequential.mean;
        let cheap = place.alternating.iter().all(|arm| cost(arm) < ABOUT_THE_SAME);
        let dear = place.mix.is_none_or(|mix| cost(mix) > ABOUT_THE_SAME);
        let one = |arm: &Arm| format!("\u{201c}{}\u{201d} {:.2}{}", arm.label, cost(arm), stopped(arm));
        let times = place.alternating.iter().copied().chain(place.mix).map(one);
        let because = format!("{unit} against Sequential: {}", times.collect::<Vec<_>>().join(", "));
        Verdict {
            at: place.at.clone(),
            holds: [Some(cheap && dear); 2],
            because: [because.clone(), because],
            single: single(place.sequential.iter().chain(&place.alternating).chain(&place.mix)),
        }
    };
    let mix = places.iter().any(|place| asked(place) && place.mix.is_some());
    let text = format!(
        "{} cost about what Sequential costs (less than {ABOUT_THE_SAME} times){}",
        everyone(places, asked),
        if mix { ", Mix more" } else { "" }
    );
    claim(text, places.iter().filter(|place| asked(place)).map(verdict).collect())
}

/// Section 6.2: over the weights, ALRIGHT's end points lie evenly along the front, Sequential's do not.
fn even(report: &Report) -> Option<Claim> {
    let verdict = |comparison: Comparison| {
        let own = move |front: &&Front| front.comparison() == comparison && front.weights.len() > 2;
        let fronts = || report.fronts.iter().filter(own);
        let alright = fronts().find(|front| front.role == Role::Alright)?;
        let sequential: Vec<&Front> = fronts().filter(|front| matches!(front.role, Role::Sequential(_))).collect();
        let holds = |set: usize| {
            let other: Option<Vec<f64>> = sequential.iter().map(|front| front.delta[set]).collect();
            let own = alright.delta[set]?;
            other.filter(|other| !other.is_empty()).map(|other| other.iter().all(|other| own < *other))
        };
        let because = |set: usize| {
            let one = |front: &&Front| Some(format!("{} {:.3}", front.method, front.delta[set]?));
            let all = [alright].into_iter().chain(sequential.iter().copied()).collect::<Vec<_>>();
            all.iter().filter_map(one).collect::<Vec<_>>().join(", ")
        };
        let at = report.comparison_name(comparison);
        let arms = [alright].into_iter().chain(sequential.iter().copied()).flat_map(|front| &front.arms);
        let single = arms.into_iter().any(|arm| report.arms[*arm].runs.len() == 1);
        Some(Verdict { at, holds: [holds(0), holds(1)], because: [because(0), because(1)], single })
    };
    let text = "Over lambda, ALRIGHT's end points lie more evenly along the front than Sequential's (smaller Delta)";
    claim(text.into(), report.comparisons().into_iter().filter_map(verdict).collect())
}

/// Section 6.2, Figure 4: MAXRIGHT that looks often is nearer and slower.
fn probes(report: &Report) -> Option<Claim> {
    let mut verdicts = Vec::new();
    for comparison in report.comparisons() {
        let own = move |arm: &&Arm| arm.comparison() == comparison && !arm.unfinished;
        let maxright = || report.arms.iter().filter(own).filter(|arm| arm.role == Role::Maxright);
        for weights in distinct(maxright()) {
            let mut arms: Vec<&Arm> = maxright().filter(|arm| same(&arm.weights, &weights)).collect();
            arms.sort_by_key(|arm| arm.probe_every);
            let (Some(often), Some(seldom)) = (arms.first(), arms.last()) else { continue };
            if often.probe_every == seldom.probe_every {
                continue;
            }
            let (unit, seconds) = time(&[often, seldom]);
            let slower = seconds(often).mean > seconds(seldom).mean;
            let holds = |set: usize| all_below(&[often], &[seldom], distance(set)).map(|nearer| nearer && slower);
            let because = |set: usize| {
                let one = |arm: &Arm| {
                    let far = arm.ideal_distance[set].map_or("-".to_owned(), |distance| figure(&distance));
                    let k = arm.probe_every.unwrap_or(0);
                    format!("k {k}: distance {far}, {:.1} {unit}{}", seconds(arm).mean, stopped(arm))
                };
                format!("{}; {}", one(often), one(seldom))
            };
            verdicts.push(Verdict {
                at: place(report, comparison, &weights),
                holds: [holds(0), holds(1)],
                because: [because(0), because(1)],
                single: single([often, seldom].into_iter()),
            });
        }
    }
    claim(
        "MAXRIGHT that looks at the losses often (small k) ends nearer to the ideal point and takes longer".into(),
        verdicts,
    )
}

//! The paper's claims, tested on the arms of a report. One rule decides all of them: a difference
//! is clear if it exceeds two standard errors ([`Spread::is_below`]).

use serde::Serialize;

use super::{
    Report,
    arm::Comparison,
    arm::{Arm, Outcome, Role},
    comparisons::{Place, place, places},
    fronts::Front,
    matching::{distinct, same, time},
    small::Small,
    table::fixed,
    table::listed,
    tables::SET_NAMES,
};
use upright_core::metrics::{Call, Sample, Spread};

/// A claim of the paper, tested wherever all the arms that it needs were run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// The claim in words.
    pub text: String,
    /// The verdicts; at least one.
    pub verdicts: Vec<Verdict>,
}

/// The verdict for one comparison. Arrays hold held-out rows, then training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Weights and setting of the comparison; empty if there is only one.
    pub at: String,
    /// Whether the claim holds. Both entries are equal if the claim does not depend on rows; none
    /// if the rows were not measured.
    pub holds: [Option<Call>; 2],
    /// The numbers behind the verdict.
    pub because: [String; 2],
    /// Why a number behind the verdict has no error, if so. The means alone then decide, and
    /// another seed may change the verdict.
    pub no_error: Option<NoError>,
    /// The sizes of the samples behind the verdict that are too small for a conclusion.
    pub small: Small,
}

/// Why a number has no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoError {
    /// An arm has one run.
    OneRun,
    /// No two seeds were run at every weight of a front.
    SeedsDiffer,
}

impl NoError {
    /// The reason in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::OneRun => "one run, no error known",
            Self::SeedsDiffer => "no error known, as no two seeds were run at every weight",
        }
    }
}

impl Claim {
    /// The call that all verdicts share on all measured rows; `None` if they differ.
    pub fn call(&self) -> Option<Call> {
        common(self.verdicts.iter().flat_map(|verdict| verdict.holds))
    }

    /// The call that all verdicts share on one set of rows; `None` if they differ.
    fn call_on(&self, set: usize) -> Option<Call> {
        common(self.verdicts.iter().map(|verdict| verdict.holds[set]))
    }

    /// The overall verdict in words.
    pub fn summary(&self) -> String {
        use Call::{No, TooCloseToCall, Yes};
        match self.call() {
            Some(Yes) => return "holds here".into(),
            Some(No) => return "does not hold here".into(),
            Some(TooCloseToCall) => return "too close to call here".into(),
            None => {}
        }
        let (held_out, training) = (SET_NAMES[0], SET_NAMES[1]);
        match (self.call_on(0), self.call_on(1)) {
            (Some(Yes), Some(No)) => format!("holds here on {held_out} only"),
            (Some(No), Some(Yes)) => format!("holds here on {training} only"),
            (Some(Yes), Some(_)) => {
                format!("holds here on {held_out}, too close to call on {training}")
            }
            (Some(_), Some(Yes)) => {
                format!("holds here on {training}, too close to call on {held_out}")
            }
            (Some(No), Some(_)) => {
                format!("does not hold here on {held_out}, too close to call on {training}")
            }
            (Some(_), Some(No)) => {
                format!("does not hold here on {training}, too close to call on {held_out}")
            }
            _ => {
                let any = |wanted: Call| {
                    self.verdicts
                        .iter()
                        .any(|verdict| verdict.holds.contains(&Some(wanted)))
                };
                match (any(Yes), any(No)) {
                    (true, true) => "holds here in part".into(),
                    (true, false) => "holds here in part, too close to call in part".into(),
                    (false, _) => "does not hold here in part, too close to call in part".into(),
                }
            }
        }
    }

    /// A sentence for the overall verdict if it rests on small samples; empty otherwise.
    pub fn caution(&self) -> String {
        let mut small = Small::default();
        for verdict in &self.verdicts {
            small = small.and(verdict.small);
        }
        if small.is_none() {
            return String::new();
        }
        let everywhere = self.verdicts.iter().all(|verdict| !verdict.small.is_none());
        format!(
            "{}{}: treat as an anecdote.",
            if everywhere {
                ""
            } else {
                "In some comparisons "
            },
            small.words()
        )
    }

    /// A note for the overall verdict if numbers without an error decide it; empty otherwise.
    pub fn mark(&self) -> String {
        let reasons: Vec<NoError> = self
            .verdicts
            .iter()
            .filter_map(|verdict| verdict.no_error)
            .collect();
        match reasons.first() {
            None => String::new(),
            Some(first) if reasons.len() == self.verdicts.len() => format!(", {}", first.words()),
            Some(first) => format!(", in some comparisons {}", first.words()),
        }
    }
}

/// The call that all present entries share; `None` if they differ or if there is none.
fn common(answers: impl Iterator<Item = Option<Call>>) -> Option<Call> {
    let calls: Vec<Call> = answers.flatten().collect();
    let first = *calls.first()?;
    calls.iter().all(|call| *call == first).then_some(first)
}

impl Verdict {
    /// A verdict from differences that are below 0 according to the claim, on each set of rows.
    fn new(
        at: String,
        differences: [Option<Vec<Spread>>; 2],
        because: [String; 2],
        arms: &[&Arm],
    ) -> Self {
        let mut holds = [None; 2];
        for (holds, differences) in holds.iter_mut().zip(&differences) {
            let calls = differences
                .iter()
                .flatten()
                .map(|difference| difference.is_below(0.0));
            *holds = Call::all(&calls.collect::<Vec<Call>>());
        }
        let bare = differences
            .iter()
            .flatten()
            .flatten()
            .any(|difference| difference.error.is_none());
        let one_run = arms.iter().any(|arm| arm.runs.len() == 1);
        let reason = if one_run {
            NoError::OneRun
        } else {
            NoError::SeedsDiffer
        };
        let mut small = Small::default();
        for arm in arms {
            small = small.and(arm.small);
        }
        if because[0] == because[1] {
            // A cost does not depend on rows.
            (small.held_out, small.pairs, small.epochs) = (None, false, None);
        } else if holds[0].is_none() {
            (small.held_out, small.pairs) = (None, false);
        }
        Self {
            at,
            holds,
            because,
            no_error: bare.then_some(reason),
            small,
        }
    }

    /// The call in a word or two; names the rows if the calls on them differ.
    pub fn words(&self) -> String {
        match self.holds {
            [Some(held_out), Some(training)] if held_out != training => {
                format!(
                    "{} on {}, {} on {}",
                    held_out.words(),
                    SET_NAMES[0],
                    training.words(),
                    SET_NAMES[1]
                )
            }
            [Some(call), _] | [None, Some(call)] => call.words().into(),
            [None, None] => String::new(),
        }
    }

    /// The call with its numbers, one line per set of rows; a single line if both are equal.
    pub fn lines(&self) -> Vec<String> {
        let at = if self.at.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.at)
        };
        let mark = self
            .no_error
            .map_or_else(String::new, |reason| format!(", {}", reason.words()));
        let same = self.because[0] == self.because[1] && self.holds[0] == self.holds[1];
        let line = |set: usize| {
            let holds = self.holds[set]?.words();
            let rows = if same {
                String::new()
            } else {
                format!("{}: ", SET_NAMES[set])
            };
            Some(format!("{at}{rows}{holds}{mark} ({})", self.because[set]))
        };
        (0..if same { 1 } else { 2 }).filter_map(line).collect()
    }
}

/// The ratio to the time of Sequential up to which a cost counts as about the same.
pub(super) const ABOUT_THE_SAME: f64 = 1.25;

/// Tests every claim for which the report has the arms.
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
    claims.extend(
        firsts
            .into_iter()
            .filter_map(index)
            .filter_map(|first| forgets(report, &places, first)),
    );
    claims.extend(
        [
            nearer(report, &places),
            nearest(report, &places),
            cheap(report, &places),
            even(report),
            probes(report),
        ]
        .into_iter()
        .flatten(),
    );
    claims
}

/// Formats a mean with its error.
fn figure(spread: &Spread, decimals: usize) -> String {
    let error = spread
        .error
        .map_or_else(String::new, |error| format!(" ± {error:.decimals$}"));
    fixed(spread.mean, decimals) + &error
}

/// ALRIGHT, MAXRIGHT or both, spelled as in the paper.
fn names(arms: &[&Arm]) -> String {
    let name = |arm: &&Arm| {
        if arm.role == Role::Alright {
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
fn everyone(places: &[Place<'_>], asked: impl Fn(&Place<'_>) -> bool) -> String {
    names(
        &places
            .iter()
            .filter(|place| asked(place))
            .flat_map(|place| place.alternating.clone())
            .collect::<Vec<_>>(),
    )
}

/// A verb in agreement with its subject: `ALRIGHT ends`, `ALRIGHT and MAXRIGHT end`.
fn agreeing(methods: &str, verb: &str) -> String {
    if methods.contains(" and ") {
        verb.to_owned()
    } else {
        format!("{verb}s")
    }
}

/// A number after its arm's label. The label is quoted because it may contain commas.
fn named(arm: &Arm, number: &Spread) -> String {
    format!(
        "\u{201c}{}\u{201d} {}{}",
        arm.label,
        figure(number, 3),
        stopped(arm)
    )
}

/// The numbers of all arms, each after its arm's label.
fn labeled(arms: &[&Arm], value: impl Fn(&Outcome) -> Option<f64> + Copy) -> String {
    let one = |arm: &&Arm| Some(named(arm, &arm.sample(value)?.spread));
    arms.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// Says after how many steps the runs of an arm stopped early; empty if none did.
fn stopped(arm: &Arm) -> String {
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

/// Sequential, with the orders in which it was run.
fn sequential(report: &Report, places: &[Place<'_>], asked: impl Fn(&Place<'_>) -> bool) -> String {
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

/// The differences of all pairs of arms, `below` minus `above`; none if a number is missing or if
/// there are no pairs.
fn differences(
    below: &[&Arm],
    above: &[&Arm],
    value: impl Fn(&Outcome) -> Option<f64> + Copy,
) -> Option<Vec<Spread>> {
    let mut found = Vec::new();
    for arm in below {
        for other in above {
            found.push(arm.sample(value)?.less(&other.sample(value)?));
        }
    }
    (!found.is_empty()).then_some(found)
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
    let value = |set: usize| move |outcome: &Outcome| outcome.ends[set][first];
    let verdict = |place: &Place<'_>| {
        let sequential: Vec<&Arm> = place
            .sequential
            .iter()
            .copied()
            .filter(|arm| begins(arm))
            .collect();
        let because = |set: usize| {
            format!(
                "{} versus {}",
                labeled(&sequential, value(set)),
                labeled(&place.alternating, value(set))
            )
        };
        let apart = [0, 1].map(|set| differences(&place.alternating, &sequential, value(set)));
        let arms = [&place.alternating[..], &sequential].concat();
        Verdict::new(place.at.clone(), apart, [because(0), because(1)], &arms)
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

/// The distance of a run to the ideal point.
pub(super) fn distance(set: usize) -> impl Fn(&Outcome) -> Option<f64> + Copy {
    move |outcome: &Outcome| outcome.ideal_distance[set]
}

/// Section 6.2: the joint methods end nearer to the ideal point.
fn nearer(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
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
fn nearest(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
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

/// Section 6.2: the alternating methods cost about as much as Sequential.
fn cheap(report: &Report, places: &[Place<'_>]) -> Option<Claim> {
    let time = time(&report.arms);
    let asked = |place: &Place<'_>| !place.alternating.is_empty() && !place.sequential.is_empty();
    let verdict = |place: &Place<'_>| {
        let all: Vec<&Arm> = place
            .sequential
            .iter()
            .chain(&place.alternating)
            .chain(&place.mix)
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
        for arm in place.alternating.iter().chain(&place.mix) {
            let cost = arm.sample(seconds)?.over(&sequential)?;
            let excess = Spread {
                mean: cost.mean - ABOUT_THE_SAME,
                ..cost
            };
            above.push(if arm.role == Role::Mix {
                excess.times(-1.0)
            } else {
                excess
            });
            times.push(named(arm, &cost));
        }
        let because = format!("{} relative to Sequential: {}", time.name, times.join(", "));
        Some(Verdict::new(
            place.at.clone(),
            [Some(above.clone()), Some(above)],
            [because.clone(), because],
            &all,
        ))
    };
    let mix = places
        .iter()
        .any(|place| asked(place) && place.mix.is_some());
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
        let alright = fronts().find(|front| front.role == Role::Alright)?;
        let sequential: Vec<&Front> = fronts()
            .filter(|front| matches!(front.role, Role::Sequential(_)))
            .collect();
        let apart = |set: usize| {
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
        let because = |set: usize| {
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
            [apart(0), apart(1)],
            [because(0), because(1)],
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
                .filter(|arm| arm.role == Role::Maxright)
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
            let apart = |set: usize| {
                let mut both = differences(&[often], &[seldom], distance(set))?;
                both.extend(differences(&[seldom], &[often], seconds)?);
                Some(both)
            };
            let because = |set: usize| {
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
                [apart(0), apart(1)],
                [because(0), because(1)],
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

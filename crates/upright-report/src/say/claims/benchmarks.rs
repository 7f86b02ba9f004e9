//! The claims on benchmarks (Section 6.2 and Table 1 of the paper).

use super::{
    claim,
    words::{agreeing, figure, names, sequential},
};
use crate::{
    compare::{
        Claim, NoError, Report, Scores, Verdict, arm::Arm, comparisons::Place, small::Small,
    },
    say::table::listed,
};
use upright_runs::records::PerSet;

/// The benchmark of the claim that the alternating methods surpass Sequential and Mix.
const MMLU: &str = "mmlu";
/// The benchmark of the claim that the alternating methods win more often than Sequential.
const WIN_RATE: &str = "win-rate";

/// The arms of one comparison that were scored, as indices of the report's arms.
struct Contest<'p, 'r> {
    place: &'p Place<'r>,
    /// ALRIGHT and MAXRIGHT.
    own: Vec<usize>,
    /// Those that the claim says are worse.
    rivals: Vec<usize>,
}

/// Tests the claims of the benchmarks that the report has.
pub(super) fn benchmarks(report: &Report, places: &[Place<'_>]) -> Vec<Claim> {
    let mut claims = Vec::new();
    for scores in &report.benchmarks {
        let name = scores.name.to_lowercase();
        if name == MMLU {
            claims.extend(surpass(report, scores, places));
        } else if name == WIN_RATE && scores.higher_is_better {
            claims.extend(win(report, scores, places));
        }
    }
    claims
}

/// ALRIGHT and MAXRIGHT surpass the baselines on MMLU.
fn surpass(report: &Report, scores: &Scores, places: &[Place<'_>]) -> Option<Claim> {
    let contests = contests(report, scores, places, true);
    let rivals = || contests.iter().flat_map(|contest| &contest.rivals);
    let mut baselines = Vec::new();
    if rivals().any(|index| report.arms[*index].is_sequential()) {
        baselines.push(sequential(report, places, |_| true));
    }
    if rivals().any(|index| report.arms[*index].is_mix()) {
        baselines.push("Mix".to_owned());
    }
    let them = alternating(report, &contests);
    let text = format!(
        "On {}, {them} {} better than {}",
        scores.title,
        agreeing(&them, "score"),
        listed(&baselines)
    );
    claim(text, verdicts(report, scores, &contests))
}

/// ALRIGHT and MAXRIGHT achieve a significantly higher win rate than Sequential.
fn win(report: &Report, scores: &Scores, places: &[Place<'_>]) -> Option<Claim> {
    let contests = contests(report, scores, places, false);
    let them = alternating(report, &contests);
    let text = format!(
        "On {}, {them} {} better than {}",
        scores.title,
        agreeing(&them, "score"),
        sequential(report, places, |_| true)
    );
    claim(text, verdicts(report, scores, &contests))
}

/// The comparisons in which an alternating method and a rival were scored: Sequential, and Mix if
/// `with_mix` is set.
fn contests<'p, 'r>(
    report: &Report,
    scores: &Scores,
    places: &'p [Place<'r>],
    with_mix: bool,
) -> Vec<Contest<'p, 'r>> {
    let scored = |arms: &[&Arm]| {
        let mut found = Vec::new();
        for arm in arms {
            let index = report.index(arm);
            found.extend(index.filter(|index| scores.arm(*index).is_some()));
        }
        found
    };
    let mut contests = Vec::new();
    for place in places {
        let own = scored(&place.alternating);
        let mut rivals = scored(&place.sequential);
        if with_mix {
            rivals.extend(scored(&place.mixes));
        }
        if !own.is_empty() && !rivals.is_empty() {
            contests.push(Contest { place, own, rivals });
        }
    }
    contests
}

/// ALRIGHT, MAXRIGHT or both.
fn alternating(report: &Report, contests: &[Contest<'_, '_>]) -> String {
    let own = contests.iter().flat_map(|contest| &contest.own);
    let arms: Vec<&Arm> = own.map(|index| &report.arms[*index]).collect();
    names(&arms)
}

fn verdicts(report: &Report, scores: &Scores, contests: &[Contest<'_, '_>]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for contest in contests {
        let mut shortfalls = Vec::new();
        for own in &contest.own {
            for rival in &contest.rivals {
                shortfalls.extend(scores.shortfall(*own, *rival));
            }
        }
        let because = format!(
            "{} versus {}",
            labeled(report, scores, &contest.own),
            labeled(report, scores, &contest.rivals)
        );
        let is_bare = shortfalls.iter().any(|shortfall| shortfall.error.is_none());
        let mut small = Small::default();
        for index in contest.own.iter().chain(&contest.rivals) {
            let seeds = scores.arm(*index).map_or(0, |score| score.seeds);
            small = small.and(Small::of_seeds(seeds));
        }
        let at = contest.place.at.clone();
        verdicts.push(Verdict {
            no_error: is_bare.then_some(NoError::OneRun),
            small,
            ..Verdict::new(
                at,
                PerSet::both(Some(shortfalls)),
                PerSet::both(because),
                &[],
            )
        });
    }
    verdicts
}

/// The scores of some arms, each after its arm's label.
fn labeled(report: &Report, scores: &Scores, arms: &[usize]) -> String {
    let mut words = Vec::new();
    for index in arms {
        if let Some(score) = scores.arm(*index) {
            words.push(format!(
                "\u{201c}{}\u{201d} {}",
                report.arms[*index].label,
                figure(&score.sample.spread, scores.decimals())
            ));
        }
    }
    words.join(", ")
}

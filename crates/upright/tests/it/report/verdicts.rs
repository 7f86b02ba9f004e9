//! How claims are decided: by two standard errors of a difference, with shared seeds as pairs.

use upright_core::metrics::Call::{self, No, TooCloseToCall, Yes};
use upright_report::{Claim, NoError, Report, Small, Verdict};
use upright_runs::records::PerSet;

use super::{
    folders::{Run, Study, mean_and_error, run},
    near, write,
};

/// Both objectives alone: the ideal point is (0, 0) on training rows.
fn study() -> Study {
    let study = Study::new();
    study.add("sft-alone", &run("mix").weights(1.0, 0.0).ending(0.0, 4.0));
    study.add("dpo-alone", &run("mix").weights(0.0, 1.0).ending(1.0, 0.0));
    study
}

/// A run a seed, which ends at an SFT loss of 0 and a DPO loss of its own.
fn add(study: &Study, name: &str, settings: &Run, dpo: &[(u64, f64)]) {
    for (seed, loss) in dpo {
        study.add(
            &format!("{name}-{seed}"),
            &settings.clone().seed(*seed).ending(0.0, *loss),
        );
    }
}

fn sequential() -> Run {
    run("sequential").stages(&[(1, 4), (0, 4)])
}

fn claim(study: &Study, words: &str) -> Claim {
    let report = Report::read(&[study.path()]).unwrap();
    let found = report
        .claims
        .iter()
        .find(|claim| claim.text.contains(words));
    found
        .unwrap_or_else(|| panic!("{words} in {:?}", report.claims))
        .clone()
}

#[track_caller]
fn verdict(study: &Study, words: &str) -> Verdict {
    let claim = claim(study, words);
    assert_eq!(claim.verdicts.len(), 1);
    claim.verdicts[0].clone()
}

/// Seeds differ by more than methods do: only differences seed by seed tell the methods apart.
#[test]
fn shared_seeds_are_pairs_and_two_errors_decide() {
    let before = [(1, 1.0), (2, 3.0), (3, 5.0)];
    for (after, expected, no_error) in [
        (&[(1, 0.9), (2, 2.8), (3, 4.7)][..], Yes, None),
        (&[(1, 1.1), (2, 3.2), (3, 5.3)], No, None),
        // Differences of -0.1, -0.2 and 0.1: a mean of -0.07 with an error of 0.09.
        (&[(1, 0.9), (2, 2.8), (3, 5.1)], TooCloseToCall, None),
        // Differences of -0.1, -0.1 and 0.02: one and a half errors from 0.
        (&[(1, 0.9), (2, 2.9), (3, 5.02)], TooCloseToCall, None),
        // The values of the first case with other seeds.
        (&[(4, 0.9), (5, 2.8), (6, 4.7)], TooCloseToCall, None),
        // A single run has no error: the bare numbers decide.
        (&[(1, 2.9)], Yes, Some(NoError::OneRun)),
    ] {
        let study = study();
        add(&study, "dpo-sft", &sequential(), &before);
        add(&study, "alright", &run("alright"), after);
        let page = write(&study);
        let class = match expected {
            Yes => "good",
            No => "bad",
            TooCloseToCall => "close",
        };
        for words in ["forgets dpo", "ends nearer to"] {
            let claim = claim(&study, words);
            let verdict = &claim.verdicts[0];
            assert_eq!(
                (verdict.holds, verdict.no_error),
                (PerSet::both(Some(expected)), no_error),
                "{words}: {after:?}"
            );
            let shown = format!("<li class=\"{class}\"><p>{}: ", claim.text);
            assert!(page.contains(&shown), "{shown}: {after:?}");
        }
        assert_eq!(
            page.contains("one run, no error known"),
            no_error.is_some(),
            "{after:?}"
        );
    }
}

/// Nobody is nearest of all by a bare mean.
#[test]
fn the_nearest_of_all_is_called_by_the_same_rule() {
    let study = study();
    add(
        &study,
        "dpo-sft",
        &sequential(),
        &[(1, 3.0), (2, 3.1), (3, 3.2)],
    );
    add(&study, "mix", &run("mix"), &[(1, 1.0), (2, 1.2), (3, 1.1)]);
    add(
        &study,
        "maxright",
        &run("maxright"),
        &[(1, 0.9), (2, 1.25), (3, 0.9)],
    );
    assert_eq!(
        verdict(&study, "MAXRIGHT ends nearest").holds,
        PerSet::both(Some(TooCloseToCall))
    );
    let page = write(&study);
    for words in [
        "\u{201c}maxright\u{201d} ends nearest to the ideal point",
        "Too close to it to call: \u{201c}mix\u{201d} (1.210).",
        "2 hold, 1 is too close to call, 1 does not.",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // One clear pair the other way is enough.
    add(
        &study,
        "alright",
        &run("alright"),
        &[(1, 0.5), (2, 0.6), (3, 0.5)],
    );
    assert_eq!(
        verdict(&study, "MAXRIGHT ends nearest").holds,
        PerSet::both(Some(No))
    );
    // Whoever is not asked about counts as nearer only where that is clear.
    let often = run("maxright").probe_every(1);
    add(&study, "often", &often, &[(1, 0.4), (2, 0.7), (3, 0.45)]);
    let nearest = || verdict(&study, "MAXRIGHT ends nearest").because;
    assert!(
        !nearest().training.contains("not part of the claim"),
        "{:?}",
        nearest()
    );
    add(
        &study,
        "seldom",
        &run("maxright").probe_every(100),
        &[(1, 0.1), (2, 0.15), (3, 0.1)],
    );
    assert!(
        nearest()
            .training
            .contains("not part of the claim, but nearer: \u{201c}maxright k 100\u{201d}"),
        "{:?}",
        nearest()
    );
}

/// Costs are ratios seed by seed, held against 1.25 with their error.
#[test]
fn costs_are_called_by_the_same_rule() {
    let asked = |alright: [f64; 3], mix: [f64; 3]| {
        let study = study();
        for seed in 1..4 {
            let add = |name: &str, settings: Run, seconds: f64| {
                study.add(
                    &format!("{name}-{seed}"),
                    &settings.seed(seed).seconds(seconds),
                );
            };
            // Sequential takes twice as long with every seed.
            let scale = 2f64.powi(seed as i32);
            add("dpo-sft", sequential(), 0.1 * scale);
            add(
                "alright",
                run("alright"),
                alright[seed as usize - 1] * scale,
            );
            add("mix", run("mix"), mix[seed as usize - 1] * scale);
        }
        // Clock seconds alone, whose ratios are easy to see.
        for name in ["dpo-sft", "alright", "mix"] {
            for seed in 1..4 {
                study.edit(&format!("{name}-{seed}/steps.jsonl"), |text| {
                    text.replace("\"utilization\"", "\"was\"")
                });
            }
        }
        let verdict = verdict(&study, "costs about");
        assert_eq!(verdict.holds.held_out, verdict.holds.training);
        assert!(
            verdict.because.held_out.starts_with(
                "wall-clock seconds relative to Sequential: \u{201c}alright\u{201d} 1."
            ),
            "{verdict:?}"
        );
        assert!(verdict.because.held_out.contains(" ± "), "{verdict:?}");
        (verdict.holds.held_out.unwrap(), verdict.no_error)
    };
    let (cheap, dear) = ([0.104, 0.105, 0.106], [0.2, 0.19, 0.2]);
    assert_eq!(asked(cheap, dear), (Yes, None));
    assert_eq!(asked(dear, dear), (No, None));
    assert_eq!(asked(cheap, cheap), (No, None));
    // Means of 1.2 and of 1.3, with errors of about 0.06.
    assert_eq!(asked([0.110, 0.120, 0.130], dear), (TooCloseToCall, None));
    assert_eq!(asked(cheap, [0.120, 0.130, 0.140]), (TooCloseToCall, None));
}

/// Deb's Delta of points on a front between (0, 4) and (1, 0), written out once more.
fn delta(points: &[[f64; 2]]) -> f64 {
    let distance = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let ends = distance(points[0], [0.0, 4.0]) + distance(points[points.len() - 1], [1.0, 0.0]);
    let gaps: Vec<f64> = points
        .windows(2)
        .map(|pair| distance(pair[0], pair[1]))
        .collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let uneven: f64 = gaps.iter().map(|gap| (gap - mean).abs()).sum();
    (ends + uneven) / (ends + gaps.iter().sum::<f64>())
}

/// Two seeds at every weight give Delta an error; otherwise the verdict says that no error is known.
#[test]
fn evenness_is_called_by_the_same_rule() {
    let lambdas = [0.75, 0.5, 0.25];
    let study_of = |alright: [[f64; 3]; 2], seeds: [[u64; 2]; 3]| {
        let study = study();
        for (k, lambda) in lambdas.into_iter().enumerate() {
            for (run_of, seed) in seeds[k].into_iter().enumerate() {
                let at = |method: &str| run(method).weights(1.0 - lambda, lambda).seed(seed);
                let x = alright[run_of][k];
                study.add(
                    &format!("alright-{lambda}-{seed}"),
                    &at("alright").ending(1.0 - x, 4.0 * x),
                );
                let dpo = (8.0 * lambda) as usize;
                let split = run("sequential")
                    .stages(&[(1, dpo), (0, 8 - dpo)])
                    .seed(seed);
                let x = 0.40 + 0.01 * k as f64 + 0.001 * run_of as f64;
                study.add(
                    &format!("sequential-{lambda}-{seed}"),
                    &split.ending(1.0 - x, 4.0 * x),
                );
            }
        }
        study
    };
    let same = [[1, 2]; 3];
    let even = [[0.2, 0.5, 0.8], [0.15, 0.5, 0.8]];
    let study = study_of(even, same);
    let found = verdict(&study, "evenly");
    assert_eq!(
        (found.holds, found.no_error),
        (PerSet::both(Some(Yes)), None),
        "{found:?}"
    );
    let report = Report::read(&[study.path()]).unwrap();
    let front = report
        .fronts
        .iter()
        .find(|front| front.method == "alright")
        .unwrap();
    let deltas = even.map(|xs| delta(&[xs[2], xs[1], xs[0]].map(|x| [1.0 - x, 4.0 * x])));
    let (mean, error) = mean_and_error(&deltas);
    let spread = front.delta.training.as_ref().unwrap().spread;
    near(spread.mean, mean);
    near(spread.error.unwrap(), error);
    // One seed is more even than Sequential's, the other less: a mean alone would call it.
    let found = verdict(
        &study_of([[0.2, 0.5, 0.8], [0.39, 0.40, 0.41]], same),
        "evenly",
    );
    assert_eq!(
        (found.holds, found.no_error),
        (PerSet::both(Some(TooCloseToCall)), None),
        "{found:?}"
    );
    // No two seeds ran every weight.
    let study = study_of(even, [[1, 2], [1, 3], [1, 4]]);
    let found = verdict(&study, "evenly");
    assert_eq!(
        (found.holds, found.no_error),
        (PerSet::both(Some(Yes)), Some(NoError::SeedsDiffer)),
        "{found:?}"
    );
    assert!(!found.because.training.contains('±'), "{found:?}");
    assert!(
        write(&study)
            .contains("</span>, no error known, as no two seeds were run at every weight.")
    );
}

/// A small k must be clearly nearer, and clearly slower.
#[test]
fn the_claim_on_k_asks_both_parts_by_the_same_rule() {
    let asked = |distances: [[f64; 2]; 2], seconds: [[f64; 2]; 2]| {
        let study = study();
        for (k, probe_every) in [1, 100].into_iter().enumerate() {
            for seed in [1, 2] {
                let at = run("maxright").probe_every(probe_every).seed(seed);
                let index = seed as usize - 1;
                let ended = at
                    .ending(0.0, distances[k][index])
                    .seconds(seconds[k][index]);
                study.add(&format!("k-{probe_every}-{seed}"), &ended);
            }
        }
        verdict(&study, "small k").holds
    };
    let (near, far) = ([0.5, 0.51], [0.9, 0.92]);
    let (fast, slow) = ([0.1, 0.11], [0.15, 0.17]);
    assert_eq!(asked([near, far], [slow, fast]), PerSet::both(Some(Yes)));
    assert_eq!(asked([far, near], [slow, fast]), PerSet::both(Some(No)));
    assert_eq!(asked([near, far], [fast, slow]), PerSet::both(Some(No)));
    assert_eq!(
        asked([near, far], [[0.1, 0.16], fast]),
        PerSet::both(Some(TooCloseToCall))
    );
    assert_eq!(
        asked([[0.5, 1.0], far], [slow, fast]),
        PerSet::both(Some(TooCloseToCall))
    );
}

#[test]
fn the_numbers_say_what_the_page_says() {
    let study = study();
    add(&study, "dpo-sft", &sequential(), &[(1, 1.0), (2, 3.0)]);
    add(&study, "alright", &run("alright"), &[(1, 1.5)]);
    let json = serde_json::to_value(claim(&study, "ends nearer to")).unwrap();
    let verdict = &json["verdicts"][0];
    assert_eq!(verdict["holds"], serde_json::json!(["yes", "yes"]));
    assert_eq!(verdict["no_error"], "one-run");
    add(&study, "alright", &run("alright"), &[(2, 2.6)]);
    let json = serde_json::to_value(claim(&study, "ends nearer to")).unwrap();
    let verdict = &json["verdicts"][0];
    assert_eq!(
        verdict["holds"],
        serde_json::json!(["too-close-to-call", "too-close-to-call"])
    );
    assert_eq!(verdict["no_error"], serde_json::Value::Null);
}

/// Several places and two sets of rows in a few words.
#[test]
fn a_claim_is_summarized_in_words() {
    let at = |[held_out, training]: [Option<Call>; 2]| Verdict {
        at: String::new(),
        holds: PerSet { held_out, training },
        because: PerSet::default(),
        no_error: None,
        small: Small::default(),
    };
    let summary = |places: &[[Option<Call>; 2]]| {
        let claim = Claim {
            text: String::new(),
            verdicts: places.iter().map(|holds| at(*holds)).collect(),
        };
        claim.summary()
    };
    let (yes, no, close) = (Some(Yes), Some(No), Some(TooCloseToCall));
    for (places, words) in [
        (&[[yes, yes], [yes, yes]][..], "holds here"),
        (&[[yes, None]], "holds here"),
        (&[[no, no], [no, no]], "does not hold here"),
        (&[[close, close]], "too close to call here"),
        (&[[None, close]], "too close to call here"),
        (&[[yes, no], [yes, no]], "holds here on held-out rows only"),
        (&[[no, yes]], "holds here on training rows only"),
        (
            &[[yes, close]],
            "holds here on held-out rows, too close to call on training rows",
        ),
        (
            &[[close, yes]],
            "holds here on training rows, too close to call on held-out rows",
        ),
        (
            &[[no, close]],
            "does not hold here on held-out rows, too close to call on training rows",
        ),
        (
            &[[close, no]],
            "does not hold here on training rows, too close to call on held-out rows",
        ),
        (&[[yes, yes], [no, yes]], "holds here in part"),
        (
            &[[yes, yes], [close, yes]],
            "holds here in part, too close to call in part",
        ),
        (
            &[[no, no], [close, no]],
            "does not hold here in part, too close to call in part",
        ),
    ] {
        assert_eq!(summary(places), words, "{places:?}");
    }
}

//! Which runs are one arm, what it is called, and what it is compared with.

use std::fs;

use upright_core::{methods::MIX, metrics::Call};
use upright_report::{Report, Role, Source};
use upright_runs::records::PerSet;

use super::{
    folders::{Run, Study, run},
    near, story, sweep, write,
};

#[test]
fn arms_are_named_by_what_differs() {
    let report = Report::read(&[sweep().path()]).unwrap();
    let labels: Vec<&str> = report.arms.iter().map(|arm| &arm.label[..]).collect();
    let expected = [
        "sft alone",
        "dpo alone",
        "dpo 2, then sft 6",
        "dpo 4, then sft 4",
        "dpo 6, then sft 2",
        "alright lambda 0.25",
        "alright lambda 0.5",
        "alright lambda 0.75",
        "maxright lambda 0.25 k 10",
        "maxright lambda 0.5 k 10",
        "maxright lambda 0.5 k 100",
        "maxright lambda 0.75 k 10",
    ];
    assert_eq!(labels, expected);
    // Sequential's share of steps is its weight.
    let against = |label: &str| {
        &report
            .arms
            .iter()
            .find(|arm| arm.label == label)
            .unwrap()
            .against
    };
    assert_eq!(*against("alright lambda 0.25"), ["dpo 2, then sft 6"]);
    assert_eq!(*against("maxright lambda 0.5 k 100"), ["dpo 4, then sft 4"]);
    // Methods over their weights, and what their end points beat.
    let front = report
        .fronts
        .iter()
        .find(|front| front.method == "alright")
        .unwrap();
    assert_eq!(
        front.weights,
        [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]].map(Vec::from)
    );
    let ends = [0.25, 0.5, 0.75].map(|lambda| [0.4 + lambda, 1.0 - lambda]);
    let [worst_sft, worst_dpo] = [1.2, 4.0];
    // A staircase, by columns from the left.
    let columns = [
        (ends[0], ends[1][0]),
        (ends[1], ends[2][0]),
        (ends[2], worst_sft),
    ];
    let area: f64 = columns
        .iter()
        .map(|([sft, dpo], next)| (next - sft) * (worst_dpo - dpo))
        .sum();
    near(front.hypervolume.training.unwrap(), area);
    // Delta: even steps of (0.25, -0.25) between the ends of the runs alone, (0.3, 4.0) and (1.2, 0.1).
    let step = 0.25 * 2f64.sqrt();
    let reach = (0.65f64 - 0.3).hypot(0.75 - 4.0) + (1.15f64 - 1.2).hypot(0.25 - 0.1);
    near(
        front.delta.training.as_ref().unwrap().spread.mean,
        reach / (reach + 2.0 * step),
    );
    let claims: Vec<(&str, usize)> = report
        .claims
        .iter()
        .map(|claim| (&claim.text[..], claim.verdicts.len()))
        .collect();
    assert_eq!(
        claims.iter().map(|(_, places)| *places).collect::<Vec<_>>(),
        [3, 3, 3, 3, 1, 1],
        "{claims:?}"
    );
}

#[test]
fn splits_pair_with_weights_in_order_where_none_is_the_same() {
    let study = Study::new();
    for (lambda, dpo) in [(0.01, 1), (0.5, 4), (0.99, 7)] {
        study.add(
            &format!("mix-{lambda}"),
            &run("mix").weights(1.0 - lambda, lambda),
        );
        study.add(
            &format!("sequential-{lambda}"),
            &run("sequential").stages(&[(1, dpo), (0, 8 - dpo)]),
        );
    }
    let against = |study: &Study| -> Vec<Vec<String>> {
        let report = Report::read(&[study.path()]).unwrap();
        report
            .arms
            .iter()
            .filter(|arm| arm.role.is(&MIX))
            .map(|arm| arm.against.clone())
            .collect()
    };
    assert_eq!(
        against(&study),
        [
            ["dpo 1, then sft 7"],
            ["dpo 4, then sft 4"],
            ["dpo 7, then sft 1"]
        ]
    );
    // Where they do not pair, only what is the same is compared.
    study.add("mix-0.3", &run("mix").weights(0.7, 0.3));
    assert_eq!(
        against(&study),
        [vec![], vec![], vec!["dpo 4, then sft 4"], vec![]]
    );
    // A lambda that was asked for counts more than the split.
    let asked = run("sequential")
        .stages(&[(1, 2), (0, 6)])
        .weights(0.7, 0.3)
        .asking("lambda = 0.3");
    study.add("sequential-0.3", &asked);
    assert_eq!(against(&study)[1], ["dpo 2, then sft 6"]);
}

#[test]
fn arms_are_held_against_those_that_were_given_the_same() {
    let study = story();
    for seed in [1u64, 2] {
        let add = |name: &str, settings: Run, sft: f64, dpo: f64| {
            let settings = settings
                .seed(seed)
                .lasting(16)
                .ending(sft + 0.01 * seed as f64, dpo);
            study.add(&format!("long-{name}-{seed}"), &settings);
        };
        add(
            "sequential",
            run("sequential").stages(&[(1, 8), (0, 8)]),
            0.4,
            0.2,
        );
        add("alright", run("alright"), 0.6, 0.6);
    }
    let hot = run("maxright")
        .probe_every(100)
        .with("learning-rate = 0.001", "learning-rate = 0.01");
    study.add("hot", &hot.ending(0.3, 0.1));
    let report = Report::read(&[study.path()]).unwrap();
    let given = [
        "steps 8, learning-rate 0.001",
        "steps 16, learning-rate 0.001",
        "steps 8, learning-rate 0.01",
    ];
    assert_eq!(report.terms, given);
    let arm = |label: &str| {
        report
            .arms
            .iter()
            .find(|arm| arm.label == label)
            .unwrap_or_else(|| panic!("{label}"))
    };
    assert_eq!(
        arm("alright, steps 8").against,
        ["dpo 4, then sft 4", "sft 4, then dpo 4"]
    );
    assert_eq!(arm("alright, steps 16").against, ["dpo 8, then sft 8"]);
    let hot = report.arms.iter().find(|arm| arm.terms == Some(2)).unwrap();
    assert!(hot.against.is_empty() && hot.cost_increase.is_none());
    // The long runs of ALRIGHT are farther than Sequential as long, and nearer than the short ones.
    let claim = |words: &str| {
        report
            .claims
            .iter()
            .find(|claim| claim.text.contains(words))
            .unwrap()
    };
    let asked: Vec<(&str, Option<Call>)> = claim("end nearer")
        .verdicts
        .iter()
        .map(|verdict| (&verdict.at[..], verdict.holds.training))
        .collect();
    assert_eq!(
        asked,
        [(given[0], Some(Call::Yes)), (given[1], Some(Call::No))]
    );
    // Neither is a k among them that differs in more than k, nor is the short MAXRIGHT judged by what a hot one reached.
    assert!(
        report
            .claims
            .iter()
            .all(|claim| !claim.text.contains("small k"))
    );
    assert_eq!(claim("MAXRIGHT ends nearest").verdicts.len(), 1);
    assert_eq!(
        claim("MAXRIGHT ends nearest").verdicts[0].holds,
        PerSet::both(Some(Call::Yes))
    );
    let page = write(&study);
    assert!(page.contains(
        "The arms have different training budgets: \u{201c}steps 8, learning-rate 0.001\u{201d}"
    ));
    assert!(page.contains(
        "(steps 16, learning-rate 0.001), \u{201c}dpo 8, then sft 8\u{201d} ends nearest"
    ));
    assert!(!study.path().join("report/tables/probes.csv").exists());
    // Arms that all have the same budget get no such warning.
    assert!(!write(&story()).contains("training budget"));
}

#[test]
fn stages_in_epochs_are_held_against_the_one_length_that_is_there() {
    let study = story();
    let epochs = run("sequential").stages(&[(1, 3), (0, 6)]);
    let epochs = epochs
        .with("{ steps = 3 }", "{ epochs = 0.2 }")
        .with("{ steps = 6 }", "{ epochs = 0.4 }");
    study.add("epochs", &epochs.ending(0.6, 1.5));
    let report = Report::read(&[study.path()]).unwrap();
    let arm = |label: &str| {
        report
            .arms
            .iter()
            .find(|arm| arm.label == label)
            .unwrap_or_else(|| panic!("{label}"))
    };
    assert_eq!(report.terms.len(), 1);
    assert_eq!(arm("dpo 3, then sft 6").terms, arm("alright").terms);
    // Another length: which of the two is meant nobody knows.
    study.add("long", &run("alright").lasting(16).ending(0.5, 0.5));
    let report = Report::read(&[study.path()]).unwrap();
    assert_eq!(report.terms, ["steps 8", "steps 16", "steps 9"]);
}

/// An adapter that a run begins with is something it was given.
#[test]
fn runs_that_begin_elsewhere_are_not_compared() {
    let study = story();
    study.add(
        "on",
        &run("mix")
            .seed(9)
            .with("init-adapter = \"\"", "init-adapter = \"abc\"")
            .ending(0.2, 0.2),
    );
    let report = Report::read(&[study.path()]).unwrap();
    assert_eq!(report.terms.len(), 2);
}

#[test]
fn settings_that_differ_are_named_and_losses_of_other_references_are_kept_apart() {
    let study = Study::new();
    study.add("a", &run("mix"));
    study.add(
        "b",
        &run("mix").with("learning-rate = 0.001", "learning-rate = 0.002"),
    );
    study.add(
        "c",
        &run("mix").with(
            "reference = \"base\"",
            "reference = { folder = \"/elsewhere/kind\" }",
        ),
    );
    study.add("alone", &run("mix").weights(0.0, 1.0).ending(1.0, 0.25));
    let report = Report::read(&[study.path()]).unwrap();
    let mut labels: Vec<&str> = report.arms.iter().map(|arm| &arm.label[..]).collect();
    labels.sort_unstable();
    let expected = [
        "dpo alone, reference base",
        "mix, reference base, optimizer.learning-rate 0.001",
        "mix, reference base, optimizer.learning-rate 0.002",
        "mix, reference kind",
    ];
    assert_eq!(labels, expected);
    assert_eq!(report.settings.len(), 2);
    let gap = |label: &str| {
        report
            .arms
            .iter()
            .find(|arm| arm.label == label)
            .unwrap()
            .gaps
            .training[1]
    };
    assert!(gap("mix, reference kind").is_none() && gap(expected[1]).is_some());
    let page = write(&study);
    assert!(page.contains("2 different settings"));
    // What changes no step is no difference: an evaluation more often, an optimum that only MAXRIGHT heeds, another place.
    let same = Study::new();
    same.add("a", &run("mix"));
    same.add(
        "b",
        &run("mix")
            .seed(2)
            .with("eval-every = 4", "eval-every = 8")
            .with("/data/sft.jsonl", "/moved/sft.jsonl"),
    );
    same.add(
        "c",
        &run("mix").seed(3).with(
            "tie-rank = 1",
            "tie-rank = 1\noptimum = 0.1\noptimum-eval = 0.2",
        ),
    );
    let report = Report::read(&[same.path()]).unwrap();
    assert_eq!((report.arms.len(), report.arms[0].runs.len()), (1, 3));
}

/// Losses that differ in a setting of theirs, or that read other columns, measure different things.
#[test]
fn losses_of_other_settings_are_kept_apart() {
    let end = "label-smoothing = 0.0\ntie-rank = 0";
    for (loss, one, other) in [
        ("rpo", "alpha = 0.5", "alpha = 2.0"),
        ("simpo", "gamma = 0.5", "gamma = 1.0"),
        ("rpo", "map = \"chosen=good\"", "map = \"chosen=best\""),
    ] {
        let with = |more: &str| {
            run("mix")
                .with("loss = \"dpo\"", &format!("loss = \"{loss}\""))
                .with(end, &format!("{more}\n{end}"))
        };
        let study = Study::new();
        study.add("a", &with(one));
        study.add("b", &with(other));
        study.add("c", &with(one).seed(2));
        let report = Report::read(&[study.path()]).unwrap();
        assert_eq!((report.settings.len(), report.arms.len()), (2, 2), "{one}");
    }
}

#[test]
fn given_optima_win_and_an_objective_that_others_lack_is_left_out() {
    let study = Study::new();
    study.add("alone", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    let given = "tie-rank = 1\noptimum = 0.125\noptimum-eval = 0.25";
    study.add(
        "mix",
        &run("mix").ending(0.5, 0.5).with("tie-rank = 1", given),
    );
    study.add(
        "rpo",
        &run("mix").third("rpo", [0.0, 0.5, 0.5]).ending(0.5, 0.5),
    );
    study.add(
        "sum",
        &run("mix")
            .sum("sum-lambda-0.5-seed-1-0a1b2c3d")
            .ending(0.6, 0.6),
    );
    let report = Report::read(&[study.path()]).unwrap();
    assert_eq!(report.objectives, ["sft", "dpo"]);
    let arm = |label: &str| {
        report
            .arms
            .iter()
            .find(|arm| arm.label == label)
            .unwrap_or_else(|| panic!("{label}"))
    };
    assert_eq!(
        (&arm("rpo").role, &arm("sum of adapters").role),
        (&Role::Other("rpo".into()), &Role::Sum)
    );
    let optima = &report.settings[0].ideal;
    assert_eq!(
        optima.training[0].as_ref().map(|o| (o.value, o.source)),
        Some((0.125, Source::Given))
    );
    assert_eq!(optima.held_out[0].as_ref().map(|o| o.value), Some(0.25));
    assert_eq!(optima.training[1], None);
    near(arm("mix").gaps.training[0].unwrap().mean, 0.5 - 0.125);
    assert!(arm("mix").ideal_distance.training.is_none() && report.claims.is_empty());
    let page = write(&study);
    for words in [
        "No optimum is known for dpo on held-out rows and training rows, so",
        "--optimum-eval",
        "objective rpo",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn a_studys_sums_are_one_arm_over_seeds_and_any_other_adapter_is_its_own() {
    let study = Study::new();
    let name = |seed: u64| format!("half.sum-lambda-0.5-seed-{seed}-0a1b2c3{seed}");
    for seed in [1, 2] {
        study.add(
            &name(seed),
            &run("mix")
                .sum(&name(seed))
                .seed(seed)
                .ending(0.4 + 0.1 * seed as f64, 0.5),
        );
    }
    for (seed, adapter) in [
        (1, "/mine/kind"),
        (2, "/mine/plain"),
        (4, "/runs/first/adapter"),
        (3, "/elsewhere/kind"),
    ] {
        let folder = format!("measured{}", adapter.replace('/', "-"));
        study.add(
            &folder,
            &run("mix").measuring(adapter).seed(seed).ending(0.7, 0.7),
        );
    }
    let report = Report::read(&[study.path()]).unwrap();
    let arms: Vec<(&str, usize)> = report
        .arms
        .iter()
        .map(|arm| (&arm.label[..], arm.runs.len()))
        .collect();
    let twins = ["-elsewhe", "-mine-ki"].map(|hash| format!("adapter kind, init-adapter {hash}"));
    let expected = [
        ("sum of adapters", 2),
        ("adapter first", 1),
        (&twins[0], 1),
        (&twins[1], 1),
        ("adapter plain", 1),
    ];
    assert_eq!(arms, expected);
    near(report.arms[0].ends.training[0].unwrap().mean, 0.55);
    assert!(
        report.arms[1..]
            .iter()
            .all(|arm| matches!(arm.role, Role::Measured(_)))
    );
    // The same names in another study are other sums: nothing says which of them belong together.
    let other = name(1).replace("0a1b", "0f0f");
    study.add("another", &run("mix").sum(&other).ending(0.9, 0.9));
    let sums = Report::read(&[study.path()]).unwrap();
    assert_eq!(
        sums.arms
            .iter()
            .filter(|arm| arm.role == Role::Sum && arm.runs.len() == 1)
            .count(),
        3
    );

    // Nobody says of an adapter that it was added up.
    let alone = Study::new();
    alone.add("measured", &run("mix").measuring("/mine/kind"));
    alone.add("mix", &run("mix"));
    let page = write(&alone);
    assert!(
        page.contains("evaluated as it is, without training") && page.contains("<td>none</td>")
    );
    assert!(!page.contains("trained separately and then added"));
}

/// A sum is called by its weights like other arms, and not by the adapter of its first seed.
#[test]
fn sums_at_several_weights_are_called_by_them() {
    let study = Study::new();
    for lambda in [0.25, 0.5] {
        study.add(
            &format!("mix-{lambda}"),
            &run("mix").weights(1.0 - lambda, lambda),
        );
        for seed in [1, 2] {
            let name = format!("sum-lambda-{lambda}-seed-{seed}-0a1b2c3d");
            study.add(
                &name,
                &run("mix")
                    .weights(1.0 - lambda, lambda)
                    .sum(&name)
                    .seed(seed),
            );
        }
    }
    let labels = |study: &Study| -> Vec<(String, usize)> {
        let report = Report::read(&[study.path()]).unwrap();
        let sums = report.arms.iter().filter(|arm| arm.role == Role::Sum);
        sums.map(|arm| (arm.label.clone(), arm.runs.len()))
            .collect()
    };
    let named = |name: &str, runs: usize| (format!("sum of adapters lambda {name}"), runs);
    assert_eq!(labels(&study), [named("0.25", 2), named("0.5", 2)]);
    // Another setting tells sums of equal weights apart.
    for seed in [1, 2] {
        let name = format!("fast.sum-lambda-0.25-seed-{seed}-0a1b2c3d");
        let fast = run("mix")
            .weights(0.75, 0.25)
            .with("learning-rate = 0.001", "learning-rate = 0.002");
        study.add(&name, &fast.sum(&name).seed(seed));
    }
    let expected = [
        named("0.25, optimizer.learning-rate 0.001", 2),
        named("0.25, optimizer.learning-rate 0.002", 2),
        named("0.5", 2),
    ];
    assert_eq!(labels(&study), expected);
}

#[test]
fn three_objectives_are_compared_and_the_plane_says_that_it_shows_two() {
    let study = Study::new();
    study.add(
        "a",
        &run("alright")
            .third("kind", [0.2, 0.3, 0.5])
            .ending(0.5, 0.5),
    );
    study.add(
        "b",
        &run("alright")
            .third("kind", [0.2, 0.5, 0.3])
            .ending(0.4, 0.6),
    );
    for (name, weights) in [
        ("sft", [1.0, 0.0, 0.0]),
        ("dpo", [0.0, 1.0, 0.0]),
        ("kind", [0.0, 0.0, 1.0]),
    ] {
        study.add(name, &run("mix").third("kind", weights).ending(0.3, 0.2));
    }
    let report = Report::read(&[study.path()]).unwrap();
    assert_eq!(report.objectives, ["sft", "dpo", "kind"]);
    let labels: Vec<&str> = report.arms.iter().map(|arm| &arm.label[..]).collect();
    let joint = [
        "alright sft 0.2 dpo 0.5 kind 0.3",
        "alright sft 0.2 dpo 0.3 kind 0.5",
    ];
    assert_eq!(
        labels,
        [&["sft alone", "dpo alone", "kind alone"][..], &joint].concat()
    );
    let arm = &report.arms[3];
    let squares: f64 = arm
        .gaps
        .training
        .iter()
        .map(|gap| gap.unwrap().mean.powi(2))
        .sum();
    near(arm.ideal_distance.training.unwrap().mean, squares.sqrt());
    assert!(write(&study).contains("There are 3 objectives; this plot shows dpo and sft."));
}

#[test]
fn unfinished_runs_are_marked_and_damaged_ones_named_and_neither_is_in_a_mean() {
    let study = Study::new();
    study.add("good", &run("mix").ending(0.5, 0.5));
    study.add(
        "short",
        &run("mix").seed(2).ending(9.0, 9.0).stopped_after(5),
    );
    study.add("begun", &run("alright").ending(0.7, 0.7).stopped_after(4));
    for name in ["no-plan", "bad-step", "bad-loss", "too-long", "no-end"] {
        study.add(name, &run("mix").seed(3).ending(7.0, 7.0));
    }
    study.edit("no-plan/plan.toml", |text| text.replace("[plan]", "[plan"));
    study.edit("bad-step/steps.jsonl", |text| {
        text.replace("{\"step\":3,", "{\"step\":2,")
    });
    study.edit("bad-loss/evals.jsonl", |text| {
        text.replace("\"fit/loss/dpo\":7.0", "\"fit/loss/dpo\":null")
    });
    study.edit("too-long/steps.jsonl", |text| {
        text.clone() + &text.lines().last().unwrap().replace(":7,", ":8,") + "\n"
    });
    study.edit("no-end/evals.jsonl", |text| {
        let lines: Vec<&str> = text.lines().collect();
        lines[..2].join("\n") + "\n{\"step\":8}\n"
    });
    let report = Report::read(&[study.path()]).unwrap();
    let mix = report.arms.iter().find(|arm| arm.label == "mix").unwrap();
    assert_eq!(
        (mix.runs.len(), mix.all.len(), mix.unfinished),
        (1, 2, false)
    );
    assert_eq!(mix.ends.training[0].map(|end| end.mean), Some(0.5));
    let begun = report
        .arms
        .iter()
        .find(|arm| arm.label == "alright")
        .unwrap();
    assert!(begun.unfinished && report.claims.is_empty());
    let damaged: Vec<&str> = report
        .damaged
        .iter()
        .map(|damaged| &damaged.place[..])
        .collect();
    assert_eq!(
        damaged,
        [
            "runs/bad-loss",
            "runs/bad-step",
            "runs/no-end",
            "runs/no-plan",
            "runs/too-long"
        ]
    );
    let page = write(&study);
    for words in [
        "unfinished: 5 of 8",
        "alright (unfinished)",
        "runs/bad-step/steps.jsonl: line 4: is not step 3",
        "runs/bad-loss/evals.jsonl: line 3: fit/loss/dpo is not a number",
        "runs/too-long/steps.jsonl: has 9 steps, but the plan has 8",
        "runs/no-end/evals.jsonl: has no loss after the last step",
        "runs/no-plan/plan.toml",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains(study.path().to_str().unwrap()));
    // A torn last line is what a kill leaves, not damage.
    study.edit("short/steps.jsonl", |text| {
        text.trim_end().trim_end_matches('}').to_owned()
    });
    assert_eq!(Report::read(&[study.path()]).unwrap().damaged.len(), 5);
}

/// A copied folder or a rerun is no further seed.
#[test]
fn a_seed_counts_once() {
    let study = story();
    let before = Report::read(&[study.path()]).unwrap();
    study.add(
        "zz-copy",
        &run("mix").seed(1).ending(0.46, 0.42).seconds(0.2),
    );
    study.add(
        "zz-cut-short",
        &run("mix").seed(2).ending(9.0, 9.0).stopped_after(4),
    );
    let report = Report::read(&[study.path()]).unwrap();
    let mix = |report: &Report| {
        report
            .arms
            .iter()
            .find(|arm| arm.label == "mix")
            .unwrap()
            .clone()
    };
    let (mix, before) = (mix(&report), mix(&before));
    assert_eq!(
        (mix.runs.len(), mix.all.len(), mix.repeated.len()),
        (2, 4, 1)
    );
    assert_eq!((&mix.ends, mix.seconds), (&before.ends, before.seconds));
    let page = write(&study);
    assert!(page.contains("excluded from all means: runs/zz-copy (repeats runs/mix-1, seed 1)."));
    assert!(!write(&story()).contains("Duplicate runs"));
    // Where no run is finished, the one that came farthest counts.
    let study = Study::new();
    study.add("a", &run("mix").stopped_after(1));
    study.add("b", &run("mix").stopped_after(5));
    let report = Report::read(&[study.path()]).unwrap();
    assert_eq!(report.runs[report.arms[0].runs[0]].place, "runs/b");
}

#[test]
fn runs_that_reached_what_they_stop_at_are_finished() {
    let study = Study::new();
    let stops = |run: Run| {
        run.stopped_after(4).with(
            "\n[facts]",
            "\n[plan.stop]\npoints = [[0.9, 3.0]]\nwithin = 0.0001\n\n[facts]",
        )
    };
    // Half the way from losses of 1 and 5.
    study.add("reached", &stops(run("maxright").ending(0.7, 0.7)));
    study.add("killed", &stops(run("alright").ending(0.9, 0.7)));
    let report = Report::read(&[study.path()]).unwrap();
    let unfinished = |label: &str| {
        report
            .arms
            .iter()
            .find(|arm| arm.label == label)
            .unwrap()
            .unfinished
    };
    assert!(!unfinished("maxright") && unfinished("alright"));
    let page = write(&study);
    assert!(page.contains("4 of 8 (reached its goal)") && page.contains("unfinished: 4 of 8"));
    assert!(page.contains("stopped early because"));
}

#[test]
fn a_claim_says_whom_it_asks_about_who_stopped_early_and_who_else_is_nearer() {
    let study = story();
    // Two of three runs of MAXRIGHT stop half the way from losses of 1 and 5, one takes all its steps.
    fs::remove_dir_all(study.path().join("runs/maxright-1")).unwrap();
    fs::remove_dir_all(study.path().join("runs/maxright-2")).unwrap();
    fs::remove_dir_all(study.path().join("runs/sft-dpo-1")).unwrap();
    fs::remove_dir_all(study.path().join("runs/sft-dpo-2")).unwrap();
    let stop = "\n[plan.stop]\npoints = [[0.8, 2.9]]\nwithin = 0.0001\n\n[facts]";
    let maxright = |seed: u64| run("maxright").seed(seed).with("\n[facts]", stop);
    study.add("early-1", &maxright(1).ending(0.5, 0.5).stopped_after(4));
    study.add("early-2", &maxright(2).ending(0.6, 0.6).stopped_after(4));
    study.add("late-3", &maxright(3).ending(0.9, 0.9));
    study.add("often", &run("maxright").probe_every(1).ending(0.35, 0.2));
    study.add(
        "rpo",
        &run("mix").third("rpo", [0.0, 0.0, 1.0]).ending(2.0, 3.0),
    );
    study.add(
        "sum",
        &run("mix")
            .sum("sum-lambda-0.5-seed-1-0a1b2c3d")
            .ending(0.31, 0.11),
    );
    let page = write(&study);
    let report = Report::read(&[study.path()]).unwrap();
    let claim = |words: &str| {
        report
            .claims
            .iter()
            .find(|claim| claim.text.contains(words))
            .unwrap()
    };
    let nearest = claim("MAXRIGHT ends nearest");
    assert_eq!(
        nearest.text,
        "MAXRIGHT ends nearest to the ideal point, nearer than Sequential (dpo, then sft), Mix and ALRIGHT"
    );
    let because = &nearest.verdicts[0].because.training;
    for words in [
        "(2 of 3 runs stopped at the goal after 4 of 8 steps)",
        "\u{201c}dpo, then sft\u{201d} 1.9",
        "; not part of the claim, but nearer: \u{201c}maxright k 1\u{201d} 0.112 on 1080 tokens, \
         \u{201c}sum of adapters\u{201d} 0.014 on 2160 tokens",
    ] {
        assert!(because.contains(words), "{words}: {because}");
    }
    assert!(!because.contains("rpo"), "{because}");
    assert!(
        claim("end nearer to")
            .text
            .ends_with("than Sequential (dpo, then sft)")
    );
    assert!(
        claim("cost about").verdicts[0]
            .because
            .held_out
            .contains("after 4 of 8 steps")
    );
    assert!(
        page.contains("Some runs stopped early, at the goal")
            && page.contains("One rule decides every claim")
    );
    // Where both orders are there, they need no names; where nobody stopped, nothing is said of it.
    let page = write(&story());
    assert!(page.contains("nearer than Sequential in either order, Mix and ALRIGHT"));
    assert!(!page.contains("stopped at") && !page.contains("not part of the claim"));
}

/// A run that others kept waiting takes longer and costs no more.
#[test]
fn what_else_the_machine_did_changes_no_verdict_on_cost() {
    let study = story();
    let asked = || {
        let report = Report::read(&[study.path()]).unwrap();
        let arm = report
            .arms
            .iter()
            .find(|arm| arm.label == "alright")
            .unwrap();
        let claim = report
            .claims
            .iter()
            .find(|claim| claim.text.contains("cost about"))
            .unwrap();
        (
            claim.clone(),
            arm.cost_increase.unwrap(),
            arm.runtime_increase.unwrap().mean,
        )
    };
    let (claim, cost, runtime) = asked();
    assert_eq!(claim.summary(), "holds here");
    study.edit("alright-1/steps.jsonl", |text| {
        let slower = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            for (key, times) in [("seconds", 8.0), ("utilization", 0.125)] {
                line[key] = (times * line[key].as_f64().unwrap()).into();
            }
            format!("{line}\n")
        };
        text.lines().map(slower).collect()
    });
    let after = asked();
    assert_eq!((after.0, after.1), (claim, cost));
    assert!(after.2 > runtime + 300.0, "{} after {runtime}", after.2);
}

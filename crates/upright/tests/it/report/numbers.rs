//! Every number of tables and figures is computed again here, straight from the lines of the runs.

use std::{collections::BTreeMap, fs};

use upright_report::{NoError, Report, Source};

use super::{
    folders::{Csv, Study, mean_and_error, run},
    near, story, sweep, write,
};

/// What one run's files say, read without the program.
struct Records {
    evals: Vec<serde_json::Value>,
    steps: Vec<serde_json::Value>,
}

impl Records {
    fn of(study: &Study, name: &str) -> Self {
        let lines = |file: &str| {
            let text = fs::read_to_string(study.path().join("runs").join(name).join(file)).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        Self {
            evals: lines("evals.jsonl"),
            steps: lines("steps.jsonl"),
        }
    }

    fn end(&self, set: &str, objective: &str) -> f64 {
        self.evals.last().unwrap()[format!("{set}/loss/{objective}")]
            .as_f64()
            .unwrap()
    }

    fn smallest(&self, set: &str, objective: &str) -> f64 {
        let values = self
            .evals
            .iter()
            .map(|line| line[format!("{set}/loss/{objective}")].as_f64().unwrap());
        values.fold(f64::INFINITY, f64::min)
    }

    fn total(&self, key: &str) -> f64 {
        self.steps
            .iter()
            .map(|line| line[key].as_f64().unwrap())
            .sum()
    }

    fn busy(&self) -> f64 {
        let of = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
        self.steps
            .iter()
            .map(|line| of(line, "seconds") * of(line, "utilization"))
            .sum()
    }

    fn median(&self, key: &str) -> f64 {
        let mut values: Vec<f64> = self
            .steps
            .iter()
            .map(|line| line[key].as_f64().unwrap())
            .collect();
        values.sort_by(f64::total_cmp);
        (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
    }
}

const SETS: [(&str, &str); 2] = [("eval", "held-out rows"), ("fit", "training rows")];

#[test]
fn tables_are_what_the_records_say() {
    let study = story();
    write(&study);
    let tables = study.path().join("report/tables");
    let (results, gaps, cost) = (
        Csv::read(&tables, "results"),
        Csv::read(&tables, "gaps"),
        Csv::read(&tables, "cost"),
    );
    let optima = |set: &str| {
        ["sft", "dpo"].map(|name| Records::of(&study, &format!("{name}-alone")).smallest(set, name))
    };
    let methods = [
        ("dpo-sft", "dpo, then sft"),
        ("sft-dpo", "sft, then dpo"),
        ("mix", "mix"),
        ("alright", "alright"),
        ("maxright", "maxright"),
    ];
    let records = |name: &str| [1, 2].map(|seed| Records::of(&study, &format!("{name}-{seed}")));
    let time = |name: &str| mean_and_error(&records(name).map(|run| run.total("seconds")));
    let used = |name: &str| mean_and_error(&records(name).map(|run| run.median("utilization")));
    let mut distances = BTreeMap::new();
    let report = Report::read(&[study.path()]).unwrap();
    for (name, label) in methods {
        let runs = records(name);
        for (set, set_name) in SETS {
            let optima = optima(set);
            let of = |run: &Records| ["sft", "dpo"].map(|objective| run.end(set, objective));
            for (k, objective) in ["sft", "dpo"].into_iter().enumerate() {
                let (mean, error) = mean_and_error(&runs.each_ref().map(|run| of(run)[k]));
                near(
                    results.number(label, &format!("{set_name} {objective} loss")),
                    mean,
                );
                near(
                    results.number(label, &format!("{set_name} {objective} loss error")),
                    error,
                );
                near(
                    gaps.number(label, &format!("{set_name} {objective} gap")),
                    mean - optima[k],
                );
                near(
                    gaps.number(label, &format!("{set_name} {objective} gap error")),
                    error,
                );
            }
            let far = |run: &Records| (of(run)[0] - optima[0]).hypot(of(run)[1] - optima[1]);
            let (mean, error) = mean_and_error(&runs.each_ref().map(far));
            for table in [&results, &gaps] {
                near(table.number(label, &format!("{set_name} distance")), mean);
                near(
                    table.number(label, &format!("{set_name} distance error")),
                    error,
                );
            }
            distances.insert((set, name), mean);
        }
        let (mean, error) = time(name);
        near(cost.number(label, "wall-clock seconds"), mean);
        near(cost.number(label, "wall-clock seconds error"), error);
        near(cost.number(label, "utilization (%)"), 100.0 * used(name).0);
        let (mean, error) = mean_and_error(&records(name).map(|run| run.busy()));
        near(cost.number(label, "busy seconds"), mean);
        near(cost.number(label, "busy seconds error"), error);
        let rates = records(name).map(|run| run.total("tokens") / run.total("seconds"));
        near(cost.number(label, "tokens/s"), mean_and_error(&rates).0);
        for objective in ["sft", "dpo"] {
            let count = |run: Records| {
                run.steps
                    .iter()
                    .filter(|line| line.get(format!("loss/{objective}")).is_some())
                    .count()
            };
            near(
                cost.number(label, &format!("steps of {objective}")),
                mean_and_error(&records(name).map(|run| count(run) as f64)).0,
            );
        }
        let increase = cost.cell(label, "increase in busy seconds (%)");
        let arm = report.arms.iter().find(|arm| arm.label == label).unwrap();
        if name.contains('-') {
            assert_eq!(
                increase, "",
                "Sequential is what the others are measured against"
            );
        } else {
            let percent = |of: &dyn Fn(&str) -> (f64, f64)| {
                let (a, b) = (of("dpo-sft"), of("sft-dpo"));
                let (own, base) = (of(name), ((a.0 + b.0) / 2.0, a.1.hypot(b.1) / 2.0));
                let error = (own.1 / base.0).hypot(own.0 / base.0 * base.1 / base.0);
                (100.0 * (own.0 - base.0) / base.0, 100.0 * error)
            };
            let runtime = arm.runtime_increase.unwrap();
            near(runtime.mean, percent(&time).0);
            near(runtime.error.unwrap(), percent(&time).1);
            // Seed by seed, relative to the mean of both orders.
            let busy = |name: &str| records(name).map(|run| run.busy());
            let (own, first, second) = (busy(name), busy("dpo-sft"), busy("sft-dpo"));
            let ratio = |i: usize| own[i] / ((first[i] + second[i]) / 2.0);
            let (mean, error) = mean_and_error(&[ratio(0), ratio(1)]);
            near(increase.parse().unwrap(), 100.0 * (mean - 1.0));
            near(
                cost.number(label, "increase in busy seconds (%) error"),
                100.0 * error,
            );
            near(
                cost.number(label, "utilization increase (%)"),
                percent(&used).0,
            );
        }
    }
    near(
        results.number("ideal point, each alone", "training rows dpo loss"),
        optima("fit")[1],
    );
    let first = |run: &Records| run.evals[0]["eval/loss/sft"].as_f64().unwrap();
    near(
        results.number("start, before training", "held-out rows sft loss"),
        first(&records("mix")[0]),
    );
    // The claims, asked again: the joint methods were made to be nearer, and MAXRIGHT the nearest.
    let summaries: Vec<String> = report.claims.iter().map(|claim| claim.summary()).collect();
    assert_eq!(summaries, ["holds here"; 5]);
    assert!(
        methods
            .iter()
            .all(|(name, _)| distances[&("fit", "maxright")] <= distances[&("fit", *name)])
    );
    assert_eq!(
        report
            .best
            .on_front
            .iter()
            .filter(|front| front.training)
            .count(),
        3,
        "{:?}",
        report.best.on_front
    );
    assert!(
        report.settings[0]
            .ideal
            .held_out
            .iter()
            .flatten()
            .all(|optimum| optimum.source == Source::Alone)
    );
}

/// One seed of each: no error is made up, and what rests on single runs says so.
#[test]
fn a_single_run_has_no_error() {
    let study = sweep();
    let page = write(&study);
    let report = Report::read(&[study.path()]).unwrap();
    let arm = report
        .arms
        .iter()
        .find(|arm| arm.label == "alright lambda 0.5")
        .unwrap();
    assert_eq!(
        (
            arm.ends.training[0].unwrap().error,
            arm.cost_increase.unwrap().error
        ),
        (None, None)
    );
    let mut verdicts = report.claims.iter().flat_map(|claim| &claim.verdicts);
    assert!(verdicts.all(|verdict| verdict.no_error == Some(NoError::OneRun)));
    let mut numbers = report
        .claims
        .iter()
        .flat_map(|claim| &claim.verdicts)
        .flat_map(|verdict| verdict.because.iter());
    assert!(numbers.all(|because| !because.contains('±')));
    for words in [
        "</span>, one run, no error known.",
        "An arm with one run has no error",
        "None of them has a known error, so other seeds may change the verdicts.",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("<span class=\"error\">"));
    let tables = study.path().join("report/tables");
    let results = Csv::read(&tables, "results");
    assert_eq!(
        results.cell("alright lambda 0.5", "training rows sft loss"),
        "0.9"
    );
    assert_eq!(
        results.cell("alright lambda 0.5", "training rows sft loss error"),
        ""
    );
    assert_eq!(
        Csv::read(&tables, "cost").cell("alright lambda 0.5", "increase in busy seconds (%) error"),
        ""
    );
    // With several seeds none of this is said.
    let page = write(&story());
    assert!(!page.contains("no error known") && page.contains("<span class=\"error\">"));
}

/// A sum of adapters takes no step, and costs what the runs of its seed cost that trained them.
#[test]
fn a_sum_costs_what_training_its_adapters_cost() {
    let study = Study::new();
    for seed in [1, 2] {
        let scale = seed as f64;
        let alone = |sft: f64, seconds: f64| {
            run("mix")
                .weights(sft, 1.0 - sft)
                .seed(seed)
                .seconds(seconds * scale)
        };
        study.add(
            &format!("sft-alone-{seed}"),
            &alone(1.0, 0.1).ending(0.3, 4.0),
        );
        study.add(
            &format!("dpo-alone-{seed}"),
            &alone(0.0, 0.2).ending(1.2, 0.1),
        );
        let split = run("sequential")
            .stages(&[(1, 4), (0, 4)])
            .seed(seed)
            .seconds(0.1 * scale);
        study.add(&format!("dpo-sft-{seed}"), &split.ending(0.9, 1.9));
        let name = format!("sum-lambda-0.5-seed-{seed}-0a1b2c3d");
        study.add(&name, &run("mix").sum(&name).seed(seed).ending(0.31, 0.11));
    }
    let page = write(&study);
    let cost = || Csv::read(&study.path().join("report/tables"), "cost");
    let parts = [1, 2].map(|seed| {
        ["sft", "dpo"].map(|name| Records::of(&study, &format!("{name}-alone-{seed}")))
    });
    let of = |value: &dyn Fn(&Records) -> f64| {
        parts.each_ref().map(|[sft, dpo]| value(sft) + value(dpo))
    };
    let (seconds, tokens) = (
        of(&|run| run.total("seconds")),
        of(&|run| run.total("tokens")),
    );
    for (column, values) in [
        ("wall-clock seconds", seconds),
        ("busy seconds", of(&Records::busy)),
        ("tokens/s", [tokens[0] / seconds[0], tokens[1] / seconds[1]]),
    ] {
        let (mean, error) = mean_and_error(&values);
        near(cost().number("sum of adapters", column), mean);
        near(
            cost().number("sum of adapters", &format!("{column} error")),
            error,
        );
    }
    for name in ["sft", "dpo"] {
        near(
            cost().number("sum of adapters", &format!("steps of {name}")),
            8.0,
        );
    }
    near(cost().number("sum of adapters", "peak memory (GB)"), 1.5);
    // Who is nearest has a price. Busy seconds say it: they are what claims on cost go by.
    let busy = [1, 2].map(|seed| Records::of(&study, &format!("dpo-sft-{seed}")).busy());
    let own = of(&Records::busy);
    let more = 100.0 * (mean_and_error(&[own[0] / busy[0], own[1] / busy[1]]).0 - 1.0);
    let nearest = "\u{201c}sum of adapters\u{201d} ends nearest to the ideal point";
    assert!(
        page.contains(nearest)
            && page.contains(&format!("in {more:.0}% more busy seconds than Sequential")),
        "{more}"
    );
    let increase = cost().number("sum of adapters", "increase in busy seconds (%)");
    near(increase, more);

    // Runs of another length leave open which were added; without a run nobody knows either.
    let unknown = || {
        let page = write(&study);
        let cost = cost();
        for column in [
            "wall-clock seconds",
            "busy seconds",
            "tokens/s",
            "steps of sft",
            "increase in busy seconds (%)",
        ] {
            assert_eq!(cost.cell("sum of adapters", column), "", "{column}");
        }
        assert!(page.contains(", at an unknown cost)") && !page.contains(">0.00<"));
    };
    study.add(
        "long",
        &run("mix").weights(1.0, 0.0).lasting(16).ending(0.3, 4.0),
    );
    unknown();
    fs::remove_dir_all(study.path().join("runs/long")).unwrap();
    near(
        Report::read(&[study.path()]).unwrap().arms[3]
            .seconds
            .unwrap()
            .mean,
        mean_and_error(&seconds).0,
    );
    fs::remove_dir_all(study.path().join("runs/dpo-alone-2")).unwrap();
    unknown();
    // Another optimizer trained other adapters.
    let other = run("mix")
        .weights(0.0, 1.0)
        .seed(2)
        .with("learning-rate = 0.001", "learning-rate = 0.002");
    study.add("other", &other.ending(1.2, 0.1));
    unknown();
}

/// What an adapter cost that was there already, its folder does not say.
#[test]
fn an_adapter_that_was_there_has_no_known_cost() {
    let study = Study::new();
    study.add("measured", &run("mix").measuring("/mine/kind"));
    study.add("mix", &run("mix"));
    write(&study);
    let cost = Csv::read(&study.path().join("report/tables"), "cost");
    assert_eq!(cost.cell("adapter kind", "busy seconds"), "");
    assert!(cost.number("mix", "busy seconds") > 0.0);
}

#[test]
fn figures_show_the_numbers_of_their_tables() {
    let study = story();
    write(&study);
    let folder = study.path().join("report");
    let curves = Csv::read(&folder.join("tables"), "curves");
    let mean = |step: usize| {
        let at = |seed: u32| {
            Records::of(&study, &format!("mix-{seed}")).evals[step / 4]["fit/loss/dpo"]
                .as_f64()
                .unwrap()
        };
        mean_and_error(&[at(1), at(2)])
    };
    for step in [0, 4, 8] {
        let row = curves
            .rows
            .iter()
            .find(|row| row[0] == "mix" && row[1] == step.to_string())
            .unwrap();
        let column = |name: &str| row[curves.column(name)].parse::<f64>().unwrap();
        near(column("training rows dpo loss"), mean(step).0);
        near(column("training rows dpo loss error"), mean(step).1);
    }
    // Bars are as long as their numbers: one each for the arms that are compared, from one left edge.
    let cost = Csv::read(&folder.join("tables"), "cost");
    let svg = fs::read_to_string(folder.join("figures/cost.svg")).unwrap();
    let bars: Vec<[f64; 2]> = svg
        .lines()
        .filter(|line| line.contains("-fill\" opacity=\"0.85\""))
        .map(ends_across)
        .collect();
    let arms = [
        "dpo, then sft",
        "sft, then dpo",
        "mix",
        "alright",
        "maxright",
    ];
    let seconds = arms.map(|arm| cost.number(arm, "busy seconds"));
    for (i, second) in seconds.iter().enumerate() {
        near_share(bars[i], bars[0], second / seconds[0]);
    }
    for (k, arm) in ["mix", "alright", "maxright"].into_iter().enumerate() {
        let increase = |arm: &str| cost.number(arm, "increase in busy seconds (%)");
        near_share(bars[5 + k], bars[5], increase(arm) / increase("mix"));
    }
    // Strips change where the stages do.
    let decisions = Csv::read(&folder.join("tables"), "decisions");
    let of = |arm: &str| {
        decisions
            .rows
            .iter()
            .filter(|row| row[0] == arm)
            .map(|row| row[1..].join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("dpo, then sft"), ["0 3 0 1", "4 7 1 0"]);
    assert_eq!(of("mix"), ["0 7 0.5 0.5"]);
    let trained: Vec<bool> = Records::of(&study, "alright-1")
        .steps
        .iter()
        .map(|line| line.get("loss/sft").is_some())
        .collect();
    let strip: Vec<bool> = decisions
        .rows
        .iter()
        .filter(|row| row[0] == "alright")
        .flat_map(|row| {
            let [first, last]: [usize; 2] = [&row[1], &row[2]].map(|cell| cell.parse().unwrap());
            vec![row[3] == "1"; last + 1 - first]
        })
        .collect();
    assert_eq!(strip, trained);
}

/// A run that stops early and one that does not: the path goes on to the mean of their ends, and the marker is there.
#[test]
fn a_path_ends_at_the_mean_of_ends() {
    let study = Study::new();
    let stop = "\n[plan.stop]\npoints = [[0.8, 2.9]]\nwithin = 0.0001\n\n[facts]";
    let mix = |seed: u64| run("mix").seed(seed).with("\n[facts]", stop);
    study.add("early", &mix(1).ending(0.5, 0.5).stopped_after(4));
    study.add("late", &mix(2).ending(0.9, 0.9));
    let page = write(&study);
    let svg = fs::read_to_string(study.path().join("report/figures/trajectories.svg")).unwrap();
    // Held-out rows, then training rows: DPO's losses are 5 at the start, 2.75 and 2.95 half the way, 2.75 and 0.9 at the end.
    let paths: Vec<Vec<f64>> = svg
        .lines()
        .filter(|line| line.contains("opacity=\"0.75\""))
        .map(places_across)
        .collect();
    let [_, path] = &paths[..] else {
        panic!("{} paths", paths.len())
    };
    let [start, half, end] = path[..] else {
        panic!("{path:?}")
    };
    let share = (half - end) / (start - half);
    assert!(
        (share - (2.85 - 1.825) / (5.0 - 2.85)).abs() < 1e-3,
        "{share}"
    );
    // The last marker of an arm: filled where its path ends.
    let marks = svg
        .lines()
        .filter(|line| line.contains("-fill\"") && line.contains(" d=\"M"))
        .map(places_across);
    let middle = |xs: Vec<f64>| xs.iter().sum::<f64>() / xs.len() as f64;
    assert!(
        marks.map(middle).any(|x| (x - end).abs() < 1.0),
        "no marker at {end}"
    );
    for words in [
        "a straight line to the mean of their end points",
        "A line ends at the step where the first run of its arm ends.",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let page = write(&story());
    assert!(!page.contains("straight line") && !page.contains("A line ends"));
}

/// Training one objective alone is no way to have both, however near to the ideal point it ends.
#[test]
fn arms_of_one_objective_are_no_contenders() {
    let study = Study::new();
    study.add("sft", &run("mix").weights(1.0, 0.0).ending(0.3, 0.2));
    study.add("dpo", &run("mix").weights(0.0, 1.0).ending(0.35, 0.1));
    study.add("mix", &run("mix").ending(0.9, 0.9));
    study.add("alright", &run("alright").ending(0.8, 0.8));
    write(&study);
    let best = |name: &str| -> Vec<String> {
        let text =
            fs::read_to_string(study.path().join(format!("report/tables/{name}.md"))).unwrap();
        let marked = text.lines().filter(|line| line.contains("**"));
        marked
            .map(|line| line.split('|').nth(1).unwrap().trim().to_owned())
            .collect()
    };
    assert_eq!(
        (best("results"), best("gaps")),
        (vec!["alright".to_owned()], vec!["alright".to_owned()])
    );
    // Where there is nobody else, they are compared with each other.
    for name in ["mix", "alright"] {
        fs::remove_dir_all(study.path().join("runs").join(name)).unwrap();
    }
    write(&study);
    assert_eq!(best("results"), ["dpo alone"]);
}

/// Left and right end of a filled path.
fn ends_across(line: &str) -> [f64; 2] {
    places_across(line)
        .into_iter()
        .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| {
            [low.min(x), high.max(x)]
        })
}

/// Where the points of a path are.
fn places_across(line: &str) -> Vec<f64> {
    let path = line
        .split(" d=\"M")
        .nth(1)
        .unwrap()
        .split(['Z', '"'])
        .next()
        .unwrap();
    path.split('L')
        .map(|point| point.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[track_caller]
fn near_share(bar: [f64; 2], whole: [f64; 2], share: f64) {
    let (own, whole) = (bar[1] - bar[0], whole[1] - whole[0]);
    // Places in a picture have two decimals.
    assert!(
        (own - share.abs() * whole).abs() < 0.05,
        "{own} of {whole} is not {share}"
    );
}

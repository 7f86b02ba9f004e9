//! The report of run folders that the tests write themselves: every number of its tables is computed again here, straight
//! from the lines of the runs.

mod fixture;
mod report_fixture;

use std::{collections::BTreeMap, fs, path::Path};

use fixture::{Done, Place};
use report_fixture::{Csv, Study, mean_and_error, run};
use upright::{
    observer::Silent,
    report::{Report, Role, Source},
};

/// Five ways at lambda 1/2 with two seeds, and both objectives alone, as the demo has them.
fn story() -> Study {
    let study = Study::new();
    study.add("sft-alone", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    study.add("dpo-alone", &run("mix").weights(0.0, 1.0).ending(1.2, 0.1));
    for seed in [1u64, 2] {
        let shift = 0.01 * seed as f64;
        let add = |name: &str, settings: report_fixture::Run, sft: f64, dpo: f64, seconds: f64| {
            let settings = settings.seed(seed).ending(sft + shift, dpo + shift * 2.0).seconds(seconds + shift);
            study.add(&format!("{name}-{seed}"), &settings);
        };
        add("dpo-sft", run("sequential").stages(&[(1, 4), (0, 4)]), 0.5, 2.0, 0.1);
        add("sft-dpo", run("sequential").stages(&[(0, 4), (1, 4)]), 2.0, 0.2, 0.1);
        add("mix", run("mix"), 0.45, 0.4, 0.19);
        add("alright", run("alright"), 0.5, 0.5, 0.105);
        add("maxright", run("maxright"), 0.4, 0.3, 0.11);
    }
    study
}

/// Two weights and two k.
fn sweep() -> Study {
    let study = Study::new();
    study.add("sft-alone", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    study.add("dpo-alone", &run("mix").weights(0.0, 1.0).ending(1.2, 0.1));
    for (lambda, dpo) in [(0.25, 2), (0.5, 4), (0.75, 6)] {
        let at = |method: &str| run(method).weights(1.0 - lambda, lambda);
        study.add(&format!("alright-{lambda}"), &at("alright").ending(0.4 + lambda, 1.0 - lambda));
        study.add(&format!("maxright-{lambda}"), &at("maxright").ending(0.3 + lambda, 0.9 - lambda));
        let split = run("sequential").stages(&[(1, dpo), (0, 8 - dpo)]);
        study.add(&format!("sequential-{lambda}"), &split.ending(0.4, 2.0 + 0.1 * lambda));
    }
    study.add("maxright-100", &run("maxright").probe_every(100).ending(0.9, 0.9).seconds(0.05));
    study
}

fn write(study: &Study) -> String {
    let report = Report::read(&[study.path()]).unwrap();
    let page = report.write(&study.path().join("report"), &mut Silent).unwrap();
    fs::read_to_string(page).unwrap()
}

#[test]
fn the_page_stands_alone_and_has_a_figure_for_every_section() {
    let study = sweep();
    let page = write(&study);
    let figures = ["trajectories", "curves", "gaps", "cost", "decisions", "fronts", "probes"];
    let sections = ["read", "claims", "results"].into_iter().chain(figures).chain(["runs"]);
    for id in sections {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
        assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    assert_eq!(page.matches("<svg ").count(), figures.len());
    assert_eq!(page.matches("<figcaption>").count(), figures.len());
    // Nothing is fetched and nothing is run; links lead to the files beside the page, which are there.
    for word in ["http:", "https:", "<script", "src=", "url(", "@import", "NaN", "inf,", "onload"] {
        assert!(!page.contains(word), "{word}");
    }
    let folder = study.path().join("report");
    let links = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let links: Vec<&str> = links.filter(|link| !link.starts_with('#')).collect();
    assert!(links.len() > 30 && links.iter().all(|link| folder.join(link).is_file()), "{links:?}");
    for name in figures {
        for ending in [".svg", ".png", "-dark.png"] {
            assert!(folder.join(format!("figures/{name}{ending}")).is_file(), "{name}{ending}");
        }
    }
    // Ids are used once, and every element is closed in order.
    let ids: Vec<&str> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!((1..ids.len()).all(|i| !ids[..i].contains(&ids[i])), "{ids:?}");
    closed(&page);
}

/// Elements without an end tag.
const VOID: [&str; 3] = ["!doctype", "meta", "br"];

fn closed(page: &str) {
    let body = page.replace("</style>", "\u{0}");
    let mut parts = body.split("<style>");
    let mut text = parts.next().unwrap().to_owned();
    text.extend(parts.map(|part| part.split_once('\u{0}').unwrap().1));
    let mut open: Vec<&str> = Vec::new();
    for tag in text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        match tag.strip_prefix('/') {
            Some(_) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None if tag.ends_with('/') || VOID.contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// What one run's files say, read without the program.
struct Records {
    evals: Vec<serde_json::Value>,
    steps: Vec<serde_json::Value>,
}

impl Records {
    fn of(study: &Study, name: &str) -> Self {
        let lines = |file: &str| {
            let text = fs::read_to_string(study.path().join("runs").join(name).join(file)).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        Self { evals: lines("evals.jsonl"), steps: lines("steps.jsonl") }
    }

    fn end(&self, set: &str, objective: &str) -> f64 {
        self.evals.last().unwrap()[format!("{set}/loss/{objective}")].as_f64().unwrap()
    }

    fn smallest(&self, set: &str, objective: &str) -> f64 {
        let values = self.evals.iter().map(|line| line[format!("{set}/loss/{objective}")].as_f64().unwrap());
        values.fold(f64::INFINITY, f64::min)
    }

    fn total(&self, key: &str) -> f64 {
        self.steps.iter().map(|line| line[key].as_f64().unwrap()).sum()
    }

    fn median(&self, key: &str) -> f64 {
        let mut values: Vec<f64> = self.steps.iter().map(|line| line[key].as_f64().unwrap()).collect();
        values.sort_by(f64::total_cmp);
        (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
    }
}

const SETS: [(&str, &str); 2] = [("eval", "held-out rows"), ("fit", "training rows")];

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
}

#[test]
fn tables_are_what_the_records_say() {
    let study = story();
    write(&study);
    let tables = study.path().join("report/tables");
    let (results, gaps, cost) = (Csv::read(&tables, "results"), Csv::read(&tables, "gaps"), Csv::read(&tables, "cost"));
    let optima =
        |set: &str| ["sft", "dpo"].map(|name| Records::of(&study, &format!("{name}-alone")).smallest(set, name));
    let methods = [
        ("dpo-sft", "dpo, then sft"),
        ("sft-dpo", "sft, then dpo"),
        ("mix", "mix"),
        ("alright", "alright"),
        ("maxright", "maxright"),
    ];
    let records = |name: &str| [1, 2].map(|seed| Records::of(&study, &format!("{name}-{seed}")));
    let time = |name: &str| mean_and_error(&records(name).map(|run| run.total("seconds")));
    let used = |name: &str| mean_and_error(&records(name).map(|run| run.median("utilisation")));
    let mut distances = BTreeMap::new();
    for (name, label) in methods {
        let runs = records(name);
        for (set, set_name) in SETS {
            let optima = optima(set);
            let of = |run: &Records| ["sft", "dpo"].map(|objective| run.end(set, objective));
            for (k, objective) in ["sft", "dpo"].into_iter().enumerate() {
                let (mean, error) = mean_and_error(&runs.each_ref().map(|run| of(run)[k]));
                near(results.number(label, &format!("{set_name} {objective} loss")), mean);
                near(results.number(label, &format!("{set_name} {objective} loss error")), error);
                near(gaps.number(label, &format!("{set_name} {objective} gap")), mean - optima[k]);
                near(gaps.number(label, &format!("{set_name} {objective} gap error")), error);
            }
            let far = |run: &Records| (of(run)[0] - optima[0]).hypot(of(run)[1] - optima[1]);
            let (mean, error) = mean_and_error(&runs.each_ref().map(far));
            for table in [&results, &gaps] {
                near(table.number(label, &format!("{set_name} distance")), mean);
                near(table.number(label, &format!("{set_name} distance error")), error);
            }
            distances.insert((set, name), mean);
        }
        let (mean, error) = time(name);
        near(cost.number(label, "seconds"), mean);
        near(cost.number(label, "seconds error"), error);
        near(cost.number(label, "utilisation (%)"), 100.0 * used(name).0);
        let rates = records(name).map(|run| run.total("tokens") / run.total("seconds"));
        near(cost.number(label, "tokens a second"), mean_and_error(&rates).0);
        for objective in ["sft", "dpo"] {
            let count =
                |run: Records| run.steps.iter().filter(|line| line.get(format!("loss/{objective}")).is_some()).count();
            near(
                cost.number(label, &format!("steps of {objective}")),
                mean_and_error(&records(name).map(|run| count(run) as f64)).0,
            );
        }
        let increase = cost.cell(label, "runtime increase (%)");
        if name.contains('-') {
            assert_eq!(increase, "", "Sequential is what the others are measured against");
        } else {
            let percent = |of: &dyn Fn(&str) -> (f64, f64)| {
                let (a, b) = (of("dpo-sft"), of("sft-dpo"));
                let (own, base) = (of(name), ((a.0 + b.0) / 2.0, a.1.hypot(b.1) / 2.0));
                let error = (own.1 / base.0).hypot(own.0 / base.0 * base.1 / base.0);
                (100.0 * (own.0 - base.0) / base.0, 100.0 * error)
            };
            near(increase.parse().unwrap(), percent(&time).0);
            near(cost.number(label, "runtime increase (%) error"), percent(&time).1);
            near(cost.number(label, "utilisation increase (%)"), percent(&used).0);
        }
    }
    near(results.number("ideal, each alone", "training rows dpo loss"), optima("fit")[1]);
    let first = |run: &Records| run.evals[0]["eval/loss/sft"].as_f64().unwrap();
    near(results.number("start, before training", "held-out rows sft loss"), first(&records("mix")[0]));
    // The claims, asked again: the joint methods were made to be nearer, and MAXRIGHT the nearest.
    let report = Report::read(&[study.path()]).unwrap();
    let summaries: Vec<String> = report.claims.iter().map(|claim| claim.summary()).collect();
    assert_eq!(summaries, ["holds here"; 5]);
    assert!(methods.iter().all(|(name, _)| distances[&("fit", "maxright")] <= distances[&("fit", *name)]));
    assert_eq!(report.best.on_front.iter().filter(|front| front[1]).count(), 3, "{:?}", report.best.on_front);
    assert!(report.settings[0].ideal[0].iter().flatten().all(|optimum| optimum.source == Source::Alone));
}

#[test]
fn figures_show_the_numbers_of_their_tables() {
    let study = story();
    write(&study);
    let folder = study.path().join("report");
    let curves = Csv::read(&folder.join("tables"), "curves");
    let mean = |step: usize| {
        let at =
            |seed: u32| Records::of(&study, &format!("mix-{seed}")).evals[step / 4]["fit/loss/dpo"].as_f64().unwrap();
        mean_and_error(&[at(1), at(2)])
    };
    for step in [0, 4, 8] {
        let row = curves.rows.iter().find(|row| row[0] == "mix" && row[1] == step.to_string()).unwrap();
        let column = |name: &str| row[curves.column(name)].parse::<f64>().unwrap();
        near(column("training rows dpo loss"), mean(step).0);
        near(column("training rows dpo loss error"), mean(step).1);
    }
    // Bars are as long as their numbers: one each for the arms that are compared, from one left edge.
    let cost = Csv::read(&folder.join("tables"), "cost");
    let svg = fs::read_to_string(folder.join("figures/cost.svg")).unwrap();
    let bars: Vec<[f64; 2]> =
        svg.lines().filter(|line| line.contains("-fill\" opacity=\"0.85\"")).map(ends_across).collect();
    let arms = ["dpo, then sft", "sft, then dpo", "mix", "alright", "maxright"];
    let seconds = arms.map(|arm| cost.number(arm, "seconds"));
    for (i, second) in seconds.iter().enumerate() {
        near_share(bars[i], bars[0], second / seconds[0]);
    }
    for (k, arm) in ["mix", "alright", "maxright"].into_iter().enumerate() {
        let increase = |arm: &str| cost.number(arm, "runtime increase (%)");
        near_share(bars[5 + k], bars[5], increase(arm) / increase("mix"));
    }
    // Strips change where the stages do.
    let decisions = Csv::read(&folder.join("tables"), "decisions");
    let of =
        |arm: &str| decisions.rows.iter().filter(|row| row[0] == arm).map(|row| row[1..].join(" ")).collect::<Vec<_>>();
    assert_eq!(of("dpo, then sft"), ["0 3 0 1", "4 7 1 0"]);
    assert_eq!(of("mix"), ["0 7 0.5 0.5"]);
    let descended: Vec<bool> =
        Records::of(&study, "alright-1").steps.iter().map(|line| line.get("loss/sft").is_some()).collect();
    let strip: Vec<bool> = decisions
        .rows
        .iter()
        .filter(|row| row[0] == "alright")
        .flat_map(|row| {
            let [first, last]: [usize; 2] = [&row[1], &row[2]].map(|cell| cell.parse().unwrap());
            vec![row[3] == "1"; last + 1 - first]
        })
        .collect();
    assert_eq!(strip, descended);
}

/// Left and right end of a filled path.
fn ends_across(line: &str) -> [f64; 2] {
    let path = line.split(" d=\"M").nth(1).unwrap().split('Z').next().unwrap();
    let xs = path.split('L').map(|point| point.split(' ').next().unwrap().parse::<f64>().unwrap());
    xs.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| [low.min(x), high.max(x)])
}

#[track_caller]
fn near_share(bar: [f64; 2], whole: [f64; 2], share: f64) {
    let (own, whole) = (bar[1] - bar[0], whole[1] - whole[0]);
    // Places in a picture have two decimals.
    assert!((own - share.abs() * whole).abs() < 0.05, "{own} of {whole} is not {share}");
}

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
    let against = |label: &str| &report.arms.iter().find(|arm| arm.label == label).unwrap().against;
    assert_eq!(*against("alright lambda 0.25"), ["dpo 2, then sft 6"]);
    assert_eq!(*against("maxright lambda 0.5 k 100"), ["dpo 4, then sft 4"]);
    // Methods over their weights, and what their end points beat.
    let front = report.fronts.iter().find(|front| front.method == "alright").unwrap();
    assert_eq!(front.weights, [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]].map(Vec::from));
    let ends = [0.25, 0.5, 0.75].map(|lambda| [0.4 + lambda, 1.0 - lambda]);
    let [worst_sft, worst_dpo] = [1.2, 4.0];
    // A staircase, by columns from the left.
    let columns = [(ends[0], ends[1][0]), (ends[1], ends[2][0]), (ends[2], worst_sft)];
    let area: f64 = columns.iter().map(|([sft, dpo], next)| (next - sft) * (worst_dpo - dpo)).sum();
    near(front.hypervolume[1].unwrap(), area);
    // Delta: even steps of (0.25, -0.25) between the ends of the runs alone, (0.3, 4.0) and (1.2, 0.1).
    let step = 0.25 * 2f64.sqrt();
    let reach = (0.65f64 - 0.3).hypot(0.75 - 4.0) + (1.15f64 - 1.2).hypot(0.25 - 0.1);
    near(front.delta[1].unwrap(), reach / (reach + 2.0 * step));
    let claims: Vec<(&str, usize)> =
        report.claims.iter().map(|claim| (&claim.text[..], claim.verdicts.len())).collect();
    assert_eq!(claims.iter().map(|(_, places)| *places).collect::<Vec<_>>(), [3, 3, 3, 3, 1, 1], "{claims:?}");
}

#[test]
fn splits_pair_with_weights_in_order_where_none_is_the_same() {
    let study = Study::new();
    for (lambda, dpo) in [(0.01, 1), (0.5, 4), (0.99, 7)] {
        study.add(&format!("mix-{lambda}"), &run("mix").weights(1.0 - lambda, lambda));
        study.add(&format!("sequential-{lambda}"), &run("sequential").stages(&[(1, dpo), (0, 8 - dpo)]));
    }
    let against = |study: &Study| -> Vec<Vec<String>> {
        let report = Report::read(&[study.path()]).unwrap();
        report.arms.iter().filter(|arm| arm.role == Role::Mix).map(|arm| arm.against.clone()).collect()
    };
    assert_eq!(against(&study), [["dpo 1, then sft 7"], ["dpo 4, then sft 4"], ["dpo 7, then sft 1"]]);
    // Where they do not pair, only what is the same is compared.
    study.add("mix-0.3", &run("mix").weights(0.7, 0.3));
    assert_eq!(against(&study), [vec![], vec![], vec!["dpo 4, then sft 4"], vec![]]);
    // A lambda that was asked for counts more than the split.
    let asked = run("sequential").stages(&[(1, 2), (0, 6)]).weights(0.7, 0.3).asking("lambda = 0.3");
    study.add("sequential-0.3", &asked);
    assert_eq!(against(&study)[1], ["dpo 2, then sft 6"]);
}

#[test]
fn settings_that_differ_are_named_and_losses_of_other_references_are_kept_apart() {
    let study = Study::new();
    study.add("a", &run("mix"));
    study.add("b", &run("mix").with("learning-rate = 0.001", "learning-rate = 0.002"));
    study.add("c", &run("mix").with("reference = \"base\"", "reference = { folder = \"/elsewhere/kind\" }"));
    study.add("alone", &run("mix").weights(0.0, 1.0).ending(1.0, 0.25));
    let report = Report::read(&[study.path()]).unwrap();
    let mut labels: Vec<&str> = report.arms.iter().map(|arm| &arm.label[..]).collect();
    labels.sort_unstable();
    let expected = [
        "dpo alone, reference base",
        "mix, reference base, optimiser.learning-rate 0.001",
        "mix, reference base, optimiser.learning-rate 0.002",
        "mix, reference kind",
    ];
    assert_eq!(labels, expected);
    assert_eq!(report.settings.len(), 2);
    let gap = |label: &str| report.arms.iter().find(|arm| arm.label == label).unwrap().gaps[1][1];
    assert!(gap("mix, reference kind").is_none() && gap(expected[1]).is_some());
    let page = write(&study);
    assert!(page.contains("2 different settings"));
    // What changes no step is no difference: an evaluation more often, an optimum that only MAXRIGHT heeds, another place.
    let same = Study::new();
    same.add("a", &run("mix"));
    same.add(
        "b",
        &run("mix").seed(2).with("eval-every = 4", "eval-every = 8").with("/data/sft.jsonl", "/moved/sft.jsonl"),
    );
    same.add("c", &run("mix").seed(3).with("tie-rank = 1", "tie-rank = 1\noptimum = 0.1\noptimum-eval = 0.2"));
    let report = Report::read(&[same.path()]).unwrap();
    assert_eq!((report.arms.len(), report.arms[0].runs.len()), (1, 3));
}

#[test]
fn given_optima_win_and_an_objective_that_others_lack_is_left_out() {
    let study = Study::new();
    study.add("alone", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    let given = "tie-rank = 1\noptimum = 0.125\noptimum-eval = 0.25";
    study.add("mix", &run("mix").ending(0.5, 0.5).with("tie-rank = 1", given));
    study.add("rpo", &run("mix").third("rpo", [0.0, 0.5, 0.5]).ending(0.5, 0.5));
    study.add("sum", &run("mix").sum().ending(0.6, 0.6));
    let report = Report::read(&[study.path()]).unwrap();
    assert_eq!(report.objectives, ["sft", "dpo"]);
    let arm = |label: &str| report.arms.iter().find(|arm| arm.label == label).unwrap_or_else(|| panic!("{label}"));
    assert_eq!((&arm("rpo").role, &arm("sum of adapters").role), (&Role::Other("rpo".into()), &Role::Sum));
    let optima = &report.settings[0].ideal;
    assert_eq!(optima[1][0].as_ref().map(|o| (o.value, o.source)), Some((0.125, Source::Given)));
    assert_eq!(optima[0][0].as_ref().map(|o| o.value), Some(0.25));
    assert_eq!(optima[1][1], None);
    near(arm("mix").gaps[1][0].unwrap().mean, 0.5 - 0.125);
    assert!(arm("mix").ideal_distance[1].is_none() && report.claims.is_empty());
    let page = write(&study);
    for words in
        ["No optimum is known for dpo on held-out rows; dpo on training rows", "--optimum-eval", "objective rpo"]
    {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn three_objectives_are_compared_and_the_plane_says_that_it_shows_two() {
    let study = Study::new();
    study.add("a", &run("alright").third("kind", [0.2, 0.3, 0.5]).ending(0.5, 0.5));
    study.add("b", &run("alright").third("kind", [0.2, 0.5, 0.3]).ending(0.4, 0.6));
    for (name, weights) in [("sft", [1.0, 0.0, 0.0]), ("dpo", [0.0, 1.0, 0.0]), ("kind", [0.0, 0.0, 1.0])] {
        study.add(name, &run("mix").third("kind", weights).ending(0.3, 0.2));
    }
    let report = Report::read(&[study.path()]).unwrap();
    assert_eq!(report.objectives, ["sft", "dpo", "kind"]);
    let labels: Vec<&str> = report.arms.iter().map(|arm| &arm.label[..]).collect();
    let joint = ["alright sft 0.2 dpo 0.5 kind 0.3", "alright sft 0.2 dpo 0.3 kind 0.5"];
    assert_eq!(labels, [&["sft alone", "dpo alone", "kind alone"][..], &joint].concat());
    let arm = &report.arms[3];
    let squares: f64 = arm.gaps[1].iter().map(|gap| gap.unwrap().mean.powi(2)).sum();
    near(arm.ideal_distance[1].unwrap().mean, squares.sqrt());
    assert!(write(&study).contains("There are 3 objectives; this plane shows dpo and sft."));
}

#[test]
fn one_run_alone_is_a_page_too() {
    let study = Study::new();
    study.add("only", &run("alright").seconds(0.25));
    let folder = study.path().join("runs/only");
    let report = Report::read(std::slice::from_ref(&folder)).unwrap();
    assert_eq!((report.arms[0].label.as_str(), report.runs[0].place.as_str()), ("alright", "only"));
    let page = fs::read_to_string(report.write(&folder.join("report"), &mut Silent).unwrap()).unwrap();
    assert!(page.contains("One run on \u{201c}small\u{201d}: alright") && page.contains("lambda 1 DPO alone"));
    assert!(!page.contains("id=\"gaps\"") && !folder.join("report/tables/gaps.csv").exists());
    assert!(page.contains("Increases need a Sequential run") && page.contains("id=\"decisions\""));
    closed(&page);
    // Its own report is no run, and is no part of the next one.
    assert_eq!(Report::read(&[study.path()]).unwrap().runs.len(), 1);
}

#[test]
fn unfinished_runs_are_marked_and_damaged_ones_named_and_neither_is_in_a_mean() {
    let study = Study::new();
    study.add("good", &run("mix").ending(0.5, 0.5));
    study.add("short", &run("mix").seed(2).ending(9.0, 9.0).stopped_after(5));
    study.add("begun", &run("alright").ending(0.7, 0.7).stopped_after(4));
    for name in ["no-plan", "bad-step", "bad-loss", "too-long", "no-end"] {
        study.add(name, &run("mix").seed(3).ending(7.0, 7.0));
    }
    study.edit("no-plan/plan.toml", |text| text.replace("[plan]", "[plan"));
    study.edit("bad-step/steps.jsonl", |text| text.replace("{\"step\":3,", "{\"step\":2,"));
    study.edit("bad-loss/evals.jsonl", |text| text.replace("\"fit/loss/dpo\":7.0", "\"fit/loss/dpo\":null"));
    study
        .edit("too-long/steps.jsonl", |text| text.clone() + &text.lines().last().unwrap().replace(":7,", ":8,") + "\n");
    study.edit("no-end/evals.jsonl", |text| {
        let lines: Vec<&str> = text.lines().collect();
        lines[..2].join("\n") + "\n{\"step\":8}\n"
    });
    let report = Report::read(&[study.path()]).unwrap();
    let mix = report.arms.iter().find(|arm| arm.label == "mix").unwrap();
    assert_eq!((mix.runs.len(), mix.all.len(), mix.unfinished), (1, 2, false));
    assert_eq!(mix.ends[1][0].map(|end| end.mean), Some(0.5));
    let begun = report.arms.iter().find(|arm| arm.label == "alright").unwrap();
    assert!(begun.unfinished && report.claims.is_empty());
    let damaged: Vec<&str> = report.damaged.iter().map(|damaged| &damaged.place[..]).collect();
    assert_eq!(damaged, ["runs/bad-loss", "runs/bad-step", "runs/no-end", "runs/no-plan", "runs/too-long"]);
    let page = write(&study);
    for words in [
        "unfinished: 5 of 8",
        "alright (unfinished)",
        "runs/bad-step/steps.jsonl: line 4: is not step 3",
        "runs/bad-loss/evals.jsonl: line 3: fit/loss/dpo is not a number",
        "runs/too-long/steps.jsonl: holds 9 steps, and the plan has 8",
        "runs/no-end/evals.jsonl: has no loss after the last step",
        "runs/no-plan/plan.toml",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains(study.path().to_str().unwrap()));
    // A torn last line is what a kill leaves, not damage.
    study.edit("short/steps.jsonl", |text| text.trim_end().trim_end_matches('}').to_owned());
    assert_eq!(Report::read(&[study.path()]).unwrap().damaged.len(), 5);
}

#[test]
fn a_copied_folder_reports_the_same_bytes_and_nothing_stale_stays() {
    let study = sweep();
    study.write("study.toml", "title = \"A study\"\nabout = \"Of two weights.\"\n");
    write(&study);
    let copy = Study::new();
    study.copy_runs_to(&copy);
    copy.write("study.toml", "title = \"A study\"\nabout = \"Of two weights.\"\n");
    write(&copy);
    let (mine, theirs) = (contents(&study.path().join("report")), contents(&copy.path().join("report")));
    assert_eq!(mine.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, bytes) in &mine {
        assert!(theirs[name] == *bytes, "{name}");
    }
    // Without the second k there is no such figure, and the old one goes; other files stay.
    copy.write("report/notes.txt", "mine");
    fs::remove_dir_all(copy.path().join("runs/maxright-100")).unwrap();
    write(&copy);
    let left = contents(&copy.path().join("report"));
    assert!(!left.keys().any(|name| name.contains("probes")) && left.contains_key("notes.txt"));
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        if entry.is_dir() {
            files.extend(contents(&entry).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(entry).unwrap());
        }
    }
    files
}

#[test]
fn hostile_names_and_texts_are_text() {
    const HOSTILE: &str = "</title><script>alert(1)</script><img src=x onerror=\"a\">&'";
    let study = Study::new();
    let named = |seed: u64| run("mix").seed(seed).with("name = \"dpo\"", "name = \"<u>dpo\"");
    study.add("<b>&\"run", &named(1).with("/models/small", "/models/<i>small&\\\""));
    study.add("other", &named(2).with("/data/sft.jsonl", "/data/<s>.jsonl"));
    study.write("study.toml", &format!("title = '''{HOSTILE}'''\nabout = '''{HOSTILE}'''\n"));
    let answer = |run: &str| serde_json::json!({"run": run, "text": HOSTILE});
    let answers = [answer("runs/other"), answer(HOSTILE), answer("../..")];
    study.write("answers.json", &serde_json::json!([{"prompt": HOSTILE, "answers": answers}]).to_string());
    let page = write(&study);
    for raw in ["<script", "<img", "<b>", "<i>", "<u>", "<s>"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("runs/&lt;b&gt;&amp;&quot;run"));
    assert_eq!(page.matches("<h4>").count(), 3);
    closed(&page);
    let tables = study.path().join("report/tables");
    assert_eq!(Csv::read(&tables, "results").rows.len(), 3);
}

#[test]
fn answers_stand_side_by_side_under_their_arms() {
    let study = story();
    let answers =
        r#"[{"prompt": "Why?", "answers": [{"run": "base", "text": "No."}, {"run": "runs/mix-2", "text": "So."}]}]"#;
    study.write("answers.json", answers);
    let page = write(&study);
    for part in ["<p class=\"prompt\">Why?</p>", "<h4>base</h4><p>No.</p>", "<h4>mix, seed 2</h4><p>So.</p>"] {
        assert!(page.contains(part), "{part}");
    }
    for (name, text, part) in
        [("answers.json", "[{\"prompt\": 1}]", "answers.json"), ("study.toml", "titel = \"x\"", "titel")]
    {
        let study = story();
        study.write(name, text);
        let error = Report::read(&[study.path()]).unwrap_err();
        assert!(error.message.contains(name) && error.message.contains(part) && !error.hint.is_empty(), "{error:?}");
    }
}

#[test]
fn folders_without_a_run_are_refused_by_name() {
    let study = Study::new();
    let read = |name: &str| Report::read(&[study.path().join(name)]).unwrap_err();
    study.write("empty/checkpoints/step-1/plan.toml", "");
    for (name, part) in [("missing", "no such folder"), ("empty", "holds no run")] {
        let error = read(name);
        assert!(error.message.contains(name) && error.message.contains(part), "{error}");
    }
    study.write("file", "");
    assert!(read("file").message.contains("is not a folder"));
    study.write("broken/plan.toml", "[plan]");
    assert!(read("broken").message.contains("no run can be read"));
    // A folder that is given twice is read once.
    study.add("one", &run("mix"));
    let both = [study.path().join("runs"), study.path().join("runs/one")];
    assert_eq!(Report::read(&both).unwrap().runs.len(), 1);
}

#[test]
fn the_command_reports_a_run_that_was_trained_and_training_reports_itself() {
    let place = Place::new();
    let trained = Done::good(place.train("--method alright --steps 3 --eval-every 1 !--no-report"));
    assert!(trained.stdout.contains("report: run/report/report.html"), "{}", trained.stdout);
    let own = String::from_utf8(place.read("run/report/report.html")).unwrap();
    assert!(own.contains("One run on \u{201c}model\u{201d}: alright"));
    // The command makes the same page, wherever it is told to.
    let done = Done::good(place.command("report run --out pages/one"));
    assert_eq!(done.stdout, "report: pages/one/report.html\n");
    assert_eq!(String::from_utf8(place.read("pages/one/report.html")).unwrap(), own);
    let numbers = &Done::good(place.command("report run --json")).json()[0];
    let evals = String::from_utf8(place.read("run/evals.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(evals.lines().last().unwrap()).unwrap();
    assert_eq!(numbers["arms"][0]["ends"][0][0]["mean"], last["eval/loss/sft"]);
    for (words, part) in [("report nowhere", "nowhere"), ("report model", "model: holds no run"), ("report", "<DIR>")] {
        let done = Done::of(place.command(words));
        assert_eq!((done.code, &done.stdout[..]), (Some(2), ""), "{words}: {done:?}");
        assert!(done.error().contains(part), "{words}: {done:?}");
    }
    let done = Done::of(place.command("report run --out sft.jsonl"));
    assert!(done.code == Some(2) && done.error().contains("must be a folder"), "{done:?}");
}

//! A folder of ordinary experiments: eight runs that differ in more than their seed, on few rows.

use std::fs;

use upright_report::{Report, Source};

use super::{
    folders::{Csv, Run, Study, run},
    story, write,
};

/// Fewer rows, shorter rows and smaller batches.
fn short(run: Run) -> Run {
    run.with("max-length = 256", "max-length = 64")
        .with("min-prompt = 64", "min-prompt = 16")
        .with("train-rows = 115", "train-rows = 24")
        .with("eval-rows = 35", "eval-rows = 1")
        .with("batch = 8", "batch = 2")
}

/// Another learning rate and schedule.
fn hot(run: Run, rate: &str) -> Run {
    run.with("learning-rate = 0.001", &format!("learning-rate = {rate}"))
        .with("schedule = \"constant\"", "schedule = \"cosine\"")
}

/// Optima that nobody trained.
fn guessing(run: Run) -> Run {
    run.with(
        "tie-rank = 1",
        "tie-rank = 1\noptimum = 0.15\noptimum-eval = 0.2",
    )
    .with(
        "tie-rank = 0",
        "tie-rank = 0\noptimum = 0.01\noptimum-eval = 0.02",
    )
}

/// Eight runs as one makes them in a first hour.
pub(crate) fn mixed() -> Study {
    let study = Study::new();
    let sequential = run("sequential").stages(&[(1, 4), (0, 4)]);
    study.add("o_sft", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    study.add("o_dpo", &run("mix").weights(0.0, 1.0).ending(1.2, 0.1));
    study.add("seq", &sequential.ending(0.5, 2.0));
    study.add("mr", &run("maxright").ending(0.45, 0.4));
    let longer = hot(short(run("maxright").lasting(16)), "0.002");
    study.add("mr2", &guessing(longer).ending(0.4, 0.3));
    for seed in [1, 2] {
        let hotter = hot(short(run("maxright").lasting(12)), "0.005").seed(seed);
        let hotter = hotter.with("rank = 16", "rank = 32").ending(0.6, 0.2);
        study.add(&format!("mr3/seed-{seed}"), &hotter);
    }
    let mix = short(run("mix").lasting(16)).ending(0.5, 0.35);
    let mix = hot(mix, "0.002").with("template = \"user-assistant\"", "template = \"chat\"");
    study.add("chatrun", &mix);
    study
}

fn labels(study: &Study) -> Vec<String> {
    let report = Report::read(&[study.path()]).unwrap();
    report.arms.iter().map(|arm| arm.label.clone()).collect()
}

/// Whether a part of the page between two headings contains words.
fn section<'p>(page: &'p str, id: &str) -> &'p str {
    let start = page.find(&format!("<h2 id=\"{id}\">")).unwrap();
    let rest = &page[start..];
    &rest[..rest.find("</section>").unwrap()]
}

#[test]
fn arms_that_differ_in_much_are_called_by_their_folders() {
    let mut found = labels(&mixed());
    found.sort();
    let expected = [
        "dpo alone",
        "dpo, then sft",
        "mix",
        "mr (maxright)",
        "mr2 (maxright)",
        "mr3 (maxright)",
        "sft alone",
    ];
    assert_eq!(found, expected);
    // Up to three settings are a label; seeds in folders of their own are counted.
    for (edits, expected) in [
        (
            3,
            [
                "mix, optimizer.learning-rate 0.001, sft.batch 8, dpo.batch 8",
                "mix, optimizer.learning-rate 0.002, sft.batch 4, dpo.batch 4",
            ],
        ),
        (4, ["plain-mix", "wild +2 seeds (mix)"]),
    ] {
        let study = Study::new();
        study.add("plain-mix", &run("mix"));
        for seed in [1, 2, 3] {
            let mut other = run("mix")
                .seed(seed)
                .with("learning-rate = 0.001", "learning-rate = 0.002")
                .with("batch = 8", "batch = 4");
            if edits == 4 {
                other = other.with("clip = 1.0", "clip = 2.0");
            }
            let name = if seed == 1 {
                "wild".to_owned()
            } else {
                format!("wild-{seed}")
            };
            study.add(&name, &other);
        }
        assert_eq!(labels(&study), expected);
    }
}

/// A sweep over weights at two very different configurations is still two fronts.
#[test]
fn folders_as_names_do_not_break_fronts() {
    let study = Study::new();
    for lambda in [0.25, 0.5, 0.75] {
        let plain = run("mix")
            .weights(1.0 - lambda, lambda)
            .ending(0.4 + lambda, 1.0 - lambda);
        study.add(&format!("a-{lambda}"), &plain);
        let other = hot(short(plain), "0.002").with("clip = 1.0", "clip = 2.0");
        study.add(&format!("b-{lambda}"), &other);
    }
    let report = Report::read(&[study.path()]).unwrap();
    let mut fronts: Vec<(&str, usize)> = Vec::new();
    for front in &report.fronts {
        fronts.push((&front.method, front.weights.len()));
    }
    assert_eq!(
        fronts,
        [("mix as in a-0.25 (mix)", 3), ("mix as in b-0.25 (mix)", 3)]
    );
    assert!(report.arms.iter().any(|arm| arm.label == "b-0.75 (mix)"));
}

#[test]
fn numbered_settings_and_budgets_have_a_legend() {
    let study = mixed();
    let page = write(&study);
    let legend = section(&page, "settings");
    for words in [
        "<th scope=\"row\">setting 1</th>",
        "<th scope=\"row\">setting 2</th>",
        "<th scope=\"row\">setting 3</th>",
        "mr, o_dpo, o_sft and seq",
        "mr2, mr3/seed-1 and mr3/seed-2",
        "max-length 64",
        "sft.training rows 24",
        "dpo.held-out rows 1",
        "sft.template used chat",
        "<th scope=\"row\">budget 1</th>",
        "steps 16, sft.batch 2, dpo.batch 2, lora.rank 16, learning-rate 0.002, schedule cosine",
    ] {
        assert!(legend.contains(words), "{words} in {legend}");
    }
    let runs = section(&page, "runs");
    for column in ["setting", "training budget"] {
        assert!(
            runs.contains(&format!("<th scope=\"col\">{column}</th>")),
            "{column}"
        );
    }
    let row = runs
        .lines()
        .find(|line| line.contains(">runs/mr2<"))
        .unwrap();
    assert!(
        row.contains("<td>mr2 (maxright)</td><td>setting 3</td><td>budget "),
        "{row}"
    );
    // A page with one setting needs no legend.
    let page = write(&story());
    assert!(!page.contains("id=\"settings\"") && !page.contains(">setting<"));
}

#[test]
fn rows_and_batches_that_differ_are_ranges() {
    let page = write(&mixed());
    for words in [
        "on sft.jsonl: 24 to 115 training rows, 1 to 35 held out, 2 to 8 per step.",
        "on dpo.jsonl: 24 to 115 training pairs, 1 to 35 held out, 2 to 8 per step.",
        "8 to 16 steps each",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let page = write(&story());
    assert!(page.contains("on sft.jsonl: 115 training rows, 35 held out, 8 per step."));
}

#[test]
fn missing_optima_are_said_once_with_their_settings() {
    let study = mixed();
    // Setting 2 has runs of single objectives, setting 3 has a guess, setting 1 has neither.
    let words =
        "No optimum is known for sft and dpo on held-out rows and training rows (setting 1), so";
    let page = write(&study);
    assert_eq!(page.matches("No optimum is known").count(), 1);
    assert!(page.contains(words));
    let other = short(run("alright")).with("max-length = 64", "max-length = 32");
    study.add("other", &other);
    let page = write(&study);
    let words = words.replace("(setting 1)", "(setting 1 and setting 4)");
    assert_eq!(page.matches("No optimum is known").count(), 1);
    assert!(page.contains(&words), "{}", section(&page, "results"));
}

#[test]
fn guessed_optima_are_marked() {
    let study = mixed();
    let page = write(&study);
    let guess = "The optimum of sft and dpo (setting 3) is given, not trained";
    for (id, words) in [
        ("results", "ideal point (given, not trained), setting 3"),
        ("results", "ideal point, each alone, setting 2"),
        ("results", guess),
        ("trajectories", "ideal point (given, not trained)"),
        ("trajectories", guess),
        ("curves", "optimum (given, not trained)"),
        ("gaps", guess),
    ] {
        assert!(section(&page, id).contains(words), "{id}: {words}");
    }
    assert_eq!(section(&page, "results").matches(guess).count(), 1);
    // An optimum that a run alone has reached is no guess, although the runs were given it; one objective may be a guess.
    let study = story();
    let reached = run("maxright").seed(3).with(
        "tie-rank = 1",
        "tie-rank = 1\noptimum = 0.3\noptimum-eval = 0.33",
    );
    study.add("told", &reached.ending(0.5, 0.4));
    assert!(!write(&study).contains("given, not trained"));
    let report = Report::read(&[study.path()]).unwrap();
    let optimum = report.settings[0].ideal.training[0].clone().unwrap();
    assert_eq!((optimum.source, optimum.trained), (Source::Given, true));
    let guess = run("maxright").seed(4).with(
        "tie-rank = 1",
        "tie-rank = 1\noptimum = 0.2\noptimum-eval = 0.33",
    );
    study.add("guess", &guess.ending(0.5, 0.4));
    let page = write(&study);
    assert!(page.contains("ideal point (sft given, not trained)"));
    assert!(page.contains("distance 0."), "{page:.3000}");
    let short = &page[page.find("<div class=\"short\">").unwrap()..];
    let short = &short[..short.find("</div>").unwrap()];
    assert!(
        short.contains("The optimum of sft is given, not trained"),
        "{short}"
    );
}

#[test]
fn small_samples_are_said_in_the_lead_and_at_every_verdict() {
    let few = |seeds: u64, rows: &str, training: &str| {
        let study = Study::new();
        let with = |run: Run| {
            run.with("eval-rows = 35", rows)
                .with("train-rows = 115", training)
        };
        study.add("sft", &with(run("mix").weights(1.0, 0.0).ending(0.3, 4.0)));
        study.add("dpo", &with(run("mix").weights(0.0, 1.0).ending(1.2, 0.1)));
        for seed in 1..=seeds {
            let shift = 0.01 * seed as f64;
            let seq = run("sequential").stages(&[(1, 4), (0, 4)]).seed(seed);
            study.add(&format!("seq-{seed}"), &with(seq.ending(0.5 + shift, 2.0)));
            let mix = run("alright").seed(seed).ending(0.45 + shift, 0.4);
            study.add(&format!("alright-{seed}"), &with(mix));
        }
        study
    };
    let lead = "Treat these results as anecdotes: the held-out losses rest on 1 row of sft and 1 pair of dpo, \
                no arm has three seeds and no arm trained for a whole epoch.";
    let study = few(2, "eval-rows = 1", "train-rows = 115");
    let page = write(&study);
    assert_eq!(
        page.matches(lead).count(),
        2,
        "in the lead and above the claims"
    );
    assert!(section(&page, "claims").contains(lead));
    let marked = |page: &str, words: &str| {
        let marked = format!("<span class=\"anecdote\">{words}: treat as an anecdote.</span>");
        section(page, "claims").matches(&marked).count()
    };
    let report = Report::read(&[study.path()]).unwrap();
    // A cost rests on seeds alone.
    let costs = report
        .claims
        .iter()
        .filter(|claim| claim.text.contains("cost"));
    assert_eq!(costs.count(), 1);
    assert_eq!(marked(&page, "2 seeds"), 1);
    let rows = "1 held-out row, 2 seeds, 0.27 epochs";
    assert_eq!(
        marked(&page, rows),
        report.claims.len() - 1,
        "{}",
        section(&page, "claims")
    );
    // Where settings differ in their rows, they are named.
    let words = "Treat these results as anecdotes: the held-out losses of setting 1 and setting 3 rest on 1 row of \
                 sft and 1 pair of dpo, no arm has three seeds and 4 of 5 arms trained for less than one epoch.";
    assert!(write(&mixed()).contains(words));
    // One arm that lacks something makes some of the results anecdotes.
    let study = few(3, "eval-rows = 30", "train-rows = 16");
    let other = run("mix")
        .ending(0.4, 0.4)
        .with("eval-rows = 35", "eval-rows = 30");
    study.add("once", &other.with("train-rows = 115", "train-rows = 16"));
    assert!(write(&study).contains(
        "Treat some of these results as anecdotes: 1 of 3 arms have fewer than three seeds."
    ));
    // Enough of everything needs no caution.
    let page = write(&few(3, "eval-rows = 30", "train-rows = 16"));
    assert!(!page.contains("anecdotes") && !page.contains("class=\"anecdote\""));
    // 30 held-out rows of which an evaluation measures five are five.
    let study = few(3, "eval-rows = 30", "train-rows = 16");
    for entry in fs::read_dir(study.path().join("runs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        study.edit(&format!("{name}/plan.toml"), |text| {
            text.replace("eval-rows = 48", "eval-rows = 5")
        });
    }
    let page = write(&study);
    assert!(
        page.contains("rest on 5 rows of sft and 5 pairs of dpo."),
        "{page:.4000}"
    );
}

#[test]
fn one_measure_of_time_is_named_everywhere() {
    let study = story();
    let page = write(&study);
    assert!(section(&page, "cost").contains("Here, in busy seconds: Mix"));
    assert!(section(&page, "cost").contains("increase in busy seconds (%)"));
    assert!(section(&page, "read").contains("<strong>Busy seconds.</strong>"));
    for words in ["more time", "less time", "runtime"] {
        assert!(!page.contains(words), "{words}");
    }
    // The lead says of the nearest arm what the cost section says of its method.
    let report = Report::read(&[study.path()]).unwrap();
    let arm = report
        .arms
        .iter()
        .find(|arm| arm.label == "maxright")
        .unwrap();
    let more = format!("{:.0}% more", arm.cost_increase.unwrap().mean);
    assert!(
        page.contains(&format!("in {more} busy seconds than Sequential")),
        "{more}"
    );
    assert!(
        section(&page, "cost").contains(&format!("MAXRIGHT {more}")),
        "{more}"
    );
    let cost = Csv::read(&study.path().join("report/tables"), "cost");
    let increase = cost.number("maxright", "increase in busy seconds (%)");
    assert_eq!(increase, arm.cost_increase.unwrap().mean);
    // One run without its utilization, and all of the page is in wall-clock seconds.
    study.edit("mix-1/steps.jsonl", |text| {
        text.replace("\"utilization\"", "\"other\"")
    });
    let page = write(&study);
    assert!(page.contains("% more wall-clock seconds than Sequential"));
    assert!(!page.to_lowercase().contains("busy seconds"));
}

/// Arms that train one objective have the same color, but not the same line.
#[test]
fn objectives_alone_have_lines_of_their_own() {
    let study = story();
    write(&study);
    let svg = fs::read_to_string(study.path().join("report/figures/trajectories.svg")).unwrap();
    let lines: Vec<&str> = svg.lines().collect();
    let dashes = ["sft alone", "dpo alone"].map(|name| {
        let text = lines
            .iter()
            .position(|line| line.ends_with(&format!(">{name}</text>")))
            .unwrap();
        // The sample of a legend entry is a line and a marker before its name.
        let sample = lines[..text]
            .iter()
            .rev()
            .find(|line| line.contains("stroke-dasharray"))
            .unwrap();
        sample
            .split("stroke-dasharray=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    });
    assert_ne!(dashes[0], dashes[1]);
}

/// Increases that are all 0 have an axis that can be read.
#[test]
fn bars_of_nothing_have_an_axis() {
    let study = mixed();
    write(&study);
    let svg = fs::read_to_string(study.path().join("report/figures/cost.svg")).unwrap();
    assert!(svg.contains("increase in busy seconds (%)") && !svg.contains(">0.0000"));
}

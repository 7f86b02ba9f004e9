//! The page as a whole, its words and its files.

use std::{collections::BTreeMap, fs, path::Path};

use upright_base::progress::Silent;
use upright_report::Report;

use crate::fixture::{Done, Place};

use super::{
    folders::{Csv, Study, run},
    story, sweep, write,
};

#[test]
fn the_page_stands_alone_and_has_a_figure_for_every_section() {
    let study = sweep();
    let page = write(&study);
    let figures = [
        "trajectories",
        "curves",
        "distance-tokens",
        "distance-seconds",
        "gaps",
        "cost",
        "decisions",
        "fronts",
        "probes",
    ];
    let sections = ["read", "claims", "results"]
        .into_iter()
        .chain(figures)
        .chain(["runs"]);
    for id in sections {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
        assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    assert_eq!(page.matches("<svg ").count(), figures.len());
    assert_eq!(page.matches("<figcaption>").count(), figures.len());
    // Nothing is fetched and nothing is run; links lead to the files beside the page, which are there.
    for word in [
        "http:", "https:", "<script", "src=", "url(", "@import", "NaN", "inf,", "onload",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    let folder = study.path().join("report");
    let links = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    let links: Vec<&str> = links.filter(|link| !link.starts_with('#')).collect();
    assert!(
        links.len() > 30 && links.iter().all(|link| folder.join(link).is_file()),
        "{links:?}"
    );
    for name in figures {
        for ending in [".svg", ".png", "-dark.png"] {
            assert!(
                folder.join(format!("figures/{name}{ending}")).is_file(),
                "{name}{ending}"
            );
        }
    }
    // Ids are used once, and every element is closed in order.
    let ids: Vec<&str> = page
        .split(" id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(
        (1..ids.len()).all(|i| !ids[..i].contains(&ids[i])),
        "{ids:?}"
    );
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
    for tag in text
        .split('<')
        .skip(1)
        .map(|rest| rest.split('>').next().unwrap())
    {
        let name = tag
            .trim_start_matches('/')
            .split([' ', '\n'])
            .next()
            .unwrap();
        match tag.strip_prefix('/') {
            Some(_) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None if tag.ends_with('/') || VOID.contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn one_run_alone_is_a_page_too() {
    let study = Study::new();
    study.add("only", &run("alright").seconds(0.25));
    let folder = study.path().join("runs/only");
    let report = Report::read(std::slice::from_ref(&folder)).unwrap();
    assert_eq!(
        (report.arms[0].label.as_str(), report.runs[0].place.as_str()),
        ("alright", "only")
    );
    let page =
        fs::read_to_string(report.write(&folder.join("report"), &mut Silent).unwrap()).unwrap();
    assert!(
        page.contains("One run on \u{201c}small\u{201d}: alright")
            && page.contains("lambda 1 DPO alone")
    );
    assert!(!page.contains("id=\"gaps\"") && !folder.join("report/tables/gaps.csv").exists());
    assert!(page.contains("Increases need a Sequential run") && page.contains("id=\"decisions\""));
    closed(&page);
    // Its own report is no run, and is no part of the next one.
    assert_eq!(Report::read(&[study.path()]).unwrap().runs.len(), 1);
}

#[test]
fn a_copied_folder_reports_the_same_bytes_and_nothing_stale_stays() {
    let study = sweep();
    study.write(
        "study.toml",
        "title = \"A study\"\nabout = \"Of two weights.\"\n",
    );
    write(&study);
    let copy = Study::new();
    study.copy_runs_to(&copy);
    copy.write(
        "study.toml",
        "title = \"A study\"\nabout = \"Of two weights.\"\n",
    );
    write(&copy);
    let (mine, theirs) = (
        contents(&study.path().join("report")),
        contents(&copy.path().join("report")),
    );
    assert_eq!(
        mine.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
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
    for entry in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        if entry.is_dir() {
            files.extend(
                contents(&entry)
                    .into_iter()
                    .map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)),
            );
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
    let named = |seed: u64| {
        run("mix")
            .seed(seed)
            .with("name = \"dpo\"", "name = \"<u>dpo\"")
    };
    study.add(
        "<b>&\"run",
        &named(1).with("/models/small", "/models/<i>small&\\\""),
    );
    study.add(
        "other",
        &named(2).with("/data/sft.jsonl", "/data/<s>.jsonl"),
    );
    study.write(
        "study.toml",
        &format!("title = '''{HOSTILE}'''\nabout = '''{HOSTILE}'''\n"),
    );
    let answer = |run: &str| serde_json::json!({"run": run, "text": HOSTILE});
    let answers = [answer("runs/other"), answer(HOSTILE), answer("../..")];
    study.write(
        "answers.json",
        &serde_json::json!([{"prompt": HOSTILE, "answers": answers}]).to_string(),
    );
    let page = write(&study);
    for raw in ["<script", "<img", "<b>", "<i>", "<u>", "<s>"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(
        page.contains("&lt;script&gt;alert(1)") && page.contains("runs/&lt;b&gt;&amp;&quot;run")
    );
    assert_eq!(page.matches("<h3>").count(), 3);
    closed(&page);
    let tables = study.path().join("report/tables");
    assert_eq!(Csv::read(&tables, "results").rows.len(), 3);
}

/// What a preference loss is where nothing was learnt depends on the loss.
#[test]
fn the_guide_says_what_no_preference_is() {
    let page = |loss: &str, more: &str| {
        let study = Study::new();
        let end = "label-smoothing = 0.0\ntie-rank = 0";
        let dpo = run("mix").with("loss = \"dpo\"", &format!("loss = \"{loss}\""));
        study.add("one", &dpo.with(end, &format!("{more}{end}")));
        write(&study)
    };
    let none = "no single value that means no preference";
    for (loss, more, words) in [
        ("dpo", "", "0.693 means no preference"),
        ("ipo", "", "the margin from its target, 5."),
        ("ipo", "", " 25 means no preference"),
        ("rpo", "alpha = 1.0\n", none),
        ("orpo", "", none),
        // ln(1 + e).
        ("simpo", "gamma = 1.0\n", "1.313 means no preference"),
    ] {
        let page = page(loss, more);
        assert!(page.contains(words), "{loss}: {words}");
        assert_eq!(page.contains("0.693"), loss == "dpo", "{loss}");
        assert_eq!(
            page.contains("relative to a frozen reference model"),
            ["dpo", "ipo", "rpo"].contains(&loss),
            "{loss}"
        );
    }
}

#[test]
fn captions_and_axes_say_what_is_in_front_of_one() {
    let both = |study: &Study| {
        let other = |run: super::folders::Run| {
            run.with(
                "reference = \"base\"",
                "reference = { folder = \"/else/kind\" }",
            )
        };
        for k in [10, 100] {
            study.add(&format!("base-{k}"), &run("maxright").probe_every(k));
            study.add(&format!("kind-{k}"), &other(run("maxright").probe_every(k)));
        }
        for (lambda, end) in [(0.25, 0.75), (0.75, 0.875)] {
            let alright = run("alright").weights(1.0 - lambda, lambda);
            study.add(
                &format!("base-alright-{lambda}"),
                &alright.clone().ending(0.5, end),
            );
            study.add(
                &format!("kind-alright-{lambda}"),
                &other(alright).ending(0.625, 2.0 * end),
            );
        }
    };
    let study = Study::new();
    both(&study);
    let page = write(&study);
    // Two settings have two legends, and two places up to which hypervolumes are counted.
    let probes = fs::read_to_string(study.path().join("report/figures/probes.svg")).unwrap();
    for name in ["lambda 0.5, reference base", "lambda 0.5, reference kind"] {
        assert!(probes.contains(&format!(">{name}</text>")), "{name}");
    }
    for words in [
        "(0.500, 0.875) on training rows, reference base",
        "(0.625, 1.750) on training rows, reference kind",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // The weight of a split is its share of the steps, unless weights were asked for.
    let share = "For Sequential the weight is the share of its steps";
    let split = |study: &Study, lambda: f64, asked: &str| {
        let dpo = (8.0 * lambda) as usize;
        let sequential = run("sequential")
            .weights(1.0 - lambda, lambda)
            .stages(&[(1, dpo), (0, 8 - dpo)]);
        study.add(&format!("sequential-{lambda}"), &sequential.asking(asked));
    };
    let captions = [
        ["", ""],
        ["", "lambda = 0.75"],
        ["lambda = 0.25", "lambda = 0.75"],
    ]
    .map(|asked| {
        let study = Study::new();
        split(&study, 0.25, asked[0]);
        split(&study, 0.75, asked[1]);
        let page = write(&study);
        (
            page.contains(&format!("{share}.")),
            page.contains(&format!("{share}, unless weights were given.")),
        )
    });
    assert_eq!(captions, [(true, false), (false, true), (false, false)]);
    // Only what is measured in nats is said to be.
    for loss in ["dpo", "rpo"] {
        let study = Study::new();
        for lambda in [0.25, 0.75] {
            let mix = run("mix").weights(1.0 - lambda, lambda).ending(0.5, 0.1);
            study.add(
                &format!("mix-{lambda}"),
                &mix.with("loss = \"dpo\"", &format!("loss = \"{loss}\"")),
            );
        }
        write(&study);
        let curves = fs::read_to_string(study.path().join("report/figures/curves.svg")).unwrap();
        let found = [">nats, log scale<", ">log scale<"].map(|axis| curves.contains(axis));
        assert_eq!(found, [loss == "dpo", loss == "rpo"], "{loss}");
    }
}

#[test]
fn answers_stand_side_by_side_under_their_arms() {
    let study = story();
    let answers = r#"[{"prompt": "Why?", "answers": [{"run": "base", "text": "No."}, {"run": "runs/mix-2", "text": "So."}]}]"#;
    study.write("answers.json", answers);
    let page = write(&study);
    for part in [
        "<p class=\"prompt\">Why?</p>",
        "<h3>base</h3><p>No.</p>",
        "<h3>mix, seed 2</h3><p>So.</p>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // No level of headings is skipped.
    let levels: Vec<u32> = page
        .match_indices("<h")
        .filter_map(|(at, _)| page[at + 2..at + 3].parse().ok())
        .collect();
    assert!(
        levels[0] == 1 && levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "{levels:?}"
    );
    for (name, text, part) in [
        ("answers.json", "[{\"prompt\": 1}]", "answers.json"),
        ("study.toml", "titel = \"x\"", "titel"),
    ] {
        let study = story();
        study.write(name, text);
        let error = Report::read(&[study.path()]).unwrap_err();
        assert!(
            error.message.contains(name) && error.message.contains(part) && !error.hint.is_empty(),
            "{error:?}"
        );
    }
}

#[test]
fn folders_without_a_run_are_refused_by_name() {
    let study = Study::new();
    let read = |name: &str| Report::read(&[study.path().join(name)]).unwrap_err();
    study.write("empty/checkpoints/step-1/plan.toml", "");
    for (name, part) in [("missing", "no such folder"), ("empty", "contains no run")] {
        let error = read(name);
        assert!(
            error.message.contains(name) && error.message.contains(part),
            "{error}"
        );
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
    assert!(
        trained.stdout.contains("report: run/report/report.html"),
        "{}",
        trained.stdout
    );
    let own = String::from_utf8(place.read("run/report/report.html")).unwrap();
    assert!(own.contains("One run on \u{201c}model\u{201d}: alright"));
    // The command makes the same page, wherever it is told to.
    let done = Done::good(place.command("report run --out pages/one"));
    assert_eq!(done.stdout, "report: pages/one/report.html\n");
    assert_eq!(
        String::from_utf8(place.read("pages/one/report.html")).unwrap(),
        own
    );
    // Of several folders it belongs to none.
    let several = "report run run/checkpoints/..";
    assert_eq!(
        Done::good(place.command(several)).stdout,
        "report: report/report.html\n"
    );
    assert_eq!(
        Done::good(place.command(several)).stdout,
        "report: report/report.html\n"
    );
    fs::remove_file(place.path("report/report.html")).unwrap();
    let done = Done::of(place.command(several));
    assert!(
        done.code == Some(2)
            && done
                .error()
                .contains("report: the folder exists and holds no report"),
        "{done:?}"
    );
    let numbers = &Done::good(place.command("report run --json")).json()[0];
    let evals = String::from_utf8(place.read("run/evals.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(evals.lines().last().unwrap()).unwrap();
    assert_eq!(
        numbers["arms"][0]["ends"][0][0]["mean"],
        last["eval/loss/sft"]
    );
    for (words, part) in [
        ("report nowhere", "nowhere"),
        ("report model", "model: contains no run"),
        ("report", "<DIR>"),
    ] {
        let done = Done::of(place.command(words));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(done.error().contains(part), "{words}: {done:?}");
    }
    // A run that cannot be read is named on stderr, and the page is made without it.
    place.write("runs/broken/plan.toml", "[plan");
    place.write("runs/worse/plan.toml", "");
    fs::rename(place.path("run"), place.path("runs/good")).unwrap();
    let done = Done::good(place.command("report runs"));
    for name in ["broken", "worse"] {
        let notes = done
            .stderr
            .lines()
            .filter(|line| line.starts_with(&format!("{name} is left out: ")));
        assert_eq!(notes.count(), 1, "{}", done.stderr);
    }
    assert_eq!(done.stdout, "report: runs/report/report.html\n");
    let done = Done::of(place.command("report runs --out sft.jsonl"));
    assert!(
        done.code == Some(2) && done.error().contains("must be a folder"),
        "{done:?}"
    );
}

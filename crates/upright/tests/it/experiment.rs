//! A study from its file to its folder: what is done once, what stops where, what is refused, and what survives.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::runs_fixture::{
    Ended, Process,
    study::{SETTINGS, Study},
};
use serde_json::Value;

/// Everything at once: both references, every method, baselines, a front, questions.
const WHOLE: &str = "
[[sweep]]
name = 'dpo-first'
methods = ['sequential', 'mix', 'alright', 'maxright']
baselines = ['rpo', 'sum']
lambdas = [0.25, 0.5]
probe-every = [1, 4]
settings = { reference = 'train:chosen' }

[[sweep]]
name = 'sft-first'
methods = ['sequential']
lambdas = [0.5]
orders = 'sft,dpo'
settings = { reference = 'train:sft' }

[answers]
prompts = ['abc']
max-tokens = 4
";

fn loss(line: &serde_json::Map<String, Value>, name: &str) -> f64 {
    line[&format!("fit/loss/{name}")].as_f64().unwrap()
}

/// When files of a folder were last written.
fn written(folder: &Path) -> Vec<SystemTime> {
    [
        "plan.toml",
        "steps.jsonl",
        "evals.jsonl",
        "adapter/adapter_config.json",
    ]
    .map(|name| fs::metadata(folder.join(name)).unwrap().modified().unwrap())
    .to_vec()
}

#[test]
fn a_study_is_done_once_and_every_number_comes_from_its_runs() {
    let study = Study::new();
    // Long enough for Mix, which takes both steps at once, to pass ALRIGHT's ends.
    let settings = SETTINGS.replace("steps = 8", "steps = 32");
    study.write(
        "study.toml",
        &format!("title = 'T'\nseeds = [1, 3]\n{settings}\n{WHOLE}"),
    );
    let first = study.json("study.toml --out out");
    let parts = first["parts"].as_array().unwrap();
    let states: Vec<_> = parts
        .iter()
        .map(|outcome| outcome["state"].as_str().unwrap())
        .collect();
    assert!(states.iter().all(|state| *state == "done"), "{first}");
    // dpo-first: the reference; two alone for each seed; at each of two lambdas and two seeds sequential, mix, alright,
    // maxright twice, the sum; rpo once a seed. sft-first: the reference, two alone and sequential for each of two seeds.
    assert_eq!(parts.len(), 1 + 4 + 2 * 2 * 6 + 2 + 1 + 4 + 2);
    assert_eq!(first["report"], "out/report/report.html");

    // Optima are the smallest losses that evaluations of any seed saw, and every run is told them.
    let alone = |name: &str, seed: u64| {
        let evals = study
            .fixture
            .evals(&study.folder(&first, &format!("dpo-first/alone-{name}-seed-{seed}")));
        evals
            .iter()
            .map(|line| loss(line, name))
            .fold(f64::INFINITY, f64::min)
    };
    let by_seed = ["sft", "dpo"].map(|name| [alone(name, 1), alone(name, 3)]);
    assert!(
        by_seed.iter().any(|[first, second]| second < first),
        "the second seed decides an optimum: {by_seed:?}"
    );
    let optima = by_seed.map(|[first, second]| f64::min(first, second));
    let folder = |part: &str| study.folder(&first, &format!("dpo-first/{part}"));
    let maxright = folder("maxright-lambda-0.25-k-4-seed-3");
    for line in study.fixture.evals(&maxright) {
        let gaps = [
            loss(&line, "sft") - optima[0],
            loss(&line, "dpo") - optima[1],
        ];
        assert_eq!(line["fit/gap/sft"].as_f64().unwrap(), gaps[0]);
        assert_eq!(
            line["fit/ideal_distance"].as_f64().unwrap(),
            (gaps[0] * gaps[0] + gaps[1] * gaps[1]).sqrt()
        );
    }

    // Joint methods but ALRIGHT end where an evaluation reaches the front: the ends of ALRIGHT's runs of the first seed.
    let end = |part: &str| study.fixture.evals(&folder(part)).last().unwrap().clone();
    let fronts = ["alright-lambda-0.25-seed-1", "alright-lambda-0.5-seed-1"].map(end);
    let reached = |line: &serde_json::Map<String, Value>| {
        let within = |point: &serde_json::Map<String, Value>| {
            ["sft", "dpo"]
                .iter()
                .all(|name| loss(line, name) <= loss(point, name) + 1e-4)
        };
        fronts.iter().any(within)
            || ["sft", "dpo"]
                .iter()
                .zip(optima)
                .all(|(name, best)| loss(line, name) <= best + 1e-4)
    };
    let mut ended_early = 0;
    for method in ["mix", "alright", "maxright"] {
        for (lambda, seed) in [(0.25, 1), (0.25, 3), (0.5, 1), (0.5, 3)] {
            let k = if method == "maxright" { "-k-1" } else { "" };
            let run = folder(&format!("{method}-lambda-{lambda}{k}-seed-{seed}"));
            let evals = study.fixture.evals(&run);
            let steps = study.fixture.steps(&run).len();
            let hit = evals
                .iter()
                .position(|line| method != "alright" && reached(line));
            let expected = hit.map_or(32, |hit| evals[hit]["step"].as_u64().unwrap());
            assert_eq!(steps as u64, expected, "{run}");
            ended_early += usize::from(steps < 32);
        }
    }
    assert!(
        ended_early > 0,
        "no run reached the front: the rule was not tried"
    );

    // The sum of adapters is measured as any adapter is.
    let sum = folder("sum-lambda-0.25-seed-3");
    let [line] = &study.fixture.evals(&sum)[..] else {
        panic!("one evaluation")
    };
    let adapters =
        ["alone-sft-seed-3", "alone-dpo-seed-3"].map(|part| format!("{}/adapter", folder(part)));
    let mut export = Command::new(env!("CARGO_BIN_EXE_upright"));
    export.args([
        "export",
        "--combine",
        &adapters[0],
        &adapters[1],
        "--weights",
        "0.75,0.25",
        "--out",
        "by-hand",
    ]);
    study.fixture.at_home(&mut export);
    Process::start(export).end().good();
    let by_hand = study.fixture.train(
        "measured",
        "--init-adapter by-hand --steps 0 --sft sft.jsonl --dpo dpo.jsonl --eval-rows 6 --reference train:chosen \
         --lora-rank 4 --lora-targets q_proj,v_proj --sft-batch 4 --dpo-batch 3 --threads 1",
    );
    by_hand.good();
    let [measured] = &study.fixture.evals("measured")[..] else {
        panic!("one evaluation")
    };
    for name in ["sft", "dpo"] {
        assert_eq!(loss(line, name), loss(measured, name), "{name}");
    }

    // It costs what the runs cost whose adapters it adds up, and is called by its weights.
    let seconds = |part: &str| -> f64 {
        let steps = study.fixture.steps(&folder(part));
        steps
            .iter()
            .map(|line| line["seconds"].as_f64().unwrap())
            .sum()
    };
    let costs = [1, 3].map(|seed| {
        let [sft, dpo] = ["sft", "dpo"].map(|name| seconds(&format!("alone-{name}-seed-{seed}")));
        sft + dpo
    });
    let mean = (costs[0] + costs[1]) / 2.0;
    let table = fs::read_to_string(study.fixture.path("out/report/tables/cost.md")).unwrap();
    for lambda in ["0.25", "0.5"] {
        let row = table
            .lines()
            .find(|line| line.contains(&format!("sum of adapters lambda {lambda}")))
            .unwrap();
        assert!(row.contains(&format!("| {mean:.2} ± ")), "{mean}: {row}");
    }

    // Everybody answers, the base first.
    let answers: Value =
        serde_json::from_slice(&fs::read(study.fixture.path("out/answers.json")).unwrap()).unwrap();
    assert_eq!(answers[0]["prompt"], "abc");
    let answered = answers[0]["answers"].as_array().unwrap();
    assert_eq!(answered[0]["run"], "base");
    assert_eq!(
        answered.len(),
        1 + parts
            .iter()
            .filter(|p| p["part"].as_str().unwrap().ends_with("seed-1"))
            .count()
    );

    // A second time nothing is repeated.
    let before = written(&study.fixture.path(&maxright));
    std::thread::sleep(Duration::from_millis(20));
    let found = |again: &Value| {
        again["parts"]
            .as_array()
            .unwrap()
            .iter()
            .all(|outcome| outcome["state"] == "found")
    };
    assert!(found(&study.json("study.toml --out out")));
    assert_eq!(written(&study.fixture.path(&maxright)), before);

    // A look says so, and measures nothing, for which it would need a folder of its own. Another study finds the references.
    let looked = |out: &str, temporary: &str| {
        let mut command = study.command(&format!("study.toml --out {out} --dry-run --json"));
        command.env("TMPDIR", study.fixture.path(temporary));
        Process::start(command).end()
    };
    let finished = |ended: Ended| -> Vec<String> {
        let listed: Value = serde_json::from_str(&ended.good().stdout).unwrap();
        let listed = listed["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|part| part["finished"] == true)
            .cloned();
        listed
            .map(|part| part["part"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(finished(looked("out", "sft.jsonl")).len(), parts.len());
    assert_ne!(looked("fresh", "sft.jsonl").code, Some(0));
    assert_eq!(
        finished(looked("fresh", "")),
        ["dpo-first/reference", "sft-first/reference"]
    );
    let text = study.run("study.toml --out out --dry-run").good().stdout;
    assert!(
        text.contains(&format!(
            "nothing is left to do: {} jobs finished",
            parts.len()
        )),
        "{text}"
    );
    // Nobody needs them any more.
    fs::remove_dir_all(study.fixture.path("cache/references")).unwrap();
    assert_eq!(finished(looked("out", "sft.jsonl")).len(), parts.len());
    assert!(found(&study.json("study.toml --out out")));
    assert!(!study.fixture.path("cache/references").exists());
    assert_eq!(finished(looked("fresh", "")), [""; 0]);
    study.write(
        "study.toml",
        &format!("title = 'T'\nseeds = [1, 3, 5]\n{settings}\n{WHOLE}"),
    );
    let third = study.json("study.toml --out out --only dpo-first/mix-lambda-0.5-seed-5");
    let state = |part: &str| {
        let parts = third["parts"].as_array().unwrap();
        parts
            .iter()
            .find(|outcome| outcome["part"] == part)
            .unwrap()["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // A further seed may find a lower optimum, so what is told the optima is done again, and the rest is not.
    assert_eq!(state("dpo-first/mix-lambda-0.5-seed-5"), "done");
    assert_eq!(state("dpo-first/alone-dpo-seed-5"), "done");
    assert_eq!(state("dpo-first/alright-lambda-0.25-seed-1"), "done");
    assert_eq!(state("dpo-first/alone-dpo-seed-1"), "found");

    // Another study stops at this one's front, and refuses it where something differs.
    let sweep = "[[sweep]]\nmethods = 'mix'\nlambdas = [0.5]\nfront = 'out'\nsettings = { reference = 'train:chosen' }";
    study.write("other.toml", &format!("seeds = [7]\n{settings}\n{sweep}"));
    let other = study.json("other.toml --out other");
    let run = study.folder(&other, "mix-lambda-0.5-seed-7");
    let hit = study.fixture.evals(&run).iter().position(reached);
    let expected = hit.map_or(32, |hit| {
        study.fixture.evals(&run)[hit]["step"].as_u64().unwrap()
    });
    assert_eq!(study.fixture.steps(&run).len() as u64, expected);
    study.write(
        "other.toml",
        &format!("{}\n{sweep}", settings.replace("2e-3", "1e-3")),
    );
    let refused = study.run("other.toml --out another");
    assert_eq!(refused.code, Some(2));
    for part in [
        "front: out holds the front of a different study",
        "learning-rate: 0.002 -> 0.001",
    ] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert!(!study.fixture.path("another").exists());
}

#[test]
fn what_is_to_be_done_can_be_seen_and_given_away() {
    let study = Study::new();
    study.write(
        "study.toml",
        &format!("{SETTINGS}\n[[sweep]]\nmethods = ['mix', 'alright']\nlambdas = [0.5]"),
    );
    let listed = study.run("study.toml --out out --dry-run").good();
    assert!(
        listed.stdout.contains("mix-lambda-0.5-seed-42")
            && listed.stdout.contains("4 of 4 jobs to do")
    );
    let parts = study.json("study.toml --out out --dry-run");
    for part in parts["jobs"].as_array().unwrap() {
        assert_eq!(part["steps"], 8);
        assert!(part["seconds"].as_f64().unwrap() > 0.0 && part["finished"] == false);
    }
    let emitted = study.run("study.toml --out out --emit jsonl").good();
    assert!(
        !study.fixture.path("out").exists(),
        "nothing is written by a look"
    );
    let jobs: Vec<Value> = emitted
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(jobs.len(), 4);
    let mut finished: Vec<&str> = Vec::new();
    for job in &jobs {
        let needs = job["needs"].as_array().unwrap();
        assert!(
            needs
                .iter()
                .all(|need| finished.contains(&need.as_str().unwrap())),
            "{job}"
        );
        let words: Vec<&str> = job["command"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        assert_eq!(words[..2], ["upright", "experiment"]);
        let ended = study.run(&words[2..].join(" ")).good();
        assert!(ended.stdout.contains("1 done"), "{}", ended.stdout);
        finished.push(job["part"].as_str().unwrap());
    }
    assert!(
        study
            .run("study.toml --out out")
            .good()
            .stdout
            .contains("4 jobs: 0 done, 4 finished before")
    );

    // A sweep that joins the study gives the parts longer names, and repeats none of them.
    let more = "[[sweep]]\nmethods = 'mix'\nlambdas = [0.5]\nsettings = { beta = 0.5 }";
    let text = fs::read_to_string(study.fixture.path("study.toml")).unwrap();
    study.write("study.toml", &format!("{text}\n{more}"));
    let joined = study.run("study.toml --out out").good().stdout;
    assert!(
        joined.contains("8 jobs: 4 done, 4 finished before"),
        "{joined}"
    );

    // Runs of the same method and point that differ in where they stop have names of their own.
    let sweep = "[[sweep]]\nmethods = ['mix', 'alright']\nlambdas = [0.5]";
    study.write(
        "twice.toml",
        &format!("{SETTINGS}\n{sweep}\n{sweep}\nfront = 'none'"),
    );
    let emitted = study.run("twice.toml --out out --emit jsonl").good().stdout;
    let mut names: Vec<Value> = emitted
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["part"].clone())
        .collect();
    let parts = names.len();
    names.sort_by_key(Value::to_string);
    names.dedup();
    assert_eq!((parts, names.len()), (5, 5), "{emitted}");
}

/// Other studies read the front of the study as it stands, whatever happened to the file.
#[test]
fn the_front_is_that_of_the_parts_that_are_there() {
    let study = Study::new();
    let sweep =
        |lambdas: &str| format!("{SETTINGS}\n[[sweep]]\nmethods = 'alright'\nlambdas = {lambdas}");
    let front = || {
        let files = fs::read_dir(study.fixture.path("out"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with("front-")
            })
            .collect::<Vec<_>>()
    };
    let points = || {
        let files = front();
        assert_eq!(files.len(), 2, "{files:?}");
        let points = files
            .iter()
            .find(|path| path.extension().unwrap() == "json")
            .unwrap();
        let points: Value = serde_json::from_slice(&fs::read(points).unwrap()).unwrap();
        points["points"].as_array().unwrap().clone()
    };
    study.write("study.toml", &sweep("[0.25, 0.5]"));
    study.run("study.toml --out out").good();
    let both = points();
    assert_eq!(both.len(), 2);
    for file in front() {
        fs::remove_file(file).unwrap();
    }
    assert!(
        study
            .run("study.toml --out out")
            .good()
            .stdout
            .contains("4 jobs: 0 done, 4 finished before")
    );
    assert_eq!(points(), both);
    study.write("study.toml", &sweep("[0.5]"));
    assert!(
        study
            .run("study.toml --out out")
            .good()
            .stdout
            .contains("3 jobs: 0 done, 3 finished before")
    );
    assert_eq!(points(), both[1..]);
}

/// A report of the folder would show the study's runs alone.
#[test]
fn a_study_does_not_move_in_where_something_else_is() {
    let study = Study::new();
    study.write(
        "study.toml",
        &format!("{SETTINGS}\n[[sweep]]\nmethods = 'mix'\nlambdas = [0.5]\nfront = 'none'"),
    );
    fs::create_dir(study.fixture.path("elsewhere")).unwrap();
    study.write("elsewhere/notes.txt", "mine");
    let refused = study.run("study.toml --out elsewhere");
    assert_eq!(refused.code, Some(2));
    assert!(
        refused
            .stderr
            .contains("elsewhere: holds notes.txt, but no study"),
        "{}",
        refused.stderr
    );
}

/// Answers of a base are kept as long as it is that base, asked in those words; several are told apart.
#[test]
fn every_base_answers_for_itself() {
    let study = Study::new();
    let sweep = "[[sweep]]\nmethods = 'mix'\nlambdas = [0.5]\nfront = 'none'";
    let asked = "[answers]\nprompts = ['abc', 'tea']\nmax-tokens = 4";
    let settings = SETTINGS.replace("steps = 8", "steps = 1");
    // Runs and what they answered to the first prompt.
    let answers = || -> Vec<(String, String)> {
        let answers = fs::read(study.fixture.path("out/answers.json")).unwrap();
        let answers: Value = serde_json::from_slice(&answers).unwrap();
        let said = |answer: &Value, key: &str| answer[key].as_str().unwrap().to_owned();
        answers[0]["answers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| (said(a, "run"), said(a, "text")))
            .collect()
    };
    let mark = || {
        let path = study.fixture.path("out/answers.json");
        let mut marked: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for asked in marked.as_array_mut().unwrap() {
            asked["answers"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|answer| answer["text"] = "kept".into());
        }
        fs::write(path, marked.to_string()).unwrap();
    };
    let kept = || {
        answers()
            .iter()
            .filter(|(_, text)| text == "kept")
            .map(|(run, _)| run.clone())
            .collect::<Vec<_>>()
    };
    study.write("study.toml", &format!("{settings}\n{sweep}\n{asked}"));
    study.run("study.toml --out out").good();
    assert_eq!(answers().iter().filter(|(run, _)| run == "base").count(), 1);
    mark();
    study.run("study.toml --out out").good();
    assert_eq!(kept().len(), 4, "the base, two alone, mix");

    // Another template: nothing that was answered holds any more. Nor does it where it is not said which base it was.
    let raw = format!("{settings}sft-template = 'raw'\n{sweep}\n{asked}");
    study.write("study.toml", &raw);
    study.run("study.toml --out out").good();
    assert_eq!((answers().len(), kept()), (4, vec![]));
    mark();
    let path = study.fixture.path("out/answers.json");
    let mut unknown: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let bases = unknown
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .map(|asked| &mut asked["answers"][0]);
    bases.for_each(|base| {
        assert!(
            base.as_object_mut().unwrap().remove("of").is_some(),
            "{base}"
        );
    });
    fs::write(path, unknown.to_string()).unwrap();
    study.run("study.toml --out out").good();
    assert!(
        kept().len() == 3 && !kept().contains(&"base".to_owned()),
        "{:?}",
        kept()
    );

    // Two models, one of them in two wordings.
    let other = study.fixture.path("other");
    fs::create_dir(&other).unwrap();
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-engine/tests/golden/mistral");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(name), other.join(name)).unwrap();
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(study.fixture.path("model").join(name), other.join(name)).unwrap();
    }
    let with = |settings: &str| format!("{sweep}\nsettings = {{ {settings} }}\n");
    let bases = || {
        answers()
            .into_iter()
            .map(|(run, _)| run)
            .filter(|run| !run.starts_with("runs/"))
            .collect::<Vec<_>>()
    };
    study.write(
        "study.toml",
        &format!(
            "{settings}\n{}{}{asked}",
            with("beta = 0.2"),
            with("model = 'other'")
        ),
    );
    study.run("study.toml --out out").good();
    assert_eq!(bases(), ["base model", "base other"]);
    assert_eq!(answers().len(), 2 + 2 * 3);
    let three = [
        with("beta = 0.2"),
        with("sft-template = 'raw'"),
        with("model = 'other'"),
    ]
    .concat();
    study.write("study.toml", &format!("{settings}\n{three}{asked}"));
    study.run("study.toml --out out").good();
    let named = [
        "model, user-assistant",
        "model, raw",
        "other, user-assistant",
    ]
    .map(|name| format!("base {name}"));
    assert_eq!(bases(), named);
}

/// What has no effect is said once, whatever the number of runs; and runs of one arm have one name but for the seed.
#[test]
fn a_study_says_once_what_has_no_effect() {
    let study = Study::new();
    let sweeps = "
[[sweep]]
name = 'equal'
methods = ['mix', 'alright']
lambdas = [0.25]
front = 'none'

[[sweep]]
name = 'stopped'
methods = ['mix', 'alright']
baselines = 'sum'
lambdas = [0.25, 0.5]

[[sweep]]
name = 'other'
methods = 'mix'
lambdas = [0.5]
front = 'none'
settings = { dpo-loss = 'orpo', label-smoothing = 0.1, reference = 'none' }
";
    study.write(
        "study.toml",
        &format!("seeds = [1, 2]\n{SETTINGS}reference-epochs = 2\n{sweeps}"),
    );
    let emitted = study.run("study.toml --out out --emit jsonl").good();
    for note in [
        "sweep equal: --reference-epochs is ignored: no reference model is trained",
        "sweep equal: the reference model is the base model",
        "sweep other: --reference is ignored",
        "sweep other: --label-smoothing is ignored",
    ] {
        assert_eq!(
            emitted.stderr.matches(note).count(),
            1,
            "{note}: {}",
            emitted.stderr
        );
    }
    assert!(
        !emitted.stderr.contains("sweep stopped: "),
        "it stands on the ground of another: {}",
        emitted.stderr
    );
    let names = emitted
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["part"].clone());
    let names: Vec<String> = names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    for first in names.iter().filter(|name| name.contains("-seed-1")) {
        let second = first.replace("-seed-1", "-seed-2");
        assert!(
            names.contains(&second) || first.starts_with("other/alone"),
            "{second} is not among {names:?}"
        );
    }
    // What another sweep has under the same name is told apart by the name of its own.
    assert!(
        names.contains(&"equal/mix-lambda-0.25-seed-2-stopped".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_part_that_fails_takes_with_it_only_those_that_need_it() {
    let study = Study::new();
    let text =
        format!("{SETTINGS}\n[[sweep]]\nmethods = ['mix', 'alright', 'maxright']\nlambdas = [0.5]");
    study.write("study.toml", &text);
    let jobs = study.json("study.toml --out elsewhere");
    // A file where the run of ALRIGHT would be: the front is missing for those who stop at it.
    let alright = study
        .folder(&jobs, "alright-lambda-0.5-seed-42")
        .replace("elsewhere", "out");
    fs::create_dir_all(study.fixture.path("out/runs")).unwrap();
    fs::write(study.fixture.path(&alright), "in the way").unwrap();
    study.write("out/experiment.toml", &text);
    let ended = study.run("study.toml --out out");
    assert_eq!(ended.code, Some(1));
    let expected = [
        "5 jobs: 2 done, 0 finished before",
        "alright-lambda-0.5-seed-42: failed: ",
        "mix-lambda-0.5-seed-42: skipped, because alright-lambda-0.5-seed-42 failed",
        "maxright-lambda-0.5-k-10-seed-42: skipped",
        "out/report/report.html",
    ];
    for part in expected {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert!(
        ended.stderr.contains("3 of 5 jobs did not finish"),
        "{}",
        ended.stderr
    );
    fs::remove_file(study.fixture.path(&alright)).unwrap();
    assert!(
        study
            .run("study.toml --out out")
            .good()
            .stdout
            .contains("5 jobs: 3 done, 2 finished before")
    );
}

#[test]
fn mistakes_are_refused_before_the_first_run() {
    let study = Study::new();
    let sweep = "[[sweep]]\nmethods = 'mix'\nlambdas = [0.5]";
    let with = |extra: &str| format!("{SETTINGS}\n{sweep}\n{extra}");
    let table: &[(String, &[&str])] = &[
        (
            format!("seed = 1\n{}", with("")),
            &["unknown key `seed`", "did you mean `seeds`?"],
        ),
        (
            with("methodes = 'mix'"),
            &[
                "[[sweep]] 1: unknown key `methodes`",
                "did you mean `methods`?",
            ],
        ),
        (
            with("").replace("sft-batch", "sft-bach"),
            &["unknown key `sft-bach`", "did you mean `sft-batch`?"],
        ),
        (
            with("").replace("'mix'", "'mx'"),
            &["methods must be one of", "`mx`", "did you mean `mix`?"],
        ),
        (
            with("").replace("steps = 8", "steps = 8\nlambda = 0.5"),
            &["lambda is not a setting of a study", "lambdas"],
        ),
        (
            with("").replace("steps = 8", "steps = 8\nseed = 3"),
            &["seed is not a setting of a study", "list seeds"],
        ),
        (
            with("").replace("steps = 8", "steps = 8\nstop-within = 1"),
            &["stop-within is not a setting of a study"],
        ),
        (
            with("").replace("steps = 8", "steps = 8\nno-report = true"),
            &["no-report is not a setting", "one report"],
        ),
        (
            with("").replace("[0.5]", "[1.0]"),
            &["lambdas must lie between 0 and 1, found `1.0`", "alone"],
        ),
        (with("").replace("[0.5]", "[0.5, 0.5]"), &["differ"]),
        (
            with("").replace("lambdas = [0.5]", ""),
            &["lambdas are missing"],
        ),
        (
            with("").replace("lambdas = [0.5]", "weights = [[4, 3, 3]]"),
            &["weights must be 2 numbers, one per objective", "4, 3, 3"],
        ),
        (
            with("").replace("lambdas = [0.5]", "weights = [[1, -1]]"),
            &["weights must be a number above 0, found `-1`", "alone"],
        ),
        (
            with("").replace("lambdas = [0.5]", "weights = [[1, 3], [0.25, 0.75]]"),
            &["differ", "[0.25, 0.75]"],
        ),
        (
            with("probe-every = [10]"),
            &["probe-every is given, but maxright is not among the methods"],
        ),
        (
            with("stages = 'dpo:4,sft:4'"),
            &["stages is given, but sequential is not among the methods"],
        ),
        (
            with("stages = 'dpo:4,sft:4'").replace(
                "'mix'\nlambdas = [0.5]",
                "'sequential'\nlambdas = [0.2, 0.5]",
            ),
            &["one entry for each of the 2 weightings"],
        ),
        (
            with("").replace("'mix'\nlambdas = [0.5]", "'sequential'\nlambdas = [0.01]"),
            &["sweep sweep-1", "sequential gets no step of dpo", "stages"],
        ),
        (
            with("orders = 'dpo'").replace("'mix'", "'sequential'"),
            &["orders must name every objective once"],
        ),
        (
            with("baselines = 'dpo2'"),
            &["baselines must be one of ipo, rpo, orpo, simpo, sum"],
        ),
        (
            with("[baseline.rpo]\nalpha = 2"),
            &["[baseline.rpo] has no sweep"],
        ),
        (
            with("baselines = 'rpo'\n[baseline.rpo]\nlr = 2"),
            &["[baseline.rpo]: unknown key `lr`"],
        ),
        (
            with("front = 'nowhere'"),
            &["front must be own, none, or the folder of another study, found `nowhere`"],
        ),
        (with("front = 'model'"), &["model holds no front"]),
        (
            with("name = 'a'\n[[sweep]]\nmethods = 'mix'\nlambdas = [0.25]\nfront = 'model'"),
            &[
                "sweep a: stops at a different front than sweep sweep-2",
                "two studies",
            ],
        ),
        (with("").replace("dpo.jsonl", "gone.jsonl"), &["gone.jsonl"]),
        (with("").replace("'model'", "'no-model'"), &["no-model"]),
        (
            with("[answers]\nprompts = []"),
            &["[answers]: prompts must be non-empty strings"],
        ),
        (
            format!("seeds = [1, 1]\n{}", with("")),
            &["seeds must differ"],
        ),
        (format!("seeds = [-1]\n{}", with("")), &["seeds", "`-1`"]),
        (SETTINGS.to_owned(), &["there is no [[sweep]]"]),
        ("title = 3".to_owned(), &["bad.toml"]),
        ("title = ".to_owned(), &["bad.toml, line 1"]),
    ];
    for (text, parts) in table {
        study.write("bad.toml", text);
        let ended = study.run("bad.toml --out out");
        assert_eq!(
            ended.code,
            Some(2),
            "{text}\n{}{}",
            ended.stdout,
            ended.stderr
        );
        for part in *parts {
            assert!(
                ended.stderr.contains(part),
                "{part}: {}\n{text}",
                ended.stderr
            );
        }
        assert!(!study.fixture.path("out").exists(), "{text}");
    }
    study.write("good.toml", &with(""));
    for (flags, parts) in [
        (
            "good.toml --out out --only mix",
            &["there is no job `mix`", "--dry-run"][..],
        ),
        ("good.toml --out sft.jsonl", &["out must be a folder"]),
        ("missing.toml --out out", &["missing.toml"]),
        ("good.toml --out out --emit csv", &["csv"]),
    ] {
        let ended = study.run(flags);
        assert_eq!(ended.code, Some(2), "{flags}: {}", ended.stderr);
        assert!(
            parts.iter().all(|part| ended.stderr.contains(part)),
            "{flags}: {}",
            ended.stderr
        );
    }
}

//! What is promised of runs, kept by the real program on tiny models: killed, stopped, squeezed and resumed, a run ends in
//! the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    f64::consts::LN_2,
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use crate::runs_fixture::{Ended, Fixture, Process, Random, TWO, contents};
use serde_json::{Map, Value};

/// Lines of a file so far.
fn count_lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| {
        bytes.iter().filter(|byte| **byte == b'\n').count()
    })
}

/// Steps taken so far by a run and by the references in its cache.
fn progress(run: &Path, cache: &Path) -> usize {
    let references = fs::read_dir(cache.join("references"))
        .into_iter()
        .flatten()
        .flatten();
    let folders = references.map(|entry| entry.path()).chain([run.to_owned()]);
    folders
        .map(|folder| count_lines(&folder.join("steps.jsonl")))
        .sum()
}

fn number(line: &Map<String, Value>, key: &str) -> Option<f64> {
    line.get(key).and_then(Value::as_f64)
}

/// The objective that each step trained on.
fn chosen(steps: &[Map<String, Value>]) -> Vec<usize> {
    let one = |line: &Map<String, Value>| {
        let weights = line["weights"].as_array().unwrap();
        let at = |i: &usize| weights[*i] == 1.0;
        assert_eq!((0..weights.len()).filter(at).count(), 1, "{weights:?}");
        (0..weights.len()).find(at).unwrap()
    };
    steps.iter().map(one).collect()
}

/// The objective that each step trained on, by the name of its loss.
fn trained(steps: &[Map<String, Value>], name: &str) -> usize {
    steps
        .iter()
        .filter(|line| line.contains_key(&format!("loss/{name}")))
        .count()
}

/// Ends and continues a run in every way, at moments that differ from round to round, until it is done. Returns how often
/// it was ended.
fn batter(f: &Fixture, flags: &str, seed: u64) -> usize {
    let mut random = Random(seed);
    let (run, cache) = (f.path("battered"), f.path("battered-cache"));
    let mut ended = 0;
    for round in 0..24 {
        let threads = 1 + round % 2;
        let mut command = f.command("battered", &format!("{flags} --resume --threads {threads}"));
        command.env("UPRIGHT_CACHE", &cache);
        let before = progress(&run, &cache);
        let (more, wait) = (
            1 + random.below(8),
            Duration::from_millis(random.below(200) as u64),
        );
        let mut process = Process::start(command);
        let grown = |by: usize| progress(&run, &cache) >= before + by;
        let alive = match round % 4 {
            // At any moment, mostly while the run starts.
            0 => process.wait_until(|process| process.age() >= wait),
            // While a checkpoint is written.
            2 => process.wait_until(|_| grown(1) && run.join("checkpoints/.partial").exists()),
            _ => process.wait_until(|_| grown(more)),
        };
        if !alive {
            process.end().good();
            return ended;
        }
        ended += 1;
        if round % 4 == 3 {
            process.signal(if round % 8 == 3 { "INT" } else { "TERM" });
            let end = process.end();
            // It may just have come to its end.
            assert!(
                end.code == Some(130) && end.stderr.contains("interrupted: stopped")
                    || end.code == Some(0)
            );
        } else {
            process.kill();
        }
    }
    let mut command = f.command("battered", &format!("{flags} --resume"));
    command.env("UPRIGHT_CACHE", &cache);
    Process::start(command).end().good();
    ended
}

/// Asserts that a plan gives the same bytes straight, battered, with other threads and with recompute.
fn ends_the_same(golden: &str, flags: &str, seed: u64) -> Fixture {
    let f = Fixture::new(golden);
    f.train("straight", &format!("{flags} --threads 1")).good();
    f.train("threads", &format!("{flags} --threads 3")).good();
    f.train("recomputed", &format!("{flags} --threads 2 --recompute on"))
        .good();
    f.assert_same("straight", "threads", &["threads"]);
    f.assert_same("straight", "recomputed", &["threads", "recompute"]);
    let ended = batter(&f, flags, seed);
    assert!(
        ended >= 8,
        "the run was over after it had been ended {ended} times"
    );
    f.assert_same("straight", "battered", &["threads", "resume"]);
    // A reference that the program trains is a run as well.
    let names = |cache: &str| -> BTreeSet<_> {
        let entries = fs::read_dir(f.path(cache).join("references"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|entry| format!("references/{}", entry.file_name().display()))
            .collect()
    };
    assert_eq!(names("cache"), names("battered-cache"));
    for name in names("cache")
        .iter()
        .filter(|name| !name.ends_with(".lock"))
    {
        f.assert_same(
            &format!("cache/{name}"),
            &format!("battered-cache/{name}"),
            &["threads"],
        );
    }
    f
}

#[test]
fn maxright_ends_the_same_however_it_is_run() {
    let flags = format!(
        "{TWO} --method maxright --lambda 0.93 --probe-every 3 --steps 120 --eval-every 10 --checkpoint-every 7 \
         --reference train:chosen --reference-epochs 2 --reference-batch 4"
    );
    let f = ends_the_same("llama", &flags, 1);
    let chosen: BTreeSet<_> = chosen(&f.steps("straight")).into_iter().collect();
    assert_eq!(chosen.len(), 2, "a plan that is worth testing updates both");
}

/// The GPU decoder on the host device, killed in the middle of uploads and launches.
#[test]
fn a_run_on_the_host_device_ends_the_same_however_it_is_run() {
    if let Some(why) = upright_emulator::missing() {
        println!("{why}");
        return;
    }
    let flags = "--sft sft.jsonl --dpo dpo.jsonl --sft-batch 2 --dpo-batch 2 --method maxright --lambda 0.9 \
                 --probe-every 2 --steps 4 --checkpoint-every 1 --device host --eval-rows 2 --held-out 0.1 \
                 --eval-every 4 --threads 2";
    let f = Fixture::new("llama");
    f.train("straight", flags).good();
    for kill in ["upload:40", "launch:350", "upload:90", "launch:500"] {
        let mut command = f.command("killed", &format!("{flags} --resume"));
        command.env("UPRIGHT_HOST_KILL", kill);
        let end = Process::start(command).end();
        assert_eq!(end.code, None, "{kill}: {}", end.stderr);
    }
    let steps = f.steps("killed").len();
    assert!(
        (1..4).contains(&steps),
        "{steps} steps before the last kill"
    );
    f.train("killed", &format!("{flags} --resume")).good();
    f.assert_same("straight", "killed", &["resume"]);
    let probed = f.steps("straight");
    let probed = probed.iter().filter(|line| line.contains_key("probe/sft"));
    assert_eq!(
        probed.count(),
        2,
        "both objectives are probed in every second step"
    );
}

#[test]
fn sequential_ends_the_same_however_it_is_run() {
    let flags = format!(
        "{TWO} --method sequential --stages dpo:50,sft:3e --schedule cosine --warmup 5 --eval-every 15 \
         --checkpoint-every 15 --keep 1 --average polynomial"
    );
    let f = ends_the_same("neox_parallel", &flags, 2);
    let steps = f.steps("straight");
    assert_eq!((steps.len(), trained(&steps, "dpo")), (50 + 3 * 15, 50));
    let rates: Vec<f64> = [0, 5, 50, 55]
        .map(|step: usize| number(&steps[step], "learning_rate").unwrap())
        .to_vec();
    assert_eq!(rates, [0.0, 2e-3, 0.0, 2e-3], "every stage warms up");
}

#[test]
fn alright_ends_the_same_however_it_is_run() {
    let flags = format!(
        "{TWO} --method alright --steps 110 --eval-every 12 --checkpoint-every 9 --schedule linear --token-budget 120 \
         --reference train:sft --seed 5"
    );
    ends_the_same("neox_sequential", &flags, 3);
}

#[test]
fn mix_of_three_ends_the_same_however_it_is_run() {
    let f = Fixture::new("llama");
    write_three(&f);
    let flags = "--config three.toml --method mix --steps 80 --eval-every 20 --checkpoint-every 20";
    f.train("straight", &format!("{flags} --threads 1")).good();
    assert!(batter(&f, flags, 4) >= 8);
    f.assert_same("straight", "battered", &["threads", "resume"]);
}

/// Decisions are recomputed from the recorded losses: smoothed by a quarter, shares by weight times gap
/// with a tenth by weight alone, and the objective that is owed most.
#[test]
fn compromise_ends_the_same_however_it_is_run() {
    let flags = format!(
        "{TWO} --method compromise --power 3 --lambda 0.6 --steps 90 --eval-every 12 --checkpoint-every 9 \
         --optimum dpo=0.1 --reference train:chosen --reference-batch 4 --average polynomial --export-iterate average"
    );
    let f = ends_the_same("llama", &flags, 6);
    let steps = f.steps("straight");
    let (weights, optima, names) = ([0.4, 0.6], [0.0, 0.1], ["sft", "dpo"]);
    let mut smooth = [0.0; 2];
    let mut owed = [0.0; 2];
    let mut counts = [0; 2];
    for (index, (line, chosen)) in steps.iter().zip(chosen(&steps)).enumerate() {
        for (i, name) in names.iter().enumerate() {
            let probe = number(line, &format!("probe/{name}"));
            assert_eq!(probe.is_some(), index == 0, "step {index}");
            smooth[i] = probe.unwrap_or(smooth[i]);
        }
        let raw = [0, 1].map(|i| weights[i] * f64::max(smooth[i] - optima[i], 1e-6).powi(2));
        for i in 0..2 {
            owed[i] += 0.9 * raw[i] / (raw[0] + raw[1]) + 0.1 * weights[i];
        }
        assert_eq!(
            chosen,
            usize::from(owed[1] >= owed[0]),
            "step {index}: {owed:?}"
        );
        owed[chosen] -= 1.0;
        counts[chosen] += 1;
        let loss = number(line, &format!("loss/{}", names[chosen])).unwrap();
        smooth[chosen] += 0.25 * (loss - smooth[chosen]);
    }
    assert!(counts[0] > 2 && counts[1] > 2, "{counts:?}");
}

/// Three objectives with balanced draws have their shares at every step, to within one step.
#[test]
fn balanced_draws_of_three_end_the_same_however_they_are_run() {
    let f = Fixture::new("llama");
    write_three(&f);
    let flags = "--config three.toml --method alright --draws balanced --steps 60 --eval-every 20 --checkpoint-every 20";
    f.train("straight", &format!("{flags} --threads 1")).good();
    assert!(batter(&f, flags, 7) >= 8);
    f.assert_same("straight", "battered", &["threads", "resume"]);
    let mut counts = [0; 3];
    for (index, chosen) in chosen(&f.steps("straight")).into_iter().enumerate() {
        counts[chosen] += 1;
        for (count, weight) in counts.iter().zip([0.5, 0.3, 0.2]) {
            let share = weight * (index + 1) as f64;
            assert!(
                (f64::from(*count) - share).abs() < 1.0 + 1.0 / 3.0,
                "{counts:?}"
            );
        }
    }
}

fn write_three(f: &Fixture) {
    f.write_rows("pairs.jsonl", 30, 9, true);
    let objectives = [
        ("talk", "sft", "sft.jsonl", 0.5, "batch = 5"),
        (
            "taste",
            "dpo",
            "dpo.jsonl",
            0.3,
            "beta = 0.3\nlabel-smoothing = 0.1",
        ),
        (
            "care",
            "ipo",
            "pairs.jsonl",
            0.2,
            "beta = 0.2\noptimum = 0.5",
        ),
    ];
    let text: String = objectives
        .iter()
        .map(|(name, loss, data, weight, more)| {
            format!("[[objective]]\nname = '{name}'\nloss = '{loss}'\ndata = '{data}'\nweight = {weight}\n{more}\n")
        })
        .collect();
    fs::write(f.path("three.toml"), text).unwrap();
}

#[test]
fn a_stop_is_answered_wherever_it_comes() {
    let f = Fixture::new("llama");
    // Everything but the evaluations takes no time here, so that is where the signals meet the run.
    let flags = format!(
        "{TWO} --held-out 0.5 --token-budget 1 --steps 6 --eval-every 2 --checkpoint-every 2"
    );
    f.train("straight", &flags).good();
    let resume = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upright"));
        command
            .args(["train", "--resume", "--out"])
            .args(words.split_whitespace());
        f.at_home(&mut command);
        command
    };
    let (mut stopped, mut told, mut alone) = (0, 0, 0);
    for round in 0..60 {
        // Continued by its folder alone as soon as that is said to do.
        let command = if alone > 0 {
            resume("stopped")
        } else {
            f.command("stopped", &format!("{flags} --resume"))
        };
        let mut process = Process::start(command);
        let wait = Duration::from_millis(10 + 7 * round);
        let alive =
            process.wait_until(|process| process.age() >= wait && !process.stderr().is_empty());
        process.signal(if round % 2 == 0 { "INT" } else { "TERM" });
        let end = process.end();
        if !alive || end.code == Some(0) {
            break;
        }
        assert_eq!(end.code, Some(130), "{}", end.stderr);
        assert!(end.stderr.contains("--resume"), "{}", end.stderr);
        alone += usize::from(
            end.stderr
                .contains("run upright train --resume --out stopped to continue"),
        );
        stopped += 1;
        told += usize::from(end.stderr.contains("a second signal stops immediately"));
    }
    assert!(
        stopped > 3 && told > 0 && alone > 0,
        "{stopped}, {told}, {alone}"
    );
    let other = Process::start(resume("stopped --seed 3")).end();
    assert!(
        other.code == Some(2) && other.stderr.contains("seed: 42 -> 3"),
        "{}",
        other.stderr
    );
    // Its paths start where it was begun.
    let mut elsewhere = resume("../stopped");
    elsewhere.current_dir(f.path("stopped"));
    let elsewhere = Process::start(elsewhere).end();
    assert!(
        elsewhere
            .stderr
            .contains("../stopped: was started with --out stopped, in another folder"),
        "{}",
        elsewhere.stderr
    );
    let nothing = Process::start(resume("nothing")).end();
    assert!(
        nothing.stderr.contains("nothing: no run to resume"),
        "{}",
        nothing.stderr
    );
    Process::start(resume("stopped")).end().good();
    f.assert_same("straight", "stopped", &["resume"]);
}

#[test]
fn edge_values_run() {
    let f = Fixture::new("llama");
    let run = |out: &str, flags: &str| {
        f.train(out, flags).good();
        (f.steps(out), f.evals(out))
    };
    for method in ["sequential", "mix", "alright", "maxright"] {
        for (lambda, only) in [("0", 0), ("1", 1)] {
            let out = format!("{method}-{lambda}");
            let (steps, evals) = run(
                &out,
                &format!("{TWO} --method {method} --lambda {lambda} --steps 7"),
            );
            assert_eq!(chosen(&steps), [only; 7], "{out}");
            assert!(
                steps
                    .iter()
                    .all(|line| !line.contains_key("probe/sft") && !line.contains_key("probe/dpo"))
            );
            assert!(evals.iter().all(
                |line| line.contains_key("eval/loss/sft") && line.contains_key("fit/loss/dpo")
            ));
        }
    }
    // k of every size.
    for (k, looks) in [(1, 9), (4, 3), (1000, 1)] {
        let out = format!("k-{k}");
        let (steps, _) = run(
            &out,
            &format!("{TWO} --method maxright --probe-every {k} --steps 9"),
        );
        assert_eq!(
            steps
                .iter()
                .filter(|line| line.contains_key("probe/dpo"))
                .count(),
            looks,
            "k = {k}"
        );
    }
    // One objective alone, by every method.
    for (loss, name, flag) in [
        ("sft", "sft", "--sft sft.jsonl"),
        ("dpo", "dpo", "--dpo dpo.jsonl"),
        ("ipo", "dpo", "--dpo dpo.jsonl --dpo-loss ipo"),
        ("rpo", "dpo", "--dpo dpo.jsonl --dpo-loss rpo"),
        ("orpo", "dpo", "--dpo dpo.jsonl --dpo-loss orpo"),
        ("simpo", "dpo", "--dpo dpo.jsonl --dpo-loss simpo"),
    ] {
        for method in ["sequential", "mix", "alright", "maxright"] {
            let out = format!("{method}-{loss}-alone");
            let (steps, evals) = run(&out, &format!("{flag} --method {method} --steps 3"));
            assert_eq!(
                (steps.len(), trained(&steps, name), evals.len()),
                (3, 3, 2),
                "{out}"
            );
        }
    }
    // Three of them.
    write_three(&f);
    for method in ["sequential", "mix", "alright", "maxright"] {
        let out = format!("{method}-three");
        let (steps, evals) = run(
            &out,
            &format!("--config three.toml --method {method} --steps 20"),
        );
        assert_eq!(steps.len(), 20);
        assert!(evals.iter().all(|line| {
            ["talk", "taste", "care"]
                .iter()
                .all(|name| line.contains_key(&format!("eval/loss/{name}")))
        }));
        assert!(
            evals[0].contains_key("fit/gap/care")
                && evals[0].contains_key("eval/rewards/accuracies/taste")
        );
        match method {
            "mix" => assert!(
                ["talk", "taste", "care"]
                    .iter()
                    .all(|name| trained(&steps, name) == 20)
            ),
            "sequential" => {
                let counts = ["taste", "care", "talk"].map(|name| trained(&steps, name));
                assert_eq!(counts, [6, 4, 10]);
            }
            _ => assert_eq!(chosen(&steps).len(), 20),
        }
    }
    // 57 rows by 4 are 15 steps an epoch, and so are 45 pairs by 3.
    assert_eq!(run("epochs", &format!("{TWO} --epochs 1.3")).0.len(), 20);
    assert_eq!(run("part", &format!("{TWO} --epochs 0.01")).0.len(), 1);
    let (steps, _) = run(
        "large",
        "--sft sft.jsonl --sft-batch 500 --epochs 2 --method mix",
    );
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0]["tokens"], steps[1]["tokens"], "both are all rows");
    let stages = |out: &str, stages: &str| {
        chosen(&run(out, &format!("{TWO} --method sequential --stages {stages}")).0)
    };
    assert_eq!(stages("stages", "sft:3,dpo:2,sft:1"), [0, 0, 0, 1, 1, 0]);
    assert_eq!(
        stages("epoch-stages", "sft:0.2e,dpo:0.1e,sft:1"),
        [0, 0, 0, 1, 1, 0]
    );
    // Evaluations at the start and the end alone, and none of them on held-out rows.
    let (_, evals) = run(
        "fit",
        &format!("{TWO} --held-out 0 --steps 4 --eval-every 100"),
    );
    assert_eq!(
        evals
            .iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 4]
    );
    assert!(
        evals
            .iter()
            .all(|line| line.keys().all(|key| !key.starts_with("eval/"))
                && line.contains_key("fit/loss/dpo"))
    );
    // Only a warm-up that there is can be too long.
    let warns = |out: &str, flags: &str| {
        f.train(out, flags)
            .good()
            .stderr
            .contains("warning: the warm-up")
    };
    assert!(!warns(
        "measured",
        "--sft sft.jsonl --init-adapter fit/adapter --steps 0"
    ));
    assert!(
        warns("cold", "--sft sft.jsonl --steps 2 --warmup 2")
            && !warns("warm", "--sft sft.jsonl --steps 3 --warmup 2")
    );
    let refused = f.train("zero", &format!("{TWO} --eval-every 0"));
    assert!(
        refused.code == Some(2) && refused.stderr.contains("eval-every"),
        "{}",
        refused.stderr
    );
    assert!(!f.path("zero").exists());
}

/// The same log-probabilities, whoever their neighbours are and whether they are computed or cached.
#[test]
fn where_policy_and_reference_are_one_the_dpo_loss_is_ln_2() {
    for golden in ["llama", "neox_parallel"] {
        let f = Fixture::new(golden);
        f.train(
            "reference",
            "--sft sft.jsonl --steps 12 --learning-rate 1e-2",
        )
        .good();
        let mut scored = vec![];
        // A warm-up leaves the policy where it is for one step.
        let same = "--steps 3 --warmup 2 --method mix --eval-rows 20";
        for (start, reference) in [
            ("--init-adapter reference/adapter", "reference/adapter"),
            ("", "none"),
        ] {
            for budget in [1, 90, 333, 2048] {
                let out = format!("{reference}-{budget}").replace('/', "-");
                let flags =
                    format!("{TWO} {same} {start} --reference {reference} --token-budget {budget}");
                let stderr = f.train(&out, &flags).good().stderr;
                let note = stderr
                    .lines()
                    .find(|line| line.starts_with("reference log-probabilities "))
                    .unwrap();
                scored.push(!note.contains(" 0 responses scored"));
                let losses =
                    |lines: &[Map<String, Value>], key: &str| number(&lines[0], key).unwrap();
                let (steps, evals) = (f.steps(&out), f.evals(&out));
                let all = [
                    losses(&steps, "loss/dpo"),
                    losses(&steps[1..], "loss/dpo"),
                    losses(&evals, "eval/loss/dpo"),
                    losses(&evals, "fit/loss/dpo"),
                ];
                assert!(
                    all.iter().all(|loss| (loss - LN_2).abs() < 1e-14),
                    "{golden}, {out}: {all:?}"
                );
                let last = number(&steps[2], "loss/dpo").unwrap();
                assert!((last - LN_2).abs() > 1e-7, "then the policy moves: {last}");
            }
        }
        assert_eq!(
            scored,
            [true, false, false, false, true, false, false, false],
            "the rest came from the cache"
        );
    }
}

/// Files of a folder with the times of their last change.
fn changes(folder: &Path) -> BTreeMap<String, std::time::SystemTime> {
    let names = contents(folder, &[]).into_keys();
    names
        .map(|name| {
            (
                name.clone(),
                fs::metadata(folder.join(name)).unwrap().modified().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_trained_reference_is_used_again_by_the_same_plan_alone() {
    let f = Fixture::new("llama");
    f.write_rows("other.jsonl", 50, 77, true);
    let references = f.path("cache/references");
    let count = || {
        fs::read_dir(&references)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count()
    };
    let both = "--sft sft.jsonl --steps 2 --reference train:chosen";
    let trained = |end: &Ended| end.stderr.contains("reference: training it in");
    assert!(trained(
        &f.train("first", &format!("{both} --dpo dpo.jsonl")).good()
    ));
    let (before, bytes) = (changes(&references), contents(&references, &[]));
    for (out, flags) in [
        ("again", "--dpo dpo.jsonl"),
        (
            "method",
            "--dpo dpo.jsonl --method maxright --lambda 0.2 --threads 2 --recompute on --beta 0.3",
        ),
        (
            "lengths",
            "--dpo dpo.jsonl --dpo-batch 2 --sft-batch 3 --eval-every 1 --checkpoint-every 1 --keep 5",
        ),
    ] {
        let end = f.train(out, &format!("{both} {flags}")).good();
        assert!(
            !trained(&end) && end.stderr.contains("reference: trained before"),
            "{out}: {}",
            end.stderr
        );
        assert!(
            changes(&references) == before && contents(&references, &[]) == bytes,
            "{out}"
        );
    }
    for (expected, out, flags) in [
        (2, "rank", "--dpo dpo.jsonl --lora-rank 2"),
        (3, "data", "--dpo other.jsonl"),
        (4, "epochs", "--dpo dpo.jsonl --reference-epochs 2"),
        (5, "rate", "--dpo dpo.jsonl --learning-rate 1e-3"),
    ] {
        assert!(
            trained(&f.train(out, &format!("{both} {flags}")).good()),
            "{out}"
        );
        assert_eq!(count(), expected, "{out}");
    }
}

#[test]
fn two_runs_that_want_the_same_reference_train_it_once() {
    let f = Fixture::new("llama");
    let flags = format!("{TWO} --steps 3 --reference train:chosen --reference-epochs 6");
    let processes: Vec<_> = ["a", "b"]
        .map(|out| Process::start(f.command(out, &flags)))
        .into();
    let ends: Vec<Ended> = processes
        .into_iter()
        .map(|process| process.end().good())
        .collect();
    let trained = ends
        .iter()
        .filter(|end| end.stderr.contains("reference: training it in"))
        .count();
    assert_eq!(trained, 1, "{}\n{}", ends[0].stderr, ends[1].stderr);
    f.assert_same("a", "b", &[]);
}

#[test]
fn a_rank_that_is_of_no_use_is_noted() {
    let f = Fixture::new("llama");
    let noted = |out: &str, rank: usize| {
        let flags = format!("--sft sft.jsonl --steps 1 --lora-rank {rank} --lora-targets k_proj");
        f.train(out, &flags)
            .good()
            .stderr
            .contains("k_proj exceeds the layer's full rank, 32")
    };
    assert_eq!((noted("wide", 33), noted("whole", 32)), (true, false));
}

#[test]
fn a_run_without_a_checkpoint_simply_starts() {
    let f = Fixture::new("llama");
    let flags = format!("{TWO} --steps 20 --checkpoint-every 5");
    f.train("straight", &flags).good();
    // Never begun.
    f.train("new", &format!("{flags} --resume")).good();
    f.assert_same("straight", "new", &["resume"]);
    // Killed while it was made a run, and just after.
    for (name, left) in [
        ("empty", &[][..]),
        ("locked", &[".lock", ".plan.toml.partial"]),
        ("planned", &[".lock", "plan.toml"]),
        (
            "named",
            &[".lock", "plan.toml", "config.toml", ".config.toml.partial"],
        ),
        (
            "evaluated",
            &[
                ".lock",
                "plan.toml",
                "config.toml",
                "evals.jsonl",
                "steps.jsonl",
            ],
        ),
    ] {
        fs::create_dir(f.path(name)).unwrap();
        for file in left {
            let source = f.path("straight").join(file);
            let bytes = if source.exists() {
                fs::read(source).unwrap()
            } else {
                b"half".to_vec()
            };
            fs::write(f.path(name).join(file), bytes).unwrap();
        }
        f.train(name, &format!("{flags} --resume")).good();
        let _ = fs::remove_file(f.path(name).join(".config.toml.partial"));
        f.assert_same("straight", name, &["resume"]);
    }
    // What is not ours is not touched.
    fs::create_dir(f.path("foreign")).unwrap();
    fs::write(f.path("foreign/config.toml"), "mine").unwrap();
    let refused = f.train("foreign", &format!("{flags} --resume"));
    assert!(
        refused.code == Some(2) && refused.stderr.contains("is not empty"),
        "{}",
        refused.stderr
    );
    assert_eq!(contents(&f.path("foreign"), &["mine"]).len(), 1);
}

#[test]
fn a_finished_run_prints_its_table_again_and_changes_nothing() {
    let f = Fixture::new("llama");
    let flags = format!("{TWO} --steps 12 --reference train:chosen");
    let first = f.train("run", &flags).good();
    let before = changes(&f.path("run"));
    // Its reference is not needed for that.
    fs::remove_dir_all(f.path("cache")).unwrap();
    for more in ["", " --threads 2", " --keep 9"] {
        let again = f.train("run", &format!("{flags} --resume{more}")).good();
        assert_eq!(again.stdout, first.stdout);
        assert_eq!(changes(&f.path("run")), before);
    }
    assert!(!f.path("cache/references").exists());
    for (more, named) in [
        ("--beta 0.2", "beta"),
        ("--seed 3", "seed"),
        ("--sft-rows 40", "rows"),
    ] {
        let refused = f.train("run", &format!("{flags} --resume {more}"));
        assert!(
            refused.code == Some(2) && refused.stderr.contains(named),
            "{}",
            refused.stderr
        );
    }
    // Another EOS makes other rows, though the tokenizer's file is the same.
    let settings = f.path("model/tokenizer_config.json");
    fs::write(&settings, r#"{"eos_token": "!"}"#).unwrap();
    let refused = f.train("run", &format!("{flags} --resume"));
    assert!(
        refused.code == Some(2) && refused.stderr.contains("the tokenizer: "),
        "{}",
        refused.stderr
    );
    fs::write(&settings, r#"{"eos_token": "<eos>"}"#).unwrap();
    let refused = f.train("run", &flags);
    assert!(
        refused.code == Some(2) && refused.stderr.contains("already holds a run"),
        "{}",
        refused.stderr
    );
    assert_eq!(changes(&f.path("run")), before);
}

#[test]
fn an_extended_run_is_the_longer_one() {
    let f = Fixture::new("llama");
    let flags = format!("{TWO} --eval-every 3 --checkpoint-every 3 --method maxright");
    f.train("straight", &format!("{flags} --steps 12")).good();
    f.train("extended", &format!("{flags} --steps 6")).good();
    let mut command = Command::new(env!("CARGO_BIN_EXE_upright"));
    command.args("train --resume --out extended --steps 12".split(' '));
    f.at_home(&mut command);
    let more = Process::start(command).end().good();
    assert!(more.stderr.contains("extending the run from 6 to 12 steps"));
    f.assert_same("straight", "extended", &["resume"]);

    // A kill after the adapter is gone leaves a run that can be extended again.
    f.train("killed", &format!("{flags} --steps 6")).good();
    fs::remove_dir_all(f.path("killed/adapter")).unwrap();
    f.train("killed", &format!("{flags} --steps 12 --resume"))
        .good();
    f.assert_same("straight", "killed", &["resume"]);

    // Where the shorter run ended, the longer one was neither evaluated nor saved, and did not stop: the target of the
    // stopping rule is met there, but not at the start.
    let odd =
        format!("{TWO} --eval-every 6 --checkpoint-every 5 --method mix --learning-rate 1e-3");
    f.train("probe", &format!("{odd} --steps 4")).good();
    let [start, end] = &f.evals("probe")[..] else {
        panic!("two evaluations")
    };
    let [high, low] = [start, end].map(|line| number(line, "fit/loss/sft").unwrap());
    assert!(low < high);
    let odd = format!("{odd} --stop-at sft={},dpo=100", (low + high) / 2.0);
    f.train("odd-straight", &format!("{odd} --steps 11")).good();
    assert_eq!(f.steps("odd-straight").len(), 6);
    f.train("odd", &format!("{odd} --steps 4")).good();
    assert_eq!(f.steps("odd").len(), 4);
    f.train("odd", &format!("{odd} --steps 11 --resume")).good();
    f.assert_same("odd-straight", "odd", &["resume"]);

    // Without the checkpoint of its last step, a finished run stays as it is.
    f.train("bare", &format!("{flags} --steps 3")).good();
    fs::remove_dir_all(f.path("bare/checkpoints")).unwrap();
    let refused = f.train("bare", &format!("{flags} --steps 6 --resume"));
    assert!(
        refused
            .stderr
            .contains("the checkpoint of its last step is missing"),
        "{}",
        refused.stderr
    );
    assert!(f.path("bare/adapter/adapter_config.json").exists());

    let before = changes(&f.path("straight"));
    for (more, problem) in [
        ("--steps 5", "cannot shorten a run from 12 to 5 steps"),
        (
            "--steps 20 --seed 3",
            "cannot resume with different settings",
        ),
    ] {
        let refused = f.train("straight", &format!("{flags} {more} --resume"));
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains(problem), "{}", refused.stderr);
    }
    assert_eq!(changes(&f.path("straight")), before);
    for (settings, problem) in [
        (
            "--schedule cosine",
            "cannot extend a run with the cosine schedule",
        ),
        ("--method sequential", "cannot extend a run of sequential"),
    ] {
        let flags = format!("{TWO} {settings}");
        let name = &settings[2..4];
        f.train(name, &format!("{flags} --steps 2")).good();
        let refused = f.train(name, &format!("{flags} --steps 4 --resume"));
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains(problem), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("--init-adapter"),
            "{}",
            refused.stderr
        );
        assert!(f.path(name).join("adapter").exists());
    }
}

/// A second process must not write the adapters of a run beside the first.
#[test]
fn a_run_folder_is_locked_until_its_adapters_are_written() {
    let f = Fixture::new("llama");
    let flags = format!("{TWO} --steps 3 --average polynomial");
    let mut run = Process::start(f.command("run", &flags));
    // The adapter that the run exports is written last.
    let last = f.path("run/adapter/adapter_config.json");
    assert!(run.wait_until(|_| f.path("run/adapter-average").exists() || last.exists()));
    let lock = fs::File::open(f.path("run/.lock")).unwrap();
    let mut looks = 0;
    while !last.exists() {
        if lock.try_lock().is_ok() {
            // The run may have ended since.
            assert!(last.exists(), "the folder is free after {looks} looks");
        }
        looks += 1;
    }
    assert_eq!(run.end().code, Some(0));
}

#[test]
fn of_two_processes_in_one_folder_the_second_is_refused() {
    let f = Fixture::new("llama");
    let flags = format!("{TWO} --steps 100000");
    let mut first = Process::start(f.command("run", &flags));
    assert!(first.wait_until(|_| count_lines(&f.path("run/steps.jsonl")) > 3));
    for (more, said) in [("--resume", "another process"), ("", "already holds a run")] {
        let second = f.train("run", &format!("{flags} {more}"));
        assert!(
            second.code == Some(2) && second.stderr.contains(said),
            "{}",
            second.stderr
        );
    }
    first.signal("TERM");
    assert_eq!(first.end().code, Some(130));
    // A run is made, and finished, in the folder that another has found free and is about to use.
    let slow = format!("{TWO} --steps 5 --reference train:chosen --reference-epochs 40");
    let mut slow = Process::start(f.command("taken", &slow));
    assert!(slow.wait_until(|_| progress(&f.path("taken"), &f.path("cache")) > 3));
    f.train("taken", &format!("{TWO} --steps 5")).good();
    let before = changes(&f.path("taken"));
    let end = slow.end();
    assert!(
        end.code == Some(2) && end.stderr.contains("already holds a run"),
        "{}",
        end.stderr
    );
    assert_eq!(changes(&f.path("taken")), before);
    // Two that start at once: one of them makes the run, and its lines are whole and in order.
    let flags = format!("{TWO} --steps 40");
    let both = [0, 1].map(|_| Process::start(f.command("race", &flags)));
    let mut codes = both.map(|process| process.end().code.unwrap());
    codes.sort_unstable();
    assert_eq!(codes, [0, 2]);
    f.train("alone", &flags).good();
    f.assert_same("race", "alone", &[]);
}

#[test]
fn alright_draws_by_seed_and_step_alone() {
    let f = Fixture::new("llama");
    f.write_rows("few.jsonl", 9, 5, false);
    let draws = |out: &str, flags: &str| {
        f.train(
            out,
            &format!("--method alright --lambda 0.3 --dpo dpo.jsonl --steps 40 {flags}"),
        )
        .good();
        chosen(&f.steps(out))
    };
    let some = draws("some", "--sft sft.jsonl --seed 7");
    assert_eq!(
        some,
        draws(
            "few",
            "--sft few.jsonl --seed 7 --sft-batch 2 --learning-rate 1e-4"
        )
    );
    assert_ne!(some, draws("other", "--sft sft.jsonl --seed 8"));
    let dpo = some.iter().sum::<usize>();
    assert!((5..20).contains(&dpo), "{dpo} of 40 at lambda 0.3");
}

#[test]
fn maxright_decides_by_the_largest_weighted_gap() {
    let f = Fixture::new("llama");
    let (k, weights, optima) = (4, [0.1, 0.9], [2.0, 0.3]);
    let flags = format!(
        "{TWO} --method maxright --lambda 0.9 --probe-every {k} --steps 80 --optimum sft=2,dpo=0.3"
    );
    f.train("run", &flags).good();
    let steps = f.steps("run");
    let (mut last, mut seen) = ([None; 2], BTreeSet::new());
    for (index, (line, chosen)) in steps.iter().zip(chosen(&steps)).enumerate() {
        let names = ["sft", "dpo"];
        for (i, name) in names.iter().enumerate() {
            let probe = number(line, &format!("probe/{name}"));
            assert_eq!(probe.is_some(), index % k == 0, "step {index}");
            last[i] = probe.or(last[i]);
        }
        let gap = |i: usize| weights[i] * (last[i].unwrap() - optima[i]).max(0.0);
        // A tie goes to the larger weight, which is DPO's.
        let expected = usize::from(gap(1) >= gap(0));
        assert_eq!(chosen, expected, "step {index}: {last:?}");
        let loss = number(line, &format!("loss/{}", names[chosen])).unwrap();
        if index % k == 0 {
            assert_eq!(
                Some(loss),
                last[chosen],
                "the step trains on the batch it probed"
            );
        }
        let raw = number(line, &format!("gap/{}", names[chosen])).unwrap();
        assert!((raw - (loss - optima[chosen])).abs() < 1e-12);
        last[chosen] = Some(loss);
        seen.insert(chosen);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_leaves_what_was_good() {
    // Rates at which products overflow, and one that overflows itself.
    for (golden, rate) in [("neox_parallel", "1e37"), ("llama", "1e39")] {
        let f = Fixture::new(golden);
        let flags = format!(
            "{TWO} --method mix --steps 50 --checkpoint-every 1 --warmup 4 --learning-rate {rate}"
        );
        let end = f.train("run", &flags);
        assert_eq!(end.code, Some(1), "{}", end.stderr);
        let said = |text: &str| end.stderr.contains(text);
        assert!(
            (said("not finite") || said("not a finite number"))
                && said("hint: lower --learning-rate"),
            "{}",
            end.stderr
        );
        assert!(!f.path("run/adapter").exists());
        let checkpoints = contents(&f.path("run/checkpoints"), &[]);
        assert!(
            checkpoints.contains_key("step-1/state.json"),
            "step 0 has rate 0: {:?}",
            checkpoints.keys()
        );
        assert!(
            f.steps("run")
                .iter()
                .all(|line| line.values().all(|value| !value.is_null()))
        );
    }
}

/// Runs a command that may not let a file grow beyond `blocks` of 512 or 1024 bytes, as a full disk would not.
fn squeezed(f: &Fixture, command: &Command, blocks: usize) -> Ended {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""),
        "sh",
    ]);
    shell.arg(command.get_program()).args(command.get_args());
    f.at_home(&mut shell);
    Process::start(shell).end()
}

#[test]
fn a_full_disk_loses_at_most_the_step_in_flight() {
    // A checkpoint that does not fit; and small ones, with a line of steps.jsonl that does not.
    for rank in [128, 1] {
        let f = Fixture::new("llama");
        let flags = format!(
            "{TWO} --steps 90 --checkpoint-every 10 --lora-rank {rank} --lora-targets q_proj"
        );
        f.train("straight", &flags).good();
        let mut process = Process::start(f.command("run", &flags));
        assert!(process.wait_until(|_| count_lines(&f.path("run/steps.jsonl")) > 12));
        process.signal("INT");
        assert_eq!(process.end().code, Some(130));
        let done = f.steps("run").len();
        assert!(done < 40, "{done} steps before the signal was heard");

        let size = fs::metadata(f.path("run/steps.jsonl")).unwrap().len() as usize;
        let resumed = f.command("run", &format!("{flags} --resume"));
        let full = squeezed(&f, &resumed, size / 512 + 3);
        assert_eq!(full.code, Some(1), "{}", full.stderr);
        let file = if rank == 1 {
            "steps.jsonl"
        } else {
            "checkpoints"
        };
        let error = full
            .stderr
            .lines()
            .find(|line| line.starts_with("error: "))
            .unwrap();
        assert!(
            error.contains(file) && error.contains("cannot write"),
            "{error}"
        );
        let left: Vec<String> = contents(&f.path("run/checkpoints"), &[])
            .into_keys()
            .collect();
        assert!(
            left.iter().all(|name| !name.contains("partial")),
            "{left:?}"
        );

        let end = f.train("run", &format!("{flags} --resume")).good();
        let from: usize = end
            .stderr
            .lines()
            .find_map(|line| {
                line.strip_prefix("continuing at step ")?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap();
        assert!(from >= done, "{from} of {done}");
        f.assert_same("straight", "run", &["resume"]);
    }
}

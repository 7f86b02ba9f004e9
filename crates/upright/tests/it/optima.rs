//! `--optimum auto`: optima that a run finds before its first step, keeps, and records.

use std::{fs, path::Path, process::Command};

use upright_runs::{plan_record::PlanRecord, records::lowest_loss, run_dir::read_evaluations};

use crate::runs_fixture::{Ended, Fixture, Process, TWO, contents};

/// Optima of a run's record, on training rows and on held-out rows.
fn recorded(f: &Fixture, out: &str) -> Vec<[Option<f64>; 2]> {
    let record = PlanRecord::read(&f.path(out)).unwrap();
    let objectives = record.plan.objectives.iter();
    objectives
        .map(|objective| [objective.optimum, objective.optimum_eval])
        .collect()
}

/// The lowest losses of an objective in a run, on training rows and on held-out rows.
fn lowest(f: &Fixture, out: &str, name: &str) -> [Option<f64>; 2] {
    let evaluations = read_evaluations(&f.path(out)).unwrap();
    let lowest = lowest_loss(&evaluations, name);
    [lowest.training, lowest.held_out]
}

/// Number of runs that the cache keeps for their optima.
fn count(cache: &Path) -> usize {
    let entries = fs::read_dir(cache.join("optima"))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

fn trained(end: &Ended) -> usize {
    end.stderr.matches(": training it alone in ").count()
}

/// `upright train --resume --out OUT` and these flags alone.
fn resume(f: &Fixture, out: &str, flags: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upright"));
    command.args(["train", "--no-report", "--resume", "--out", out]);
    command.args(flags.split_whitespace());
    f.at_home(&mut command);
    Process::start(command).end()
}

#[test]
fn optima_are_the_lowest_losses_of_each_objective_trained_alone() {
    let f = Fixture::new("llama");
    let cache = f.path("cache");
    let usual = format!(
        "{TWO} --steps 24 --eval-every 4 --held-out 0.2 --sft-rows 16 --learning-rate 5e-2 --reference train:chosen"
    );
    let auto = format!("{usual} --method maxright --lambda 0.4 --seed 3 --optimum auto");

    let dry = f.train("dry", &format!("{auto} --dry-run")).good();
    for name in ["sft", "dpo"] {
        let line = format!("{name} is trained alone first in 24 steps (");
        assert!(dry.stdout.contains(&line), "{}", dry.stdout);
    }
    assert!(!f.path("dry").exists() && !cache.join("optima").exists());

    let end = f.train("auto", &auto).good();
    assert_eq!((trained(&end), count(&cache)), (2, 2), "{}", end.stderr);
    assert!(!end.stderr.contains("has no optimum"), "{}", end.stderr);
    for (lambda, name) in [(0, "sft"), (1, "dpo")] {
        let flags = format!("{usual} --method mix --seed 0 --lambda {lambda}");
        f.train(name, &flags).good();
    }
    let optima = recorded(&f, "auto");
    assert_eq!(optima, [lowest(&f, "sft", "sft"), lowest(&f, "dpo", "dpo")]);
    let end = f.evals("sft").pop().unwrap();
    let end = end["eval/loss/sft"].as_f64();
    assert!(optima[0][1] < end, "the case shows no overfitting: {end:?}");
    let config = fs::read_to_string(f.path("auto/config.toml")).unwrap();
    assert!(config.contains("auto\""), "{config}");

    // The same numbers, given by hand, are the same run.
    let flags = |index: usize| {
        let [sft, dpo] = [&optima[0], &optima[1]].map(|both| both[index].unwrap());
        format!("sft={sft},dpo={dpo}")
    };
    let given = auto.replace(
        "--optimum auto",
        &format!("--optimum {} --optimum-eval {}", flags(0), flags(1)),
    );
    f.train("given", &given).good();
    assert_eq!(recorded(&f, "given"), optima);
    // Only the page of the second one says that nobody trained for its optima.
    for (out, is_given) in [("auto", false), ("given", true)] {
        let report = upright_report::Report::read(&[f.path(out)]).unwrap();
        for optimum in report.settings[0].ideal.iter().flatten().flatten() {
            assert_eq!(!optimum.trained, is_given, "{out}: {optimum:?}");
        }
    }
    let told = ["optimum", "optimum-eval", "finds-optima"];
    f.assert_same("auto", "given", &told);

    // Other seeds, weights and methods find them.
    let bytes = contents(&cache.join("optima"), &[]);
    for (out, flags) in [
        ("mix", "--lambda 0.9 --seed 7 --checkpoint-every 5"),
        ("sequential", "--lambda 0.3 --threads 1"),
        (
            "alright",
            "--draws balanced --average polynomial --stop-at sft=0.001",
        ),
        ("compromise", "--power 3 --lambda 1"),
    ] {
        let flags = format!("{usual} --method {out} --optimum auto {flags}");
        let end = f.train(out, &flags).good();
        assert_eq!(trained(&end), 0, "{out}: {}", end.stderr);
        let found = end.stderr.matches("; trained before, ").count();
        assert_eq!(found, 2, "{out}: {}", end.stderr);
        assert_eq!(recorded(&f, out), optima, "{out}");
    }
    let dry = f.train("dry", &format!("{auto} --dry-run")).good();
    let line = format!("sft: {:.4} on training rows, ", optima[0][0].unwrap());
    assert!(dry.stdout.contains(&line), "{}", dry.stdout);
    assert!(contents(&cache.join("optima"), &[]) == bytes);

    // Another length has other optima.
    let end = f.train("longer", &auto.replace("--steps 24", "--steps 25"));
    assert_eq!((trained(&end.good()), count(&cache)), (2, 4));
}

#[test]
fn a_search_that_is_stopped_goes_on_where_it_stopped() {
    let f = Fixture::new("llama");
    let flags =
        format!("{TWO} --steps 40 --method maxright --eval-every 20 --optimum auto --resume");
    f.train("straight", &flags).good();
    let cache = f.path("other-cache");
    let start = || {
        let mut command = f.command("stopped", &flags);
        command.env("UPRIGHT_CACHE", &cache);
        Process::start(command)
    };
    // Steps of the runs in the cache and of the run itself.
    let steps = || {
        let entries = fs::read_dir(cache.join("optima"))
            .into_iter()
            .flatten()
            .flatten();
        let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
        folders.push(f.path("stopped"));
        let mut steps = 0;
        for folder in folders {
            let text = fs::read_to_string(folder.join("steps.jsonl")).unwrap_or_default();
            steps += text.lines().count();
        }
        steps
    };

    let mut process = start();
    assert!(process.wait_until(|_| steps() > 3));
    process.signal("INT");
    let end = process.end();
    assert_eq!(end.code, Some(130), "{}", end.stderr);
    for part in [
        " of 40 of training sft alone for its optimum",
        "run the same command with --resume to continue",
    ] {
        assert!(end.stderr.contains(part), "{}", end.stderr);
    }
    assert!(!f.path("stopped").exists());
    assert!((3..40).contains(&steps()));

    for from in [42, 85] {
        let mut process = start();
        assert!(process.wait_until(|_| steps() > from), "{from}");
        process.kill();
    }
    start().end().good();
    f.assert_same("straight", "stopped", &[]);
    assert_eq!(recorded(&f, "straight"), recorded(&f, "stopped"));
}

#[test]
fn a_resumed_run_keeps_its_optima() {
    let f = Fixture::new("llama");
    let flags = format!("{TWO} --method maxright --optimum auto --held-out 0.2");
    f.train("run", &format!("{flags} --steps 3")).good();
    let optima = recorded(&f, "run");
    fs::remove_dir_all(f.path("cache")).unwrap();

    let end = resume(&f, "run", "").good();
    assert!(end.stderr.contains("already finished"), "{}", end.stderr);
    let end = resume(&f, "run", "--steps 5").good();
    for part in [
        "extending the run from 3 to 5 steps",
        "the optima stay as the run recorded them",
    ] {
        assert!(end.stderr.contains(part), "{}", end.stderr);
    }
    f.train("run", &format!("{flags} --steps 7 --resume"))
        .good();
    assert_eq!(f.steps("run").len(), 7);
    assert_eq!(recorded(&f, "run"), optima);
    assert_eq!(count(&f.path("cache")), 0);

    let other = flags.replace("auto", "sft=1,dpo=0.5");
    let end = f.train("run", &format!("{other} --steps 7 --resume"));
    assert_eq!(end.code, Some(2), "{}", end.stderr);
    assert!(end.stderr.contains("sft.optimum: "), "{}", end.stderr);

    // A run that never trains on an objective is told so by the optima it found.
    let never = flags.replace("maxright", "maxright --lambda 0.0001");
    let end = f.train("never", &format!("{never} --steps 2")).good();
    let part =
        "dpo was never trained on: none of 2 steps chose it; its weighted gap to the optimum";
    assert!(end.stderr.contains(part), "{}", end.stderr);

    // A run that was started without optima.
    f.train("without", &flags.replace("--optimum auto", "--steps 2"))
        .good();
    let end = f.train("without", &format!("{flags} --steps 2 --resume"));
    assert_eq!(end.code, Some(2), "{}", end.stderr);
    let part = "sft.optimum: not set -> auto; dpo.optimum: not set -> auto";
    assert!(end.stderr.contains(part), "{}", end.stderr);
}

#[test]
fn three_objectives_find_what_is_not_given() {
    let f = Fixture::new("llama");
    let toml = "reference = 'train:chosen'\noptimum = 'auto'\noptimum-eval = 'b=0.25'\n\
        [[objective]]\nname = 'a'\nloss = 'sft'\ndata = 'sft.jsonl'\nweight = 1\n\
        [[objective]]\nname = 'b'\nloss = 'orpo'\ndata = 'dpo.jsonl'\nweight = 0\n\
        [[objective]]\nname = 'c'\nloss = 'dpo'\ndata = 'dpo.jsonl'\nweight = 2\noptimum = 0.5\n";
    fs::write(f.path("three.toml"), toml).unwrap();
    let end = f
        .train(
            "run",
            "--config three.toml --steps 2 --held-out 0.2 --tensorboard",
        )
        .good();
    assert_eq!(trained(&end), 2, "{}", end.stderr);
    // The steps of the reference and of these runs are not events of the run.
    assert!(f.path("run/tensorboard").exists());
    let [a, b, c] = recorded(&f, "run")[..] else {
        panic!("{}", end.stderr)
    };
    assert!(a.iter().all(Option::is_some), "{a:?}");
    assert!(b[0].is_some(), "{b:?}");
    assert_eq!(b[1], Some(0.25), "what is given is kept");
    assert_eq!(c, [Some(0.5), None]);
}

#[test]
fn a_single_objective_needs_no_search() {
    let f = Fixture::new("llama");
    let flags = "--sft sft.jsonl --steps 2 --optimum auto";
    let end = f.train("run", flags).good();
    let note = "--optimum auto is ignored: the run trains sft alone";
    assert!(end.stderr.contains(note), "{}", end.stderr);
    assert!(end.stdout.contains("for maxright: --optimum sft="));
    assert_eq!((trained(&end), count(&f.path("cache"))), (0, 0));
    resume(&f, "run", "").good();
    let end = f.train(
        "none",
        &format!("{TWO} --steps 0 --init-adapter run --optimum auto"),
    );
    assert_eq!(end.code, Some(2), "{}", end.stderr);
    for part in ["but steps is 0", "--optimum sft=LOSS,dpo=LOSS"] {
        assert!(end.stderr.contains(part), "{}", end.stderr);
    }
}

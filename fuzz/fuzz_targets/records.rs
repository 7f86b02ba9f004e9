//! Records of a run: the input is `steps.jsonl`, `evals.jsonl`, `plan.toml` and `benchmarks.json`, each but the first behind
//! a line of `====`.
//! A record that is missing is that of a whole run.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use upright_fuzz::{repository, scratch};
use upright_plot::Axis;
use upright_report::Report;
use upright_runs::summary::Summary;

struct Setup {
    run: PathBuf,
    whole: Vec<String>,
}

const FILES: [&str; 4] = ["steps.jsonl", "evals.jsonl", "plan.toml", "benchmarks.json"];

const BOUNDARY: &str = "\n====\n";

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let whole = FILES
        .map(|name| fs::read_to_string(repository("fuzz/run").join(name)).expect("a run's record"));
    let run = scratch().join("run");
    fs::create_dir_all(&run).expect("a run's folder");
    for (name, text) in FILES.iter().zip(&whole) {
        fs::write(run.join(name), text).expect("a run's record");
    }
    Report::read(std::slice::from_ref(&run)).expect("a whole run");
    Setup {
        run,
        whole: whole.into(),
    }
});

fuzz_target!(|input: &str| {
    let Setup { run, whole } = &*SETUP;
    let mut parts = input.split(BOUNDARY);
    for (name, whole) in FILES.iter().zip(whole) {
        let text = parts.next().unwrap_or(whole);
        fs::write(run.join(name), text).expect("a run's record");
    }
    let _ = Summary::read(run);
    let Ok(report) = Report::read(std::slice::from_ref(run)) else {
        return;
    };
    let points = || report.runs.iter().flat_map(|run| &run.points);
    let losses: Vec<f64> = points()
        .flat_map(|point| point.losses.iter())
        .flatten()
        .flatten()
        .copied()
        .collect();
    for axis in [Axis::linear("loss"), Axis::log("loss")] {
        let ends = axis.ends(losses.iter().copied());
        let _ = axis.ticks(ends, 6);
    }
});

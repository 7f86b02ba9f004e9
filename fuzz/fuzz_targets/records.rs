//! Records of a run: the input is `steps.jsonl`, `evals.jsonl` and `plan.toml`, each but the first behind a line of `====`.
//! A record that is missing is that of a whole run.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use upright::observer::Silent;
use upright::report::Report;
use upright::run::Summary;
use upright_fuzz::{repository, scratch};

struct Setup {
    run: PathBuf,
    page: PathBuf,
    whole: Vec<String>,
}

const FILES: [&str; 3] = ["steps.jsonl", "evals.jsonl", "plan.toml"];

const BOUNDARY: &str = "\n====\n";

/// Of so many inputs one is drawn as well as read: figures take a hundred times as long.
const DRAWN: usize = 64;

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let folder = scratch();
    let whole = FILES.map(|name| fs::read_to_string(repository("fuzz/run").join(name)).expect("a run's record"));
    let run = folder.join("run");
    fs::create_dir_all(&run).expect("a run's folder");
    for (name, text) in FILES.iter().zip(&whole) {
        fs::write(run.join(name), text).expect("a run's record");
    }
    Report::read(std::slice::from_ref(&run)).expect("a whole run");
    Setup { run, page: folder.join("page"), whole: whole.into() }
});

fuzz_target!(|input: &str| {
    let Setup { run, page, whole } = &*SETUP;
    let mut parts = input.split(BOUNDARY);
    for (name, whole) in FILES.iter().zip(whole) {
        let text = parts.next().unwrap_or(whole);
        fs::write(run.join(name), text).expect("a run's record");
    }
    let _ = Summary::read(run);
    if let Ok(report) = Report::read(std::slice::from_ref(run))
        && input.len() % DRAWN == 0
    {
        report.write(page, &mut Silent).expect("a page");
    }
});

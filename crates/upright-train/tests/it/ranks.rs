//! Runs on several ranks, as threads of one process: the same folders as on one rank, whatever the number of ranks, and one error for
//! all where a rank fails.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value};
use upright_base::{ErrorKind, Result, observer::Observer, quiet};
use upright_core::{
    objectives::LossKind,
    train::{Learner, ObjectiveId},
};
use upright_data::Example;
use upright_engine::{Counts, Decoder, Options};
use upright_model::peft;
use upright_ranks::{
    World,
    threads::{Fault, Threads, threads},
};
use upright_runs::{plan::Plan, records::TIMES, settings::Config};
use upright_train::{learner::ModelLearner, packing::pack, run};

use super::{examples, optimization, task};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Set in the process that runs the body of a test.
const CHILD: &str = "UPRIGHT_TEST_RANKS";

/// Runs a body in a process of its own, whose folder and cache are empty: both belong to a process.
fn in_own_process(name: &str, body: fn()) {
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let place = tempfile::tempdir().unwrap();
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("ranks::{name}"), "--nocapture"])
        .current_dir(place.path())
        .env(CHILD, "1")
        .env("UPRIGHT_CACHE", place.path().join("cache"))
        .env("UPRIGHT_CPU", "portable")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// A short run on the rows of the demo, in packs of two or three rows.
fn settings(rest: &str) -> String {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../upright/demo");
    format!(
        "model = \"{demo}/model\"\nsft = \"{demo}/instructions.jsonl\"\ndpo = \"{demo}/preferences.jsonl\"\nout = \"run\"\n\
         sft-rows = 24\ndpo-rows = 20\nsft-batch = 5\ndpo-batch = 4\nmax-length = 64\ntoken-budget = 80\nlora-rank = 2\n\
         steps = 4\neval-every = 2\neval-rows = 4\ncheckpoint-every = 2\nthreads = 1\nlearning-rate = 1e-3\nno-report = true\n{rest}\n"
    )
}

/// The observer of a rank: collects notes, and requests a stop after some steps.
#[derive(Default)]
struct Watcher {
    notes: Vec<String>,
    stop_after: Option<usize>,
    steps: AtomicUsize,
}

impl Observer for Watcher {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn stop_requested(&self) -> bool {
        // Asked once per step, and more often elsewhere.
        let asked = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        self.stop_after.is_some_and(|after| asked > after)
    }
}

/// What a rank does besides its work.
#[derive(Clone, Copy, Default)]
struct Role {
    fault: Option<(usize, Fault)>,
    stop_after: Option<usize>,
    /// Appended to its settings.
    other: &'static str,
}

/// What a rank ended with: its notes, or its error; `None` after a panic.
type Ending = Option<Result<Vec<String>>>;

/// Runs settings on `size` ranks, of which one may have a role.
fn run_on(size: usize, text: &str, resume: bool, role: (usize, Role)) -> Vec<Ending> {
    run_within(size, text, resume, role, TIMEOUT)
}

fn run_within(
    size: usize,
    text: &str,
    resume: bool,
    (who, role): (usize, Role),
    timeout: Duration,
) -> Vec<Ending> {
    let one = |mut ranks: Threads, role: Role| -> Result<Vec<String>> {
        if let Some((call, fault)) = role.fault {
            ranks.fail_at(call, fault);
        }
        let world = Arc::new(World::new(Box::new(ranks))?);
        let text = format!("{text}{}", role.other);
        let plan = Plan::from_config(&Config::parse(&text, "the settings")?)?;
        let mut watcher = Watcher {
            stop_after: role.stop_after,
            ..Watcher::default()
        };
        run::run_among(&plan, &text, resume, &world, &mut watcher)?;
        Ok(watcher.notes)
    };
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (rank, ranks) in threads(size, timeout).into_iter().enumerate() {
            let role = if rank == who { role } else { Role::default() };
            running.push(scope.spawn(move || quiet::catch(|| one(ranks, role)).ok()));
        }
        let mut endings = Vec::new();
        for thread in running {
            endings.push(thread.join().expect("panics are caught"));
        }
        endings
    })
}

/// Runs settings on `size` ranks without a disturbance. Returns the notes of rank 0.
fn run_well(size: usize, text: &str, resume: bool) -> Vec<String> {
    let mut first = Vec::new();
    for (rank, ending) in run_on(size, text, resume, (0, Role::default()))
        .into_iter()
        .enumerate()
    {
        let notes = ending.expect("no panic").unwrap();
        assert!(rank == 0 || notes.is_empty(), "rank {rank} says {notes:?}");
        if rank == 0 {
            first = notes;
        }
    }
    first
}

/// Every file of the run and of the cache, without what differs between equal runs.
fn contents() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["run", "cache"] {
        add_contents(Path::new(folder), &mut found);
    }
    found
}

fn add_contents(folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            add_contents(&path, found);
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if name.ends_with("steps.jsonl") {
            let text = String::from_utf8(bytes).unwrap();
            let mut lines = Vec::new();
            for line in text.lines() {
                let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
                line.retain(|key, _| !TIMES.contains(&&key[..]));
                lines.push(serde_json::to_string(&line).unwrap());
            }
            bytes = lines.join("\n").into_bytes();
        }
        // Digests of weight files have the time at which the file was seen.
        if !name.ends_with("lock") && !name.starts_with("cache/weights") {
            found.insert(name, bytes);
        }
    }
}

fn start_over() {
    for folder in ["run", "cache"] {
        if Path::new(folder).exists() {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}

/// The contents after an undisturbed run on one rank.
fn straight(text: &str) -> BTreeMap<String, Vec<u8>> {
    start_over();
    run_well(1, text, false);
    contents()
}

fn same(found: &BTreeMap<String, Vec<u8>>, wanted: &BTreeMap<String, Vec<u8>>, what: &str) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(wanted), "{what}");
    for (name, bytes) in wanted {
        let here = String::from_utf8_lossy(&found[name]);
        assert!(
            found[name] == *bytes,
            "{what}: {name} differs:\n{here}\n{}",
            String::from_utf8_lossy(bytes)
        );
    }
}

/// Runs with every method, and what else a run can have.
const KINDS: [&str; 9] = [
    "method = \"mix\"\nreference = \"train:chosen\"\nreference-rows = 8",
    "method = \"alright\"\naverage = \"polynomial\"",
    "method = \"maxright\"\nprobe-every = 2\noptimum = \"sft=0.5,dpo=0.1\"",
    "method = \"maxright\"\noptimum = \"auto\"\nrecompute = \"on\"",
    "method = \"sequential\"\nsft-epochs = 1\ndpo-epochs = 1\nsteps = \"\"",
    "method = \"compromise\"\ndpo-loss = \"ipo\"",
    "method = \"mix\"\ndpo-loss = \"simpo\"\nmix-batches = \"full\"",
    "method = \"mix\"\nstop-at = \"sft=9,dpo=9\"",
    "method = \"alright\"\ndraws = \"balanced\"\ndpo-loss = \"orpo\"\ntoken-budget = 2048",
];

#[test]
fn folders_are_those_of_one_rank() {
    in_own_process("folders_are_those_of_one_rank", || {
        let mut sizes = [2, 3, 4, 5, 6, 7, 8].into_iter().cycle();
        for kind in KINDS {
            let text = with(kind);
            let wanted = straight(&text);
            assert!(wanted.keys().any(|name| name == "run/adapter/adapter_model.safetensors"));
            for size in sizes.by_ref().take(2) {
                start_over();
                run_well(size, &text, false);
                same(&contents(), &wanted, &format!("{size} ranks: {kind}"));
            }
        }
    });
}

/// The settings with some others. A key that is given as empty is left out.
fn with(kind: &str) -> String {
    let mut text = settings("");
    for line in kind.lines() {
        let key = line.split(" =").next().unwrap();
        let kept = text.lines().filter(|line| !line.starts_with(&format!("{key} =")));
        text = kept.collect::<Vec<_>>().join("\n") + "\n";
        if !line.ends_with("\"\"") {
            text += &format!("{line}\n");
        }
    }
    text
}

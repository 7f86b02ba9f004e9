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
use upright_base::{
    ErrorKind, Result,
    progress::{Progress, Stop},
    quiet,
};
use upright_core::{
    objectives::SFT,
    train::{Learner, ObjectiveId},
};
use upright_data::Example;
use upright_engine::{Counts, Decoder, Options};
use upright_model::peft;
use upright_ranks::{
    World,
    threads::{Fault, Threads, threads},
};
use upright_runs::{plan::Plan, records::TIMES, settings::Config, trackers::Trackers};
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

/// The progress of a rank: collects notes, and requests a stop after some steps or in an evaluation.
#[derive(Default)]
struct Watcher {
    notes: Vec<String>,
    stop_after: Option<usize>,
    /// Evaluations until the one that is to be stopped.
    stop_in: Option<usize>,
    evaluations: Arc<AtomicUsize>,
}

impl Progress for Watcher {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn begin(&mut self, what: &str, _total: usize) {
        let is_evaluation = usize::from(what == "evaluation");
        self.evaluations.fetch_add(is_evaluation, Ordering::Relaxed);
    }

    fn stop(&self) -> Stop {
        let (stop_after, stop_in) = (self.stop_after, self.stop_in);
        let evaluations = Arc::clone(&self.evaluations);
        Stop::when(move || {
            let begun = evaluations.load(Ordering::Relaxed);
            if stop_in.is_some_and(|number| begun > number) {
                return true;
            }
            let Some(after) = stop_after else {
                return false;
            };
            // Ranks other than the first are told no steps.
            fs::read_to_string("run/steps.jsonl").is_ok_and(|text| text.lines().count() >= after)
        })
    }
}

/// What a rank does besides its work.
#[derive(Clone, Copy, Default)]
struct Role {
    fault: Option<(usize, Fault)>,
    stop_after: Option<usize>,
    stop_in: Option<usize>,
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
            stop_in: role.stop_in,
            ..Watcher::default()
        };
        let mut trackers = Trackers::none();
        run::run_among(&plan, &text, resume, &world, &mut trackers, &mut watcher)?;
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
    "method = \"sequential\"\nstages = \"sft:2,dpo:2\"\nsteps = \"\"",
    "method = \"compromise\"\ndpo-loss = \"ipo\"",
    "method = \"mix\"\ndpo-loss = \"simpo\"\nmix-batches = \"full\"",
    "method = \"mix\"\nstop-at = \"sft=9,dpo=9\"",
    "method = \"alright\"\ndraws = \"balanced\"\ndpo-loss = \"orpo\"\ntoken-budget = 2048",
];

#[test]
fn folders_are_those_of_one_rank() {
    in_own_process("folders_are_those_of_one_rank", || {
        let sizes = [2, 3, 4, 5, 6, 7, 8, 2, 3];
        for (kind, size) in KINDS.into_iter().zip(sizes) {
            let text = with(kind);
            let wanted = straight(&text);
            assert!(
                wanted
                    .keys()
                    .any(|name| name == "run/adapter/adapter_model.safetensors")
            );
            start_over();
            run_well(size, &text, false);
            same(&contents(), &wanted, &format!("{size} ranks: {kind}"));
        }
    });
}

/// The settings with some others. A key that is given as empty is left out.
fn with(kind: &str) -> String {
    let mut text = settings("");
    for line in kind.lines() {
        let key = line.split(" =").next().unwrap();
        let kept = text
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} =")));
        text = kept.collect::<Vec<_>>().join("\n") + "\n";
        if !line.ends_with("\"\"") {
            text += &format!("{line}\n");
        }
    }
    text
}

/// A stop that one rank is asked for is a stop of all, and a resume with another number of ranks ends with the same bytes.
#[test]
fn a_stop_of_one_rank_stops_all_and_any_number_resumes() {
    in_own_process(
        "a_stop_of_one_rank_stops_all_and_any_number_resumes",
        || {
            let text = with(KINDS[2]);
            let wanted = straight(&text);
            let cases = [(3, 2, 1, 2), (2, 0, 2, 1), (1, 0, 3, 4), (4, 1, 4, 3)];
            for (ranks, who, stop_after, others) in cases {
                start_over();
                let role = Role {
                    stop_after: Some(stop_after),
                    ..Role::default()
                };
                let endings = run_on(ranks, &text, false, (who, role));
                let mut messages = Vec::new();
                for ending in endings {
                    let error = ending.expect("no panic").unwrap_err();
                    assert_eq!(error.kind, ErrorKind::Interrupted, "{error}");
                    messages.push(error.message);
                }
                messages.dedup();
                assert_eq!(messages.len(), 1, "{messages:?}");
                let notes = run_well(others, &text, true);
                let is_resumed = notes
                    .iter()
                    .any(|note| note.starts_with("continuing at step"));
                assert!(is_resumed, "{notes:?}");
                same(
                    &contents(),
                    &wanted,
                    &format!("{ranks} ranks, then {others}"),
                );
            }
        },
    );
}

/// A stop in an evaluation, a finished run and a longer one, on other numbers of ranks.
#[test]
fn runs_are_continued_and_extended_on_any_number_of_ranks() {
    in_own_process(
        "runs_are_continued_and_extended_on_any_number_of_ranks",
        || {
            let (short, long) = (
                with("method = \"mix\"\nsteps = 4"),
                with("method = \"mix\"\nsteps = 6"),
            );
            let wanted = straight(&long);
            let of_short = straight(&short);
            start_over();
            let role = Role {
                stop_in: Some(1),
                ..Role::default()
            };
            for ending in run_on(2, &short, false, (0, role)) {
                let error = ending.expect("no panic").unwrap_err();
                assert_eq!(error.kind, ErrorKind::Interrupted, "{error}");
            }
            run_well(3, &short, true);
            same(&contents(), &of_short, "stopped in an evaluation");
            let notes = run_well(2, &short, true).join("\n");
            assert!(notes.contains("already finished, with 4 steps"), "{notes}");
            let notes = run_well(3, &long, true).join("\n");
            assert!(
                notes.contains("extending the run from 4 to 6 steps"),
                "{notes}"
            );
            // The cache has the rows of the longer run after the others.
            let of_run = |mut files: BTreeMap<String, Vec<u8>>| {
                files.retain(|name, _| name.starts_with("run/"));
                files
            };
            same(&of_run(contents()), &of_run(wanted), "extended");
        },
    );
}

/// An error, a panic or silence of any rank at any call ends all ranks with an error, and what was written can be resumed.
#[test]
fn a_fault_at_any_call_ends_all_ranks() {
    in_own_process("a_fault_at_any_call_ends_all_ranks", || {
        let text = with("method = \"maxright\"\noptimum = \"sft=0.5,dpo=0.1\"\nsteps = 3");
        let wanted = straight(&text);
        let mut runner = TestRunner::new_with_rng(
            Cases::with_cases(9),
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let fault = prop_oneof![Just(Fault::Error), Just(Fault::Panic), Just(Fault::Silence)];
        let cases = (2..5usize, 0..5usize, 0..90usize, fault);
        let timeout = Duration::from_millis(1500);
        let done = runner.run(&cases, |(size, who, call, fault)| {
            start_over();
            let role = Role {
                fault: Some((call, fault)),
                ..Role::default()
            };
            let began = Instant::now();
            let endings = run_within(size, &text, false, (who % size, role), timeout);
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{:?}",
                began.elapsed()
            );
            let failed = endings
                .iter()
                .filter(|ending| !matches!(ending, Some(Ok(_))))
                .count();
            // The last calls are those of ranks that have finished, or the run has fewer calls.
            let is_over = Path::new("run/adapter/adapter_config.json").exists();
            assert!(failed == size || is_over, "{endings:?}");
            run_well(1, &text, true);
            same(
                &contents(),
                &wanted,
                &format!("rank {who} of {size}, call {call}, {fault:?}"),
            );
            Ok(())
        });
        done.unwrap();
    });
}

/// A rank with other settings or rows is refused before the first step, by its name.
#[test]
fn ranks_that_differ_are_refused() {
    in_own_process("ranks_that_differ_are_refused", || {
        let text = settings("method = \"mix\"");
        for (other, what) in [
            ("seed = 7\n", "plan"),
            (
                "sft-map = \"completion=input\"\n",
                "version of the rows of sft",
            ),
        ] {
            start_over();
            let role = Role {
                other,
                ..Role::default()
            };
            for ending in run_on(3, &text, false, (1, role)) {
                let error = ending.expect("no panic").unwrap_err();
                let message = error.message;
                assert!(
                    message.starts_with("rank 1 on ") && message.contains(what),
                    "{message}"
                );
            }
            assert!(!Path::new("run").exists());
        }
        // A mistake that all ranks make is not the mistake of a rank.
        fs::write(
            "broken.jsonl",
            "{\"instruction\": \"a\"}\n{\"instruction\": 3",
        )
        .unwrap();
        let broken = with("method = \"mix\"\nsft = \"broken.jsonl\"");
        for ending in run_on(2, &broken, false, (0, Role::default())) {
            let message = ending.expect("no panic").unwrap_err().message;
            assert!(message.starts_with("broken.jsonl: "), "{message}");
        }
    });
}

/// Batches of one pack are noted, with what would give every rank work. The end lists the ranks.
#[test]
fn notes_say_who_waits_and_who_did_what() {
    in_own_process("notes_say_who_waits_and_who_did_what", || {
        let text = with("method = \"mix\"\ntoken-budget = 2048");
        let notes = run_well(2, &text, false).join("\n");
        assert!(
            notes.contains("a batch of sft has 5 rows in 1 pack, for 2 ranks"),
            "{notes}"
        );
        assert!(notes.contains("gives each rank a pack"), "{notes}");
        assert!(
            notes.contains("ranks: 2 (threads of one process)"),
            "{notes}"
        );
        let lines = notes
            .lines()
            .filter(|line| line.contains(" multiply-adds, "));
        assert_eq!(lines.count(), 2, "{notes}");
    });
}

/// All ranks together do the work of one, and none does more than its share and a pack.
#[test]
fn work_is_divided() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-engine/tests/golden/llama");
    let rows = examples(&dir);
    let mut many: Vec<Example> = Vec::new();
    for repeat in 0..20 {
        for row in &rows[3..] {
            let mut row = row.clone();
            let by = repeat % row.prompt.len();
            row.prompt.rotate_left(by);
            many.push(row);
        }
    }
    let batch: Vec<&Example> = many.iter().collect();
    let packs = pack(&batch, 40).len();
    let counts_on = |size: usize| -> Vec<Counts> {
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for ranks in threads(size, TIMEOUT) {
                let (dir, many) = (&dir, &many);
                running.push(scope.spawn(move || {
                    let world = Arc::new(World::new(Box::new(ranks)).unwrap());
                    let options = Options {
                        threads: 1,
                        ..Options::default()
                    };
                    let decoder = Decoder::open(dir, &options).unwrap();
                    let start = peft::read(&dir.join("adapter"), decoder.config()).unwrap();
                    let tasks = vec![task("sft", &SFT, many, None)];
                    let learner =
                        ModelLearner::new(&decoder, start.adapter, optimization(), 40, tasks);
                    let mut learner = learner.unwrap().among(&world);
                    learner.loss(ObjectiveId(0)).unwrap();
                    learner.accumulate(ObjectiveId(0), 1.0).unwrap();
                    learner.update().unwrap();
                    learner.accumulate(ObjectiveId(0), 0.5).unwrap();
                    learner.update().unwrap();
                    decoder.usage().counts
                }));
            }
            let mut all = Vec::new();
            for thread in running {
                all.push(thread.join().unwrap());
            }
            all
        })
    };
    let whole = counts_on(1)[0];
    for size in [2, 3, 5] {
        assert!(packs >= 4 * size, "{packs} packs for {size} ranks");
        let all = counts_on(size);
        let mut total = Counts::default();
        for counts in &all {
            total = total + *counts;
            // Two steps of packs that differ little in size.
            let share = whole.multiply_adds() / size as u64;
            let of_a_pack = whole.multiply_adds() / packs as u64;
            assert!(
                counts.multiply_adds() <= share + of_a_pack * 3 / 2,
                "{size}: {counts:?}"
            );
        }
        assert_eq!(total, whole, "{size}");
    }
}

/// The sums of a device travel through host memory.
#[test]
fn ranks_with_a_device_write_the_same_bytes() {
    if let Some(why) = upright_emulator::missing() {
        println!("{why}");
        return;
    }
    in_own_process("ranks_with_a_device_write_the_same_bytes", || {
        let small = "device = \"host\"\nmethod = \"mix\"\nsteps = 1\nsft-batch = 2\ndpo = \"\"\ndpo-rows = \"\"\ndpo-batch = \"\"\n\
                     max-length = 24\ntoken-budget = 24\neval-every = 1\neval-rows = 1\ncheckpoint-every = 1\nlora-targets = \"q_proj\"";
        let text = with(small);
        let wanted = straight(&text);
        start_over();
        run_well(2, &text, false);
        same(&contents(), &wanted, "2 ranks on the host device");
    });
}

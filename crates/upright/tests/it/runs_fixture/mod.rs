//! A folder with a tiny model, invented rows and a cache of its own, in which the real program trains in milliseconds; and
//! run folders compared byte for byte.

#![allow(dead_code, reason = "each of the two test binaries uses a part")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use upright_math::random::{GOLDEN, splitmix};

pub(crate) mod study;

/// What every run of these tests has in common, unless it says otherwise.
const COMMON: [&str; 5] = [
    "--model model",
    "--max-length 96",
    "--lora-rank 4",
    "--learning-rate 2e-3",
    "--no-report",
];

/// Both objectives.
pub(crate) const TWO: &str = "--sft sft.jsonl --dpo dpo.jsonl --sft-batch 4 --dpo-batch 3";

/// SplitMix64: kills and rows are the same in every run of a test.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let drawn = splitmix(self.0);
        self.0 = self.0.wrapping_add(GOLDEN);
        (drawn % n as u64) as usize
    }

    fn words(&mut self, from: usize, to: usize) -> String {
        const WORDS: [&str; 12] = [
            "tea", "river", "a", "seven", "blue", "why", "stone", "is", "not", "go", "lamp",
            "often",
        ];
        let words: Vec<&str> = (0..from + self.below(to - from))
            .map(|_| WORDS[self.below(WORDS.len())])
            .collect();
        words.join(" ")
    }
}

pub(crate) struct Fixture {
    folder: TempDir,
}

/// How a command ended.
pub(crate) struct Ended {
    /// The exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }
}

impl Fixture {
    /// `golden` is a folder of the engine's golden models, all of which have 160 tokens or more.
    pub(crate) fn new(golden: &str) -> Self {
        let fixture = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../upright-engine/tests/golden")
            .join(golden);
        let model = fixture.path("model");
        fs::create_dir(&model).unwrap();
        for entry in fs::read_dir(golden).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("model") || name == "config.json" {
                fs::copy(entry.path(), model.join(name)).unwrap();
            }
        }
        fs::write(model.join("tokenizer.json"), tokenizer().to_string()).unwrap();
        fs::write(
            model.join("tokenizer_config.json"),
            r#"{"eos_token": "<eos>"}"#,
        )
        .unwrap();
        fixture.write_rows("sft.jsonl", 60, 1, false);
        fixture.write_rows("dpo.jsonl", 50, 2, true);
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Invented rows; the first ones are the same for any number of them.
    pub(crate) fn write_rows(&self, name: &str, rows: usize, seed: u64, pairs: bool) {
        let mut random = Random(seed);
        let mut row = |index: usize| {
            let prompt = format!("{index} {}", random.words(1, 5));
            let (first, second) = (random.words(1, 6), random.words(1, 6) + "!");
            if pairs {
                json!({"prompt": prompt, "chosen": first, "rejected": second})
            } else {
                json!({"instruction": prompt, "input": "", "output": first})
            }
        };
        let text: String = (0..rows).map(|index| format!("{}\n", row(index))).collect();
        fs::write(self.path(name), text).unwrap();
    }

    /// `upright train` in the fixture's folder; `flags` are separated by spaces.
    pub(crate) fn command(&self, out: &str, flags: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upright"));
        let missing = |flag: &&str| !flags.contains(flag.split(' ').next().unwrap());
        let common = COMMON
            .into_iter()
            .filter(missing)
            .flat_map(str::split_whitespace);
        command
            .args(["train", "--out", out])
            .args(common)
            .args(flags.split_whitespace());
        self.at_home(&mut command);
        command
    }

    /// Gives a command the fixture's folder and cache.
    pub(crate) fn at_home(&self, command: &mut Command) {
        command
            .current_dir(self.folder.path())
            .env("UPRIGHT_CACHE", self.path("cache"))
            .stdin(Stdio::null());
    }

    pub(crate) fn train(&self, out: &str, flags: &str) -> Ended {
        Process::start(self.command(out, flags)).end()
    }

    /// Lines of a run's `steps.jsonl`.
    pub(crate) fn steps(&self, out: &str) -> Vec<Map<String, Value>> {
        lines(&self.path(out).join("steps.jsonl"))
    }

    /// Lines of a run's `evals.jsonl`.
    pub(crate) fn evals(&self, out: &str) -> Vec<Map<String, Value>> {
        lines(&self.path(out).join("evals.jsonl"))
    }

    /// Asserts that two runs are the same, but for the settings named in `config.toml` and `plan.toml`.
    #[track_caller]
    pub(crate) fn assert_same(&self, a: &str, b: &str, settings: &[&str]) {
        let (mut left, mut right) = (
            contents(&self.path(a), settings),
            contents(&self.path(b), settings),
        );
        let (names, others): (Vec<_>, Vec<_>) = (
            left.keys().cloned().collect(),
            right.keys().cloned().collect(),
        );
        assert_eq!(names, others, "files of {a} and {b}");
        for name in names {
            let (x, y) = (left.remove(&name).unwrap(), right.remove(&name).unwrap());
            if x != y {
                let (x, y) = (String::from_utf8_lossy(&x), String::from_utf8_lossy(&y));
                let differing = x
                    .lines()
                    .zip(y.lines())
                    .enumerate()
                    .find(|(_, (x, y))| x != y);
                panic!("{name} differs between {a} and {b}: {differing:.2000?}");
            }
        }
    }
}

/// A token a printable character, and `<eos>`.
fn tokenizer() -> Value {
    let characters = (' '..='~').chain(['\n']);
    let vocabulary: Map<String, Value> = characters
        .enumerate()
        .map(|(index, letter)| (letter.to_string(), json!(index + 4)))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Fuse"},
        "added_tokens": [{"id": 3, "content": "<eos>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false}],
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []},
    })
}

fn lines(path: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Every file of a folder by its path in it, as far as equal runs have to agree. The lock is an empty file that only says
/// that somebody was at work; `out` is the folder itself.
pub(crate) fn contents(folder: &Path, settings: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path
                .strip_prefix(folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if path.is_dir() {
                // An empty folder counts too.
                files.insert(format!("{name}/"), vec![]);
                folders.push(path);
            } else if name != ".lock" {
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    if let Some(steps) = files.get_mut("steps.jsonl") {
        let line = |line: &str| {
            let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
            for name in upright_runs::records::TIMES {
                let value = line.remove(name);
                assert!(value.is_some() || name == "energy_joules", "{name}");
            }
            format!("{}\n", json!(line))
        };
        *steps = std::str::from_utf8(steps)
            .unwrap()
            .lines()
            .map(line)
            .collect::<String>()
            .into_bytes();
    }
    for name in ["config.toml", "plan.toml"] {
        if let Some(file) = files.get_mut(name) {
            let differs = |line: &&str| {
                ["out"]
                    .iter()
                    .chain(settings)
                    .any(|key| line.starts_with(&format!("{key} =")))
            };
            let text = std::str::from_utf8(file).unwrap();
            *file = text
                .lines()
                .filter(|line| !differs(line))
                .collect::<Vec<_>>()
                .join("\n")
                .into_bytes();
        }
    }
    files
}

/// The program at work.
pub(crate) struct Process {
    child: Child,
    began: Instant,
    output: TempDir,
}

impl Process {
    /// Starts a command; what it says goes to files, so that it never waits for a reader.
    pub(crate) fn start(mut command: Command) -> Self {
        let output = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::File::create(output.path().join(name)).unwrap();
        let child = command
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        Self {
            child,
            began: Instant::now(),
            output,
        }
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.output.path().join("stderr")).unwrap()
    }

    /// Waits until `when` holds, looking every so often; false if the process ended before.
    pub(crate) fn wait_until(&mut self, mut when: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if when(self) {
                return true;
            }
            assert!(
                self.began.elapsed() < Duration::from_secs(120),
                "{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sends a signal by name; the shell's own `kill` is there wherever there is a shell.
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        Command::new("sh")
            .args(["-c", &command])
            .stderr(Stdio::null())
            .status()
            .unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.end()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let code = self.child.wait().unwrap().code();
        let stdout = fs::read_to_string(self.output.path().join("stdout")).unwrap();
        Ended {
            code,
            stdout,
            stderr: self.stderr(),
        }
    }
}

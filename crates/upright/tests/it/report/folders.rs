//! Folders of runs that nobody trained: plans, steps and evaluations written by hand, so that tests know every number.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Steps of every run.
const STEPS: usize = 8;

/// A folder with `runs/`.
pub(crate) struct Study {
    folder: TempDir,
}

/// What a run is and where it ends.
#[derive(Clone)]
pub(crate) struct Run {
    method: String,
    weights: Vec<f64>,
    stages: Vec<(usize, usize)>,
    probe_every: usize,
    seed: u64,
    ends: [f64; 2],
    seconds: f64,
    taken: usize,
    planned: usize,
    third: Option<String>,
    measures: String,
    asked: String,
    tokens: Option<usize>,
    probed: Option<usize>,
    averaged: Option<[f64; 2]>,
    edits: Vec<(String, String)>,
}

/// A run by a method, of two objectives at equal weights.
pub(crate) fn run(method: &str) -> Run {
    Run {
        method: method.into(),
        weights: vec![0.5, 0.5],
        stages: Vec::new(),
        probe_every: 10,
        seed: 1,
        ends: [0.5, 0.5],
        seconds: 0.1,
        taken: STEPS,
        planned: STEPS,
        third: None,
        measures: String::new(),
        asked: String::new(),
        tokens: None,
        probed: None,
        averaged: None,
        edits: Vec::new(),
    }
}

impl Run {
    pub(crate) fn weights(mut self, sft: f64, dpo: f64) -> Self {
        self.weights = vec![sft, dpo];
        self
    }

    /// Stages as indices of objectives (0 is sft) and steps.
    pub(crate) fn stages(mut self, stages: &[(usize, usize)]) -> Self {
        self.stages = stages.to_vec();
        self
    }

    pub(crate) fn probe_every(mut self, k: usize) -> Self {
        self.probe_every = k;
        self
    }

    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Losses on training rows after the last step; held-out rows end a tenth higher.
    pub(crate) fn ending(mut self, sft: f64, dpo: f64) -> Self {
        self.ends = [sft, dpo];
        self
    }

    /// About how long a step takes.
    pub(crate) fn seconds(mut self, seconds: f64) -> Self {
        self.seconds = seconds;
        self
    }

    pub(crate) fn stopped_after(mut self, steps: usize) -> Self {
        self.taken = steps;
        self
    }

    /// Another length than that of all runs; of a sequential one its stages must have it.
    pub(crate) fn lasting(mut self, steps: usize) -> Self {
        (self.planned, self.taken) = (steps, steps);
        self
    }

    /// A third objective, a preference loss, with the weights of all three.
    pub(crate) fn third(mut self, name: &str, weights: [f64; 3]) -> Self {
        self.third = Some(name.into());
        self.weights = weights.to_vec();
        self
    }

    /// An adapter in a folder: measured, not trained.
    pub(crate) fn measuring(mut self, adapter: &str) -> Self {
        (self.planned, self.taken, self.measures) = (0, 0, adapter.into());
        self
    }

    /// Adapters that a study added up.
    pub(crate) fn sum(self, name: &str) -> Self {
        self.measuring(&format!("/study/sums/{name}"))
            .with("\"/out\"", &format!("\"/study/runs/{name}\""))
    }

    /// Tokens that every step trains on.
    pub(crate) fn tokens(mut self, tokens: usize) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Tokens that every step probes and does not train on.
    pub(crate) fn probing(mut self, tokens: usize) -> Self {
        self.probed = Some(tokens);
        self
    }

    /// Half batches of Mix.
    pub(crate) fn half_batches(self) -> Self {
        self.with("held-out = 0.2", "mix-batches = \"half\"\nheld-out = 0.2")
    }

    /// An average beside the last iterate, and its losses on training rows after the last step.
    pub(crate) fn averaging(mut self, sft: f64, dpo: f64) -> Self {
        self.averaged = Some([sft, dpo]);
        self.with("held-out = 0.2", "average = \"polynomial\"\nheld-out = 0.2")
    }

    /// What `config.toml` says.
    pub(crate) fn asking(mut self, text: &str) -> Self {
        self.asked = text.into();
        self
    }

    /// Another text in the plan.
    pub(crate) fn with(mut self, old: &str, new: &str) -> Self {
        self.edits.push((old.into(), new.into()));
        self
    }

    fn names(&self) -> Vec<String> {
        ["sft".to_owned(), "dpo".to_owned()]
            .into_iter()
            .chain(self.third.clone())
            .collect()
    }

    fn plan(&self) -> String {
        let init = match &self.measures[..] {
            "" => String::new(),
            adapter => format!("init-adapter = \"{adapter}\"\n"),
        };
        let length = match self.stages.len() {
            0 => format!("[plan.length]\nsteps = {}\n", self.planned),
            _ => String::new(),
        };
        let mut text = format!(
            "[plan]\nmodel = \"/models/small\"\nout = \"/out\"\n{init}method = \"{}\"\nprobe-every = {}\nheld-out = 0.2\n\
             max-length = 256\nmin-prompt = 64\ntoo-long = \"drop\"\nseed = {}\neval-every = 4\neval-rows = 48\n\
             checkpoint-every = 50\nkeep = 2\nthreads = 2\ntoken-budget = 2048\nrecompute = \"auto\"\n\
             reference = \"base\"\n\n{length}\n[plan.lora]\nrank = 16\nalpha = 16.0\ntargets = []\n\n[plan.optimizer]\n\
             learning-rate = 0.001\nschedule = \"constant\"\nwarmup = 0\nclip = 1.0\n\n[plan.optimizer.adamw]\n\
             betas = [0.9, 0.95]\neps = 0.00000001\nweight-decay = 0.0\n",
            self.method, self.probe_every, self.seed
        );
        for (i, (name, weight)) in self.names().iter().zip(&self.weights).enumerate() {
            let (loss, beta, rank) = if i == 0 {
                ("sft", 0.0, 1)
            } else {
                ("dpo", 0.1, 2 * (i - 1))
            };
            text += &format!(
                "\n[[plan.objectives]]\nname = \"{name}\"\nloss = \"{loss}\"\ndata = \"/data/{name}.jsonl\"\n\
                 weight = {weight:?}\nbatch = 8\nbeta = {beta:?}\nlabel-smoothing = 0.0\ntie-rank = {rank}\n"
            );
        }
        for (objective, steps) in &self.stages {
            text += &format!(
                "\n[[plan.stages]]\nobjective = {objective}\nlength = {{ steps = {steps} }}\n"
            );
        }
        text +=
            "\n[facts]\nbase = \"0123456789abcdef\"\ntier = \"portable\"\ntokenizer = \"fedcba\"\n";
        // As good as its hash.
        text += &format!(
            "init-adapter = \"{}\"\nreference = \"\"\n",
            self.measures.replace('/', "-")
        );
        for name in self.names() {
            text += &format!(
                "\n[[facts.data]]\nsha256 = \"aa-{name}\"\neval-sha256 = \"\"\ndialect = \"alpaca\"\n\
                 template = \"user-assistant\"\ntrain-rows = 115\neval-rows = 35\n"
            );
        }
        self.edits.iter().fold(text, |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        })
    }

    /// Which objectives a step trains on.
    fn descends(&self, step: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..self.weights.len())
            .filter(|i| self.weights[*i] > 0.0)
            .collect();
        let stage = self.stages.iter().scan(0, |end, (objective, steps)| {
            *end += steps;
            Some((*objective, *end))
        });
        match &self.method[..] {
            "sequential" => vec![stage.clone().find(|(_, end)| step < *end).unwrap().0],
            "mix" => all,
            _ => vec![all[(step * step + self.seed as usize) / 2 % all.len()]],
        }
    }

    fn step(&self, step: usize, name: &dyn Fn(usize) -> String) -> Value {
        let mut line = Map::new();
        line.insert("step".into(), json!(step));
        for id in self.descends(step) {
            line.insert(format!("loss/{}", name(id)), json!(1.0));
        }
        let wave = ((step * 7 + self.seed as usize * 3) % 5) as f64;
        let tokens = self.tokens.unwrap_or(100 + 10 * step);
        line.insert("tokens".into(), json!(tokens));
        if let Some(tokens) = self.probed {
            line.insert("probed_tokens".into(), json!(tokens));
        }
        line.insert("seconds".into(), json!(self.seconds + 0.001 * wave));
        line.insert(
            "utilization".into(),
            json!(0.5 + self.seconds + 0.02 * wave),
        );
        line.insert("peak_memory_gb".into(), json!(1.5));
        Value::Object(line)
    }

    /// Losses fall from the start, where they are 1 and 5, to their ends.
    fn evaluation(&self, step: usize, name: &dyn Fn(usize) -> String) -> Value {
        let mut line = Map::new();
        line.insert("step".into(), json!(step));
        let share = if self.planned == 0 {
            1.0
        } else {
            step as f64 / self.planned as f64
        };
        for (set, scale) in [("eval", 1.1), ("fit", 1.0)] {
            for id in 0..self.weights.len() {
                let mut adapters = vec![("", self.ends)];
                adapters.extend(self.averaged.map(|ends| ("average/", ends)));
                for (prefix, ends) in adapters {
                    let (start, end) = if id == 0 {
                        (1.0, ends[0])
                    } else {
                        (5.0, ends[1])
                    };
                    let loss = if share == 1.0 {
                        end
                    } else {
                        start + share * (end - start)
                    };
                    let key = format!("{prefix}{set}/loss/{}", name(id));
                    line.insert(key, json!(loss * scale));
                }
            }
        }
        Value::Object(line)
    }
}

impl Study {
    pub(crate) fn new() -> Self {
        let study = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(study.path().join("runs")).unwrap();
        study
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a run's folder.
    pub(crate) fn add(&self, name: &str, run: &Run) {
        let file = |file: &str| format!("runs/{name}/{file}");
        let (plan, names) = (run.plan(), run.names());
        // An objective that was renamed in the plan has the new name in the records too.
        let of = |id: usize| {
            let edit = run
                .edits
                .iter()
                .find(|(old, _)| *old == format!("name = \"{}\"", names[id]));
            edit.map_or(names[id].clone(), |(_, new)| {
                new.split('"').nth(1).unwrap().to_owned()
            })
        };
        let lines = |all: Vec<Value>| {
            all.iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>()
        };
        self.write(&file("plan.toml"), &plan);
        self.write(&file("config.toml"), &run.asked);
        self.write(
            &file("steps.jsonl"),
            &lines((0..run.taken).map(|step| run.step(step, &of)).collect()),
        );
        let evaluated: Vec<usize> = (0..=run.taken).filter(|step| step % 4 == 0).collect();
        self.write(
            &file("evals.jsonl"),
            &lines(
                evaluated
                    .into_iter()
                    .map(|step| run.evaluation(step, &of))
                    .collect(),
            ),
        );
    }

    /// Changes a file of a run.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.path().join("runs").join(name);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(text.clone());
        assert_ne!(changed, text, "{name}");
        fs::write(path, changed).unwrap();
    }

    pub(crate) fn copy_runs_to(&self, other: &Self) {
        for run in fs::read_dir(self.path().join("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            for file in fs::read_dir(&run)
                .unwrap()
                .map(|entry| entry.unwrap().path())
            {
                let name = file.strip_prefix(self.path()).unwrap().to_str().unwrap();
                other.write(name, &fs::read_to_string(&file).unwrap());
            }
        }
    }
}

/// A table's file, read by the rules of RFC 4180.
pub(crate) struct Csv {
    header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Csv {
    pub(crate) fn read(folder: &Path, name: &str) -> Self {
        let text = fs::read_to_string(folder.join(format!("{name}.csv"))).unwrap();
        let (mut rows, mut row, mut cell, mut quoted) =
            (Vec::new(), Vec::new(), String::new(), false);
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '"' if quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut cell)),
                '\n' if !quoted => {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                other => cell.push(other),
            }
        }
        let header: Vec<String> = rows.remove(0);
        assert!(
            rows.iter().all(|row| row.len() == header.len()),
            "{name}: {header:?}"
        );
        Self { header, rows }
    }

    #[track_caller]
    pub(crate) fn column(&self, name: &str) -> usize {
        self.header
            .iter()
            .position(|other| other == name)
            .unwrap_or_else(|| panic!("{name} in {:?}", self.header))
    }

    #[track_caller]
    pub(crate) fn cell(&self, row: &str, column: &str) -> &str {
        let found = self
            .rows
            .iter()
            .find(|cells| cells[0] == row)
            .unwrap_or_else(|| panic!("{row}"));
        &found[self.column(column)]
    }

    #[track_caller]
    pub(crate) fn number(&self, row: &str, column: &str) -> f64 {
        let cell = self.cell(row, column);
        cell.parse()
            .unwrap_or_else(|_| panic!("{row}, {column}: {cell:?}"))
    }
}

/// Mean and standard error of two values: half their difference.
pub(crate) fn mean_and_error([a, b]: &[f64; 2]) -> (f64, f64) {
    ((a + b) / 2.0, (a - b).abs() / 2.0)
}

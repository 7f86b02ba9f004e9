//! The whole story on an embedded model and embedded rows: both optima, Sequential in both orders, Mix, ALRIGHT and
//! MAXRIGHT at equal steps over several seeds, all through the runs that train real models.

use std::path::{Path, PathBuf};

use serde::Serialize;

use upright_base::{
    Error, Result, files,
    observer::{Observer, Quiet, Silent},
};
use upright_core::metrics::Spread;
use upright_data::{
    Template,
    rows::{Prompt, Row},
};
use upright_engine::Options;
use upright_report::{ANSWERS, Answer, Answers, Claim, Report, STUDY, Study};
use upright_runs::{
    plan::Plan,
    records::SETS,
    run_dir::{self, read_lines},
    settings::Config,
    summary::ObjectiveSummary,
    summary::Summary,
};
use upright_train::{
    generate::{Generated, Request, Sampling, TokenSink, generate},
    run::{self, Model},
};

/// What the binary carries, by its place in the demo's folder; `tools/demo` makes it.
const FILES: [(&str, &[u8]); 6] = [
    (
        "model/config.json",
        include_bytes!("../../demo/model/config.json"),
    ),
    (
        "model/model.safetensors",
        include_bytes!("../../demo/model/model.safetensors"),
    ),
    (
        "model/tokenizer.json",
        include_bytes!("../../demo/model/tokenizer.json"),
    ),
    (
        "model/tokenizer_config.json",
        include_bytes!("../../demo/model/tokenizer_config.json"),
    ),
    (
        "instructions.jsonl",
        include_bytes!("../../demo/instructions.jsonl"),
    ),
    (
        "preferences.jsonl",
        include_bytes!("../../demo/preferences.jsonl"),
    ),
];

/// Settings of every run; `demo/settings.toml` says why.
const SETTINGS: &str = include_str!("../../demo/settings.toml");

/// Seeds of the methods compared.
const SEEDS: [u64; 3] = [1, 2, 3];

/// What all models are asked at the end: a question as the instruction rows have them, which a plain answer suits, and one
/// as the preference rows have them, which a kind answer suits. Base, Sequential and MAXRIGHT show the first.
const QUESTIONS: [&str; 2] = ["What does Ada do?", "Hello! Who looks after Acorn the cat?"];

/// What the page about the runs is called, and what it is about.
const TITLE: &str = "Seven ways to train one small model on two things";
const ABOUT: &str = "A language model of 689,280 parameters, trained on an invented village, learns to answer plainly (instructions) \
                     and to answer kindly and truthfully (preferences). Trained on one after the other it forgets the first; \
                     this page shows how much, and what training on both at once does about it.";

/// The methods compared: a name, and the settings that make it.
const METHODS: [(&str, &str); 5] = [
    (
        "dpo, then sft",
        "method = \"sequential\"\nstages = \"dpo:HALF,sft:HALF\"",
    ),
    (
        "sft, then dpo",
        "method = \"sequential\"\nstages = \"sft:HALF,dpo:HALF\"",
    ),
    ("mix", "method = \"mix\"\nsteps = STEPS"),
    ("alright", "method = \"alright\"\nsteps = STEPS"),
    (
        "maxright",
        "method = \"maxright\"\nsteps = STEPS\nprobe-every = 10",
    ),
];

/// Steps of every run.
const STEPS: usize = 120;

/// One method over the seeds. Arrays of two are held-out rows and training rows, as in [`SETS`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Name of the method.
    pub method: String,
    /// SFT loss after the last step.
    pub sft: [Spread; 2],
    /// DPO loss after the last step.
    pub dpo: [Spread; 2],
    /// SFT loss less its optimum.
    pub sft_gap: [Spread; 2],
    /// DPO loss less its optimum.
    pub dpo_gap: [Spread; 2],
    /// Distance of the two gaps to the ideal point.
    pub ideal_distance: [Spread; 2],
    /// Seconds of all steps.
    pub seconds: Spread,
    /// Tokens trained on.
    pub tokens: Spread,
}

/// Everything the demo found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Story {
    /// Steps of every run.
    pub steps: usize,
    /// Seeds of every method.
    pub seeds: Vec<u64>,
    /// Losses before any step: SFT and DPO, each on [`SETS`].
    pub start: [[f64; 2]; 2],
    /// Smallest losses seen while an objective was trained alone for as many steps: SFT and DPO, each on [`SETS`].
    pub optima: [[f64; 2]; 2],
    /// The methods.
    pub methods: Vec<Compared>,
    /// What the paper claims, and whether it holds here.
    pub claims: Vec<Claim>,
    /// A prompt, and what three models say to it.
    pub question: String,
    /// Who answers, and the answer.
    pub answers: Vec<(String, String)>,
}

/// The demo in a folder of its own; what is finished there is not repeated.
#[derive(Debug)]
pub struct Demo {
    dir: PathBuf,
    options: Options,
    /// Steps of every run, even.
    pub steps: usize,
    /// Seeds of every method, at least one.
    pub seeds: Vec<u64>,
}

impl Demo {
    /// Unpacks model and rows.
    pub fn new(dir: &Path, options: &Options) -> Result<Self> {
        // A demo that goes on finds its own files; anybody else's are not touched.
        let mut missing = Vec::new();
        for (name, bytes) in FILES {
            match std::fs::read(dir.join(name)) {
                Ok(there) if there == bytes => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    missing.push((name, bytes));
                }
                _ => {
                    return Err(Error::input(format!(
                        "{}: is not the demo's own",
                        dir.join(name).display()
                    ))
                    .hint("give --out a new folder"));
                }
            }
        }
        files::create_dir(&dir.join("model"))?;
        for (name, bytes) in missing {
            files::write_atomic(&dir.join(name), bytes)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            options: *options,
            steps: STEPS,
            seeds: SEEDS.to_vec(),
        })
    }

    fn path(&self, name: &str) -> String {
        toml::Value::String(self.dir.join(name).display().to_string()).to_string()
    }

    /// Takes the steps of one run, unless its folder has them.
    fn run(
        &self,
        name: &str,
        settings: &str,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<Summary> {
        let text = format!(
            "model = {}\nsft = {}\ndpo = {}\nout = {}\nseed = {seed}\nthreads = {}\ndevice = \"{}\"\n{SETTINGS}\n{}",
            self.path("model"),
            self.path("instructions.jsonl"),
            self.path("preferences.jsonl"),
            self.path(&format!("runs/{name}")),
            self.options.threads,
            self.options.device,
            settings
                .replace("STEPS", &self.steps.to_string())
                .replace("HALF", &(self.steps / 2).to_string()),
        );
        let config = Config::parse(&text, "the demo's settings")?;
        run::run(
            &Plan::from_config(&config)?,
            &config.to_toml()?,
            true,
            &mut Quiet(observer),
        )
    }

    /// Smallest losses of one objective that a run's evaluations saw, on each of [`SETS`].
    fn smallest(summary: &Summary, objective: &str) -> Result<[f64; 2]> {
        let evals = read_lines(&summary.run.join("evals.jsonl"))?;
        Ok(SETS.map(|set| {
            let key = format!("{set}/loss/{objective}");
            evals
                .iter()
                .filter_map(|line| line.get(&key)?.as_f64())
                .fold(f64::INFINITY, f64::min)
        }))
    }

    /// All runs, the claims, and the answers.
    pub fn tell(&self, observer: &mut dyn Observer) -> Result<Story> {
        let total = 2 + METHODS.len() * self.seeds.len();
        observer.begin("the whole story, in runs", total);
        let story = self.tell_runs(observer);
        observer.end();
        story
    }

    fn tell_runs(&self, observer: &mut dyn Observer) -> Result<Story> {
        let mut done = 0;
        let mut finished = |observer: &mut dyn Observer, name: &str| {
            done += 1;
            observer.advance(done, name);
        };
        let alone = |lambda: u8| format!("method = \"mix\"\nlambda = {lambda}\nsteps = STEPS");
        let sft = self.run("sft-alone", &alone(0), self.seeds[0], observer)?;
        finished(observer, "sft alone");
        let dpo = self.run("dpo-alone", &alone(1), self.seeds[0], observer)?;
        finished(observer, "dpo alone");
        let optima = [Self::smallest(&sft, "sft")?, Self::smallest(&dpo, "dpo")?];
        let given = |set: usize| format!("sft={},dpo={}", optima[0][set], optima[1][set]);
        let known = format!(
            "lambda = 0.5\noptimum-eval = \"{}\"\noptimum = \"{}\"",
            given(0),
            given(1)
        );

        let mut methods = Vec::new();
        let mut runs = Vec::new();
        for (name, settings) in METHODS {
            let mut summaries = Vec::new();
            for &seed in &self.seeds {
                let folder = format!("{}-{seed}", name.replace(", then ", "-"));
                // The stages say what lambda would.
                let known = if settings.contains("stages") {
                    known.replace("lambda = 0.5\n", "")
                } else {
                    known.clone()
                };
                summaries.push(self.run(
                    &folder,
                    &format!("{settings}\n{known}"),
                    seed,
                    observer,
                )?);
                finished(observer, name);
            }
            methods.push(Compared::of(name, &summaries)?);
            runs.push(summaries);
        }
        let start = [0, 1].map(|i| sft.objectives[i].start.map(|loss| loss.unwrap_or(f64::NAN)));
        let answers = self.answers(
            &runs
                .iter()
                .map(|summaries| &summaries[0])
                .collect::<Vec<_>>(),
        )?;
        let shown = [("base", 0), ("sft, then dpo", 2), ("maxright", 5)];
        let shown =
            shown.map(|(name, index)| (name.to_owned(), answers[0].answers[index].text.clone()));
        self.describe(&answers)?;
        Ok(Story {
            steps: self.steps,
            seeds: self.seeds.clone(),
            start,
            optima,
            claims: Report::read(std::slice::from_ref(&self.dir))?.claims,
            methods,
            question: QUESTIONS[0].into(),
            answers: shown.to_vec(),
        })
    }

    /// Says beside the runs what they are for and what their models answer, for whoever reports them.
    fn describe(&self, answers: &[Answers]) -> Result<()> {
        let study = Study {
            title: Some(TITLE.into()),
            about: Some(ABOUT.into()),
            runs: None,
        };
        let study =
            toml::to_string(&study).map_err(|error| Error::failure(format!("{STUDY}: {error}")))?;
        files::write_atomic(&self.dir.join(STUDY), study.as_bytes())?;
        let answers = serde_json::to_vec_pretty(answers)
            .map_err(|error| Error::failure(format!("{ANSWERS}: {error}")))?;
        files::write_atomic(&self.dir.join(ANSWERS), &answers)
    }

    /// The page about all runs, in `report/` beside them; returns its path.
    ///
    /// # Errors
    /// The demo was not told yet, or a file cannot be written.
    pub fn report(&self, observer: &mut dyn Observer) -> Result<PathBuf> {
        Report::read(std::slice::from_ref(&self.dir))?.write(&self.dir.join("report"), observer)
    }

    /// The same questions to the base and to the adapters of some runs.
    fn answers(&self, runs: &[&Summary]) -> Result<Vec<Answers>> {
        let model = Model::open(&self.dir.join("model"), &self.options, &mut Silent)?;
        let mut asked = Vec::new();
        let mut ids = Vec::new();
        for question in QUESTIONS {
            let prompt = Prompt::Instruction {
                system: String::new(),
                instruction: question.into(),
                input: String::new(),
            };
            let row = Row::unanswered(0, None, prompt);
            ids.push(
                model
                    .tokenizer
                    .prompt(&Template::UserAssistant.prompt(&row)?)?,
            );
            asked.push(Answers {
                prompt: question.into(),
                answers: Vec::new(),
            });
        }
        let sampling = Sampling {
            max_tokens: 48,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
        };
        for run in [None].into_iter().chain(runs.iter().map(Some)) {
            let mut silent = Silent;
            let adapter = match run {
                Some(run) => {
                    Some(model.load_adapter(&run_dir::adapter_dir(&run.run), &mut silent)?)
                }
                None => None,
            };
            let place = |run: &&Summary| {
                run.run
                    .strip_prefix(&self.dir)
                    .unwrap_or(&run.run)
                    .display()
                    .to_string()
            };
            let name = run.map_or_else(|| "base".to_owned(), place);
            let (decoder, tokenizer) = (&model.decoder, &model.tokenizer);
            let mut answered = |index: usize, answer: &Generated| {
                let text = tokenizer.decode(&answer.tokens)?.trim().to_owned();
                asked[index].answers.push(Answer {
                    run: name.clone(),
                    text,
                    of: String::new(),
                });
                Ok(())
            };
            let sink = TokenSink {
                heard: &mut |_, _| {},
                answered: &mut answered,
            };
            let request = Request {
                decoder,
                adapter: adapter.as_ref(),
                ends: &[tokenizer.eos()],
                prompts: &ids,
                sampling: &sampling,
                batch: 1,
            };
            generate(&request, &mut silent, sink)?;
        }
        Ok(asked)
    }
}

impl Compared {
    /// One method's runs, one a seed.
    pub fn of(method: &str, runs: &[Summary]) -> Result<Self> {
        let objective = |run: &Summary, name: &str| {
            run.objectives
                .iter()
                .position(|objective| objective.name == name)
        };
        let pick = |name: &str,
                    value: fn(&ObjectiveSummary) -> [Option<f64>; 2],
                    set: usize|
         -> Result<Spread> {
            let values = runs
                .iter()
                .map(|run| value(&run.objectives[objective(run, name)?])[set]);
            values
                .collect::<Option<Vec<f64>>>()
                .map(|values| Spread::of(&values))
                .ok_or_else(|| {
                    Error::failure(format!(
                        "a run of {method} has no measurement of {name} on {} rows",
                        SETS[set]
                    ))
                })
        };
        let both =
            |name: &str, value| Ok::<_, Error>([pick(name, value, 0)?, pick(name, value, 1)?]);
        let distance = |set: usize| {
            let values: Vec<f64> = runs
                .iter()
                .filter_map(|run| run.ideal_distance[set])
                .collect();
            Spread::of(&values)
        };
        let (seconds, tokens): (Vec<f64>, Vec<f64>) = runs
            .iter()
            .map(|run| (run.seconds, run.tokens as f64))
            .unzip();
        Ok(Self {
            method: method.into(),
            sft: both("sft", |objective| objective.end)?,
            dpo: both("dpo", |objective| objective.end)?,
            sft_gap: both("sft", |objective| objective.gap)?,
            dpo_gap: both("dpo", |objective| objective.gap)?,
            ideal_distance: [distance(0), distance(1)],
            seconds: Spread::of(&seconds),
            tokens: Spread::of(&tokens),
        })
    }
}

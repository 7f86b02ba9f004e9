//! The demo: a full comparison on an embedded model and embedded rows. It finds both optima and
//! runs Sequential in both orders, Mix, ALRIGHT and MAXRIGHT with equal steps and several seeds, and
//! Mix at equal tokens, with the same code that trains real models.

use std::path::{Path, PathBuf};

use serde::Serialize;

use upright_base::{
    Error, Result, files,
    progress::{Progress, Quiet, Silent},
};
use upright_core::metrics::Spread;
use upright_data::{
    Template,
    conversation::{Prompt, Row},
};
use upright_engine::Options;
use upright_report::{ANSWERS, Answer, Answers, Claim, Report, STUDY, Study};
use upright_runs::{
    plan::Plan,
    records::{EvalSet, PerSet, lowest_loss},
    run_dir::{self, read_evaluations},
    settings::Config,
    summary::ObjectiveSummary,
    summary::Summary,
    trackers::Trackers,
};
use upright_train::{
    generate::{Generated, Request, Sampling, TokenSink, generate},
    run::{self, Model},
};

/// The embedded files, by their path in the demo folder. `tools/demo` creates them.
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

/// Settings of every run; `demo/settings.toml` explains them.
const SETTINGS: &str = include_str!("../../demo/settings.toml");

/// Seeds of every compared method.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Prompts for all models at the end. The first resembles the instruction rows and suits a plain
/// response; the second resembles the preference rows and suits a kind response. The output shows
/// the responses of the base, Sequential and MAXRIGHT to the first.
const QUESTIONS: [&str; 2] = ["What does Ada do?", "Hello! Who looks after Acorn the cat?"];

/// Title and description of the report page.
const TITLE: &str = "Eight ways to train one small model on two objectives";
const ABOUT: &str = "A language model with 689,280 parameters, pre-trained on text about an \
                     invented village, learns to answer plainly (instructions) and to answer \
                     kindly and truthfully (preferences). If it is trained on one after the other, \
                     it forgets the first. This page shows how much it forgets, and how training \
                     on both at once changes that.";

/// The compared methods: name and settings.
const METHODS: [(&str, &str); 6] = [
    (
        "dpo, then sft",
        "method = \"sequential\"\nstages = \"dpo:HALF,sft:HALF\"",
    ),
    (
        "sft, then dpo",
        "method = \"sequential\"\nstages = \"sft:HALF,dpo:HALF\"",
    ),
    ("mix", "method = \"mix\"\nsteps = STEPS"),
    // At equal weights, a step of ALRIGHT has half of the tokens of a step of Mix.
    ("mix, half as long", "method = \"mix\"\nsteps = HALF"),
    ("alright", "method = \"alright\"\nsteps = STEPS"),
    (
        "maxright",
        "method = \"maxright\"\nsteps = STEPS\nprobe-every = 10",
    ),
];

/// Steps of every run but the short ones of Mix.
const STEPS: usize = 120;

/// The results of one method over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Name of the method.
    pub method: String,
    /// SFT loss after the last step.
    pub sft: PerSet<Spread>,
    /// DPO loss after the last step.
    pub dpo: PerSet<Spread>,
    /// SFT loss minus its optimum.
    pub sft_gap: PerSet<Spread>,
    /// DPO loss minus its optimum.
    pub dpo_gap: PerSet<Spread>,
    /// Distance to the ideal point.
    pub ideal_distance: PerSet<Spread>,
    /// Total time of all steps, in seconds.
    pub seconds: Spread,
    /// Tokens trained on.
    pub tokens: Spread,
    /// Tokens of batches that were probed and not trained on.
    pub probed_tokens: Spread,
}

/// All results of the demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Story {
    /// Steps of every run.
    pub steps: usize,
    /// Seeds of every method.
    pub seeds: Vec<u64>,
    /// Losses before the first step: SFT and DPO.
    pub start: [PerSet<f64>; 2],
    /// Lowest losses while each objective was trained alone for as many steps: SFT and DPO.
    pub optima: [PerSet<f64>; 2],
    /// The methods.
    pub methods: Vec<Compared>,
    /// The claims of the paper, and whether they hold here.
    pub claims: Vec<Claim>,
    /// A prompt for three models.
    pub question: String,
    /// Name of each model, and its response.
    pub answers: Vec<(String, String)>,
}

/// The demo in its own folder. Runs that are finished there are not repeated.
#[derive(Debug)]
pub struct Demo {
    dir: PathBuf,
    options: Options,
    /// Steps of every run; an even number.
    pub steps: usize,
    /// Seeds of every method, at least one.
    pub seeds: Vec<u64>,
}

impl Demo {
    /// Unpacks the model and the rows into a folder.
    pub fn new(dir: &Path, options: &Options) -> Result<Self> {
        // A resumed demo finds its own files; other files are never overwritten.
        let mut missing = Vec::new();
        for (name, bytes) in FILES {
            match std::fs::read(dir.join(name)) {
                Ok(there) if there == bytes => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    missing.push((name, bytes));
                }
                _ => {
                    return Err(Error::input(format!(
                        "{}: is not a file of the demo",
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

    /// Does one run, unless it is already finished.
    fn run(
        &self,
        name: &str,
        settings: &str,
        seed: u64,
        observer: &mut dyn Progress,
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
            &mut Trackers::none(),
            &mut Quiet(observer),
        )
    }

    /// Lowest losses of one objective in the evaluations of a run.
    fn smallest(summary: &Summary, objective: &str) -> Result<PerSet<f64>> {
        let evaluations = read_evaluations(&summary.run)?;
        let lowest = lowest_loss(&evaluations, objective);
        Ok(PerSet::each(|set| lowest[set].unwrap_or(f64::INFINITY)))
    }

    /// Does all runs; returns their results, the claims and the responses.
    pub fn tell(&self, observer: &mut dyn Progress) -> Result<Story> {
        let total = 2 + METHODS.len() * self.seeds.len();
        observer.begin("demo runs", total);
        let story = self.tell_runs(observer);
        observer.end();
        story
    }

    fn tell_runs(&self, observer: &mut dyn Progress) -> Result<Story> {
        let mut done = 0;
        let mut finished = |observer: &mut dyn Progress, name: &str| {
            done += 1;
            observer.advance(done, name);
        };
        let alone = |lambda: u8| format!("method = \"mix\"\nlambda = {lambda}\nsteps = STEPS");
        let sft = self.run("sft-alone", &alone(0), self.seeds[0], observer)?;
        finished(observer, "sft alone");
        let dpo = self.run("dpo-alone", &alone(1), self.seeds[0], observer)?;
        finished(observer, "dpo alone");
        let optima = [Self::smallest(&sft, "sft")?, Self::smallest(&dpo, "dpo")?];
        let given = |set: EvalSet| format!("sft={},dpo={}", optima[0][set], optima[1][set]);
        let known = format!(
            "lambda = 0.5\noptimum-eval = \"{}\"\noptimum = \"{}\"",
            given(EvalSet::HeldOut),
            given(EvalSet::Training)
        );

        let mut methods = Vec::new();
        let mut runs = Vec::new();
        for (name, settings) in METHODS {
            let mut summaries = Vec::new();
            for &seed in &self.seeds {
                let folder = format!("{}-{seed}", folder_name(name));
                // The stages replace lambda.
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
        let start = [0, 1].map(|index| {
            let losses = &sft.objectives[index].start;
            PerSet::each(|set| losses[set].unwrap_or(f64::NAN))
        });
        let answers = self.answers(
            &runs
                .iter()
                .map(|summaries| &summaries[0])
                .collect::<Vec<_>>(),
        )?;
        let shown = [("base", 0), ("sft, then dpo", 2), ("maxright", 6)];
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

    /// Writes the study file and the responses beside the runs, for the report.
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

    /// Writes the report of all runs into `report/` beside them. Returns the path of the page.
    ///
    /// # Errors
    /// The demo was not run yet, or a file cannot be written.
    pub fn report(&self, observer: &mut dyn Progress) -> Result<PathBuf> {
        Report::read(std::slice::from_ref(&self.dir))?.write(&self.dir.join("report"), observer)
    }

    /// The responses of the base and of the adapters of some runs to the same prompts.
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
                first: 0,
                sampling: &sampling,
                batch: 1,
            };
            generate(&request, &mut silent, sink)?;
        }
        Ok(asked)
    }
}

/// The name of a method in the names of run folders.
fn folder_name(method: &str) -> String {
    method
        .replace(", then ", "-")
        .replace(", half as long", "-short")
}

impl Compared {
    /// Summarizes the runs of one method, one per seed.
    pub fn of(method: &str, runs: &[Summary]) -> Result<Self> {
        let objective = |run: &Summary, name: &str| {
            run.objectives
                .iter()
                .position(|objective| objective.name == name)
        };
        let pick = |name: &str,
                    value: fn(&ObjectiveSummary) -> PerSet<Option<f64>>,
                    set: EvalSet|
         -> Result<Spread> {
            let values = runs
                .iter()
                .map(|run| value(&run.objectives[objective(run, name)?])[set]);
            values
                .collect::<Option<Vec<f64>>>()
                .map(|values| Spread::of(&values))
                .ok_or_else(|| {
                    Error::failure(format!(
                        "a run of {method} has no {name} loss on {} rows",
                        set.key()
                    ))
                })
        };
        let both = |name: &str, value| {
            Ok::<_, Error>(PerSet {
                held_out: pick(name, value, EvalSet::HeldOut)?,
                training: pick(name, value, EvalSet::Training)?,
            })
        };
        let distance = |set: EvalSet| {
            let values: Vec<f64> = runs
                .iter()
                .filter_map(|run| run.ideal_distance[set])
                .collect();
            Spread::of(&values)
        };
        let spread = |value: fn(&Summary) -> f64| {
            let values: Vec<f64> = runs.iter().map(value).collect();
            Spread::of(&values)
        };
        Ok(Self {
            method: method.into(),
            sft: both("sft", |objective| objective.end)?,
            dpo: both("dpo", |objective| objective.end)?,
            sft_gap: both("sft", |objective| objective.gap)?,
            dpo_gap: both("dpo", |objective| objective.gap)?,
            ideal_distance: PerSet::each(distance),
            seconds: spread(|run| run.seconds),
            tokens: spread(|run| run.tokens as f64),
            probed_tokens: spread(|run| run.probed_tokens as f64),
        })
    }
}

//! Responses of the trained models to the same prompts, side by side (Section D.6 of the paper).

use super::{Experiment, Job, JobKind, Questions, Setup};
use upright_base::progress::{Progress, Quiet};
use upright_base::{Error, Result, files};
use upright_data::conversation::{Prompt, Row};
use upright_data::{Template, TemplateName};
use upright_model::model_files::hub_name;
use upright_report::{ANSWERS, Answer, Answers};
use upright_runs::run_dir;
use upright_train::generate::{Generated, Request, Sampling, TokenSink, ends, generate};
use upright_train::run::Model;

/// Name of the base model in the file of responses.
const BASE: &str = "base";

/// A model to prompt: a base model, or a run on it.
struct Asked<'a> {
    /// Its name in the file of responses.
    run: String,
    /// Identifies a base model, because other models, tokenizers or templates may share its name.
    /// Empty for a run, whose folder identifies it.
    of: String,
    ground: &'a Setup,
    part: Option<&'a Job>,
}

impl Setup {
    /// Index of the objective whose template is used: the first instruction objective, if there is
    /// one.
    fn asks_as(&self) -> usize {
        self.plan
            .objectives
            .iter()
            .position(|objective| !objective.is_preference())
            .unwrap_or(0)
    }

    /// Name of its base model, made distinct with `level` words.
    fn base_name(&self, hash: &str, level: usize) -> String {
        let model = &self.plan.model;
        let folder = || model.file_name().map(|name| name.display().to_string());
        let model = hub_name(model)
            .map(|(id, _)| id)
            .or_else(folder)
            .unwrap_or_else(|| model.display().to_string());
        let words = [&model[..], self.met.template(self.asks_as()), hash];
        format!("{BASE} {}", words[..level].join(", "))
            .trim_end()
            .to_owned()
    }
}

impl Experiment {
    /// Generates the missing responses of every base model and every finished run of the first
    /// seed, with greedy decoding.
    pub(super) fn answer(&self, observer: &mut dyn Progress) -> Result<()> {
        let Some(questions) = &self.study.questions else {
            return Ok(());
        };
        let path = self.out.join(ANSWERS);
        let known: Vec<Answers> = match files::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let empty = |prompt: &String| Answers {
            prompt: prompt.clone(),
            answers: Vec::new(),
        };
        let mut answered: Vec<Answers> = questions.prompts.iter().map(empty).collect();
        let asked = self.asked();
        let mut opened: Option<Model> = None;
        observer.begin("responses", asked.len());
        let all = asked.iter().enumerate().try_for_each(|(done, asked)| {
            let Asked {
                run,
                of,
                ground,
                part,
            } = asked;
            observer.advance(done, part.map_or(run, |part| &part.name));
            let found = |prompt: &String| {
                let answers = &known.iter().find(|known| known.prompt == *prompt)?.answers;
                Some(
                    answers
                        .iter()
                        .find(|answer| (&answer.run, &answer.of) == (run, of))?
                        .text
                        .clone(),
                )
            };
            let texts = match questions
                .prompts
                .iter()
                .map(found)
                .collect::<Option<Vec<String>>>()
            {
                Some(found) => found,
                None => {
                    let plan = &ground.plan;
                    let model = match opened.take() {
                        Some(model) if model.model == plan.model => model,
                        _ => Model::of_plan(plan, observer)?,
                    };
                    let model = opened.insert(model);
                    self.texts(model, asked, questions, &mut Quiet(observer))?
                }
            };
            for (answered, text) in answered.iter_mut().zip(texts) {
                answered.answers.push(Answer {
                    run: run.clone(),
                    text,
                    of: of.clone(),
                });
            }
            Ok::<(), Error>(())
        });
        observer.end();
        all?;
        let text = serde_json::to_string_pretty(&answered)
            .map_err(|error| Error::failure(error.to_string()))?;
        files::write_atomic(&path, text.as_bytes())
    }

    /// Every base model once: the index of its first setup, its identity and its name.
    pub(super) fn bases(&self) -> Vec<(usize, String, String)> {
        let grounds = &self.graph.grounds;
        let mut bases: Vec<(usize, String)> = Vec::new();
        for (index, ground) in grounds.iter().enumerate() {
            let hash = ground.met.base(ground.asks_as());
            if bases.iter().all(|(_, other)| *other != hash) {
                bases.push((index, hash));
            }
        }
        let names = |level: usize| -> Vec<String> {
            bases
                .iter()
                .map(|(ground, hash)| grounds[*ground].base_name(hash, level))
                .collect()
        };
        let differ = |names: &[String]| (1..names.len()).all(|i| !names[..i].contains(&names[i]));
        let names = (0..3)
            .map(names)
            .find(|names| differ(names))
            .unwrap_or_else(|| names(3));
        bases
            .into_iter()
            .zip(names)
            .map(|((ground, hash), name)| (ground, hash, name))
            .collect()
    }

    /// Each base model, followed by its finished runs of the first seed.
    fn asked(&self) -> Vec<Asked<'_>> {
        let first = self.study.seeds[0];
        let bases = self.bases();
        let mut asked = Vec::new();
        for (index, ground) in self.graph.grounds.iter().enumerate() {
            let base = bases.iter().find(|(of, ..)| *of == index);
            asked.extend(base.map(|(_, hash, name)| Asked {
                run: name.clone(),
                of: hash.clone(),
                ground,
                part: None,
            }));
            let parts = self.graph.parts.iter().filter(|part| {
                part.ground == index
                    && part.kind != JobKind::Reference
                    && part.plan.seed == first
                    && self.is_finished(part)
            });
            asked.extend(parts.filter_map(|part| {
                let run = part.folder.as_ref()?.display().to_string();
                Some(Asked {
                    run,
                    of: String::new(),
                    ground,
                    part: Some(part),
                })
            }));
        }
        asked
    }

    /// The responses of one model.
    fn texts(
        &self,
        model: &Model,
        asked: &Asked<'_>,
        questions: &Questions,
        observer: &mut dyn Progress,
    ) -> Result<Vec<String>> {
        let Asked { ground, part, .. } = asked;
        let name = ground
            .met
            .template(ground.asks_as())
            .parse::<TemplateName>()?;
        let row = |text: &String| {
            let prompt = Prompt::Instruction {
                system: String::new(),
                instruction: text.clone(),
                input: String::new(),
            };
            Row::unanswered(0, None, prompt)
        };
        let rows: Vec<Row> = questions.prompts.iter().map(row).collect();
        let template = Template::choose(Some(&name), &rows, &model.tokenizer)?;
        let ids = |row: &Row| template.prompt_ids(&template.prompt(row)?, &model.tokenizer);
        let prompts = rows.iter().map(ids).collect::<Result<Vec<_>>>()?;
        let adapter = match part.and_then(|part| self.folder(part)) {
            Some(folder) => Some(model.load_adapter(&run_dir::adapter_dir(&folder), observer)?),
            None => None,
        };
        let sampling = Sampling {
            max_tokens: questions.max_tokens,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
        };
        let mut texts = Vec::new();
        let mut answered = |_: usize, answer: &Generated| {
            texts.push(model.tokenizer.decode(&answer.tokens)?.trim().to_owned());
            Ok(())
        };
        let sink = TokenSink {
            heard: &mut |_, _| {},
            answered: &mut answered,
        };
        let ends = ends(&model.model, &template, &model.tokenizer)?;
        let request = Request {
            decoder: &model.decoder,
            adapter: adapter.as_ref(),
            ends: &ends,
            prompts: &prompts,
            first: 0,
            sampling: &sampling,
            batch: prompts.len(),
        };
        generate(&request, observer, sink)?;
        Ok(texts)
    }
}

//! What the trained models say to the same prompts (Section D.6 of the paper), side by side.

use super::{Experiment, Kind, Part, Questions};
use crate::data::rows::{Prompt, Row};
use crate::data::{Template, TemplateName};
use crate::generate::{Ear, Generated, Sampling, ends, generate};
use crate::observer::{Observer, Quiet};
use crate::report::{ANSWERS, Answer, Answers};
use crate::run::{self, Engine};
use crate::{Error, Result, files};

/// What answers are called that no adapter gave.
const BASE: &str = "base";

impl Experiment {
    /// Has every finished run of the first seed answer, greedily, what it has not answered yet.
    pub(super) fn answer(&self, observer: &mut dyn Observer) -> Result<()> {
        let Some(questions) = &self.study.questions else { return Ok(()) };
        let path = self.out.join(ANSWERS);
        let known: Vec<Answers> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let empty = |prompt: &String| Answers { prompt: prompt.clone(), answers: Vec::new() };
        let mut answered: Vec<Answers> = questions.prompts.iter().map(empty).collect();
        let first = self.study.seeds[0].to_string();
        let asked = self.graph.parts.iter().filter(|part| {
            part.kind != Kind::Reference && part.plan.seed.to_string() == first && self.is_finished(part)
        });
        let asked: Vec<Option<&Part>> = std::iter::once(None).chain(asked.map(Some)).collect();
        let mut engine: Option<Engine> = None;
        observer.begin("answers", asked.len());
        let all = asked.iter().enumerate().try_for_each(|(done, &part)| {
            observer.advance(done, part.map_or(BASE, |part| &part.name));
            let folder = part.and_then(|part| part.folder.as_ref());
            let run = folder.map_or_else(|| BASE.to_owned(), |folder| folder.display().to_string());
            let found = |prompt: &String| {
                let of = known.iter().find(|known| known.prompt == *prompt)?;
                Some(of.answers.iter().find(|answer| answer.run == run)?.text.clone())
            };
            let texts = match questions.prompts.iter().map(found).collect::<Option<Vec<String>>>() {
                Some(found) => found,
                None => {
                    let plan = part.map_or(&self.graph.grounds[0].plan, |part| &part.plan);
                    if engine.as_ref().is_none_or(|engine| engine.model != plan.model) {
                        engine = Some(Engine::open(&plan.model, plan.threads, plan.recompute.into())?);
                    }
                    self.texts(engine.as_ref().expect("opened above"), part, questions, &mut Quiet(observer))?
                }
            };
            for (answered, text) in answered.iter_mut().zip(texts) {
                answered.answers.push(Answer { run: run.clone(), text });
            }
            Ok::<(), Error>(())
        });
        observer.end();
        all?;
        let text = serde_json::to_string_pretty(&answered).map_err(|error| Error::failure(error.to_string()))?;
        files::write_atomic(&path, text.as_bytes())
    }

    /// Answers of one model, the base where there is no part.
    fn texts(
        &self,
        engine: &Engine,
        part: Option<&Part>,
        questions: &Questions,
        observer: &mut dyn Observer,
    ) -> Result<Vec<String>> {
        let ground = &self.graph.grounds[part.map_or(0, |part| part.ground)];
        // As the instruction rows are written, where there are any.
        let rows = ground.plan.objectives.iter().position(|objective| !objective.is_preference()).unwrap_or(0);
        let name = ground.met.template(rows).parse::<TemplateName>()?;
        let row = |text: &String| {
            let prompt = Prompt::Instruction { system: String::new(), instruction: text.clone(), input: String::new() };
            Row::unanswered(0, None, prompt)
        };
        let rows: Vec<Row> = questions.prompts.iter().map(row).collect();
        let template = Template::choose(Some(&name), &rows, &engine.tokenizer)?;
        let ids = |row: &Row| template.prompt_ids(&template.prompt(row)?, &engine.tokenizer);
        let prompts = rows.iter().map(ids).collect::<Result<Vec<_>>>()?;
        let adapter = match part.and_then(|part| self.folder(part)) {
            Some(folder) => Some(engine.read_adapter(&run::adapter_dir(&folder), observer)?),
            None => None,
        };
        let sampling = Sampling { max_tokens: questions.max_tokens, temperature: 0.0, top_p: 1.0, seed: 0 };
        let mut texts = Vec::new();
        let mut answered = |_: usize, answer: &Generated| {
            texts.push(engine.tokenizer.decode(&answer.tokens)?.trim().to_owned());
            Ok(())
        };
        let ear = Ear { heard: &mut |_, _| {}, answered: &mut answered };
        let ends = ends(&engine.model, &template, &engine.tokenizer)?;
        generate(&engine.decoder, adapter.as_ref(), &ends, &prompts, &sampling, prompts.len(), observer, ear)?;
        Ok(texts)
    }
}
